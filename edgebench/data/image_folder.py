"""A folder of JPEG or PNG files: `train/val/test`, each with a folder per class.

Without those three, the class folders themselves are split by the options
`val` and `test` (percent, 15 each unless stated), stratified, with a fixed seed.

Symbolic links are followed within the folder alone. An image may have
`max_pixels`, a split's pixels may take `max_gib` of memory once they are scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from edgebench.data import MAX_CLASSES, SPLITS, Split, int_option, text_option
from edgebench.data._files import GIB, inside, memory_bytes
from edgebench.data._images import MAX_PIXELS, MAX_SIDE, pixel_limit, read_image
from edgebench.errors import DataError

OPTIONS = ("source", "size", "val", "test", "channels", "max_pixels", "max_gib")
ENDINGS = {".jpg", ".jpeg", ".png"}
Files = list[tuple[Path, int]]


def load(options: Mapping[str, str | int | bool]) -> tuple[str, tuple[str, ...], Callable[[str], Split]]:
    """List the files; `DataError` names a folder without images, and later an image that cannot be read."""
    source = text_option(options, "source")
    if source is None:
        raise DataError("image-folder: which folder? give --dataset image-folder:/path/to/folder")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(f"image-folder: {root} is not a folder; give the folder that holds train/, val/ and test/")
    size, channels = int_option(options, "size", 224, 1, MAX_SIDE), int_option(options, "channels", 3, 1, 4)
    max_pixels = int_option(options, "max_pixels", MAX_PIXELS, 1, 1 << 31)
    allowed = GIB * int_option(options, "max_gib", 0, 0, 1 << 20) or memory_bytes() // 2
    home = root.resolve()
    given = all((root / name).is_dir() for name in SPLITS)
    classes = _classes(root / "train" if given else root, home)
    files = {name: _files(root / name, classes, home) for name in SPLITS} if given else _split(root, classes, options)
    for name, chosen in files.items():
        if not chosen:
            raise DataError(f"image-folder: {root}: no JPEG or PNG file for the {name} split; add some, a folder per class")
        takes = len(chosen) * size * size * (1 if channels == 1 else 3)
        if takes > allowed:
            raise DataError(
                f"image-folder: {root}: the {name} split takes {takes / GIB:.1f} GiB at size={size}, more than "
                f"{allowed / GIB:.1f} GiB; give a smaller size, or allow it by the option max_gib={-(-takes // GIB)}"
            )
    read = partial(_read, files, home, (size, channels, max_pixels))
    return ("binary" if len(classes) == 2 else "multi-class"), classes, read


def _classes(folder: Path, home: Path) -> tuple[str, ...]:
    folder = inside(folder, home)
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise DataError(f"image-folder: {folder} holds {len(classes)} class folders; it needs two at least, with images")
    if len(classes) > MAX_CLASSES:
        raise DataError(f"image-folder: {folder} holds {len(classes)} class folders, more than {MAX_CLASSES}; leave some out")
    return classes


def _files(folder: Path, classes: tuple[str, ...], home: Path) -> Files:
    folder = inside(folder, home)
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in classes)
    if strangers:
        raise DataError(f"image-folder: {folder / strangers[0]}: no class of that name in train/; rename or move it")
    return [
        (path, index)
        for index, name in enumerate(classes)
        for path in sorted(inside(folder / name, home).glob("*"))
        if path.suffix.lower() in ENDINGS
    ]


def _split(root: Path, classes: tuple[str, ...], options: Mapping[str, str | int | bool]) -> dict[str, Files]:
    """Deal every class out by the stated percentages, in an order that a seed fixes."""
    val, test = int_option(options, "val", 15, 0, 100), int_option(options, "test", 15, 0, 100)
    if not (val > 0 and test > 0 and val + test < 100):
        raise DataError(f"image-folder: val={val} and test={test} are percentages and must leave some for training")
    every = _files(root, classes, root.resolve())
    dealt: dict[str, Files] = {name: [] for name in SPLITS}
    for index in range(len(classes)):
        mine = [item for item in every if item[1] == index]
        order = np.random.default_rng(index).permutation(len(mine))
        first, second = -(-len(mine) * test // 100), -(-len(mine) * val // 100)
        for name, part in zip(("test", "val", "train"), np.split(order, [first, first + second]), strict=True):
            dealt[name] += [mine[position] for position in sorted(part)]
    return dealt


def _read(files: dict[str, Files], home: Path, asked: tuple[int, int, int], name: str) -> Split:
    size, channels, max_pixels = asked
    images = np.empty((len(files[name]), size, size, 1 if channels == 1 else 3), dtype=np.uint8)
    with pixel_limit(max_pixels):
        for index, (path, _) in enumerate(files[name]):
            images[index] = read_image(path, inside(path, home), size, channels, max_pixels)
    return Split(images, np.array([label for _, label in files[name]], dtype=np.int64))
