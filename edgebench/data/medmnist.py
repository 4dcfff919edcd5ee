"""MedMNIST, all 2D and 3D sets (Yang et al. 2023), and any `.npz` in its format.

`medmnist:pathmnist` reads `pathmnist.npz` (or `pathmnist_64.npz`, …) from the
folder `root`, `~/.medmnist` unless stated, checks its published MD5, and
fetches it through the `medmnist` package where it is missing.
`medmnist:/path/own.npz` reads a file of one's own, also with arrays called `x_train` or
alike, channels first, floats of 0…1, one-hot or text labels, labels from 1: what was recognised
is said. Images are [n, h, w], [n, h, w, c] or [n, c, h, w] with 1 or 3 channels, volumes [n, d, h, w], [n, d, h, w, c] or
[n, c, d, h, w]: [n, 28, 28, 3] are images, [n, 28, 28, 28] are volumes. `task` says how to read its labels, `md5` may pin it.
An array of it may take half of this computer's memory, or `max_gib`; large images are unpacked once, into a file of the cache,
and may take half of what is free there.
Arrays `train_texts`, `val_texts` and `test_texts` (strings, one a sample) are what stands beside each image.
Its images stay as they are, or come to `size` by `resize`, `interpolation`, `antialias` or a `preset`, as those of an
image folder do; volumes stay as they are. Names, tasks and sums stand in `medmnist.json`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.data import MAX_CLASSES, SPLITS, Opened, Requirements, Split, int_option, text_option
from edgebench.data._arrays import BY_CHECKSUM, Archive, Header, Limit, open_npz
from edgebench.data._dealing import deal
from edgebench.data._files import open_regular
from edgebench.data._geometry import OPTIONS as GEOMETRY
from edgebench.data._geometry import place_arrays, read_geometry
from edgebench.data._layouts import Layout, aliases, recognised
from edgebench.data._mapped import digest, is_large, kept, parts
from edgebench.data._medmnist import described_set, file_of, sets, write_set
from edgebench.errors import DataError, MissingExtra, UnknownName
from edgebench.schema import SYNTHETIC

OPTIONS = ("source", "root", "task", "md5", "max_gib", *GEOMETRY, SYNTHETIC)
MAX_SIDE = 8192
"""Pixels: a network of that size is made for the images."""
Loaded = tuple[str, tuple[str, ...], Callable[[str], Split]]


def load(options: Mapping[str, str | int | bool]) -> Loaded | Opened:
    """Find the file and check its sum; `DataError` says what is wrong with it."""
    source = text_option(options, "source")
    if source is None:
        raise DataError("medmnist: which set? give --dataset medmnist:pathmnist or medmnist:/path/own.npz")
    if source.endswith(".npz"):
        return _placed(_own(Path(source), options), options)
    placed = next((name for name in GEOMETRY if name != "size" and name in options), None)
    if placed is not None:
        raise DataError(f"medmnist: {source} comes in sizes of its own; leave {placed} out, or give the .npz by its path")
    return _official(source, options)


def _placed(opened: Opened, options: Mapping[str, str | int | bool]) -> Opened:
    """Bring a file's images to a size, where it is asked for."""
    if not any(name in options for name in GEOMETRY):
        return opened
    geometry, _ = read_geometry(options)

    def read(name: str) -> Split:
        split = opened.read(name)
        shape = (len(split), geometry.height, geometry.width, *split.images.shape[3:])
        key = [digest(split.images) if is_large(shape) else "", *astuple(geometry)]

        def made() -> Iterator[NDArray[np.uint8]]:
            return (place_arrays(part, geometry) for part in parts(split.images))

        return replace(split, images=kept(f"{name} at its size", key, shape, made))

    return opened._replace(read=read, geometry=geometry)


def missing(options: Mapping[str, str | int | bool]) -> Path | None:
    """Return the file that `load` would fetch; None where it would fetch none."""
    source = text_option(options, "source")
    if source not in sets():
        return None
    path = _file(source, options)
    return None if path.exists() else path


