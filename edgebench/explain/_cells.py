"""Images divided into cells: cells that are covered, and maps of any size brought to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import InputError
from edgebench.schema import Preprocessing
from edgebench.schema.explanation import Grid

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]
CELLS = 8
BASELINES = ("mean", "black", "blur")
BLUR_SHARE = 8
"""A blurred image has each pixel averaged over an eighth of the image."""


@dataclass(frozen=True)
class Cells:
    """How images of one size are divided, and what covers a cell."""

    grid: Grid
    height: int
    width: int
    baseline: str
    colour: tuple[int, ...]
    """What `mean` covers with: a value for each channel, 0…255."""

    @property
    def count(self) -> int:
        """Count the cells."""
        return self.grid[0] * self.grid[1]

    def covered(self, image: Images, shown: Masks) -> Images:
        """Cover an image [h, w, c] where masks [m, cells] do not show it: uint8 [m, h, w, c]."""
        kept = shown[:, self._places()][..., None]
        return np.where(kept, image, self._cover(image)).astype(np.uint8)

    def _places(self) -> NDArray[np.intp]:
        """Return the number of the cell that each pixel is of [h, w]."""
        rows, columns = (_parts(size, count) for size, count in zip((self.height, self.width), self.grid, strict=True))
        return np.asarray(rows[:, None] * self.grid[1] + columns[None, :])

    def _cover(self, image: Images) -> Images:
        if self.baseline == "blur":
            return _blurred(image)
        colour = (0,) * image.shape[-1] if self.baseline == "black" else self.colour
        return np.broadcast_to(np.array(colour, np.uint8), image.shape)

    def of_map(self, map_: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring a map over the image [rows, columns] to the cells: means over cells, of coarser ones linear in between."""
        for axis, count in enumerate(self.grid):
            map_ = np.moveaxis(_resampled(np.moveaxis(map_, axis, 0), count), 0, axis)
        return map_


def divided(shape: tuple[int, ...], spec: Preprocessing, cells: int = CELLS, baseline: str = "mean") -> Cells:
    """Divide images of a shape [h, w, c] into so many rows and columns, or as many as they have pixels.

    What covers is the mean that the network's input was normalised with: the zero of its input. `InputError` for fewer than two.
    """
    height, width, channels = shape
    if cells < 2 or min(height, width) < 2:
        raise InputError(f"--cells {cells}: an image is divided into 2 × 2 cells at least; give 2 or more")
    if baseline not in BASELINES:
        raise InputError(f"--baseline {baseline}: is one of {', '.join(BASELINES)}")
    mean = spec.mean if len(spec.mean) == channels else (float(np.mean(spec.mean)),) * channels
    colour = tuple(int(np.clip(round(255 * each), 0, 255)) for each in mean)
    return Cells((min(cells, height), min(cells, width)), height, width, baseline, colour)


def _parts(size: int, count: int) -> NDArray[np.intp]:
    """Say of each of `size` pixels which of `count` parts it is in."""
    return np.asarray(np.arange(size) * count // size)


def _blurred(image: Images) -> Images:
    from PIL import Image, ImageFilter

    radius = max(1, max(image.shape[:2]) // BLUR_SHARE)
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., channel])).filter(ImageFilter.BoxBlur(radius)))
        for channel in range(image.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def _resampled(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Bring the first axis to so many values: means of parts where it shrinks, else linear between the middles of values."""
    size = len(values)
    if size >= count:
        parts = _parts(size, count)
        return np.stack([values[parts == part].mean(axis=0) for part in range(count)])
    places = (np.arange(count) + 0.5) * size / count - 0.5
    low = np.clip(np.floor(places).astype(int), 0, size - 1)
    high, share = np.clip(low + 1, 0, size - 1), np.clip(places - low, 0, 1)
    share = share.reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values[low] * (1 - share) + values[high] * share)


def batches(sizes: Sequence[int], most_bytes: int) -> Iterator[slice]:
    """Cut things of these bytes into runs of at most so many, one thing at least."""
    first = held = 0
    for index, size in enumerate(sizes):
        if index > first and held + size > most_bytes:
            yield slice(first, index)
            first, held = index, 0
        held += size
    if sizes:
        yield slice(first, len(sizes))
