"""What the elements of a DICOM file say of its pixels, checked; nothing else of it is read."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from edgebench.data._dicom_frames import Unreadable, is_native, missing_decoder

MOST_FRAMES = 1 << 16
MOST_SIDE = 65_535
SALT = secrets.token_bytes(16)
"""Of this process: a patient is told from others by a hash that says nothing, and means nothing elsewhere."""
GREYS, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
KEYWORDS = (
    *("PatientID", "Modality", "BurnedInAnnotation", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
"""All that is read of a file beside its pixels; the one that names a person is hashed at once, to tell patients apart."""


@dataclass(frozen=True)
class Header:
    """What a file says of its pixels."""

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    """Per pixel: 1 or 3."""
    planar: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    hounsfield: bool
    """Whether rescaled values are Hounsfield units."""
    patient: bytes | None
    """A hash that holds within this process; None where nobody is named."""
    burned_in: bool
    """Whether it says that there is text in its pixels."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame where it is not compressed."""
        count = self.rows * self.columns * self.samples * self.allocated // 8
        return count * 2 // 3 if self.photometric == "YBR_FULL_422" and is_native(self.syntax) else count

    @property
    def levels(self) -> tuple[int, int]:
        """The least and the greatest value that may be stored."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)


def checked(elements: Any, syntax: str, max_pixels: int) -> Header:
    """Check what is said of the pixels; `Unreadable` for what no image is like, or this computer cannot decode."""
    rows, columns = (_number(elements, key, 1, MOST_SIDE) for key in ("Rows", "Columns"))
    if rows * columns > max_pixels:
        bomb = f"more than {max_pixels}; make it smaller, or allow it by the option max_pixels={rows * columns}"
        raise Unreadable(f"{columns} × {rows} pixels, {bomb}")
    samples = _number(elements, "SamplesPerPixel", 1, 3, 1)
    allocated = _number(elements, "BitsAllocated", 1, 64)
    stored = _number(elements, "BitsStored", 1, allocated, allocated)
    photometric = _text(elements, "PhotometricInterpretation")
    if photometric not in (*GREYS, PALETTE, *COLOURS) or samples != (3 if photometric in COLOURS else 1):
        known = ", ".join((*GREYS, PALETTE, *COLOURS))
        raise Unreadable(f"its PhotometricInterpretation is none of {known}, or does not fit SamplesPerPixel; convert it")
    if allocated not in ((8,) if samples == 3 else (8, 16) if photometric == PALETTE else (8, 16, 32)):
        raise Unreadable(f"its pixels have {allocated} bits, and 8, 16 and 32 (8 in colour) are read; convert it")
    if _number(elements, "HighBit", 0, allocated - 1, stored - 1) != stored - 1:
        raise Unreadable("its HighBit is not BitsStored - 1: the values do not lie in the lowest bits; convert it")
    found = Header(
        syntax,
        rows,
        columns,
        _number(elements, "NumberOfFrames", 1, MOST_FRAMES, 1),
        samples,
        _number(elements, "PlanarConfiguration", 0, 1, 0),
        allocated,
        stored,
        _number(elements, "PixelRepresentation", 0, 1) == 1,
        photometric,
        _text(elements, "Modality") == "CT" or _text(elements, "RescaleType") == "HU",
        patient_hash(name) if (name := str(elements.get("PatientID") or "")).strip() else None,
        _text(elements, "BurnedInAnnotation") == "YES",
    )
    if found.signed and found.photometric not in GREYS:
        raise Unreadable("its PixelRepresentation is signed, and colours are not; replace or remove it")
    if lacking := missing_decoder(syntax, stored):
        raise Unreadable(lacking)
    return found


def _number(elements: Any, keyword: str, least: int, most: int, default: int | None = None) -> int:
    try:
        value = elements.get(keyword)
        number = default if value is None else int(value)
    except Exception:  # whatever pydicom makes of bytes that are no number
        number = None
    if number is None or not least <= number <= most:
        raise Unreadable(f"its {keyword} is no whole number from {least} to {most}; replace or remove it")
    return number


def _text(elements: Any, keyword: str) -> str:
    try:
        return str(elements.get(keyword) or "").strip().upper()
    except Exception:
        return ""


def patient_hash(name: str) -> bytes:
    """Hash what a patient is called; the same within this process alone."""
    return hashlib.blake2b(name.strip().encode(), key=SALT, digest_size=16).digest()
