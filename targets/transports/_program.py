"""A program on this computer: lines out, bytes in. Transports are made of these."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from edgebench.errors import TransportError

STDERR_LINES = 40


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
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._drain, daemon=True)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError), open(self._process.stdout.fileno(), "rb", 1 << 16, closefd=False) as stream:
            for line in stream:
                self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put(None)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError), open(self._process.stderr.fileno(), "rb", 1 << 16, closefd=False) as stream:
            while line := stream.readline(2000):
                self._stderr.append(line.decode("utf-8", "replace"))

    def write(self, content: bytes | memoryview) -> None:
        """Write to its standard input, which stays open; `OSError` where it has ended."""
        assert self._process.stdin is not None
        view = memoryview(content)
        while view:
            view = view[self._process.stdin.write(view) :]

    def hang_up(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def line(self, seconds: float) -> str | None:
        """Return its next line, or None where it has ended; `queue.Empty` after so long a silence."""
        line = self._lines.get(timeout=max(0.0, seconds))
        if line is None:
            self._lines.put(None)  # whoever asks again hears the same
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
        end = time.monotonic() + seconds
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, end - time.monotonic()))
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the program and everything that it started, and wait until it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            self.wait(2)
        for thread in self._threads:
            thread.join(timeout=2)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error."""
        return "".join(self._stderr).strip()