def location(options: Mapping[str, str | int | bool]) -> Path | None:
    """Return the file that is read."""
    source = text_option(options, "source")
    return None if source is None else Path(source) if source.endswith(".npz") else _file(source, options)


def requirements(options: Mapping[str, str | int | bool]) -> Requirements:
    """Say what is published of one of the sets."""
    root = text_option(options, "root")
    return described_set(*_known(options), None if root is None else str(Path(root).expanduser()))


def synthesize(folder: Path, *, tiny: bool, seed: int, options: Mapping[str, str | int | bool]) -> Mapping[str, Path | str]:
    """Write the `.npz` of one of the sets in a size: arrays of the published names, types and shapes, unpacked."""
    name, size = _known(options)
    write_set(folder / file_of(name, size), name, int(size), tiny=tiny, seed=seed)
    return {"source": name, "root": Path()}


def _file(name: str, options: Mapping[str, str | int | bool]) -> Path:
    root, size = Path(text_option(options, "root") or "~/.medmnist").expanduser(), str(options.get("size", 28))
    return root / file_of(name, size)


def _known(options: Mapping[str, str | int | bool]) -> tuple[str, str]:
    """Return which set is meant, and in which size; `UnknownName` or `DataError` where there is none."""
    known, name, size = sets(), text_option(options, "source"), str(options.get("size", 28))
    if name is None:
        raise DataError("medmnist: which set? give --dataset medmnist:pathmnist or medmnist:/path/own.npz")
    if name not in known:
        raise UnknownName("MedMNIST set", name, known)
    if size not in known[name]["md5"]:
        raise DataError(f"medmnist: {name} comes in sizes {', '.join(known[name]['md5'])}, not {size}")
    return name, size


def _official(name: str, options: Mapping[str, str | int | bool]) -> Loaded:
    _, size = _known(options)
    facts = sets()[name]
    path = _file(name, options)
    if SYNTHETIC in options:
        if not path.is_file():
            raise DataError(f"medmnist: no file {path} of synthetic data; make it anew")
        read = partial(_read, path, _limit(options), facts["task"], len(facts["classes"]))
        return facts["task"], tuple(facts["classes"]), read
    if not path.exists():
        _fetch(name, int(size), path.parent)
    _check(path, text_option(options, "md5") or facts["md5"][size])
    limit = _limit(options) if "md5" in options else BY_CHECKSUM
    return facts["task"], tuple(facts["classes"]), partial(_read, path, limit, facts["task"], len(facts["classes"]))


def _own(path: Path, options: Mapping[str, str | int | bool]) -> Opened:
    if not path.is_file():
        raise DataError(f"medmnist: no file {path}; give a set's name or an .npz in MedMNIST's format")
    if "md5" in options:
        _check(path, str(options["md5"]))
    limit = _limit(options)
    asked = text_option(options, "task")
    if asked is not None:
        tasks.load(asked)
    with open_npz(path, limit) as archive:
        archive.names = aliases(archive.keys())
        header, shown = _label_header(archive, "train"), _image_header(archive, "train")
        ends = None if shown.dtype == np.uint8 else _ends(archive, shown)
        raw = archive.read("train_labels")
        layout, notes = recognised(archive, ends, shown.shape, shown.dtype, raw, asked)
        many = len(header.shape) == 2 and header.shape[1] > 1 and not layout.one_hot
        task = asked or ("multi-label" if many else "multi-class")
        if not tasks.load(task).HEADLINE:
            raise DataError(f"{path}: task={task} judges nothing, so no data set is of it; name another, or leave it out")
        labels = _labels(archive, "train", task, layout)
    count = header.shape[1] if layout.one_hot else tasks.load(task).classes_in(labels)
    classes = layout.texts or tuple(str(index + layout.first) for index in range(count))
    return Opened(task, classes, partial(_read_own, path, limit, task, len(classes), layout), tuple(notes))


