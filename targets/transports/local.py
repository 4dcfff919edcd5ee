"""`local`: this computer is the device; its cache folder is a folder here."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgebench.errors import TransportError
from edgebench.schema import Target

STDERR_LINES = 40


class LocalStream:
    """A program in a process group of its own."""

    def __init__(self, arguments: Sequence[str], stdin: str) -> None:
        try:
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches edgebench alone, which then ends the agent
            )
        except OSError as error:
            raise TransportError(f"{arguments[0]}: cannot be started ({error}); check the target's python") from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._drain, daemon=True)]
        for thread in self._threads:
            thread.start()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended already; its lines tell why
            self._process.stdin.write(stdin)
            self._process.stdin.flush()  # left open: the agent ends when this process does

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _drain(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._stderr.append(line[:2000])

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence."""
        while True:
            try:
                line = self._lines.get(timeout=silence_seconds)
            except queue.Empty as error:
                raise TransportError(f"the agent said nothing for {silence_seconds:g} s") from error
            if line is None:
                return
            yield line

    def stop(self) -> None:
        """End the program and everything that it started, and wait until it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=2)
        for thread in self._threads:
            thread.join(timeout=2)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error."""
        return "".join(self._stderr).strip()


class LocalTransport:
    """Runs programs here and copies files below `root`."""

    def __init__(self, python: str, root: Path) -> None:
        self._python = python
        self._root = root

    def run(self, arguments: Sequence[str], stdin: str) -> LocalStream:
        """Start the device's Python with these arguments."""
        return LocalStream([self._python, *arguments], stdin)

    def push(self, source: Path, destination: str) -> None:
        """Copy a file below the root, whole or not at all."""
        target = self._root / destination
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent)
        os.close(handle)
        try:
            shutil.copyfile(source, name)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def has(self, destination: str) -> bool:
        """Say whether a file is below the root."""
        return (self._root / destination).is_file()

    def path(self, destination: str) -> str:
        """Name a file below the root."""
        return str(self._root / destination)


def connect(target: Target, root: Path) -> LocalTransport:
    """Use the target's Python, or the one that runs edgebench."""
    return LocalTransport(target.python or sys.executable, root.resolve())
