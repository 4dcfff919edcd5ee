"""Data sets of any origin: what is wrong with one is one line that names the file, and nothing of it runs, fills or holds up."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_measure import Bundles

from edgebench import files
from edgebench.config import read_dataset
from edgebench.data import SPLITS, Dataset, _arrays, open_images
from edgebench.data._images import MAX_PIXELS
from edgebench.errors import InputError

MIB = 1 << 20
MOST_MIB, MOST_SECONDS = 400, 10.0
FUZZ = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def opened(text: str) -> Dataset:
    return open_images(read_dataset(text))


def refusal(text: str) -> str:
    """Return the one line that a data set is refused with."""
    with pytest.raises(InputError) as caught:
        data = opened(text)
        for name in SPLITS:
            data.read(name)
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---------------------------------------------------------------- images


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Write a gradient in a format."""
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def photos(root: Path) -> Path:
    """Write two classes of a few images, and return where a bad one would lie."""
    for split in SPLITS:
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                (root / split / name / f"{number}.png").write_bytes(encoded("PNG"))
    return root / "test" / "dog" / "bad.png"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *between: bytes, pixels: bytes | None = None) -> bytes:
    """Write a grey PNG of any claimed size; without pixels it is black."""
    stream = zlib.compressobj(1)
    rows = pixels if pixels is not None else b"".join(stream.compress(bytes(width + 1)) for _ in range(height)) + stream.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    """Write a progressive JPEG whose last scan comes again and again: each takes 23 bytes, and a pass over the image."""
    whole = encoded("JPEG", "L", (4000, 4000), progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:-2] + whole[whole.rfind(b"\xff\xc4", 0, last) : -2] * 4000 + b"\xff\xd9"


def gif_comment() -> bytes:
    """Write a GIF whose comment Pillow would put together from a hundred thousand pieces."""
    whole = encoded("GIF", "L")
    start = 13 + 3 * (2 << (whole[10] & 7))  # after the palette
    return whole[:start] + b"!\xfe" + (b"\xff" + b"c" * 255) * 100_000 + b"\0" + whole[start:]


def webp(width: int, height: int) -> bytes:
    """Write a small WebP that claims to be of this size."""
    content = bytearray(encoded("WEBP", "RGB", (8, 8), lossless=True))
    at = content.find(b"VP8L") + 9
    content[at : at + 4] = struct.pack(
        "<I", (width - 1) | (height - 1) << 14 | int.from_bytes(content[at : at + 4], "little") >> 28 << 28
    )
    return bytes(content)


def tiff(width: int, height: int, *entries: tuple[int, int, int, int], extra: bytes = b"") -> bytes:
    """Write a TIFF of these sizes with further tags (number, type, count, value or offset), and bytes after them."""
    tags = sorted([(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1), *entries])
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + bytes(4)
        + extra
    )


def tiff_overlaps() -> bytes:
    """Write a TIFF of 2 MB whose sixty thousand tags all name the same megabyte."""
    return tiff(8, 8, *((1000 + number, 1, MIB, 60_000 * 12) for number in range(60_000)), extra=bytes(MIB))


def bmp_delta() -> bytes:
    """Write a BMP whose one escape skips 255 rows of fifty million pixels."""
    width, palette = 50_000_000, bytes(1024)
    data = b"\x00\x02\x00\xff\x00\x01"
    info = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, len(data), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + 1024 + len(data), 0, 0, 54 + 1024) + info + palette + data


@cache
def bomb() -> bytes:
    """Pack 100 MiB, once and only where a test wants them: every worker imports this file."""
    return b"c\0\0" + zlib.compress(bytes(100 * MIB))


