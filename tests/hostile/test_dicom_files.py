"""DICOM files of any origin: what is wrong with one is one line, soon, in little memory, and in no words of the file's own."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicomfiles import COMPRESSED, PLANTED, SYNTAXES, dicom, scan, write
from hypothesis import given
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from test_datasets import FUZZ, MIB, MOST_MIB, MOST_SECONDS, looked_at, mutations, opened, refusal

from edgebench.data import SPLITS
from edgebench.errors import InputError, written

pytestmark = pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")
WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}


def saved(made: Any, syntax: str | None = None) -> bytes:
    """Return the bytes of a file."""
    stream = io.BytesIO()
    if syntax in COMPRESSED:
        made.compress(syntax, generate_instance_uid=False)
    elif syntax is not None:
        made.file_meta.TransferSyntaxUID = syntax
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def plain(**more: Any) -> bytes:
    return saved(dicom(scan(1), **{**WINDOW, **more}))


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Write an explicit little-endian element, of any claimed length."""
    size = len(value) if length is None else length
    tag = struct.pack("<HH", group, number) + vr
    return tag + (struct.pack("<HI", 0, size) if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT") else struct.pack("<H", size)) + value


def replaced(content: bytes, keyword: bytes, value: bytes) -> bytes:
    """Put another value of the same length in the place of an element's, which its tag and VR find."""
    at = content.index(keyword) + 8
    return content[:at] + value + content[at + len(value) :]


PIXELS = struct.pack("<HH", 0x7FE0, 0x10)
ROWS, COLUMNS = (struct.pack("<HH", 0x28, each) + b"US\2\0" for each in (0x10, 0x11))
REPRESENTATION, STORED, HIGH = (struct.pack("<HH", 0x28, each) + b"US\2\0" for each in (0x103, 0x101, 0x102))


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def inserted(content: bytes, before: bytes, addition: bytes) -> bytes:
    at = content.index(before)
    return content[:at] + addition + content[at:]


def nested(depth: int) -> bytes:
    """Write sequences within sequences, each of no said length."""
    opening = element(0x0008, 0x1140, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return opening * depth


@cache
def zeros(mib: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(mib)) + packer.flush()


def meta(syntax: str) -> bytes:
    """Write the beginning of a file of a transfer syntax."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    told = element(2, 0x10, b"UI", uid)
    return b"\0" * 128 + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(told))) + told


def deflated_bomb() -> bytes:
    """Deflate a header and then far more than its image has."""
    whole = saved(dicom(scan(1), **WINDOW))
    body = whole[whole.index(struct.pack("<HH", 8, 5)) :]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(body.partition(PIXELS)[0])
    packed += packer.compress(element(0x7FE0, 0x10, b"OW", b"", 1 << 31))
    packed += b"".join(packer.compress(bytes(MIB)) for _ in range(1 << 9)) + packer.flush()
    return meta(DeflatedExplicitVRLittleEndian) + packed


def fragments(frame: bytes, syntax: str, made: Any = None) -> bytes:
    """Write a file whose one compressed frame is this."""
    made = made or dicom(scan(1), **WINDOW)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = syntax
    return saved(made)


def rle_bomb() -> bytes:
    """Write segments of runs that unpack to a hundred times the image."""
    runs = b"\x81\0" * 600
    offsets = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13)
    return fragments(offsets + runs * 2, RLELossless)


def jpeg_2000(width: int, height: int, components: int = 1) -> bytes:
    """Write a codestream that claims to be of another size than its file."""
    made = dicom(scan(1), **WINDOW)
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = bytearray(saved(made))
    at = content.index(b"\xff\x4f\xff\x51") + 8
    content[at : at + 8] = struct.pack(">II", width, height)
    content[at + 32 : at + 34] = struct.pack(">H", components)
    return bytes(content)


def jpeg(width: int, height: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (36, 40)).save(stream, "JPEG")
    frame = bytearray(stream.getvalue())
    at = frame.index(b"\xff\xc0") + 5
    frame[at : at + 4] = struct.pack(">HH", height, width)
    return fragments(bytes(frame), "1.2.840.10008.1.2.4.50", dicom(scan(1, high=255).astype(np.uint8), stored=8))


def offsets() -> bytes:
    """Claim a table of a hundred million frames' offsets."""
    content = fragments(b"\0" * 100, RLELossless)
    at = content.index(b"\xfe\xff\x00\xe0", content.index(PIXELS))
    return content[: at + 4] + struct.pack("<I", 400_000_000) + content[at + 8 :]


BAD: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "no DICOM file"),
    "text": (lambda: b"hello" * 100, "no DICOM file"),
    "preamble": (lambda: b"\0" * 128 + b"DICM", "it ends within its header"),
    "meta": (lambda: plain()[:200], "bad.dcm: "),
    "truncated-header": (lambda: plain()[:600], "bad.dcm: "),
    "truncated-pixels": (lambda: plain()[:-100], "it has 2780 bytes of pixels, and its header says 2880"),
    "no-pixels": (lambda: plain().partition(PIXELS)[0], "it has no pixels"),
    "huge": (lambda: replaced(replaced(plain(), ROWS, short(65535)), COLUMNS, short(65535)), "65535 × 65535 pixels, more than"),
    "no-rows": (lambda: replaced(plain(), ROWS, short(0)), "its Rows is no whole number from 1 to 65535"),
    "representation": (
        lambda: replaced(plain(), REPRESENTATION, short(2)),
        "its PixelRepresentation is no whole number from 0 to 1",
    ),
    "stored": (lambda: replaced(plain(), STORED, short(17)), "its BitsStored is no whole number from 1 to 16"),
    "high-bit": (lambda: replaced(plain(), HIGH, short(15)), "its HighBit is not BitsStored - 1"),
    "frames": (lambda: plain(NumberOfFrames="65000"), "it has 2880 bytes of pixels, and its header says 187200000"),
    "more-frames": (lambda: plain(NumberOfFrames="2147483647"), "its NumberOfFrames is no whole number from 1 to 65536"),
    "negative-frames": (lambda: plain(NumberOfFrames="-5"), "its NumberOfFrames is no whole number"),
    "encapsulated-frames": (
        lambda: saved(dicom(scan(1), **WINDOW, NumberOfFrames="60000"), None).replace(
            b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
        ),
        "bad.dcm: ",
    ),
    "photometric": (lambda: plain(PhotometricInterpretation=PLANTED[0].upper()), "its PhotometricInterpretation is none of"),
    "slope": (lambda: plain(RescaleSlope="1e308", RescaleIntercept="1e308"), "its rescaled values are beyond all numbers"),
    "no-slope": (lambda: plain(RescaleSlope="0", RescaleIntercept="1"), "its RescaleSlope is 0"),
    "half-window": (lambda: plain(WindowWidth=[1, 2]), "its windows or its rescaling are half there"),
    "width": (lambda: plain(WindowWidth=0), "its WindowWidth is too small"),
    "function": (lambda: plain(VOILUTFunction=PLANTED[0].upper()), "its VOILUTFunction is none of"),
    "nested": (lambda: inserted(plain(), ROWS, nested(100_000)), "bad.dcm: "),
    "long-element": (lambda: inserted(plain(), ROWS, element(0x0009, 0x1011, b"UT", b"x", 0xFFFFFFF0)), "bad.dcm: "),
    "long-sequence": (lambda: inserted(plain(), ROWS, element(0x0009, 0x1011, b"SQ", b"x", 0xFFFFFFF0)), "bad.dcm: "),
    "elements": (
        lambda: inserted(plain(), ROWS, element(0x0009, 0x1011, b"SH", b"") * 400_000),
        "longer than that of any image",
    ),
    "private-syntax": (lambda: meta("1.2.3.4.5") + plain()[400:], "its transfer syntax (of its own, or none)"),
    "video": (lambda: meta("1.2.840.10008.1.2.4.102") + plain()[400:], "its transfer syntax (1.2.840.10008.1.2.4.102)"),
    "meta-elements": (lambda: b"\0" * 128 + b"DICM" + element(2, 0x16, b"SH", b"") * 1_000_000, "bad.dcm: "),
    "deflated-garbage": (
        lambda: meta(DeflatedExplicitVRLittleEndian) + b"\xff" * 1000,
        "what is deflated in it cannot be unpacked",
    ),
    "deflated-zeros": (lambda: meta(DeflatedExplicitVRLittleEndian) + zeros(256), "bad.dcm: "),
    "deflated-bomb": (deflated_bomb, ""),
    "rle-bomb": (rle_bomb, "an RLE segment unpacks to more than its 1440 bytes"),
    "rle-short": (lambda: fragments(b"\0" * 100, RLELossless), "its RLE frame has not the 2 segments"),
    "rle-long": (lambda: fragments(b"\0" * 10 * MIB, RLELossless), "a compressed frame has 10485760 bytes, and 2880"),
    "offsets": (offsets, "the table of their offsets is broken"),
    "jpeg-2000-size": (lambda: jpeg_2000(60_000, 60_000), "a compressed frame is of 60000 × 60000 × 1"),
    "jpeg-2000-components": (lambda: jpeg_2000(36, 40, 16_384), "a compressed frame is of 40 × 36 × 16384"),
    "jpeg-size": (lambda: jpeg(60_000, 60_000), "a compressed frame is of 60000 × 60000 × 1"),
    "no-jpeg": (lambda: fragments(b"\0" * 100, JPEG2000Lossless), "a frame is no JPEG 2000 Lossless"),
    "cut-jpeg-2000": (lambda: saved(dicom(scan(1), **WINDOW), JPEG2000Lossless)[:-200], "bad.dcm: "),
}
GOOD = ("deflated-bomb",)
"""What holds more than it says is read as far as it says."""