def _read_own(path: Path, limit: Limit, task: str, count: int, layout: Layout, name: str) -> Split:
    """Read a split; where there is no val, a part of train is it."""
    if layout.has_val or name == "test":
        return _read(path, limit, task, count, name, layout)
    train = _read(path, limit, task, count, "train", layout)
    labels = train.labels if train.labels.ndim == 1 else np.zeros(len(train), np.int64)
    chosen = np.sort(deal(labels, val=15)[name])
    return train.some(chosen)


def _limit(options: Mapping[str, str | int | bool]) -> Limit:
    return Limit.of(int_option(options, "max_gib", 0, 0, 1 << 20) or None)


def _fetch(name: str, size: int, root: Path) -> None:
    """Let the `medmnist` package download the file."""
    try:
        from edgebench.data._torchvision import load_torchvision

        load_torchvision()  # before medmnist does it
        import medmnist
    except ImportError as error:
        raise MissingExtra(f"{root}/{name}.npz is not there, and downloading it", "torch", "medmnist") from error
    root.mkdir(parents=True, exist_ok=True)
    try:
        cls = getattr(medmnist, medmnist.INFO[name]["python_class"])
        cls(split="test", download=True, root=str(root), size=size)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"medmnist: {root} has no {name}.npz and it could not be downloaded; put the official file there, or give root=FOLDER"
        ) from error


def _check(path: Path, expected: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with open_regular(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path}: its MD5 is {digest.hexdigest()}, the published one {expected}: truncated or another version; fetch it again"
        )


def _image_header(archive: Archive, name: str) -> Header:
    """Read of what kind the images are; `DataError` unless they are uint8 [n, h, w], [n, h, w, c] or [n, d, h, w(, c)]."""
    key = archive.named(f"{name}_images")
    found = archive.header(f"{name}_images", "biufc", mapped=True)
    known = found.dtype == np.uint8 or (found.dtype.kind in "biuf" and found.dtype != np.int8 and bool(archive.names))
    if not known or len(found.shape) not in (3, 4, 5) or not math.prod(found.shape):
        raise DataError(f"{archive.path}: {key} is {found}; uint8 [n, h, w(, c)] is wanted")
    if max(found.shape[1:]) > MAX_SIDE:
        raise DataError(f"{archive.path}: {key} is {found}; a side has {MAX_SIDE} pixels at most; scale or crop the images")
    return found


def _ends(archive: Archive, header: Header) -> tuple[float, float]:
    """Return the least and greatest of train's values; NaN where any is."""
    ends = [(float(part.min()), float(part.max())) for part in archive.parts("train_images", header)]
    return float(np.min([low for low, _ in ends])), float(np.max([high for _, high in ends]))


def _pixels(archive: Archive, name: str, layout: Layout | None) -> NDArray[np.uint8]:
    """Unpack images, as the layout says; large ones once, into a file of the cache."""
    key, place = f"{name}_images", f"{archive.path}: {name}_images"
    header = _image_header(archive, name)
    turned = layout is not None and layout.channels_first and len(header.shape) == layout.rank
    shape = (header.shape[0], *header.shape[2:], header.shape[1]) if turned else header.shape

    def made() -> Iterator[NDArray[np.uint8]]:
        for part in archive.parts(key, header):
            yield part if layout is None else layout.pixels(part, place)

    how = None if layout is None else [layout.channels_first, layout.dtype.str, layout.limits]
    return kept(place, ["npz", *archive.changed(key), how], shape, made)


def _label_header(archive: Archive, name: str) -> Header:
    """Read of what kind the labels are; `DataError` unless there are any, for as many samples as there are images."""
    key = archive.named(f"{name}_labels")
    found, images = archive.header(f"{name}_labels", "biufUS", widest=8), _image_header(archive, name)
    if found.shape[:1] != images.shape[:1] or not math.prod(found.shape):
        raise DataError(f"{archive.path}: {key} is {found} and {name}_images {images}; each image wants its label")
    return found


