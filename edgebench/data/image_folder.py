"""A folder of images: `train/val/test`, each with a folder per class, or class folders alone.

Splits may be called `valid`, `validation`, `dev`, `testing`, in any capitals; without `val`, a part of train
becomes it. Class folders alone are dealt out by the options `val` and `test` (percent, 15 each unless stated),
stratified, with a fixed seed. `labels=FILE` is a CSV (file, label, split) instead, or a data.yaml; a column `text` of the
CSV is what stands beside each image.

Classes stand in the order of their letters; `sort=natural` orders numbers in names by value, `classes=FILE` says the
order, as `names` in a `data.yaml` beside the images does. `empty=allow` lets a split lack a class.

Images come to `size` (224, or 192x256) by `resize` (fit unless given; see `agent/runtimes/preprocess.py`),
`interpolation` and `antialias`, or all of that by `preset`. They are turned by EXIF unless `exif=ignore`, laid on
`background` (white, black, RRGGBB; none drops transparency), and 16 bits are scaled, by `range=LOW:HIGH` if given.

Symbolic links are followed within the folder alone. An image may have
`max_pixels`, a split's pixels may take `max_gib` once they are scaled: half of this computer's memory, or of the disk
that is free for its cache, unless given. Large splits are decoded once, into a file of the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.data import MAX_CLASSES, SPLITS, Opened, Split, int_option, text_option
from edgebench.data._dealing import ALIASES, deal
from edgebench.data._files import GIB, inside, memory_bytes
from edgebench.data._folders import Found, class_folders, images, splits
from edgebench.data._geometry import OPTIONS as GEOMETRY
from edgebench.data._geometry import read_geometry
from edgebench.data._images import MAX_PIXELS, Reading, pixel_limit, read_image
from edgebench.data._labels import ambiguous, class_names, in_order, ordered, read_yaml, table
from edgebench.data._mapped import is_large, kept, room
from edgebench.errors import DataError

OPTIONS = (
    *("source", "val", "test", "channels", "max_pixels", "max_gib", "labels", "classes", "sort", "empty"),
    *("exif", "background", "range", *GEOMETRY),
)
BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
Options = Mapping[str, str | int | bool]
Files = list[tuple[Path, int]]
Labelled = list[tuple[Path, str]]
Deal = Callable[[Path, dict[str, Files], Options, list[str]], dict[str, Files]]


def load(options: Options, deal: Deal | None = None) -> Opened:
    """List the files; `DataError` names a folder without images, and later an image that cannot be read.

    `deal` puts files into splits where that is not by percentages.
    """
    source = text_option(options, "source")
    if source is None:
        raise DataError("image-folder: which folder? give --dataset image-folder:/path/to/folder")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(f"image-folder: {root} is not a folder; give the folder that holds train/, val/ and test/")
    geometry, chosen = read_geometry(options)
    channels = int_option(options, "channels", 3, 1, 4)
    how = Reading(
        geometry,
        channels,
        int_option(options, "max_pixels", MAX_PIXELS, 1, 1 << 31),
        _word(options, "exif", ("apply", "ignore")) != "ignore",
        _background(options),
        _range(options),
    )
    allowed = GIB * int_option(options, "max_gib", 0, 0, 1 << 20) or memory_bytes() // 2
    home, found = root.resolve(), Found()
    notes: list[str] = []
    texts: dict[Path, str] = {}
    labelled, folders = _listed(root, home, options, found, texts)
    classes = _classes(root, folders, options, notes)
    used = {"data.yaml", "manifest.csv", *(Path(str(options[key])).name for key in ("classes", "labels") if key in options)}
    found.others = [path for path in found.others if path.name not in used]
    strangers = [(path, name) for name in SPLITS for path, label in labelled.get(name, []) if label not in classes]
    if strangers:
        path, name = strangers[0]
        raise DataError(f"image-folder: {path}: its class is not among those of train ({name} has it alone); rename or move it")
    files = {name: [(path, classes.index(label)) for path, label in pairs] for name, pairs in labelled.items()}
    files = (deal or _dealt)(root, files, options, notes)
    allow = _word(options, "empty", ("refuse", "allow")) == "allow"
    notes += _check_files(root, files, classes, allow)
    for name, listed in files.items():
        takes = len(listed) * geometry.height * geometry.width * (1 if channels == 1 else 3)
        if takes > max(allowed, 0 if "max_gib" in options else room()):
            raise DataError(
                f"image-folder: {root}: the {name} split takes {takes / GIB:.1f} GiB at "
                f"size={geometry.height}, more than "
                f"{allowed / GIB:.1f} GiB; give a smaller size, or allow it by the option max_gib={-(-takes // GIB)}"
            )
    return Opened(
        "binary" if len(classes) == 2 else "multi-class",
        classes,
        partial(_read, files, texts, home, how),
        (*notes, *found.told(root)),
        lambda name: [path for path, _ in files[name]],
        found.passed,
        geometry if chosen else None,
    )


def _word(options: Options, key: str, words: Sequence[str]) -> str:
    value = str(options.get(key, words[0]))
    if value not in words:
        raise DataError(f"--dataset: {key}={value} is none of {', '.join(words)}; give one of them, or leave it out")
    return value


def _background(options: Options) -> tuple[int, int, int] | None:
    text = str(options.get("background", "white"))
    if text in BACKGROUNDS or text == "none":
        return BACKGROUNDS.get(text)
    if not re.fullmatch("[0-9a-fA-F]{6}", text):
        raise DataError(f"--dataset: background={text} is none of white, black, none and RRGGBB; give one of them")
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def _range(options: Options) -> tuple[float, float] | None:
    text = text_option(options, "range")
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise DataError(f"--dataset: range={text} is not LOW:HIGH, for instance range=0:4095")
    return low, high


# ---------------------------------------------------------------- files and classes


def _listed(
    root: Path, home: Path, options: Options, found: Found, texts: dict[Path, str]
) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """List files with their class's name by split (`""`: not said), and train's classes; `texts` takes what a table has."""
    labels = text_option(options, "labels")
    if labels is None:
        named = splits(root, home, found)
    else:
        path = Path(labels) if Path(labels).is_file() else root / labels
        if path.suffix.lower() not in (".yaml", ".yml"):
            return _from_table(path, root, home, texts)
        named = _from_yaml(path, root, home)
    if not named:
        return _labelled({"": root}, home, found)
    return _labelled(named, home, found)


def _labelled(named: Mapping[str, Path], home: Path, found: Found) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    listed: dict[str, Labelled] = {}
    first = "train" if "train" in named else ""
    classes = tuple(path.name for path in class_folders(named[first], home, Found()))
    if len(classes) < 2:
        hint = f"; give {named[first] / classes[0]}, if the classes lie there" if len(classes) == 1 else ""
        raise DataError(
            f"image-folder: {named[first]} holds {len(classes)} class folders; it needs two at least, with images{hint}"
        )
    for split, folder in named.items():
        listed[split] = []
        for place in class_folders(folder, home, found):
            if place.name not in classes:
                raise DataError(f"image-folder: {place}: no class of that name in train/; rename or move it")
            listed[split] += [(path, place.name) for path in images(place, home, found)]
    return listed, classes


def _from_yaml(path: Path, root: Path, home: Path) -> dict[str, Path]:
    """Find the folders that a data.yaml names for the splits."""
    named = {}
    for key, value in read_yaml(path).items():
        split = ALIASES.get(str(key).lower())
        if split is None or not isinstance(value, str):
            continue
        folder = root / value
        if ".." in Path(value).parts or Path(value).is_absolute() or not inside(folder, home).is_dir():
            raise DataError(f"{path}: {key}: {value} is no folder within {root}; write it from there on")
        named[split] = folder
    if not {"train", "test"} <= set(named):
        raise DataError(f"{path}: names no folder for {'test' if 'train' in named else 'train'}; write train: and test:")
    return named


def _from_table(path: Path, root: Path, home: Path, texts: dict[Path, str]) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    listed: dict[str, Labelled] = {}
    for file, label, split, text in table(path, root):
        if not inside(file, home).is_file() or not file.resolve().is_relative_to(home):
            raise DataError(f"{path}: {file} is no file within {root}; put it there, or remove the line")
        listed.setdefault(split or "", []).append((file, label))
        if text is not None:
            texts[file] = text
    if len(listed) > 1 and not {"train", "test"} <= set(listed):
        raise DataError(f"{path}: says of some files that they are {', '.join(filter(None, listed))}; it wants train and test")
    return listed, tuple({label: None for _, label in listed.get("train", listed.get("", []))})


def _classes(root: Path, names: Sequence[str], options: Options, notes: list[str]) -> tuple[str, ...]:
    """Put the classes into their order: the user's, that of a data.yaml, or by their letters."""
    if len(names) > MAX_CLASSES:
        raise DataError(f"image-folder: {root} holds {len(names)} class folders, more than {MAX_CLASSES}; leave some out")
    given, sort, beside = text_option(options, "classes"), str(options.get("sort", "name")), root / "data.yaml"
    usual = ordered(names, sort)
    if given is not None:
        path = Path(given) if Path(given).is_file() else root / given
        wanted = class_names(path)
    elif (path := beside).is_file() and read_yaml(beside).get("names"):
        wanted = in_order(read_yaml(beside)["names"], beside)
    else:
        hint = ambiguous(names) if "sort" not in options else None
        notes += [hint] if hint else []
        return usual
    missing = sorted(set(names) ^ set(wanted))
    if missing:
        where = "stands in it and has no images in train" if missing[0] in wanted else "has images and does not stand in it"
        raise DataError(f"{path}: the class {missing[0]!r} {where}; the file and the folders must have the same classes")
    if given is None and wanted != usual:
        notes.append(f"the classes are in the order of {path}: {', '.join(wanted[:3])}, …")
    return wanted