def clinic(root: Path) -> Path:
    """Write two classes of a few files, and return where a bad one would lie."""
    for split in SPLITS:
        for number, name in enumerate(("cat", "dog")):
            write(root / split / name / "0.dcm", dicom(scan(number), patient=f"{split}{number}", **WINDOW))
    return root / "train" / "dog" / "bad.dcm"


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, float, float]]:
    """Every bad file is looked at once, in one process, whose memory is measured."""
    root, texts = tmp_path_factory.mktemp("looks"), {}
    for name, (content, _) in BAD.items():
        clinic(root / name).write_bytes(content())
        texts[name] = f"dicom:{root / name},size=16"
    warm = clinic(root / "warm").parents[2]
    write(warm / "train" / "cat" / "1.dcm", dicom(scan(5), patient="j", **WINDOW), SYNTAXES["jpeg-2000-lossless"])
    return dict(zip(texts, looked_at(f"dicom:{warm},size=16", *texts.values())[1:], strict=True))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_soon_and_in_little_memory(looks: Mapping[str, tuple[str, float, float]], name: str) -> None:
    said, mib, seconds = looks[name]
    assert mib < MOST_MIB and seconds < MOST_SECONDS, (mib, seconds)
    if name in GOOD:
        assert said == ""
        return
    assert "train/dog/bad.dcm: " in said and BAD[name][1] in said, said
    assert said.isprintable() and not any(word.lower() in said.lower() for word in PLANTED)


@pytest.mark.fuzz
def test_files_changed_at_random_are_read_or_refused_in_one_line(
    tmp_path: Path, fuzzed: Callable[[Callable[[], None]], None]
) -> None:
    place, seeds = clinic(tmp_path / "set"), []
    for syntax in SYNTAXES.values():
        seeds.append(write(tmp_path / "seed.dcm", dicom(scan(1), **WINDOW), syntax).read_bytes())

    @FUZZ
    @given(content=mutations(seeds))
    def read(content: bytes) -> None:
        place.write_bytes(content)
        try:
            split = opened(f"dicom:{tmp_path / 'set'},size=16,patient=file,frame=first").read("train")
            assert len(split) in (2, 3)
        except InputError as error:
            assert str(error).isprintable() and not any(word in str(error) for word in PLANTED)
            assert "bad.dcm" not in written(error)

    fuzzed(read)


def test_a_sequence_that_never_ends_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    clinic(tmp_path).write_bytes(inserted(plain(), ROWS, nested(50)))
    assert "train/dog/bad.dcm: " in refusal(f"dicom:{tmp_path},size=16")