BAD: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is empty"),
    "text": (lambda: b"hello", "none of PNG, JPEG"),
    "page": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of PNG, JPEG"),
    "truncated-png": (lambda: encoded("PNG", "RGB", (300, 300))[:300], "not a readable image"),
    "truncated-jpeg": (lambda: encoded("JPEG")[:-60], "OSError: image file is truncated"),
    "wide": (lambda: png(1_000_000, 1), "a side has 65535 at most"),
    "high": (lambda: png(1, 1_000_000), "a side has 65535 at most"),
    "nothing-high": (lambda: png(10, 0, pixels=b""), "not a readable image"),
    "pixels": (lambda: png(20_000, 20_000, pixels=zlib.compress(bytes(9))), f"more than {MAX_PIXELS} pixels"),
    "more-pixels": (lambda: png(60_000, 60_000, pixels=zlib.compress(bytes(9))), f"more than {MAX_PIXELS} pixels"),
    "webp-pixels": (partial(webp, 16_384, 16_384), "bad.png: "),
    "gif-pixels": (lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + bytes(20), "bad.png: "),
    "text-bomb": (lambda: png(8, 8, chunk(b"zTXt", bomb())), "bad.png: "),
    "text-after": (lambda: png(8, 8)[:-12] + chunk(b"zTXt", bomb()) + chunk(b"IEND", b""), "bad.png: "),
    "profile-bomb": (lambda: png(8, 8, chunk(b"iCCP", bomb())), "bad.png: "),
    "chunks": (lambda: png(8, 8, chunk(b"abCd", b"") * 1_000_000), "its header is longer than that of any photo"),
    "padding": (lambda: b"\xff\xd8" + b"\xff" * 20 * MIB, "its header is longer than that of any photo"),
    "large": (lambda: png(8000, 8000)[:-30_000], "OSError: image file is truncated"),
    "scans": (many_scans, "a JPEG of more than 134 scans"),
    "comment": (gif_comment, "its header is longer than that of any photo"),
    "tags": (tiff_overlaps, "bad.png: "),
    "tag-sizes": (lambda: tiff(1 << 30, 1 << 30, (273, 4, 1, 0xFFFFFFFF)), f"more than {MAX_PIXELS} pixels"),
    "tiles": (lambda: tiff(64, 64, (259, 3, 1, 5), (322, 4, 1, 1 << 31), (323, 4, 1, 1 << 31), (324, 4, 1, 8)), "bad.png: "),
    "tag-loop": (lambda: tiff(8, 8)[:-4] + b"\x08\0\0\0", "not a readable image"),
    "delta": (bmp_delta, "a side has 65535 at most"),
    "ppm-comment": (lambda: b"P6 #" + b"c" * 20 * MIB, "its header is longer than that of any photo"),
}
LOOK = r"""
import json, re, sys, time, warnings
from pathlib import Path
warnings.simplefilter("error")
from PIL import Image
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import InputError
def peak(): return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
Image.init(), __import__("sklearn.datasets")
for text in sys.argv[1:]:
    before, began, said = peak(), time.monotonic(), ""
    try: open_images(read_dataset(text)).read("train")
    except InputError as error: said = str(error)
    print(json.dumps([said, peak() - before, time.monotonic() - began]))
"""


def looked_at(*texts: str) -> list[tuple[str, float, float]]:
    """Open data sets one after the other in a process of their own; what each says, MiB that the peak grew by, and seconds.

    By the kernel's own count: that of `getrusage` begins with this process's.
    """
    command = [sys.executable, "-c", LOOK, *texts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.stderr, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, float, float]]:
    """Every bad image and every bad array is looked at once, in one process, whose memory is measured."""
    root, texts = tmp_path_factory.mktemp("looks"), {}
    for name, (content, _) in BAD.items():
        photos(root / name).write_bytes(content())
        texts[name] = f"image-folder:{root / name},size=16"
    for name, (build, _) in BOMBS.items():
        build(root / f"{name}.npz")
        texts[name] = f"medmnist:{root / name}.npz"
    return dict(zip(texts, looked_at(*texts.values()), strict=True))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_one_line_soon_and_in_little_memory(looks: Mapping[str, tuple[str, float, float]], name: str) -> None:
    said, mib, seconds = looks[name]
    assert "test/dog/bad.png: " in said and BAD[name][1] in said, said
    assert said.isprintable() and ("remove it" in said or "max_pixels" in said), said
    assert mib < MOST_MIB and seconds < MOST_SECONDS, (mib, seconds)


