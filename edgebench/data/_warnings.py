"""What of a data set makes numbers doubtful: samples of test that stand in train too, classes that a split lacks, few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgebench.data import SPLITS, Dataset, Split
from edgebench.data._doubles import Duplicates, duplicates
from edgebench.errors import DataError, written
from edgebench.schema import Warned

FEW = 200
"""With fewer test samples an accuracy is uncertain by several points: 3.5 with 200, at 90 % (Wilson's interval is ± 4)."""
SHOWN = 5
QUICKLY_READ = 1000
"""Image files of a training split that is read for its duplicates alone."""
QUICK_BYTES = 64 << 20
"""Of a test split in arrays, whose training split is read so."""
MOST = 20_000
"""Samples among which near duplicates are looked for beside other work."""
_known: dict[tuple[str, str], tuple[Duplicates, ...]] = {}


def of_data(data: Dataset) -> list[Warned]:
    """Warn of duplicates, missing classes and few samples.

    A training split of many image files, or of large arrays, that nothing else has read is not read for it, and among many
    samples only exact duplicates are found; both is said. `edgebench data` looks at all.
    """
    test, unread = data.read("test"), ""
    if len(data.files("train")) <= QUICKLY_READ if data.files is not None else test.images.nbytes <= QUICK_BYTES:
        try:
            data.read("train")
        except DataError as error:  # what was measured on test stands without it
            unread = written(error)
    read = {name: data.read(name) for name in SPLITS if name in data.at_hand}
    found = [*missing({name: by_class(split, data.classes) for name, split in read.items()}), *few(len(test))]
    found += shared_patients(read)
    elsewhere = f"`edgebench data {data.ref}` does"
    if "train" not in read:
        large = "arrays as large as these" if data.files is None else f"{len(data.files('train'))} files"
        told = f"whether test images stand in train too was not looked at ({unread or large})"
        return [*found, Warned(kind="duplicates", text=f"{told}: {elsewhere}")]
    train, near = read["train"], len(read["train"]) + len(test) <= MOST
    key = train.sha256, test.sha256
    if key not in _known:
        _known[key] = duplicates(data, {"train": train, "test": test}, near)
    found += shared(_known[key])
    if test.images.ndim == 5:
        return [*found, *of_volumes()]
    if not near:
        told = f"near duplicates of test in train were not looked for among {len(train) + len(test)} samples"
        found.append(Warned(kind="duplicates", text=f"{told}: {elsewhere}"))
    return found


def of_volumes() -> list[Warned]:
    """Warn that of volumes exact duplicates alone are found."""
    told = "near duplicates of test in train are not looked for among volumes, exact ones alone"
    return [Warned(kind="duplicates", text=told)]


def by_class(split: Split, classes: Sequence[str]) -> dict[str, int]:
    """Count a split's samples by class."""
    labels = split.labels
    found = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(classes))
    return dict(zip(classes, map(int, found), strict=False))


def shared(found: Sequence[Duplicates]) -> list[Warned]:
    """Warn of what stands in the test split and in another."""
    told = []
    for each in found:
        if each.first != each.second and "test" in (each.first, each.second):
            other = each.second if each.first == "test" else each.first
            what = f"{each.exact} test images stand in {other} too, and {each.near} nearly"
            example = f"for instance {' and '.join(each.examples[0])}"
            told.append(Warned(kind="duplicates", text=f"{what}: a metric on them says little of new images; {example}"))
    return told


def shared_patients(splits: Mapping[str, Split]) -> list[Warned]:
    """Warn of patients who have samples in the test split and in another."""
    test, told = splits["test"].groups, []
    for name, split in splits.items():
        if name == "test" or test is None or split.groups is None:
            continue
        if count := len(np.intersect1d(split.groups, test)):
            text = f"{count} patients have images in test and in {name}: a metric on them says little of new patients"
            told.append(Warned(kind="shared-patients", text=text))
    return told


def missing(counted: Mapping[str, Mapping[str, int]]) -> list[Warned]:
    """Warn of classes of which a split has no sample."""
    told = []
    for name, classes in counted.items():
        if lacking := [label for label, count in classes.items() if not count]:
            shown = f"{', '.join(lacking[:SHOWN])}{', …' if len(lacking) > SHOWN else ''}"
            told.append(Warned(kind="missing-classes", text=f"{name} has no sample of {shown}"))
    return told


def few(count: int, split: str = "test") -> list[Warned]:
    """Warn where so few samples carry a metric."""
    if count >= FEW:
        return []
    return [Warned(kind="few-samples", text=f"only {count} {split} samples: fewer than {FEW} carry no accuracy to a few points")]
