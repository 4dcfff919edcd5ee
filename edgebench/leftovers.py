"""Temporary files and folders that lie beside what they become, and what killed processes left of them.

Each is named `.NAME.BOOT-RANDOM`, and its writer holds a lock on it (flock) as long as it is written. The next process that
writes into the same folder removes those whose lock is free: at once where BOOT says that the writer ran under the very
system that looks (then a free lock means that it is gone), else only when nothing in it has changed for a day: it may be
another computer's, on a file system that keeps locks to each computer.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

DAY_SECONDS = 86400.0
NOT_TOLD = "0" * 8
REPLACED = ".old"
"""What is added to the name by which a folder goes that a new one replaces."""
PATTERN = re.compile(r"\..*\.([0-9a-f]{8})-[0-9a-f]{8}(\.old)?", re.DOTALL)
_swept: set[str] = set()
"""Folders that this process has looked through; once is enough."""


@functools.cache
def boot() -> str:
    """Return eight digits that no other running system has; containers on one kernel share them, as they share locks."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return NOT_TOLD
    return hashlib.sha256(told).hexdigest()[:8]


def new_file(path: Path) -> tuple[Path, int]:
    """Make an empty file beside `path`, with the permissions that the umask leaves; returns its locked descriptor, too."""
    while True:
        name = _name(path)
        with contextlib.suppress(FileExistsError):
            handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            if _lock(handle, name):
                return name, handle
            os.close(handle)


def new_folder(path: Path) -> tuple[Path, int]:
    """Make a folder beside `path` likewise; its lock is held while the descriptor is open."""
    while True:
        name = _name(path)
        with contextlib.suppress(FileExistsError):
            name.mkdir()
            with contextlib.suppress(FileNotFoundError):  # taken for left behind before it was locked
                handle = os.open(name, os.O_RDONLY)
                if _lock(handle, name):
                    return name, handle
                os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder's lock, where its file system has some and nobody else holds it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _name(path: Path) -> Path:
    return path.with_name(f".{path.name[:56]}.{boot()}-{secrets.token_hex(4)}")


def _lock(handle: int, name: Path) -> bool:
    """Lock what was just made; False where it was taken for left behind before."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here: its age says that it is in use
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(name))
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder; what cannot be removed stays, and is no error."""
    if str(folder.absolute()) in _swept:
        return
    _swept.add(str(folder.absolute()))
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = PATTERN.fullmatch(name)
            if found is not None:
                with contextlib.suppress(OSError):
                    _remove(folder / name, found[1] == boot() != NOT_TOLD)


def _remove(path: Path, known: bool) -> None:
    """Remove what nobody holds; known: whoever wrote it, its lock would be seen here."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            known = False  # no locks here
        if known or time.time() - _changed(path) > DAY_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(handle)


def _changed(path: Path) -> float:
    """Return when something in it was changed last."""
    inner = [Path(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files)]
    return max(each.lstat().st_mtime for each in (path, *inner))
