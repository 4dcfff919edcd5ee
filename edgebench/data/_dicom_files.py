"""One DICOM file of any origin → its header and its frames.

Named elements alone are read, sizes are checked before anything is unpacked or decoded, and what a library says of a file is
not passed on: it may quote what stands in it, a person's name for instance.
"""

from __future__ import annotations

import io
import logging
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgebench.data._dicom_frames import (
    DEFLATED,
    MOST_INFLATED,
    Unreadable,
    check_encoded,
    check_syntax,
    inflated,
    is_native,
)
from edgebench.data._dicom_headers import KEYWORDS, MOST_FRAMES, PALETTE, Header, checked
from edgebench.data._files import open_regular
from edgebench.data._images import pixel_limit
from edgebench.errors import DataError, MissingExtra

SECONDS = 10.0
"""Of the processor, for one header or one frame."""
READS = 300_000
"""Pieces of a header."""
CLAMPED = 1 << 16
"""Reads of so many bytes are held against what the file has, since memory for them is taken first."""
SEQUENCE_BYTES = 1 << 24
"""Of one element of a header; items of sequences are only taken apart when they are asked for."""
META_BYTES, META_ELEMENTS = 1 << 16, 64
BIG_ENDIAN, IMPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Value representations whose length has four bytes (PS3.5, 7.1.2)."""


class _Reader(io.BufferedReader):
    """A file that is read piece by piece within limits, and asked for no more than it has."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)
        self.begin()

    def begin(self) -> None:
        """Count anew, for what is read next."""
        self.reads, self.ends, self.short = 0, time.thread_time() + SECONDS, False

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > READS or (not self.reads % 256 and time.thread_time() > self.ends):
            raise Unreadable("its header is longer than that of any image; replace or remove it")
        asked = -1 if size is None else size
        content = super().read(asked if 0 <= asked < CLAMPED else self._left(asked))
        self.short = self.short or 0 < len(content) < asked
        return content

    def _left(self, asked: int) -> int:
        left = max(0, self.size - self.tell())
        return left if asked < 0 else min(asked, left)

    @property
    def is_cut(self) -> bool:
        """Return whether the file ended within what was read, or skipped."""
        return self.short or self.tell() > self.size


@dataclass
class DicomFile:
    """An open file whose header was read and checked; `header` is None where it holds no image."""

    header: Header | None
    elements: Any
    """pydicom's Dataset of KEYWORDS."""
    _file: _Reader
    _offset: int = 0
    """Where the pixels begin."""
    _vr: str = "OW"

    def frame(self, index: int) -> NDArray[Any]:
        """Decode a frame as it is stored: [h, w] whole numbers, or uint8 RGB [h, w, 3]."""
        assert self.header is not None
        self._file.begin()
        found = self._native(index) if is_native(self.header.syntax) else self._encapsulated(self.header, index)
        if self.header.photometric == PALETTE:
            found = _coloured(found, self.elements)
        return found

    def _native(self, index: int) -> NDArray[Any]:
        self._file.seek(self._offset)
        return self._decoded(self._file, index, None)

    def _encapsulated(self, header: Header, index: int) -> NDArray[Any]:
        """Take a frame out of its fragments and look at its own header, before a decoder believes it."""
        from pydicom.encaps import encapsulate, get_frame

        self._file.seek(self._offset)
        tag, length = struct.unpack("<II", self._file.read(8))
        tables = [self.elements.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        extended = None if None in tables else tuple(tables)
        wrong = extended is not None and any(len(table) != 8 * header.frames for table in tables)
        if tag != 0xE000FFFE or length > 4 * MOST_FRAMES or wrong:
            raise Unreadable("its frames cannot be told apart: the table of their offsets is broken; replace or remove it")
        self._file.seek(self._offset)
        content = get_frame(cast(Any, self._file), index, number_of_frames=header.frames, extended_offsets=cast(Any, extended))
        if self._file.is_cut:
            raise Unreadable("it ends before its pixels do; replace or remove it")
        lacking = check_encoded(content, header.syntax, (header.rows, header.columns, header.samples), header.allocated)
        if lacking:
            raise Unreadable(lacking)
        return self._decoded(encapsulate([content], has_bot=False), 0, 1)

    def _decoded(self, source: Any, index: int, frames: int | None) -> NDArray[Any]:
        from pydicom.pixels import get_decoder

        header = self.header
        assert header is not None
        options: dict[str, Any] = {
            "rows": header.rows,
            "columns": header.columns,
            "number_of_frames": frames or header.frames,
            "samples_per_pixel": header.samples,
            "photometric_interpretation": header.photometric,
            "planar_configuration": header.planar,
            "bits_allocated": header.allocated,
            "bits_stored": header.stored,
            "pixel_representation": int(header.signed),
            "pixel_keyword": "PixelData",
            "pixel_vr": self._vr,
        }
        try:
            pixels, _ = get_decoder(header.syntax).as_array(source, index=index, **options)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"its pixels cannot be decoded ({type(error).__name__}); replace or remove it") from None
        wanted = (header.rows, header.columns) if header.samples == 1 else (header.rows, header.columns, header.samples)
        if pixels.shape != wanted:
            raise Unreadable("its pixels are of another size than its header says; replace or remove it")
        return np.asarray(pixels)


@contextmanager
def opened(path: Path, real: Path, max_pixels: int) -> Iterator[DicomFile]:
    """Open a file and read its header; whatever goes wrong with it, here or in the block, is one `DataError`.

    `path` is what the message names, `real` where it lies. Records get the message without the name.
    """
    with _quietly(max_pixels):
        try:
            with _Reader(cast(io.RawIOBase, open_regular(real))) as file:
                yield _parsed(file, max_pixels)
        except Unreadable as error:
            raise refusal(path, str(error)) from None
        except (DataError, MissingExtra):
            raise
        except Exception as error:  # a damaged file may raise anything, in words that are not ours
            raise refusal(path, f"not a readable DICOM file ({type(error).__name__}); replace or remove it") from None


