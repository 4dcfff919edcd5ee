"""One image file of any origin → pixels: named formats, regular files, and ends to pixels, header, scans and time."""

from __future__ import annotations

import io
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.data._files import described, open_regular
from edgebench.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What a file may hold, whatever its ending says. Others of Pillow's readers are never tried: EPS would start a program."""
MAX_PIXELS = 1 << 26
"""64 Mi: 256 MiB of memory as RGB, up to three times that while it is read. WebP takes twice as much, so half as many may be."""
MAX_SIDE = 65_535
SECONDS = 10.0
"""Of the processor, for one image."""
HEADER_READS = 20_000
HEADER_BYTES, WHOLE_BYTES = 1 << 25, 1 << 27
SCANS, SCANNED_PIXELS = 24, 1 << 31
"""A JPEG may have so many scans, or as many as pass over so many pixels: each one passes over the whole image."""
_ONE_AT_A_TIME = threading.RLock()


class _Reader(io.BufferedReader):
    """A file whose reading ends where the image would take too long; `DataError`, which no reader of Pillow's takes for its own.

    Pillow reads headers piece by piece, and goes on as long as a file offers more of them.
    """

    def __init__(self, path: Path, real: Path) -> None:
        super().__init__(open_regular(real))
        self.path = path
        self.ends = time.thread_time() + SECONDS
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
            raise DataError(f"{self.path}: not read within {SECONDS:.0f} s; save it again, or remove it")
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


def read_image(path: Path, real: Path, size: int, channels: int, max_pixels: int) -> NDArray[np.uint8]:
    """Read one image (the first of several), scale its shorter side to `size`, and cut out the middle; uint8 [h, w, c].

    `path` is what messages name, `real` where it lies. Within `pixel_limit(max_pixels)`. `DataError` says what is wrong.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    bomb, mode = f"{max_pixels} pixels; make it smaller, or allow it by the option", "L" if channels == 1 else "RGB"
    try:
        with _Reader(path, real) as file, Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height
            if 2 * pixels > max_pixels and image.format == "WEBP":
                raise DataError(f"{path}: WebP of {pixels} pixels, more than half of {bomb} max_pixels={2 * pixels}")
            if max(image.size) > MAX_SIDE:
                raise DataError(
                    f"{path}: {image.width} × {image.height} pixels, and a side has {MAX_SIDE} at most; crop or remove it"
                )
            file.in_header = False
            if image.format in ("JPEG", "MPO"):
                file.scans_allowed = max(SCANS, SCANNED_PIXELS // pixels)
            image.load()
            converted = image if image.mode == mode else image.convert(mode)
            fitted = np.asarray(ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        needed = re.search("[0-9]+", str(error))  # nobody else knows of how many
        raise DataError(f"{path}: more than {bomb} max_pixels{f'={needed[0]}' if needed else ''}") from error
    except Exception as error:  # a damaged file may raise anything at all
        found = f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else described(error)
        found = "it is empty" if real.stat().st_size == 0 else found
        raise DataError(f"{path}: not a readable JPEG or PNG ({found}); replace or remove it") from error
    return fitted[:, :, None] if channels == 1 else fitted
