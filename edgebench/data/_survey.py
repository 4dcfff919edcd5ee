"""What a data set holds, before anything long is done with it: counts, sizes, duplicates, and pictures."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data import SPLITS, Dataset
from edgebench.data._doubles import Duplicates, duplicates
from edgebench.data._files import inside
from edgebench.data._images import MAX_PIXELS, pixel_limit, read_header
from edgebench.data._warnings import by_class, few, missing, of_volumes, shared, shared_patients

CELL, MOST_ROWS, PER_SPLIT = 64, 20, 4


@dataclass(frozen=True)
class Survey:
    """What was read."""

    dataset: str
    task: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """By split and class."""
    shapes: dict[str, list[int]]
    """Of one sample as networks get it, by split."""
    modes: dict[str, int]
    """Modes and formats of the files."""
    sizes: dict[str, int]
    """Of the files, width × height."""
    patients: dict[str, int]
    """By split, where it is known whose the samples are."""
    texts: dict[str, int]
    """By split, how many samples have a text that is not empty, where the data set has texts."""
    passed: int
    """Hidden files, and those of tools."""
    notes: tuple[str, ...]
    duplicates: tuple[Duplicates, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def survey(data: Dataset) -> Survey:
    """Read every split and look at it."""
    splits = {name: data.read(name) for name in SPLITS}
    modes, sizes, transparent = _headers(data)
    counts = {name: by_class(split, data.classes) for name, split in splits.items()}
    doubled = duplicates(data, splits)
    volumes = of_volumes() if data.volume is not None else []
    warned = (*shared(doubled), *shared_patients(splits), *missing(counts), *few(len(splits["test"])), *volumes)
    return Survey(
        str(data.ref),
        data.task,
        data.classes,
        counts,
        {name: list(split.images.shape[1:]) for name, split in splits.items()},
        dict(modes.most_common()),
        dict(sizes.most_common()),
        {name: len(np.unique(split.groups)) for name, split in splits.items() if split.groups is not None},
        {name: sum(map(bool, split.texts)) for name, split in splits.items() if split.texts is not None},
        data.passed,
        data.notes,
        doubled,
        (*(each.text for each in warned), *_seen_through(data, transparent)),
    )


def _headers(data: Dataset) -> tuple[Counter[str], Counter[str], int]:
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    transparent = 0
    if data.files is None:
        return modes, sizes, transparent
    home = Path(str(data.ref.options["source"])).expanduser().resolve()
    limit = int(data.ref.options.get("max_pixels", MAX_PIXELS))
    with pixel_limit(limit):
        for path in itertools.chain.from_iterable(data.files(name) for name in SPLITS):
            mode, (width, height), alpha = read_header(path, inside(path, home), limit)
            modes[mode] += 1
            sizes[f"{width} × {height}"] += 1
            transparent += alpha
    return modes, sizes, transparent


def _seen_through(data: Dataset, transparent: int) -> tuple[str, ...]:
    behind = data.ref.options.get("background", "white")
    told = f"{transparent} images have transparent pixels, laid on {behind}; option background=none drops transparency"
    return (told,) if transparent else ()


# ---------------------------------------------------------------- pictures


def write_sheet(data: Dataset, path: Path) -> None:
    """Draw samples of each class (rows) and split as PNG."""
    from PIL import Image, ImageDraw

    rows = list(enumerate(data.classes))[:MOST_ROWS]
    margin = 120
    width = margin + len(SPLITS) * (PER_SPLIT * (CELL + 2) + 10)
    sheet = Image.new("RGB", (width, 16 + len(rows) * (CELL + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(SPLITS):
        split, left = data.read(name), margin + column * (PER_SPLIT * (CELL + 2) + 10)
        draw.text((left, 2), f"{name} ({len(split)})", fill="black")
        for index, label in rows:
            top = 16 + index * (CELL + 2)
            if column == 0:
                draw.text((2, top + CELL // 2 - 6), label.encode("ascii", "replace").decode()[:18], fill="black")
            of_class = split.labels[:, index] == 1 if split.labels.ndim == 2 else split.labels == index
            for place, sample in enumerate(np.flatnonzero(of_class)[:PER_SPLIT]):
                sheet.paste(_picture(split.images[sample]), (left + place * (CELL + 2), top))
    partial = path.with_name(f".{path.name}.partial")
    sheet.save(partial, "PNG")
    os.replace(partial, path)


def _picture(pixels: NDArray[np.uint8]) -> Any:
    from PIL import Image

    flat = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    image = Image.fromarray(flat[:, :, 0] if flat.shape[2] != 3 else flat).convert("RGB")
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
