"""Images that need not fit into memory: made once as a file of the cache, mapped from there, and looked at part by part.

The file holds the pixels and nothing else, so that it is what devices get too.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import leftovers
from edgebench.errors import DataError
from edgebench.files import PROGRESS, sha256_file, sha256_json, storage

LARGE = 64 << 20
"""Arrays of more bytes are mapped."""
PART = 2 << 20
"""Bytes that are looked at together."""
UNUSED_SECONDS = 30 * 86400.0
REVISION = 1
"""Of how pixels are made; a file of another is made again."""
Parts = Iterable[NDArray[np.uint8]]


def folder() -> Path:
    """Name where the files are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "edgebench" / "images"


def room() -> int:
    """Return half of what is free where the files are kept."""
    place = folder()
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize // 2


def is_large(shape: tuple[int, ...]) -> bool:
    """Return whether bytes of a shape are mapped."""
    return math.prod(shape) > LARGE


def kept(what: str, key: Sequence[Any], shape: tuple[int, ...], make: Callable[[], Parts]) -> NDArray[np.uint8]:
    """Return uint8 images of a shape that parts make up: in memory where they are few, else mapped from a file.

    `key` says all that decides the pixels; `what` is named while they are made.
    """
    if not is_large(shape):
        return _joined(shape, make())
    place = folder() / f"{sha256_json([REVISION, list(shape), *key])}.u8"
    if not place.is_file() or place.stat().st_size != math.prod(shape):
        _write(what, place, shape, make())
    with contextlib.suppress(OSError):
        os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))  # says that it is used
    return np.memmap(place, np.uint8, "r", shape=shape)


def _joined(shape: tuple[int, ...], made: Parts) -> NDArray[np.uint8]:
    images, first = np.empty(shape, np.uint8), 0
    for part in made:
        images[first : first + len(part)] = part
        first += len(part)
    return images


def _write(what: str, place: Path, shape: tuple[int, ...], made: Parts) -> None:
    with storage(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        leftovers.sweep(place.parent)
        _tidy(place.parent)
        name, handle = leftovers.new_file(place)
        try:
            with os.fdopen(handle, "wb") as stream:  # its lock is held until it has its name
                done = 0
                for part in made:
                    stream.write(np.ascontiguousarray(part).data)
                    done += len(part)
                    PROGRESS.get()(f"read {what}", done, shape[0])
                if done != shape[0]:
                    raise DataError(f"{what}: {done} images were read, {shape[0]} are there; look at its files, and run again")
                stream.flush()
                os.fchmod(stream.fileno(), stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
                os.replace(name, place)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


def _tidy(cache: Path) -> None:
    """Remove what nobody has used for a month."""
    for path in cache.glob("*.u8"):
        with contextlib.suppress(OSError):
            if path.stat().st_atime < time.time() - UNUSED_SECONDS:
                path.unlink()


def step(array: NDArray[Any]) -> int:
    """Return how many samples of an array [n, …] are looked at together."""
    return max(1, PART // max(1, math.prod(array.shape[1:]) * array.itemsize))


def parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Look at an array [n, …] part by part; none of a mapped file's stays in memory."""
    size = step(array)
    for first in range(0, len(array), size):
        yield array[first : first + size]
        release(array)


def release(array: NDArray[Any]) -> None:
    """Let go of what was read of a mapped file; it is read again where it is wanted."""
    found: Any = array
    while isinstance(found, np.ndarray):
        found = found.base
    if isinstance(found, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def digest(array: NDArray[Any]) -> str:
    """Hash an array's bytes as they lie; a file's once in a process."""
    own = whole_file(array)
    return _digest(array) if own is None else _digest_of(own, own.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of(path: Path, changed: int) -> str:
    return sha256_file(path)


def _digest(array: NDArray[Any]) -> str:
    found = hashlib.sha256()
    for part in parts(array):
        found.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def hashed(sample: NDArray[Any]) -> bytes:
    """Hash one sample's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(sample).reshape(-1).view(np.uint8).data, digest_size=16).digest()


def hashes(array: NDArray[Any]) -> Iterator[bytes]:
    """Hash each sample of an array [n, …]."""
    for part in parts(array):
        yield from map(hashed, part)


def ends(images: NDArray[np.uint8], axes: tuple[int, ...] | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the least and greatest values along axes that hold the first, as numpy's `min` and `max` do."""
    found = [(part.min(axis=axes), part.max(axis=axes)) for part in parts(images)]
    return np.min([low for low, _ in found], axis=0), np.max([high for _, high in found], axis=0)


def chosen(images: NDArray[np.uint8], indices: NDArray[Any], what: str = "samples") -> NDArray[np.uint8]:
    """Take samples out of images [n, …], as `images[indices]` does, which may not fit into memory."""
    shape, size = (len(indices), *images.shape[1:]), step(images)

    def made() -> Parts:
        for first in range(0, len(indices), size):
            yield images[indices[first : first + size]]
            release(images)

    if not is_large(shape):
        return kept(what, [], shape, made)
    source = whole_file(images)
    key = digest(images) if source is None else [str(source), source.stat().st_mtime_ns]
    return kept(what, ["chosen", key, digest(np.asarray(indices, np.int64))], shape, made)


def whole_file(array: NDArray[Any]) -> Path | None:
    """Return the file whose bytes are just the array's; None where there is none."""
    found: Any = array
    while isinstance(found, np.ndarray) and not (isinstance(found, np.memmap) and not isinstance(found.base, np.ndarray)):
        found = found.base
    if not isinstance(found, np.memmap) or found.filename is None or not array.flags.c_contiguous:
        return None
    path = Path(str(found.filename))
    return path if path.is_file() and path.stat().st_size == array.nbytes else None


@contextlib.contextmanager
def as_file(array: NDArray[Any]) -> Iterator[Path]:
    """Give a file that holds an array's bytes: its own, or one that is written for the time being."""
    own = whole_file(array)
    if own is not None:
        yield own
        return
    with storage(folder()):
        folder().mkdir(parents=True, exist_ok=True)
        leftovers.sweep(folder())
        name, handle = leftovers.new_file(folder() / "pushed")
    try:
        with os.fdopen(handle, "wb") as stream:
            with storage(folder()):
                for part in parts(array):
                    stream.write(np.ascontiguousarray(part).data)
                stream.flush()
            yield name
    finally:
        name.unlink(missing_ok=True)
