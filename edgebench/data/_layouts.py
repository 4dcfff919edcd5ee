"""Arrays of one's own, in the layouts that people write: how each one is recognised, and turned into images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data import MAX_CLASSES
from edgebench.data._arrays import Archive
from edgebench.data._dealing import ALIASES
from edgebench.errors import DataError

PARTS = {
    **dict.fromkeys(("images", "image", "x", "data", "imgs", "pixels", "features"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
}
UNREADABLE = "no whole number; number the classes from 0"


def aliases(keys: Sequence[str]) -> dict[str, str]:
    """Find arrays called `x_train`, `train_y`, `test_images` and alike; what each is called in MedMNIST's format → here."""
    found: dict[str, str] = {}
    for key in keys:
        first, _, second = key.lower().partition("_")
        for split, part in ((first, second), (second, first)):
            if split in ALIASES and part in PARTS:
                wanted = f"{ALIASES[split]}_{PARTS[part]}"
                if wanted in found and wanted not in keys and found[wanted] != key:
                    raise DataError(f"{found[wanted]} and {key} are both the {wanted}; keep one of them")
                found[wanted] = wanted if wanted in keys else key
    return found


@dataclass(frozen=True)
class Layout:
    """How a file's arrays are to be read."""

    names: Mapping[str, str]
    channels_first: bool
    dtype: np.dtype[Any]
    limits: tuple[float, float] | None
    """What becomes 0 and 255; None for uint8 as it is."""
    one_hot: bool = False
    texts: tuple[str, ...] | None = None
    first: int = 0
    """The number of the first class."""
    has_val: bool = True
    rank: int = 4
    """How many axes the images have, or the volumes, as they lie in the file."""

    def pixels(self, images: NDArray[Any], place: str) -> NDArray[np.uint8]:
        """Return uint8 [n, h, w, c] or volumes; `DataError` for values beyond train's."""
        if images.dtype != self.dtype and self.limits is not None:
            raise DataError(f"{place} is {images.dtype}, and train's images are {self.dtype}; write all of them as one type")
        found: NDArray[np.uint8] = images if self.limits is None else _scaled(images, self.limits, place)
        if self.channels_first:
            if images.ndim != self.rank:
                wanted = "[n, c, h, w]" if self.rank == 4 else "[n, c, d, h, w]"
                raise DataError(f"{place} has the shape {list(images.shape)}, and train's images are {wanted}")
            return np.ascontiguousarray(np.moveaxis(found, 1, -1))
        return found

    def numbers(self, labels: NDArray[Any], place: str) -> NDArray[Any]:
        """Turn texts and one-hot rows into numbers, and count from 0."""
        if self.texts is not None:
            return _numbered(labels.reshape(-1), self.texts, place)
        if self.one_hot:
            if not _is_one_hot(labels):
                raise DataError(
                    f"{place}: not one 1 in each row, as train's; give the data set option task=multi-label if so meant"
                )
            return np.asarray(labels.argmax(axis=1))
        if self.first and labels.size and labels.min() == 0:
            raise DataError(f"{place} has the label 0, and train's go from 1; number all of them from 0, or all from 1")
        return labels - self.first if self.first else labels


def _scaled(images: NDArray[Any], limits: tuple[float, float], place: str) -> NDArray[np.uint8]:
    low, high = limits
    made = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256], dtype=np.float64)
        if not (part.min() >= low and part.max() <= high):
            raise DataError(
                f"{place} has values from {part.min():g} to {part.max():g}, and train's are of {low:g}…{high:g}; scale them alike"
            )
        made[start : start + 256] = (part - low) / (high - low) * 255 + 0.5
    return made


def _numbered(labels: NDArray[Any], texts: tuple[str, ...], place: str) -> NDArray[np.int64]:
    numbers = {text: index for index, text in enumerate(texts)}
    found = [_text(label) for label in labels]
    stranger = next((text for text in found if text not in numbers), None)
    if stranger is not None:
        raise DataError(f"{place} has the class {stranger[:40]!r}, which train's labels have not; move or remove it")
    return np.array([numbers[text] for text in found], dtype=np.int64)


def _text(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _is_one_hot(labels: NDArray[Any]) -> bool:
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "biuf":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels != 0).sum(axis=1).max() == 1 == (labels != 0).sum(axis=1).min())


