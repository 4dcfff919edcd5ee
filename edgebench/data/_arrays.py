"""Arrays of an `.npz` of any origin: the zip's directory and each header are read before anything is unpacked."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._files import GIB, described, memory_bytes, open_regular
from edgebench.data._mapped import PART, is_large, room
from edgebench.errors import DataError

DIRECTORY_BYTES = 1 << 22
HEADER_BYTES = 1024
"""Numpy writes 128 for a plain array; a longer one describes fields, or is made to be slow."""
RATIO, RATIO_BYTES = 100, 1 << 28
"""Larger arrays than this that unpack to more than a hundred times their size are bombs, unless they are allowed."""
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What numpy writes; the others of Python's unpack without end within a single read."""


@dataclass(frozen=True)
class Limit:
    """How large an array may become, and whether it may be far larger than what it is packed in."""

    bytes: int
    ratio: float = RATIO
    given: bool = False
    """Whether the user said so."""

    @classmethod
    def of(cls, gib: int | None) -> Limit:
        """Return what the user allows, or half of this computer's memory."""
        return cls(memory_bytes() // 2) if gib is None else cls(gib * GIB, math.inf, True)


BY_CHECKSUM = Limit(1 << 62, math.inf)
"""For a file that is known by its published checksum."""


@dataclass(frozen=True)
class Header:
    """What an array's header says of it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool = False
    """Whether it lies column by column."""

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Archive:
    """An open `.npz`; every error is a `DataError` of one line."""

    def __init__(self, path: Path, limit: Limit, opened: zipfile.ZipFile) -> None:
        self.path = path
        self.limit = limit
        self.names: Mapping[str, str] = {}
        """What arrays are called here, where it is not what they are asked for by."""
        self._zip = opened

    def keys(self) -> list[str]:
        """List the arrays' names."""
        return [entry.filename.removesuffix(".npy") for entry in self._zip.infolist()]

    def named(self, key: str) -> str:
        """Return what an array is called in the file."""
        return self.names.get(key, key)

    def header(self, key: str, kinds: str, widest: int = 1, mapped: bool = False) -> Header:
        """Read an array's type and shape; `DataError` where it is missing, of other kinds, or would become too large.

        `kinds` are numpy's letters; a sample takes `widest` bytes once it is read, if it is packed in less.
        `mapped`: where it is large it is unpacked part by part, into a file.
        """
        key = self.named(key)
        member = self._member(key)
        if member.compress_type not in METHODS:
            raise DataError(f"{self.path}: {key} is packed by method {member.compress_type}; write it by numpy.savez_compressed")
        with self._reading(key), self._zip.open(member) as stream:
            found, length = _parse(stream.read(HEADER_BYTES + 12))
        if found.dtype.hasobject:
            raise DataError(f"{self.path}: {key} holds Python objects, and nothing is unpickled here; save it as numbers")
        if found.dtype.kind not in kinds or not found.dtype.itemsize:
            raise DataError(f"{self.path}: {key} is {str(found)[:200]}; plain numbers are wanted")
        if min(found.shape, default=0) < 0:
            raise DataError(f"{self.path}: {key} has the shape {list(found.shape)}; write the file again")
        count = math.prod(found.shape)
        read = count * max(widest, found.dtype.itemsize)
        allowed = self.limit.bytes
        if mapped and is_large(found.shape) and not found.fortran and not self.limit.given:
            allowed = max(allowed, room())
        self._check_size(key, member, length, count * found.dtype.itemsize, read, allowed)
        return found

    def parts(self, key: str, header: Header) -> Iterator[NDArray[Any]]:
        """Unpack an array whose header was looked at part by part: some samples [n, …] at once."""
        if header.fortran:
            yield self.read(key)
            return
        key, dtype = self.named(key), header.dtype
        each = max(1, math.prod(header.shape[1:])) * dtype.itemsize
        together = max(1, PART // each)
        with self._reading(key), self._zip.open(self._member(key)) as stream:
            rest = stream.read(HEADER_BYTES + 12)
            rest = rest[_parse(rest)[1] :]
            for first in range(0, header.shape[0], together):
                size = min(together, header.shape[0] - first) * each
                content, rest = rest[:size], rest[size:]
                content += stream.read(size - len(content))  # its end compares the checksum
                yield np.frombuffer(content, dtype).reshape(-1, *header.shape[1:])

    def changed(self, key: str) -> list[Any]:
        """Tell an array as it is now, for what is made of it once."""
        member, told = self._member(self.named(key)), self.path.stat()
        return [str(self.path.resolve()), told.st_size, told.st_mtime_ns, member.filename, member.CRC]

    def read(self, key: str) -> NDArray[Any]:
        """Unpack an array whose header was looked at."""
        key = self.named(key)
        with self._reading(key), self._zip.open(self._member(key)) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    def _check_size(self, key: str, member: zipfile.ZipInfo, header: int, packed: int, read: int, allowed: int) -> None:
        if member.file_size != header + packed:
            raise DataError(
                f"{self.path}: {key} says that it has {packed} bytes, and {member.file_size - header} are there; fetch it again"
            )
        if read > allowed:
            raise DataError(
                f"{self.path}: {key} would take {read / GIB:.1f} GiB, more than an array may "
                f"({allowed / GIB:.1f} GiB); allow it by the option max_gib={-(-read // GIB)}"
            )
        ratio = read / max(1, member.compress_size)
        if read > RATIO_BYTES and ratio > self.limit.ratio:
            raise DataError(
                f"{self.path}: {key} unpacks to {ratio:.0f} times its size, {read / GIB:.1f} GiB, which images do not; "
                f"if it is right, allow it by the option max_gib={-(-read // GIB)}"
            )

    def _member(self, key: str) -> zipfile.ZipInfo:
        found = [entry for entry in self._zip.infolist() if entry.filename in (key, f"{key}.npy")]
        if not found:
            raise DataError(f"{self.path}: no array {key!r}; MedMNIST's format has train/val/test _images and _labels")
        if len(found) > 1:
            raise DataError(f"{self.path}: {key} stands {len(found)} times in it; write the file again, each array once")
        return found[0]

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Turn whatever a damaged member raises into one line."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.path}: not a complete .npz ({key}: {described(error)}); fetch it again") from error


class _Reader(io.BufferedReader):
    """A file from which a directory of unusual size is not read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise ValueError(f"its directory takes {size} bytes")
        return super().read(size)


@contextmanager
def open_npz(path: Path, limit: Limit) -> Iterator[Archive]:
    """Open an `.npz` and read its directory; `DataError` where it is none."""
    with _Reader(open_regular(path)) as file:
        try:
            opened = zipfile.ZipFile(file)
        except Exception as error:  # a damaged directory may raise anything at all
            raise DataError(f"{path}: not a complete .npz ({described(error)}); fetch it again") from error
        with opened:
            yield Archive(path, limit, opened)


def _parse(start: bytes) -> tuple[Header, int]:
    """Read a header of numpy's format (its versions 1 to 3), and its length, from the beginning of an array's file."""
    version = np.lib.format.read_magic(io.BytesIO(start))
    width = 2 if version == (1, 0) else 4
    length = np.lib.format.MAGIC_LEN + width + int.from_bytes(start[np.lib.format.MAGIC_LEN :][:width], "little")
    if length > len(start):
        raise ValueError(f"a header of {length} bytes, longer than that of a plain array or cut off")
    rest = io.BytesIO(start[np.lib.format.MAGIC_LEN : length])
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(rest)
    return Header(dtype, tuple(int(side) for side in shape), fortran), length
