"""A folder of JPEG or PNG files: `train/val/test`, each with a folder per class.

Without those three, the class folders themselves are split by the options
`val` and `test` (percent, 15 each unless stated), stratified, with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.data import SPLITS, Split, text_option
from edgebench.errors import DataError
from edgebench.schema import Task

OPTIONS = ("source", "size", "val", "test", "channels")
ENDINGS = {".jpg", ".jpeg", ".png"}
Files = list[tuple[Path, int]]


def load(options: Mapping[str, str | int | bool]) -> tuple[Task, tuple[str, ...], Callable[[str], Split]]:
    """List the files; `DataError` names a folder without images, and later an image that cannot be read."""
    source = text_option(options, "source")
    if source is None:
        raise DataError("image-folder: which folder? give --dataset image-folder:/path/to/folder")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(f"image-folder: {root} is not a folder; give the folder that holds train/, val/ and test/")
    given = all((root / name).is_dir() for name in SPLITS)
    classes = _classes(root / "train" if given else root)
    files = {name: _files(root / name, classes) for name in SPLITS} if given else _split(root, classes, options)
    for name, chosen in files.items():
        if not chosen:
            raise DataError(f"image-folder: {root}: no JPEG or PNG file for the {name} split; add some, a folder per class")
    size, channels = int(options.get("size", 224)), int(options.get("channels", 3))
    return ("binary" if len(classes) == 2 else "multi-class"), classes, partial(_read, files, size, channels)


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise DataError(f"image-folder: {folder} holds {len(classes)} class folders; it needs two at least, with images")
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in classes)
    if strangers:
        raise DataError(f"image-folder: {folder / strangers[0]}: no class of that name in train/; rename or move it")
    return [
        (path, index)
        for index, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in ENDINGS
    ]


def _split(root: Path, classes: tuple[str, ...], options: Mapping[str, str | int | bool]) -> dict[str, Files]:
    """Deal every class out by the stated percentages, in an order that a seed fixes."""
    val, test = int(options.get("val", 15)), int(options.get("test", 15))
    if not (val > 0 and test > 0 and val + test < 100):
        raise DataError(f"image-folder: val={val} and test={test} are percentages and must leave some for training")
    every = _files(root, classes)
    dealt: dict[str, Files] = {name: [] for name in SPLITS}
    for index in range(len(classes)):
        mine = [item for item in every if item[1] == index]
        order = np.random.default_rng(index).permutation(len(mine))
        first, second = -(-len(mine) * test // 100), -(-len(mine) * val // 100)
        for name, part in zip(("test", "val", "train"), np.split(order, [first, first + second]), strict=True):
            dealt[name] += [mine[position] for position in sorted(part)]
    return dealt


def _read(files: dict[str, Files], size: int, channels: int, name: str) -> Split:
    images = np.stack([_image(path, size, channels) for path, _ in files[name]])
    return Split(images, np.array([label for _, label in files[name]], dtype=np.int64))


def _image(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Read one image, scale its shorter side to `size`, and cut out the middle."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable JPEG or PNG ({error}); replace or remove it") from error
    pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels[:, :, None] if channels == 1 else pixels