def exif(content: bytes) -> bytes:
    """Write a JPEG with this in place of its camera's notes."""
    whole = encoded("JPEG")
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content + whole[2:]


def frames(format: str) -> bytes:
    stream = io.BytesIO()
    first, *more = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    first.save(stream, format, save_all=True, append_images=more)
    return stream.getvalue()


GOOD: Mapping[str, Callable[[], bytes]] = {
    **{kind: partial(encoded, kind) for kind in ("JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")},
    **{f"{kind} frames": partial(frames, kind) for kind in ("GIF", "WEBP", "TIFF", "MPO", "PNG")},
    "CMYK": lambda: encoded("JPEG", "CMYK"),
    "16 bits": lambda: encoded("PNG", "I;16"),
    "bits": lambda: encoded("PNG", "1"),
    "palette": lambda: encoded("PNG", "P", transparency=b"\0\x7f"),
    "progressive": lambda: encoded("JPEG", progressive=True),
    "EXIF garbage": lambda: exif(b"II*\0\xff\xff\xff\xff" + bytes(range(256))),
    "EXIF loop": lambda: exif(b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"),
    "EXIF text": lambda: exif(b"$(touch canary)" * 100),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_whole_images_are_read_by_what_they_hold(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    place, content = photos(tmp_path), GOOD[name]()
    place.write_bytes(content)
    found = opened(f"image-folder:{tmp_path},size=16").read("test").images[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(content))
        image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8)) if image.mode == "I;16" else image
        right = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert np.abs(found.mean(axis=(0, 1)) - np.array(right)).max() < 30
    assert not recwarn.list


def test_the_number_of_pixels_is_an_option(tmp_path: Path) -> None:
    place = photos(tmp_path)
    place.write_bytes(png(200, 100))
    assert "more than 10000 pixels; make it smaller, or allow it by the option max_pixels=20000" in refusal(
        f"image-folder:{tmp_path},size=16,max_pixels=10000"
    )
    opened(f"image-folder:{tmp_path},size=16,max_pixels=20000")
    before = Image.MAX_IMAGE_PIXELS
    assert before is not None and before > 20_000


def test_pixels_beyond_pillows_own_limit_can_be_allowed(tmp_path: Path) -> None:
    photos(tmp_path).write_bytes(png(19_000, 10_000))
    assert opened(f"image-folder:{tmp_path},size=16,max_pixels=200000000").read("test").images[-1].max() == 0


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, canary = tmp_path / "bin" / "gs", tmp_path / "canary"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    photos(tmp_path / "photos").write_bytes(postscript)
    assert "none of PNG, JPEG" in refusal(f"image-folder:{tmp_path / 'photos'},size=16")
    assert not canary.exists()


def outside(place: Path) -> None:
    (place.parents[3] / "secret.png").write_bytes(encoded("PNG"))
    place.symlink_to(place.parents[3] / "secret.png")


def unix_socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)
    os.chdir(here)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda place: os.mkfifo(place), "not a regular file"),
        (unix_socket, "cannot be opened"),
        (lambda place: place.mkdir(), "not a regular file"),
        (outside, "and is not followed"),
        (lambda place: place.symlink_to("/dev/zero"), "and is not followed"),
        (lambda place: place.symlink_to("nowhere.png"), "a link that leads nowhere"),
        (lambda place: place.symlink_to(place.name), "a link that leads nowhere"),
    ],
    ids=["pipe", "socket", "folder", "link-out", "device", "dangling", "loop"],
)
def test_what_is_no_file_of_the_folder_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    place = photos(tmp_path / "photos")
    make(place)
    said = refusal(f"image-folder:{tmp_path / 'photos'},size=16")
    assert said.startswith(f"{place}: ") and reason in said, said


