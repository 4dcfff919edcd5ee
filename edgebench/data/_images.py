"""One image file of any origin → pixels: named formats, regular files, and ends to pixels, header, scans and time."""

from __future__ import annotations

import io
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data import Geometry
from edgebench.data._files import described, open_regular
from edgebench.data._geometry import MAX_SIDE, place
from edgebench.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What a file may hold, whatever its ending says. Others of Pillow's readers are never tried: EPS would start a program."""
MAX_PIXELS = 1 << 26
"""64 Mi: 256 MiB of memory as RGB, up to three times that while it is read. WebP takes twice as much, so half as many may be."""
SECONDS = 10.0
"""Of the processor, for one image."""
HEADER_READS = 20_000
HEADER_BYTES, WHOLE_BYTES = 1 << 25, 1 << 27
SCANS, SCANNED_PIXELS = 24, 1 << 31
"""A JPEG may have so many scans, or as many as pass over so many pixels: each one passes over the whole image."""
_ONE_AT_A_TIME = threading.RLock()


class TooManyPixels(DataError):
    """An image is larger than is allowed."""


class NoImage(DataError):
    """A file is an image of no format that is read."""


class _Reader(io.BufferedReader):
    """A file whose reading ends where the image would take too long; `DataError`, which no reader of Pillow's takes for its own.

    Pillow reads headers piece by piece, and goes on as long as a file offers more of them.
    """

    def __init__(self, path: Path, real: Path | bytes, seconds: float) -> None:
        raw: Any = open_regular(real) if isinstance(real, Path) else io.BytesIO(real)
        super().__init__(raw)
        self.path, self.seconds = path, seconds
        self.ends = time.thread_time() + seconds
        self.in_header = True
        self.reads = self.taken = self.scans = 0
        self.scans_allowed: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        whole = size is None or size < 0  # WebP is read at once, the others piece by piece
        content = super().read(min(WHOLE_BYTES, size) if size is not None and size >= 0 else WHOLE_BYTES + 1)
        if len(content) > WHOLE_BYTES:
            raise DataError(f"{self.path}: larger than {WHOLE_BYTES >> 20} MiB in a format that is read at once; replace it")
        self.reads += 1
        self.taken += 0 if whole else len(content)
        if self.in_header and (self.reads > HEADER_READS or self.taken > HEADER_BYTES):
            raise DataError(f"{self.path}: its header is longer than that of any photo; replace or remove it")
        if time.thread_time() > self.ends:
            raise DataError(f"{self.path}: not read within {self.seconds:.0f} s; save it again, or remove it")
        if self.scans_allowed is not None:
            self.scans += content.count(b"\xff\xda")
            if self.scans > self.scans_allowed:
                raise DataError(f"{self.path}: a JPEG of more than {self.scans_allowed} scans; save it again, or remove it")
        return content


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse larger images from the first moment on, and say nothing of what it can read all the same."""
    from PIL import Image

    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody asks for
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@dataclass(frozen=True)
class Reading:
    """How a file's pixels become an image of 0…255."""

    geometry: Geometry
    channels: int
    max_pixels: int
    exif: bool = True
    """Whether it is turned as its camera says."""
    background: tuple[int, int, int] | None = (255, 255, 255)
    """What lies behind transparent pixels; None: their transparency is dropped, and the colours beneath show."""
    range: tuple[float, float] | None = None
    """What becomes 0 and 255 in images of 16 and 32 bits; None: their type's own."""


def read_image(path: Path, real: Path, how: Reading) -> NDArray[np.uint8]:
    """Read one image (the first of several) and bring it to its size; uint8 [h, w, c].

    `path` is what messages name, `real` where it lies. Within `pixel_limit(max_pixels)`. `DataError` says what is wrong.
    """
    with _opened(path, real, how.max_pixels) as image:
        image.load()
        turned = _turned(image) if how.exif else image
        return place(_plain(turned, path, how), how.geometry)