def _labels(archive: Archive, name: str, task: str, layout: Layout | None = None) -> NDArray[np.int64]:
    """Read labels whose header was looked at: int64, in the form of the task; `DataError` for others."""
    key, found, plugin = archive.named(f"{name}_labels"), _label_header(archive, name), tasks.load(task)
    one_hot = layout is not None and layout.one_hot
    many = f"wants {MAX_CLASSES} labels of an image at most" if math.prod(found.shape[1:]) > MAX_CLASSES else ""
    if lacking := plugin.misshapen(found.shape[:1] if one_hot else found.shape) or many:
        raise DataError(f"{archive.path}: {key} is {found}; {task} {lacking}")
    given = archive.read(f"{name}_labels")
    if layout is not None and (layout.texts is not None or one_hot):
        given = layout.numbers(given, f"{archive.path}: {key}")
    labels = _whole(given, f"{archive.path}: {key}")
    if layout is not None and layout.first:
        labels = layout.numbers(labels, f"{archive.path}: {key}")
    most = plugin.most(MAX_CLASSES)
    outside = labels[(labels < 0) | (labels > most)]
    if outside.size:
        raise DataError(f"{archive.path}: {key} has the label {outside[0]}; labels of {task} go from 0 to {most}; number them so")
    labels = labels.astype(np.int64)
    return labels if plugin.misshapen(labels.shape[:1]) else labels.reshape(-1)  # [n, 1] is [n] where that will do


def _whole(labels: NDArray[Any], place: str) -> NDArray[Any]:
    """Return labels as numbers without fractions; `DataError` for others."""
    try:
        labels = labels.astype(np.int64) if labels.dtype.kind in "US" else labels
    except (ValueError, OverflowError) as error:
        raise DataError(f"{place} holds text that is no whole number; number the classes from 0") from error
    if labels.dtype.kind == "f":
        broken = labels[~np.isfinite(labels) | (labels != np.trunc(labels))]
        if broken.size:
            raise DataError(f"{place} has the label {broken[0]}, which is no whole number; number the classes from 0")
        return labels.astype(np.float64)  # half floats cannot be compared with a large number
    return labels


def _read(path: Path, limit: Limit, task: str, count: int, name: str, layout: Layout | None = None) -> Split:
    if name not in SPLITS:
        raise DataError(f"{path}: no split {name!r}; known: {', '.join(SPLITS)}")
    with open_npz(path, limit) as archive:
        archive.names = {} if layout is None else layout.names
        if _image_header(archive, name).dtype != np.uint8 and (layout is None or layout.limits is None):
            raise DataError(
                f"{path}: {name}_images is {_image_header(archive, name)}; uint8 [n, h, w(, c)] is wanted, as train's are"
            )
        if layout is None or not layout.channels_first or layout.rank == 5:
            _check_sides(archive, name)
        labels = _labels(archive, name, task, layout)
        images = _pixels(archive, name, layout)
        texts = _texts(archive, name, len(images))
    if tasks.wrong(task, labels, count):
        raise DataError(f"{path}: {name}_labels has classes beyond the {count} that train_labels has; move or remove them")
    if images.ndim == 3 or images.shape[-1] not in (1, 3):
        images = images[..., None]
    return Split(images, labels, texts=texts)


def _texts(archive: Archive, name: str, count: int) -> tuple[str, ...] | None:
    """Read what stands beside each image; None where the file has no texts. `DataError` for others than one a sample."""
    held = archive.keys()
    if "train_texts" not in held:
        return None
    found = archive.header(f"{name}_texts", "U")
    if found.shape not in ((count,), (count, 1)):
        raise DataError(f"{archive.path}: {name}_texts is {found} for {count} images; each image wants its text")
    return tuple(str(text) for text in archive.read(f"{name}_texts").reshape(-1))


def _check_sides(archive: Archive, name: str) -> None:
    """Refuse volumes of another size than train's: nothing resizes them."""
    train, found = (_image_header(archive, each).shape for each in ("train", name))
    volumes = any(len(shape) == 5 or (len(shape) == 4 and shape[3] not in (1, 3)) for shape in (train, found))
    if volumes and train[1:] != found[1:]:
        key = archive.named(f"{name}_images")
        what = f"{key} are {list(found[1:])}, and train's are {list(train[1:])}: volumes are not resized"
        raise DataError(f"{archive.path}: {what}; make all of them of one size")