def test_a_class_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "others")
    (tmp_path / "photos" / "val" / "dog").rename(tmp_path / "dog")
    (tmp_path / "photos" / "val" / "dog").symlink_to(tmp_path / "others" / "val" / "dog")
    assert "val/dog: links to" in refusal(f"image-folder:{tmp_path / 'photos'},size=16")


@pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")  # of the folder that the link leads to
def test_links_within_the_folder_are_followed_even_where_it_is_one_itself(tmp_path: Path) -> None:
    place = photos(tmp_path / "photos")
    place.symlink_to("../cat/0.png")
    (tmp_path / "photos" / "val" / "cat").rename(tmp_path / "photos" / "cats")
    (tmp_path / "photos" / "val" / "cat").symlink_to("../cats")
    (tmp_path / "link").symlink_to("photos")
    data = opened(f"image-folder:{tmp_path / 'link'},size=16")
    assert (len(data.read("test")), len(data.read("val"))) == (7, 6)


@pytest.mark.parametrize("option", ["size=abc", "size=0", "size=-3", "val=0.2", "max_pixels=many", "max_gib=1e3", "size=\u00b2"])
def test_an_option_that_is_no_whole_number_is_one_line(tmp_path: Path, option: str) -> None:
    photos(tmp_path)
    root = tmp_path / "train" if option.startswith("val") else tmp_path
    assert "is no whole number from" in refusal(f"image-folder:{root},{option}")


def test_a_split_larger_than_memory_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    photos(tmp_path)
    assert "allow it by the option max_gib=" in refusal(f"image-folder:{tmp_path},size=60000")


# ---------------------------------------------------------------- arrays


def npz(path: Path, /, **changes: Any) -> Path:
    """Write a small file in MedMNIST's format, with these arrays changed, or left out where they are None."""
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        arrays[f"{name}_images"] = np.arange(6 * 64, dtype=np.uint16).astype(np.uint8).reshape(6, 8, 8)
        arrays[f"{name}_labels"] = (np.arange(6) % 3).astype(np.uint8).reshape(6, 1)
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def header(shape: str, descr: str = "'|u1'", fortran: str = "False") -> bytes:
    """Write an array's header of any claim."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text) + 1) + text + b"\n"


def raw(path: Path, key: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    """Write a small file, one array of which is these bytes."""
    npz(path, **{key: None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{key}.npy", content, method)


def zeros(path: Path) -> None:
    """Write 300 MiB of black images, which take 1.4 MB."""
    npz(path, train_images=None, train_labels=np.arange(300 * 16) % 3)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train_images.npy", "w") as to,
    ):
        to.write(header(f"({300 * 16}, 256, 256)"))
        for _ in range(300):
            to.write(bytes(MIB))


def directory(path: Path) -> None:
    """Write the end of a zip file whose directory would be 200 MiB of holes."""
    with path.open("wb") as stream:
        stream.truncate(200 * MIB)
        stream.seek(0, io.SEEK_END)
        stream.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 200 * MIB, 0, 0))


def long_header(path: Path) -> None:
    """Write an array whose header is 200 MiB of spaces."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train_labels.npy", "w") as to,
    ):
        to.write(b"\x93NUMPY\x02\0" + struct.pack("<I", 200 * MIB))
        for _ in range(200):
            to.write(b" " * MIB)


