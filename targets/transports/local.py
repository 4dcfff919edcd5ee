"""`local`: this computer is the device; its cache folder is a folder here."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebench.files import storage
from edgebench.schema import Keep, Link, Target
from edgebench.targets.transports._program import Program


class LocalTransport:
    """Runs programs here and copies files below `root`."""

    def __init__(self, python: str, root: Path) -> None:
        self._python = python
        self._root = root

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Program:
        """Start the device's Python with these arguments; there is no connection that could be lost."""
        made = self._root / "env" / "current" / "bin" / "python"
        program = Program([str(made) if made.exists() else self._python, *arguments], "check the target's python")
        with contextlib.suppress(OSError):  # it may have ended already; its lines tell why
            program.write(stdin.encode())  # left open: the agent ends when this process does
        return program

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        """Copy below the root what is not there, whole or not at all."""
        target = self._root / destination
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if target.is_file() and target.stat().st_size == size:
            return str(target)
        with storage(self._root):
            _copy(source, target)
        sent(size, size)
        return str(target)

    def close(self) -> None:
        """Nothing is held open."""


def _copy(source: Path | bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path) and not source.stat().st_mode & 0o222:  # nobody writes into it: one file will do
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    handle, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream, io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            shutil.copyfileobj(content, stream, 1 << 20)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def connect(target: Target, link: Link) -> LocalTransport:
    """Use the target's Python, or the one that runs edgebench."""
    return LocalTransport(target.python or sys.executable, link.root.resolve())