def recognised(
    archive: Archive, ends: tuple[float, float] | None, shape: tuple[int, ...], dtype: np.dtype[Any],
    labels: NDArray[Any], task: str | None,
) -> tuple[Layout, list[str]]:  # fmt: skip
    """Find out how train's arrays are written; returns it, and what is to be said of it.

    ends: the least and greatest value of the images, where they are no uint8.
    """
    notes, place = [], f"{archive.path}: {archive.named('train_images')}"
    renamed = {wanted: key for wanted, key in archive.names.items() if wanted != key}
    if renamed:
        notes.append(f"{archive.path}: read {', '.join(f'{key} as {wanted}' for wanted, key in sorted(renamed.items()))}")
    first, form = _form(shape, place)
    if form:
        notes.append(f"{place} has the shape {list(shape)}: read as {form}")
    limits = None if ends is None else _limits(*ends, dtype, place)
    if limits is not None:
        notes.append(f"{place} is {dtype}, of {limits[0]:g}…{limits[1]:g}: scaled to 0…255")
    key = f"{archive.path}: {archive.named('train_labels')}"
    layout = Layout(archive.names, first, dtype, limits, has_val="val_images" in archive.names, rank=len(shape))
    if not layout.has_val:
        notes.append(f"{archive.path} has no val_images: 15 % of each class of train's are it")
    found, told = _recognised_labels(labels, task, key)
    return Layout(**{**vars(layout), **found}), [*notes, *told]


def _form(shape: tuple[int, ...], place: str) -> tuple[bool, str]:
    """Tell images from volumes by a shape; returns whether channels are first, and as what it is read where that is to be said.

    An image has 1 or 3 channels, at the end or before its rows: any other [n, a, b, c] is of volumes of one channel.
    """
    if len(shape) == 5:
        if shape[4] in (1, 3):
            return False, ""
        if shape[1] in (1, 3):
            return True, f"volumes [n, c, d, h, w] of {_slices(shape[2:])}"
        raise DataError(
            f"{place} has the shape {list(shape)}: volumes have 1 or 3 channels, at the end or after n; write them so"
        )
    if len(shape) != 4 or shape[3] in (1, 3):
        return False, ""
    if shape[1] in (1, 3) and shape[2] > 4:
        return True, "[n, c, h, w]"
    few = next((count for count in (4, 2) if count in (shape[1], shape[3])), None)
    if few is not None:
        remedy = "leave transparency out, or make it RGB" if few == 4 else "images have 1 or 3"
        raise DataError(
            f"{place} has the shape {list(shape)}: images of {few} channels; {remedy}; write volumes as [n, d, h, w, 1]"
        )
    return False, f"volumes [n, d, h, w] of {_slices(shape[1:])}; images would have 1 or 3 channels"


def _slices(sides: tuple[int, ...]) -> str:
    return f"{sides[0]} slices of {sides[1]} × {sides[2]}"


def _recognised_labels(labels: NDArray[Any], task: str | None, key: str) -> tuple[dict[str, Any], list[str]]:
    if labels.dtype.kind in "US" and not all(_text(label).strip().lstrip("+-").isdecimal() for label in labels.reshape(-1)):
        if labels.size != len(labels):
            raise DataError(f"{key} holds text of the shape {list(labels.shape)}; one class's name for each image is wanted")
        texts = tuple(sorted({_text(label) for label in labels.reshape(-1)}))
        if len(texts) > MAX_CLASSES:
            raise DataError(f"{key} names {len(texts)} classes, more than {MAX_CLASSES}; number them, or leave some out")
        if not all(text.isprintable() and text for text in texts):
            raise DataError(f"{key} has a class whose name cannot be printed; name it otherwise")
        return {"texts": texts}, [f"{key} holds names: {len(texts)} classes by their letters, {', '.join(texts[:4])}…"]
    if task is None and _is_one_hot(labels):
        return {"one_hot": True}, [f"{key} has one 1 in each row: one class of {labels.shape[1]} (or give task=multi-label)"]
    alone = labels.size == len(labels) and task in (None, "multi-class", "binary", "ordinal")
    if alone and labels.dtype.kind in "iuf" and labels.size and labels.min() == 1:
        return {"first": 1}, [f"{key} goes from 1 to {int(labels.max())}: class 1 is the first"]
    return {}, []


def _limits(low: float, high: float, dtype: np.dtype[Any], place: str) -> tuple[float, float]:
    """Find out of what range images are that are no uint8; `DataError` where nothing tells."""
    if low >= 0:
        if dtype.kind in "bf" and high <= 1:
            return 0.0, 1.0
        if high <= 255:
            return 0.0, 255.0
        if dtype == np.uint16:
            return 0.0, 65535.0
    raise DataError(
        f"{place} is {dtype} with values from {low:g} to {high:g}; uint8, or values of 0…1 or 0…255, are wanted: scale them so"
    )