BOMBS: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "zeros": (zeros, "times its size, 0.3 GiB, which images do not"),
    "million-million": (
        lambda path: raw(path, "train_images", header("(1000000, 1000, 1000)")),
        "says that it has 1000000000000",
    ),
    "million-labels": (lambda path: raw(path, "train_labels", header("(6, 1000000000000)")), "says that it has 6000000000000"),
    "overflow": (lambda path: raw(path, "train_images", header(f"({1 << 33}, {1 << 33}, {1 << 33})")), "says that it has"),
    "long-header": (long_header, "longer than that of a plain array"),
    "directory": (directory, "its directory takes"),
    "label": (lambda path: npz(path, train_labels=np.array([0, 1, 2, 3, 4, 10**8])), "has the label 100000000"),
    "lzma": (lambda path: raw(path, "train_labels", header("(6,)") + bytes(6), zipfile.ZIP_LZMA), "packed by method 14"),
    "nested": (lambda path: raw(path, "train_labels", header("(" * 200 + ")" * 200) + bytes(6)), "not a complete .npz"),
    "nested-deeper": (lambda path: raw(path, "train_labels", header("-" * 9000 + "1") + bytes(6)), "longer than"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_array_is_refused_before_it_is_unpacked(looks: Mapping[str, tuple[str, float, float]], name: str) -> None:
    said, mib, seconds = looks[name]
    assert f"/{name}.npz: " in said and BOMBS[name][1] in said, said
    assert said.isprintable()
    assert mib < 64 and seconds < MOST_SECONDS, (mib, seconds)


def test_what_unpacks_to_very_much_can_be_allowed(tmp_path: Path) -> None:
    zeros(tmp_path / "own.npz")
    assert len(opened(f"medmnist:{tmp_path / 'own.npz'},max_gib=1").read("train")) == 4800


def test_the_size_of_an_array_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "own.npz", train_images=np.zeros((6, 400, 1000), dtype=np.uint8))
    monkeypatch.setattr(_arrays, "memory_bytes", lambda: 4_000_000)
    said = refusal(f"medmnist:{path}")
    assert "train_images would take 0.0 GiB, more than an array may (0.0 GiB); allow it by the option max_gib=1" in said
    assert len(opened(f"medmnist:{path},max_gib=1").read("train")) == 6


