"""A program on this computer: lines out, bytes in. Transports are made of these."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from edgebench.errors import TransportError

STDERR_LINES = 40
LONGEST_LINE = 32 << 20
"""Bytes; a longer line is no event anyway, and is passed over."""
ENDLESS_LINE = 2 * LONGEST_LINE
"""Bytes; a program that prints so much without an end of line is given up."""
LINES_AHEAD = 4
"""A program that prints faster than anybody reads has to wait."""
WRITE_SECONDS = 60.0


class EndlessLine(TransportError):
    """A line goes on for longer than any."""

    def __init__(self) -> None:
        super().__init__(f"the device sent a line of more than {ENDLESS_LINE >> 20} MiB")


class Program:
    """A program in a process group of its own: Ctrl-C reaches edgebench alone, which then ends it."""

    def __init__(self, arguments: Sequence[str], remedy: str) -> None:
        try:
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise TransportError(f"{arguments[0]}: cannot be started ({error}); {remedy}") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_AHEAD)
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._threads: list[threading.Thread] = []
        self._endless = False
        try:
            for target in (self._read, self._drain):
                self._threads.append(threading.Thread(target=target, daemon=True))
                self._threads[-1].start()
        except BaseException:  # interrupted: nobody else knows of it yet
            self.stop()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError), open(self._process.stdout.fileno(), "rb", 1 << 16, closefd=False) as stream:
            size = 0
            while size <= ENDLESS_LINE and (line := stream.readline(LONGEST_LINE)):
                size += len(line)
                if size <= LONGEST_LINE and (line.endswith(b"\n") or size < LONGEST_LINE):
                    self._lines.put(line.decode("utf-8", "replace"))
                if line.endswith(b"\n"):
                    size = 0
            self._endless = size > ENDLESS_LINE
        self._lines.put(None)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError), open(self._process.stderr.fileno(), "rb", 1 << 16, closefd=False) as stream:
            while line := stream.readline(2000):
                self._stderr.append(line.decode("utf-8", "replace"))

    def write(self, content: bytes | memoryview) -> None:
        """Write to its standard input, which stays open.

        Raises `OSError` where it has ended, and `TimeoutError` where it takes nothing for a minute.
        """
        stream = self._process.stdin
        assert stream is not None
        free = select.poll()
        free.register(stream.fileno(), select.POLLOUT)
        view = memoryview(content)
        while view:
            taken = stream.write(view)
            view = view[taken or 0 :]
            if not taken and not free.poll(WRITE_SECONDS * 1000):
                raise TimeoutError(f"it took nothing for {WRITE_SECONDS:g} s")

    def hang_up(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def line(self, seconds: float) -> str | None:
        """Return its next line, or None where it has ended.

        `queue.Empty` after so long a silence, `EndlessLine` where it went on and on without an end of line.
        """
        line = self._lines.get(timeout=max(0.0, seconds))
        if line is None:
            self._lines.put(None)  # whoever asks again hears the same
            if self._endless:
                raise EndlessLine
        return line

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence."""
        try:
            while (line := self.line(silence_seconds)) is not None:
                yield line
        except queue.Empty as error:
            raise TransportError(f"the agent said nothing for {silence_seconds:g} s") from error

    def wait(self, seconds: float) -> bool:
        """Wait for its end; say whether it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, seconds))
        return self._process.poll() is not None

    @property
    def code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the program and everything that it started, and wait until it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            self.wait(2)
        self._forget()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _forget(self) -> None:
        """Let the threads that read end, which may wait for somebody to take their lines."""
        end = time.monotonic() + 2
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                while self._lines.get_nowait() is not None:
                    pass
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(timeout=0.01)

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error; all of it where it has ended."""
        if self._process.poll() is not None:
            self._threads[-1].join(timeout=1)
        return "".join(self._stderr).strip()