# ---------------------------------------------------------------- splits


def _dealt(root: Path, files: dict[str, Files], options: Options, notes: list[str]) -> dict[str, Files]:
    """Deal out what belongs to no split, or a part of train where there is no val."""
    if set(files) == set(SPLITS):
        return {name: files[name] for name in SPLITS}
    val, test = int_option(options, "val", 15, 0, 100), int_option(options, "test", 15, 0, 100)
    if not (val > 0 and test > 0 and val + test < 100):
        raise DataError(f"image-folder: val={val} and test={test} are percentages and must leave some for training")
    whole = files.get("", files.get("train", []))
    labels = np.array([label for _, label in whole], dtype=np.int64)
    parts = deal(labels, val=val) if "train" in files else deal(labels, test=test, val=val)
    made = {name: [whole[index] for index in indices] for name, indices in parts.items()}
    if "train" in files:
        notes.append(f"{root} has no val/: {len(made['val'])} of train's {len(whole)} images are it ({val} % of each class)")
    return {name: made.get(name, files.get(name, [])) for name in SPLITS}


def _check_files(root: Path, files: Mapping[str, Files], classes: Sequence[str], allow: bool) -> list[str]:
    """Refuse a split without images, or without some class; returns what is said of classes that may be missing."""
    notes = []
    for name, listed in files.items():
        if not listed:
            raise DataError(
                f"image-folder: {root}: no JPEG or PNG file, nor any other image, for the {name} split; "
                "add some, a folder per class"
            )
        empty = [classes[index] for index in sorted(set(range(len(classes))) - {label for _, label in listed})]
        if empty and not allow:
            raise DataError(
                f"image-folder: {root}: the class {empty[0]!r} has no image in the {name} split; "
                "add some, or allow it by the option empty=allow"
            )
        notes += [f"{root}: the {name} split lacks {', '.join(empty[:5])}"] if empty else []
    return notes


def _read(files: dict[str, Files], texts: Mapping[Path, str], home: Path, how: Reading, name: str) -> Split:
    real = [inside(path, home) for path, _ in files[name]]
    shape = (len(real), how.geometry.height, how.geometry.width, 1 if how.channels == 1 else 3)

    def made() -> Iterator[NDArray[np.uint8]]:
        with pixel_limit(how.max_pixels):
            for (path, _), place in zip(files[name], real, strict=True):
                yield read_image(path, place, how)[None]

    key = ["image-folder", repr(how), *_changes(real)] if is_large(shape) else []
    pixels = kept(f"{home} {name}", key, shape, made)
    labels = np.array([label for _, label in files[name]], dtype=np.int64)
    return Split(pixels, labels, texts=tuple(texts[path] for path, _ in files[name]) if texts else None)


def _changes(paths: Sequence[Path]) -> list[list[str | int]]:
    """Tell files as they are now: where each lies, how large it is, and when it was changed."""
    return [[str(path), (told := path.stat()).st_size, told.st_mtime_ns] for path in paths]
