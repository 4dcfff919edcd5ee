"""How DICOM's frames are packed: which transfer syntaxes are read and by what, and ends to what a frame may unpack to."""

from __future__ import annotations

import re
import struct
import zlib

from edgebench.data._images import SCANNED_PIXELS, SCANS

DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED))
EXTRA = "pip install 'edgebench[dicom]'"
LEFT_TO_USERS = "pip install python-gdcm (BSD), or pylibjpeg pylibjpeg-libjpeg (the latter is GPL-3)"
JPEG = "1.2.840.10008.1.2.4."
BASELINE, EXTENDED = f"{JPEG}50", f"{JPEG}51"
DECODERS: dict[str, tuple[str, str]] = {
    RLE: ("RLE Lossless", EXTRA),
    BASELINE: ("JPEG Baseline, 8 bits", LEFT_TO_USERS),
    EXTENDED: ("JPEG Extended, 12 bits", LEFT_TO_USERS),
    f"{JPEG}57": ("JPEG Lossless", LEFT_TO_USERS),
    f"{JPEG}70": ("JPEG Lossless, first-order prediction", LEFT_TO_USERS),
    f"{JPEG}80": ("JPEG-LS Lossless", EXTRA),
    f"{JPEG}81": ("JPEG-LS Near-Lossless", EXTRA),
    f"{JPEG}90": ("JPEG 2000 Lossless", EXTRA),
    f"{JPEG}91": ("JPEG 2000", EXTRA),
    f"{JPEG}201": ("High-Throughput JPEG 2000 Lossless", EXTRA),
    f"{JPEG}202": ("High-Throughput JPEG 2000 Lossless RPCL", EXTRA),
    f"{JPEG}203": ("High-Throughput JPEG 2000", EXTRA),
}
"""Compressed transfer syntaxes: what each is called, and what brings a decoder that can do it."""
HEADER_BYTES, MOST_INFLATED = 1 << 24, 1 << 28
SPARE_BYTES = 1 << 16


class Unreadable(Exception):
    """What is wrong with a file and what to do, in words of ours alone."""


def is_native(syntax: str) -> bool:
    """Return whether frames stand in a file as they are."""
    return syntax in NATIVE


def check_syntax(found: str) -> str:
    """Return a transfer syntax that can be read; `Unreadable` for others."""
    if found in NATIVE or found in DECODERS:
        return found
    shown = found if re.fullmatch(r"1\.2\.840\.10008\.[0-9.]{1,40}", found) else "of its own, or none"
    raise Unreadable(f"its transfer syntax ({shown}) is none that is read; convert it to Explicit VR Little Endian")


def missing_decoder(syntax: str, stored: int) -> str | None:
    """Say what decodes a transfer syntax where nothing that is installed does; None where something does.

    Pillow decodes JPEG of 8 bits alone, and is not asked for more.
    """
    if syntax in NATIVE:
        return None
    from pydicom.pixels import get_decoder

    there = set(get_decoder(syntax).available_plugins) - ({"pillow"} if stored > 8 else set())
    if there:
        return None
    name, remedy = DECODERS[syntax]
    return f"its pixels are {name} ({stored} bits), and no decoder of that is installed; {remedy}, or convert it"


def inflated(packed: bytes, wanted: int = HEADER_BYTES) -> bytes:
    """Unpack the beginning of a deflated file, up to so many bytes; `Unreadable` where it is broken or that is very much."""
    if wanted > MOST_INFLATED:
        raise Unreadable(f"deflated, and unpacks to {wanted} bytes, more than {MOST_INFLATED}; convert it to another syntax")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, wanted)
    except zlib.error:
        raise Unreadable("what is deflated in it cannot be unpacked; replace or remove it") from None


def check_encoded(content: bytes, syntax: str, sides: tuple[int, int, int], allocated: int) -> str | None:
    """Hold a compressed frame's own header against the file's (rows, columns, samples); says what is wrong with it.

    Decoders take the memory that a codestream asks for.
    """
    rows, columns, samples = sides
    native = rows * columns * samples * allocated // 8
    if len(content) > 2 * native + SPARE_BYTES:
        return f"a compressed frame has {len(content)} bytes, and {native} when it is unpacked; replace or remove it"
    if syntax == RLE:
        return _check_rle(content, rows * columns, samples * allocated // 8)
    found = _frame_size(content)
    if found is None:
        return f"a frame is no {DECODERS[syntax][0]}; replace or remove it"
    if found != sides:
        told = " × ".join(map(str, found))
        return f"a compressed frame is of {told} and the file of {' × '.join(map(str, sides))}; replace or remove it"
    if content[:2] == b"\xff\xd8" and content.count(b"\xff\xda") > max(SCANS, SCANNED_PIXELS // (rows * columns)):
        return "a JPEG of more scans than any image has; save it again, or remove it"
    return None


def _check_rle(content: bytes, length: int, segments: int) -> str | None:
    """Walk through the runs of each segment without unpacking them (PS3.5, annex G)."""
    offsets = struct.unpack("<16I", content[:64]) if len(content) > 64 else (0,) * 16
    starts = offsets[1 : segments + 1]
    if segments > 15 or offsets[0] != segments or any(not 64 <= start < len(content) for start in starts):
        return f"its RLE frame has not the {segments} segments that its header says; replace or remove it"
    for start, end in zip(starts, (*starts[1:], len(content)), strict=True):
        made, at = 0, start
        while at < end - 1 and made <= length:
            head = content[at]
            run = head < 128
            made += head + 1 if run else 257 - head if head > 128 else 0
            at += head + 2 if run else 2 if head > 128 else 1
        if made > length + 1:
            return f"an RLE segment unpacks to more than its {length} bytes; replace or remove it"
    return None


def _frame_size(content: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and components of a codestream: JPEG and JPEG-LS (SOF), or JPEG 2000 (SIZ); None where it is neither."""
    if content[:2] == b"\xff\xd8":
        return _jpeg_size(content)
    start = content.find(b"\xff\x4f\xff\x51", 0, 512)  # some files wrap it into a JP2
    if start < 0 or len(content) < start + 42:
        return None
    _, _, width, height, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack(
        ">HHIIIIIIIIH", content[start + 4 : start + 42]
    )
    if (left, top, tile_left, tile_top) != (0, 0, 0, 0) or not (tile_width and tile_height):
        return None
    return height, width, components


def _jpeg_size(content: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns, components = struct.unpack(">HHB", content[at + 5 : at + 10])
            return rows, columns, components
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
