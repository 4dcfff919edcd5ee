"""Standard output and standard error that may be closed, full, or read by nobody any more."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO


class Output(io.RawIOBase):
    """Writes to a descriptor; the first refusal is kept, and what comes after it is dropped: the work goes on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.refused: OSError | None = None
        self._number = number

    def fileno(self) -> int:
        """Return the descriptor, which subprocesses and libraries may write to themselves."""
        return self._number

    def isatty(self) -> bool:
        """Return whether somebody looks at it."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Return that it takes bytes."""
        return True

    def write(self, content: Any) -> int:
        """Write some of it; all counts as written where nothing can be."""
        while self.refused is None:
            try:
                return os.write(self._number, content)
            except BlockingIOError:  # it was set not to wait, by whoever shares it
                select.select([], [self._number], [])
            except OSError as error:
                self.refused = error
        return memoryview(content).nbytes


def hold() -> Output:
    """Put such streams in the place of `sys.stdout` and `sys.stderr`; returns the one for standard output.

    A descriptor that is closed is opened on nothing, or the next file that is
    opened would lie there, and take what native code prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    out = Output(_number(sys.stdout, 1))
    sys.stdout = _text(out, sys.stdout, out.isatty())
    sys.stderr = _text(Output(_number(sys.stderr, 2)), sys.stderr, True)
    return out


def _number(before: TextIO | None, number: int) -> int:
    """Return the descriptor to write to: Python has no stream where it found none, and another file may lie there by now."""
    return os.open(os.devnull, os.O_WRONLY) if before is None else number


def _text(raw: Output, before: TextIO | None, by_lines: bool) -> io.TextIOWrapper:
    """Write text to it; what no encoding has, like a file's name that is no text, is written as escapes."""
    encoding = before.encoding if before is not None else "utf-8"
    by_lines |= isinstance(before, io.TextIOWrapper) and before.write_through  # PYTHONUNBUFFERED
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_lines)


def lost(out: Output) -> str:
    """Say why some of the output was lost; empty where none was, and where its reader did not want it."""
    sys.stdout.flush()
    error = out.refused
    return "" if error is None or error.errno == errno.EPIPE else str(error.strerror)
