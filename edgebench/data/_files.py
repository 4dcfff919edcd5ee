"""Files that others give: how they are opened, how much they may become, and how an error of a library becomes one line."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from edgebench.errors import DataError

GIB = 1 << 30
LINE_CHARACTERS = 300


def open_regular(path: Path) -> io.FileIO:
    """Open a regular file to be read; `DataError` for a pipe, a device, a socket or a folder, none of which is waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened ({described(error)}); look whether it is there and may be read") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError(f"{path}: not a regular file; replace it by one, or remove it")
    return io.FileIO(handle)


def inside(path: Path, root: Path) -> Path:
    """Follow a symbolic link within `root` (which is resolved itself); `DataError` for one that leads out of it or nowhere."""
    if not path.is_symlink():
        return path
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a loop is one or the other, by Python's version
        raise DataError(f"{path}: a link that leads nowhere; remove it, or put the file there") from error
    if not real.is_relative_to(root):
        raise DataError(f"{path}: links to {real}, outside of {root}, and is not followed; copy it to where the link is")
    return real


def described(error: BaseException) -> str:
    """Say in one line of what kind an error is, and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LINE_CHARACTERS]}" if text else type(error).__name__


def memory_bytes() -> int:
    """Return how much memory this computer has, or the control group of this process where that is less."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        found = 8 * GIB
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        group = "max"
    return min(found, int(group)) if group.isdecimal() else found
