"""Data sets: uint8 images, labels, texts where there are such, the task, class names, and the hash of each split."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebench import plugins, tasks
from edgebench.data._dealing import subset
from edgebench.data._files import described
from edgebench.data._mapped import chosen, parts
from edgebench.data._named import NamedData, Requirements, mark_of, requirements, synthesize, told
from edgebench.errors import DataError, DataWarning, EdgebenchError
from edgebench.schema import SYNTHETIC, DatasetRef

__all__ = [
    "MAX_CLASSES",
    "ORDER",
    "SPLITS",
    "Dataset",
    "Geometry",
    "NamedData",
    "Opened",
    "Requirements",
    "Split",
    "int_option",
    "open_dataset",
    "open_images",
    "open_offline",
    "requirements",
    "synthesize",
    "text_option",
]

SPLITS = ("train", "val", "test")
ORDER = "classes"
"""An option of every data set: a file that says the order of the classes."""
LIMIT = "limit"
"""An option of every data set: at most so many samples of each split, each class in its share."""
MAX_CLASSES = 100_000
"""Of any data set; a stray label must not become as many classes as its number is large."""


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    images: uint8 [n, h, w, c], or [n, d, h, w, c] for volumes; mapped from a file where they are large, so look at
    them part by part (`_mapped.parts`), or at some by their indices.
    labels: int64, in the form of the data set's task: [n], or [n, labels] of 0 and 1 for multi-label.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    """Whose each sample is [n]: a number for each patient that says nothing of whom; None where nobody knows."""
    texts: tuple[str, ...] | None = None
    """What stands beside each image; None where the data set has no texts."""

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.images)

    def some(self, indices: NDArray[np.intp]) -> Split:
        """Take samples by their indices."""
        groups = None if self.groups is None else self.groups[indices]
        texts = None if self.texts is None else tuple(self.texts[index] for index in indices)
        return Split(chosen(self.images, indices), self.labels[indices], groups, texts)

    @cached_property
    def sha256(self) -> str:
        """Hash images and labels with their shapes, and whose they are and what stands beside them where that is known."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels) if self.groups is None else (self.images, self.labels, self.groups):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            for part in parts(array):  # a copy may not fit beside it
                digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        if self.texts is not None:
            digest.update(json.dumps(self.texts).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Geometry:
    """How images came to their size, and what their library normalises them with; words as in `schema.Preprocessing`."""

    height: int
    width: int
    resize: str = "fit"
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Opened(NamedTuple):
    """What a data set's `load(options)` returns; the first three are enough."""

    task: str
    classes: tuple[str, ...]
    read: Callable[[str], Split]
    notes: tuple[str, ...] = ()
    """What its user may not expect: what was left out, split off, recognised."""
    files: Callable[[str], Sequence[Path]] | None = None
    """A split's files, in the order of its samples."""
    passed: int = 0
    """How many hidden files and those of tools were passed over."""
    geometry: Geometry | None = None
    """How its images were brought to their size, where the user said so."""


@dataclass(frozen=True)
class Dataset:
    """A data set whose splits are read when they are first asked for."""

    ref: DatasetRef
    task: str
    classes: tuple[str, ...]
    read: Callable[[str], Split]
    notes: tuple[str, ...] = ()
    files: Callable[[str], Sequence[Path]] | None = None
    passed: int = 0
    geometry: Geometry | None = None
    at_hand: set[str] = field(default_factory=set)
    """The splits that were read."""
    indices: NDArray[np.intp] | None = None
    """Which samples of the test split its own are, where it has some of them alone."""

    @property
    def volume(self) -> tuple[int, int, int] | None:
        """Return depth, height and width of its volumes; None where it holds images."""
        sides = self.read("test").images.shape[1:-1]
        return None if len(sides) != 3 else (sides[0], sides[1], sides[2])

    def hashes(self) -> dict[str, str]:
        """Hash every split."""
        return {name: self.read(name).sha256 for name in SPLITS}

    def sampled(self, count: int, seed: int) -> Dataset:
        """Return the same data with so many samples of the test split, each class in its share; all where there are no more."""
        test = self.read("test")
        if count >= len(test):
            return self
        indices = subset(test.labels, count, seed)
        some, files = test.some(indices), self.files
        return replace(
            self,
            indices=indices,
            read=lambda name: some if name == "test" else self.read(name),
            files=files and (lambda name: [files(name)[index] for index in indices] if name == "test" else files(name)),
        )

    def judged_on(self, split: Split) -> Dataset:
        """Return the same classes with these samples alone, for what is judged on no whole split."""
        return replace(self, read=lambda _: split)


def open_dataset(ref: DatasetRef) -> Dataset:
    """Open a data set by name, marked in its `ref` where it is synthetic; `DataError` where it is not what it claims."""
    plugin = plugins.load("edgebench.data", ref.name, "data set")
    known = {*plugin.OPTIONS, ORDER, LIMIT, SYNTHETIC}
    unknown = sorted(set(ref.options) - known)
    if unknown:
        raise DataError(f"{ref.name}: unknown option {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}")
    with _one_line(ref):
        mark = mark_of(plugin, ref.options)
    if mark is not None:
        ref = ref.model_copy(update={"options": {**ref.options, SYNTHETIC: str(mark["form"])}})
    ours = {ORDER, LIMIT, SYNTHETIC} - set(plugin.OPTIONS)
    with _one_line(ref):
        opened = Opened(*plugin.load({key: value for key, value in ref.options.items() if key not in ours}))
        opened = opened if mark is None else opened._replace(notes=(told(mark), *opened.notes))
        if ORDER in ours & set(ref.options):
            from edgebench.data._order import in_order_of

            opened = in_order_of(opened, str(ref.options[ORDER]), ref)
        if LIMIT in ours & set(ref.options):
            opened = _limited(opened, int_option(ref.options, LIMIT, 0, 1, 1 << 40))
    if not tasks.load(opened.task).HEADLINE:
        raise DataError(f"{ref}: is of the task {opened.task}, which judges nothing; name another task")
    for note in opened.notes:
        warnings.warn(f"{ref.name}: {note}", DataWarning, stacklevel=2)
    at_hand: set[str] = set()
    read = cache(partial(_read, ref, opened.task, len(opened.classes), opened.read, at_hand))
    return Dataset(ref, **{**opened._asdict(), "read": read}, at_hand=at_hand)


def _limited(opened: Opened, most: int) -> Opened:
    """Leave each split so many samples at most, always the same ones; all are read to choose them."""
    read, files = cache(opened.read), opened.files

    def indices(name: str) -> NDArray[np.intp]:
        return subset(read(name).labels, most, 0)

    return opened._replace(
        read=lambda name: read(name).some(indices(name)),
        files=files and (lambda name: [files(name)[index] for index in indices(name)]),
    )


def _read(ref: DatasetRef, task: str, classes: int, read: Callable[[str], Split], at_hand: set[str], name: str) -> Split:
    with _one_line(ref):
        split = read(name)
        if wrong := tasks.wrong(task, split.labels, classes):
            raise DataError(f"{ref}: its {name} split is not of the task {task} with {classes} classes: {wrong}")
        at_hand.add(name)
        return split


@contextmanager
def _one_line(ref: DatasetRef) -> Iterator[None]:
    """Turn whatever a library raises on a data set's files into `DataError`, with the error's kind."""
    try:
        yield
    except EdgebenchError:
        raise
    except Exception as error:
        raise DataError(f"{ref}: cannot be read ({described(error)}); look at its files, or choose another data set") from error


def open_images(ref: DatasetRef) -> Dataset:
    """Open a data set and read its test split: images [n, h, w, c] or volumes [n, d, h, w, c]; `DataError` for anything else."""
    dataset = open_dataset(ref)
    shape = dataset.read("test").images.shape
    if len(shape) not in (4, 5):
        raise DataError(f"{ref}: holds {list(shape[1:])}, and networks take images [h, w, c] or volumes [d, h, w, c]; write such")
    return dataset


def open_offline(ref: DatasetRef) -> Dataset:
    """Open a data set of images or volumes that is on this computer; `DataError` where it would have to be fetched."""
    plugin = plugins.load("edgebench.data", ref.name, "data set")
    with _one_line(ref):
        missing = plugin.missing(ref.options) if hasattr(plugin, "missing") else None
    if missing is not None:
        raise DataError(f"{ref}: {missing} is not on this computer, and nothing is downloaded here; fetch the data set first")
    return open_images(ref)


def text_option(options: Mapping[str, str | int | bool], key: str) -> str | None:
    """Read an option as text."""
    return str(options[key]) if key in options else None


def int_option(options: Mapping[str, str | int | bool], key: str, default: int, least: int, most: int) -> int:
    """Read an option as a whole number from `least` to `most`; `DataError` where it is none."""
    value = options.get(key, default)
    value = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DataError(f"--dataset: {key}={value} is no whole number from {least} to {most}; give such a one, or leave it out")
    return value