def decode(content: bytes, name: str, how: Reading, seconds: float = SECONDS, whole: bool = False) -> NDArray[np.uint8]:
    """Read one image (the first of several) that is in memory, as `read_image` does; uint8 [h, w, c].

    `whole`: as large as it is. `name` is what messages name.
    `DataError` says what is wrong, `NoImage` and `TooManyPixels` among them.
    """
    path = Path(name)
    with pixel_limit(how.max_pixels), _opened(path, content, how.max_pixels, seconds) as image:
        image.load()
        plain = _plain(_turned(image) if how.exif else image, path, how)
        if not whole:
            return place(plain, how.geometry)
        pixels = np.asarray(plain, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def read_header(path: Path, real: Path, max_pixels: int) -> tuple[str, tuple[int, int], bool]:
    """Look at a file's beginning: its mode and format, its size (width, height), and whether it has transparent pixels."""
    with _opened(path, real, max_pixels) as image:
        return f"{image.mode} {image.format}", image.size, _has_alpha(image)


@contextmanager
def _opened(path: Path, real: Path | bytes, max_pixels: int, seconds: float = SECONDS) -> Iterator[Any]:
    """Open an image within all limits, and turn whatever its reader raises into one line."""
    from PIL import Image, UnidentifiedImageError

    bomb = f"{max_pixels} pixels; make it smaller, or allow it by the option"
    try:
        with _Reader(path, real, seconds) as file, Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height
            if 2 * pixels > max_pixels and image.format == "WEBP":
                raise TooManyPixels(f"{path}: WebP of {pixels} pixels, more than half of {bomb} max_pixels={2 * pixels}")
            if max(image.size) > MAX_SIDE:
                raise TooManyPixels(
                    f"{path}: {image.width} × {image.height} pixels, and a side has {MAX_SIDE} at most; crop or remove it"
                )
            file.in_header = False
            if image.format in ("JPEG", "MPO"):
                file.scans_allowed = max(SCANS, SCANNED_PIXELS // pixels)
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        needed = re.search("[0-9]+", str(error))  # nobody else knows of how many
        raise TooManyPixels(f"{path}: more than {bomb} max_pixels{f'={needed[0]}' if needed else ''}") from error
    except Exception as error:  # a damaged file may raise anything at all
        unknown = isinstance(error, UnidentifiedImageError)
        found = f"it is none of {', '.join(FORMATS)}" if unknown else described(error)
        found = "it is empty" if (real.stat().st_size if isinstance(real, Path) else len(real)) == 0 else found
        raise (NoImage if unknown else DataError)(f"{path}: not a readable image ({found}); replace or remove it") from error


def _turned(image: Any) -> Any:
    """Turn an image as its EXIF says; as it is where that cannot be read."""
    from PIL import Image

    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # notes of a camera that are garbage are no orientation
        return image
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE"}
    turn = {**turns, 8: "ROTATE_90"}.get(orientation) if isinstance(orientation, int) else None
    if turn is None or image.format == "TIFF":  # which Pillow turns itself
        return image
    return image.transpose(Image.Transpose[turn])


def _plain(image: Any, path: Path, how: Reading) -> Any:
    """Return the image in 8 bits, grey or RGB, without transparency."""
    from PIL import Image

    mode = "L" if how.channels == 1 else "RGB"
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_scaled(image, path, how))
    if how.background is not None and _has_alpha(image):
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*how.background, 255)), colours).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _has_alpha(image: Any) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _scaled(image: Any, path: Path, how: Reading) -> NDArray[np.uint8]:
    """Scale 16 and 32 bits to 0…255 by their range."""
    values = np.asarray(image).astype(np.float64)
    limits = how.range
    if limits is None and (image.mode.startswith("I;16") or image.format in ("PNG", "PPM")):
        limits = (0.0, 65535.0)
    if limits is None:
        kind = "of 32-bit whole numbers" if image.mode == "I" else "of real numbers"
        raise DataError(
            f"{path}: an image {kind}, from {values.min():g} to {values.max():g}, and nothing says what white is; "
            "give the data set option range=LOW:HIGH, for instance range=0:1"
        )
    low, high = limits
    return np.asarray(((values - low) / (high - low) * 255 + 0.5).clip(0, 255), dtype=np.uint8)