def structured(count: int) -> Any:
    return np.zeros(count, dtype=[("class", "u1"), ("sure", "f4")])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_labels": np.array([0, 1, 2, -1, 0, 1])}, "has the label -1"),
        ({"test_labels": np.array([0, 1, 2, -1, 0, 1])}, "has the label -1"),
        ({"train_labels": np.array([0, 1, 2, np.nan, 0, 1])}, "has the label nan"),
        ({"train_labels": np.array([0, 1, 2, np.inf, 0, 1])}, "has the label inf"),
        ({"train_labels": np.array([0, 1, 2, 0.5, 0, 1])}, "has the label 0.5"),
        ({"train_labels": np.array([0, 1, 2, 1e300, 0, 1])}, "has the label 1e+300"),
        ({"train_labels": np.full(6, (1 << 64) - 1, dtype=np.uint64)}, "has the label 18446744073709551615"),
        ({"val_labels": np.array(["cat", "dog"] * 3)}, "text that is no whole number"),
        ({"train_labels": np.array(["9" * 50] * 6)}, "text that is no whole number"),
        ({"train_labels": np.zeros(6, dtype=complex)}, "complex128[6]; plain numbers are wanted"),
        ({"train_labels": np.zeros(6, dtype="datetime64[s]")}, "datetime64[s][6]; plain numbers are wanted"),
        ({"train_labels": structured(6)}, "plain numbers are wanted"),
        ({"train_images": structured(6)}, "plain numbers are wanted"),
        ({"train_labels": np.zeros((6, 8), dtype="V3")}, "plain numbers are wanted"),
        ({"test_labels": np.array([0, 1, 2, 3, 0, 1])}, "classes beyond the 3 that train_labels has"),
        ({"train_labels": np.zeros(5, dtype=np.uint8)}, "each image wants its label"),
        ({"test_labels": np.zeros(7, dtype=np.uint8)}, "each image wants its label"),
        ({"test_labels": np.zeros((6, 2), dtype=np.uint8)}, "wants one label for each image"),
        ({"train_labels": np.array(3)}, "each image wants its label"),
        ({"train_labels": np.zeros((6, 0), dtype=np.uint8)}, "each image wants its label"),
        ({"train_labels": np.array([[0, 1]] * 5 + [[0, 2]])}, "has the label 2; labels of multi-label go from 0 to 1"),
        ({"test_images": None}, "no array 'test_images'"),
        ({"test_labels": None}, "no array 'test_labels'"),
        ({"test_images": np.zeros((6, 8, 8), dtype=np.int8)}, "int8[6, 8, 8]; uint8 [n, h, w(, c)] is wanted"),
        ({"test_images": np.zeros((6, 0, 8), dtype=np.uint8)}, "uint8[6, 0, 8]; uint8"),
        ({"test_images": np.zeros((0, 8, 8), dtype=np.uint8)}, "uint8[0, 8, 8]; uint8"),
        ({"test_images": np.zeros(6, dtype=np.uint8)}, "uint8[6]; uint8"),
        ({"test_images": np.zeros((6,) + (1,) * 30, dtype=np.uint8)}, "uint8 [n, h, w(, c)] is wanted"),
        ({"train_images": np.zeros((6, 1, 1_000_000), dtype=np.uint8)}, "a side has 8192 pixels at most"),
    ],
)
def test_arrays_that_are_no_data_set_are_one_line(tmp_path: Path, changes: Mapping[str, Any], reason: str) -> None:
    path = npz(tmp_path / "own.npz", **changes)
    said = refusal(f"medmnist:{path}")
    assert said.startswith(f"{path}: ") and reason in said, said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header("(-6,)"), "write the file again"),
        (header("(6,)", "'O'") + bytes(48), "holds Python objects, and nothing is unpickled"),
        (header("(6,)", "'<U0'"), "plain numbers are wanted"),
        (header("(6,)", "('|u1', (2,))") + bytes(12), "plain numbers are wanted"),
        (header("6") + bytes(6), "not a complete .npz"),
        (header("(6,)", "'nonsense'") + bytes(6), "not a complete .npz"),
        (header("__import__('os').system('touch canary')") + bytes(6), "not a complete .npz"),
        (header("(6,)") + bytes(5), "says that it has 6 bytes, and 5 are there"),
        (header("(6,)") + bytes(7), "says that it has 6 bytes, and 7 are there"),
        (b"", "not a complete .npz"),
        (b"\x80\x04N.", "not a complete .npz"),
        (b"\x93NUMPY\x09\0" + bytes(100), "not a complete .npz"),
        (b"\x93NUMPY\x01\0\xff\xff", "not a complete .npz"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_headers_that_claim_what_cannot_be_are_one_line(
    tmp_path: Path, content: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw(tmp_path / "own.npz", "train_labels", content)
    said = refusal(f"medmnist:{tmp_path / 'own.npz'}")
    assert reason in said and "train_labels" in said, said
    assert not (tmp_path / "canary").exists()


def doubled(path: Path) -> None:
    npz(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("train_labels.npy", header("(6,)") + bytes(6))


def encrypted(path: Path) -> None:
    content = bytearray(npz(path).read_bytes())
    at = content.find(b"PK\1\2")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\1\2", at + 1)
    path.write_bytes(content)


def changed_byte(path: Path) -> None:
    content = bytearray(npz(path).read_bytes())
    content[content.find(b"train_labels.npy") + 16 + 128 + 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (doubled, "train_labels stands 2 times in it"),
        (encrypted, "not a complete .npz"),
        (changed_byte, "not a complete .npz (train_labels: BadZipFile: Bad CRC-32"),
        (lambda path: path.write_bytes(b""), "not a complete .npz"),
        (lambda path: path.write_bytes(b"PK\5\6" + bytes(18)), "no array 'train_labels'"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "not a complete .npz"),
        (lambda path: os.mkfifo(path), "no file"),
        (lambda path: path.symlink_to("/dev/zero"), "no file"),
    ],
    ids=["doubled", "encrypted", "changed", "empty", "nothing", "npy", "pipe", "device"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_files_that_are_no_archive_are_one_line(tmp_path: Path, make: Callable[[Path], Any], reason: str) -> None:
    make(tmp_path / "own.npz")
    assert reason in refusal(f"medmnist:{tmp_path / 'own.npz'}")


def test_a_pipe_in_place_of_an_official_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pathmnist.npz")
    assert "not a regular file" in refusal(f"medmnist:pathmnist,root={tmp_path}")


def test_other_orders_of_bytes_and_of_axes_are_read_as_the_same(tmp_path: Path) -> None:
    usual = opened(f"medmnist:{npz(tmp_path / 'own.npz')}")
    images, labels = usual.read("train").images[..., 0], usual.read("train").labels
    for number, kind in enumerate((">i8", ">u2", ">f4", "<f2", "U", "S", "?", "<i4")):
        truth = labels % 2 if kind == "?" else labels
        given = {f"{name}_labels": truth.astype(kind) for name in SPLITS}
        given |= {f"{name}_images": np.asfortranarray(images) for name in SPLITS}
        other = opened(f"medmnist:{npz(tmp_path / f'{number}.npz', **given)}").read("train")
        assert (other.images[..., 0] == images).all() and (other.labels == truth).all(), kind
        assert kind == "?" or other.sha256 == usual.read("train").sha256, kind


def test_a_header_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    raw(tmp_path / "own.npz", "train_labels", header("(6L,)") + bytes([0, 1, 2] * 2))
    assert opened(f"medmnist:{tmp_path / 'own.npz'}").classes == ("0", "1", "2")


# ---------------------------------------------------------------- commands


def one_line(errors: str, *parts: str) -> None:
    lines = errors.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("edgebench: ") and all(part in lines[0] for part in parts), errors


def test_commands_end_with_2_and_one_line(cli: Cli, here: Path) -> None:
    photos(here / "photos").write_bytes(BAD["scans"][0]()[:1000])
    code, _, errors = cli("export", "tinynet:net", "--format", "onnx", "--dataset", "image-folder:photos", "--size", 16)
    assert code == 2
    one_line(errors, "photos/test/dog/bad.png: not a readable image", "replace or remove it")
    npz(here / "own.npz", train_labels=np.array([0, 1, 2, 3, 4, 10**8]))
    code, _, errors = cli("train", "tinynet:net", "--dataset", "medmnist:own.npz")
    assert code == 2
    one_line(errors, "own.npz: train_labels has the label 100000000")


def results(root: Path, key: str) -> dict[str, Any]:
    """Read the records below a folder, the newest of each by something of its cell."""
    found = [json.loads(path.read_text()) for path in (root / "results").rglob("*.json")]
    return {content["cell"][key]: content for content in sorted(found, key=lambda content: str(content["started_at"]))}


def test_a_data_set_that_cannot_be_read_stops_its_own_cells_alone(cli: Cli, here: Path, tiny_bundles: Bundles) -> None:
    photos(here / "photos").write_bytes(b"hello")
    ours = here / "ours"
    shutil.copytree(tiny_bundles["onnx", "fp32"], ours)
    manifest = json.loads((ours / "bundle.json").read_text())
    manifest["model"]["name"] = "ours"
    manifest["model"]["lineage"]["dataset"] = {"name": "image-folder", "options": {"source": "photos", "size": 16}}
    (ours / "bundle.json").write_text(json.dumps(files.seal(manifest)))
    code, _, errors = cli("run", ours, tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml")
    assert code == 1, errors
    found = results(here, "model")
    assert found["tiny"]["status"] == "done"
    assert (found["ours"]["status"], found["ours"]["failed_stage"]) == ("failed", "data")
    assert "bad.png: not a readable image" in found["ours"]["failure"]["reason"]
    code, _, errors = cli("run", ours, "--target", "sleeper.yaml")
    assert code == 2
    one_line(errors, "photos/test/dog/bad.png: not a readable image")


PROFILE = """
name: mine
dataset: {{name: image-folder, options: {{source: photos, size: 16, channels: 1}}}}
input: {{size: 16, channels: 1, mean: [0.5], std: [0.5]}}
models: [{{name: ours, checkpoint: weights.pt, architecture: "tinynet:net"}}]
variants: [{{format: onnx, precisions: [{}]}}]
targets: [sleeper.yaml]
"""


def test_a_split_that_cannot_be_read_stops_those_cells_that_need_it(cli: Cli, here: Path) -> None:
    import tinynet  # type: ignore[import-not-found]
    import torch

    photos(here / "photos")
    torch.save(tinynet.net(2, 1, 16).state_dict(), here / "weights.pt")
    (here / "mine.yaml").write_text(PROFILE.format("fp32"))
    code, _, errors = cli("run", "mine.yaml")
    assert code == 0, errors
    (here / "photos" / "train" / "cat" / "bad.jpg").write_bytes(b"hello")
    (here / "mine.yaml").write_text(PROFILE.format("fp32, int8"))
    code, _, errors = cli("run", "mine.yaml", "--repeat")
    assert code == 1, errors
    found = results(here, "precision")
    assert (found["fp32"]["status"], found["int8"]["status"], found["int8"]["failed_stage"]) == ("done", "failed", "data")
    (here / "mine.yaml").write_text(PROFILE.format("int8"))
    code, _, errors = cli("run", "mine.yaml")
    assert code == 2
    assert "photos/train/cat/bad.jpg: not a readable image" in errors.splitlines()[-1]


# ---------------------------------------------------------------- files changed at random


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Take a valid file and flip bits, cut it off, and put parts of it or of another elsewhere."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for kind in draw(st.lists(st.sampled_from(["flip", "byte", "cut", "splice", "number"]), min_size=1, max_size=6)):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            content[at : at + 1] = draw(st.binary(min_size=0, max_size=3))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 4096))]
        elif kind == "number":
            content[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", draw(st.integers(0, (1 << 32) - 1)))
        elif kind == "splice":
            other = draw(st.sampled_from(seeds))
            start = draw(st.integers(0, len(other) - 1))
            content[at:at] = other[start : start + draw(st.integers(1, 256))]
    return bytes(content)


def small_archives() -> list[bytes]:
    """Write archives of both kinds that numpy writes."""
    with tempfile.TemporaryDirectory() as folder:
        stored = npz(Path(folder) / "own.npz")
        with np.load(stored) as arrays:
            np.savez_compressed(Path(folder) / "packed.npz", **arrays)
        return [stored.read_bytes(), (Path(folder) / "packed.npz").read_bytes()]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing may be warned of, and no file may stay open."""
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    yield
    assert not descriptors or len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.fuzz
def test_changed_archives_are_read_or_refused(tmp_path: Path, fuzzed: Callable[[Callable[[], None]], None], quiet: None) -> None:
    @FUZZ
    @given(mutations(small_archives()))
    def read(content: bytes) -> None:
        (tmp_path / "own.npz").write_bytes(content)
        try:
            data = opened(f"medmnist:{tmp_path / 'own.npz'}")
            assert data.read("train").labels.dtype == np.int64
        except InputError as error:
            assert str(error).isprintable(), error

    fuzzed(read)


@pytest.mark.fuzz
def test_changed_images_are_read_or_refused(tmp_path: Path, fuzzed: Callable[[Callable[[], None]], None], quiet: None) -> None:
    place = photos(tmp_path)
    assert stat.S_ISDIR(place.parent.stat().st_mode)
    seeds = [make() for name, make in GOOD.items() if not name.startswith("EXIF")] + [encoded("TIFF", compression="tiff_lzw")]

    @FUZZ
    @given(mutations(seeds))
    def read(content: bytes) -> None:
        place.write_bytes(content)
        try:
            assert opened(f"image-folder:{tmp_path},size=8").read("test").images.shape == (7, 8, 8, 3)
        except InputError as error:
            assert str(error).isprintable(), error

    fuzzed(read)