def refusal(path: Path, reason: str) -> DataError:
    """Say what is wrong with a file; its name may be a person's, and stays out of what is kept."""
    return DataError(f"{path}: {reason}", f"a DICOM file: {reason}")


def is_dicom(real: Path) -> bool:
    """Look whether a file has the mark of DICOM."""
    with open_regular(real) as stream:
        return (stream.read(132) or b"")[128:] == b"DICM"


@contextmanager
def _quietly(max_pixels: int) -> Iterator[None]:
    """Let pydicom neither warn nor log: both may quote what stands in a file. Pillow, which it may use, keeps to the limit."""
    try:
        from pydicom import config
    except ImportError as error:
        raise MissingExtra("the data set dicom", "dicom", "pydicom") from error
    logger = logging.getLogger("pydicom")
    level, mode = logger.level, config.settings.reading_validation_mode
    with pixel_limit(max_pixels):
        try:
            logger.setLevel(logging.CRITICAL + 1)
            config.settings.reading_validation_mode = config.IGNORE
            yield
        finally:
            logger.setLevel(level)
            config.settings.reading_validation_mode = mode


# ---------------------------------------------------------------- header


def _parsed(file: _Reader, max_pixels: int) -> DicomFile:
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    syntax = _syntax(file)
    if syntax == DEFLATED and file.size > MOST_INFLATED:
        raise Unreadable(f"deflated, and larger than {MOST_INFLATED >> 20} MiB; convert it to another syntax")
    packed = file.read() if syntax == DEFLATED else b""
    content = _Reader(cast(io.RawIOBase, io.BytesIO(inflated(packed)))) if packed else file
    tags = [tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
    elements = read_dataset(
        cast(Any, content), syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=_at_pixels, specific_tags=cast(Any, tags)
    )
    if content.is_cut:
        raise Unreadable("its header is broken, or cut off; replace or remove it")
    if any(getattr(elements.get_item(tag), "length", 0) > SEQUENCE_BYTES for tag in tags):
        raise Unreadable("its header is longer than that of any image; replace or remove it")
    if "Rows" not in elements and "Columns" not in elements:
        return DicomFile(None, elements, content)
    header = checked(elements, syntax, max_pixels)
    offset, length, vr = _pixels_at(content, syntax)
    if packed and content.size < offset + header.frames * header.frame_bytes:
        content = _Reader(cast(io.RawIOBase, io.BytesIO(inflated(packed, offset + header.frames * header.frame_bytes))))
    _check_length(header, content.size - offset, length)
    return DicomFile(header, elements, content, offset, vr)


def _syntax(file: _Reader) -> str:
    """Read the transfer syntax out of the file's meta information, which is explicit and little-endian always (PS3.10, 7.1)."""
    if file.read(132)[128:] != b"DICM":
        raise Unreadable("no DICOM file (DICM does not stand at its 128th byte); convert or remove it")
    found = b""
    for _ in range(META_ELEMENTS):
        head = file.read(8)
        if len(head) < 8:
            raise Unreadable("it ends within its header; replace or remove it")
        group, element, kind, length = struct.unpack("<HH2sH", head)
        if group != 2:
            file.seek(-8, io.SEEK_CUR)
            break
        length = int.from_bytes(file.read(4), "little") if kind in LONG else length
        value = file.read(min(length, META_BYTES))
        if len(value) < length:
            raise Unreadable("its header is broken, or cut off; replace or remove it")
        found = value if element == 0x10 else found
    return check_syntax(found.rstrip(b"\0 ").decode("ascii", "replace"))


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag >= 0x7FE00008


def _pixels_at(file: _Reader, syntax: str) -> tuple[int, int, str]:
    """Read the beginning of the element that holds the pixels: where they begin, how long they are, and their kind."""
    little = "<" if syntax != BIG_ENDIAN else ">"
    head = file.read(8 if syntax == IMPLICIT else 12)
    if len(head) < (8 if syntax == IMPLICIT else 12):
        raise Unreadable("it has no pixels; remove it")
    group, element = struct.unpack(f"{little}HH", head[:4])
    if (group, element) != (0x7FE0, 0x0010):
        raise Unreadable("its pixels are real numbers or stand elsewhere than in PixelData; convert it")
    vr = "OW" if syntax == IMPLICIT else head[4:6].decode("ascii", "replace")
    return file.tell(), struct.unpack(f"{little}I", head[-4:])[0], vr


def _check_length(header: Header, there: int, length: int) -> None:
    """Hold what the header promises against the bytes that there are."""
    if not is_native(header.syntax):
        if length != 0xFFFFFFFF:
            raise Unreadable("its pixels are said to be compressed, and do not stand in fragments; replace or remove it")
        if header.frames * 8 > there:
            raise Unreadable(f"it says that it has {header.frames} frames, and ends before them; replace or remove it")
        return
    wanted = header.frames * header.frame_bytes
    if min(length, there) < wanted:
        raise Unreadable(f"it has {min(length, there)} bytes of pixels, and its header says {wanted}; replace or remove it")


def _coloured(stored: NDArray[Any], elements: Any) -> NDArray[np.uint8]:
    """Look the colours of a palette up: uint8 [h, w, 3]."""
    from pydicom.pixels import apply_color_lut

    depth = int(elements.RedPaletteColorLookupTableDescriptor[2])
    found = apply_color_lut(stored, elements)[..., :3]
    return np.asarray(found >> 8 if depth == 16 else found, dtype=np.uint8)
