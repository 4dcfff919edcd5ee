"""Samples of DICOM files in splits: dealt out by patients, or as folders or a table say, and looked at for shared patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.data import SPLITS, int_option
from edgebench.data._files import GIB, memory_bytes
from edgebench.data._mapped import room
from edgebench.data._patients import deal_patients, shared
from edgebench.errors import DataError

Options = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Sample:
    """A frame of a file, its class and its patient."""

    file: Path
    frame: int
    label: int
    patient: int


def one_of(options: Options, key: str, words: Sequence[str]) -> str:
    """Read an option that is one of some words, the first unless given."""
    value = str(options.get(key, words[0]))
    if value not in words:
        raise DataError(f"--dataset: {key}={value} is none of {', '.join(words)}; give one of them, or leave it out")
    return value


def dealt(root: Path, samples: dict[str, list[Sample]], options: Options, notes: list[str]) -> dict[str, list[Sample]]:
    """Deal patients out who belong to no split, or some of train's where there is no val; refuse splits that share patients."""
    allow = one_of(options, "shared", ("refuse", "allow")) == "allow"
    given = {name: groups(samples[name]) for name in SPLITS if name in samples}
    common = shared(given)
    if common is not None:
        told = (
            f"{common[2]} patients are in {common[0]} and in {common[1]}: what is measured on the latter says little of new ones"
        )
        if not allow:
            raise DataError(f"dicom: {root}: {told}; move all of a patient into one, or allow it by the option shared=allow")
        notes.append(f"{root}: {told}")
    if set(samples) == set(SPLITS):
        return {name: samples[name] for name in SPLITS}
    val, test = int_option(options, "val", 15, 0, 100), int_option(options, "test", 15, 0, 100)
    if not (val > 0 and test > 0 and val + test < 100):
        raise DataError(f"dicom: val={val} and test={test} are percentages and must leave some for training")
    whole = samples.get("", samples.get("train", []))
    percents = {"val": val} if "train" in samples else {"val": val, "test": test}
    labels = np.array([sample.label for sample in whole], dtype=np.int64)
    parts = deal_patients(groups(whole), labels, int_option(options, "seed", 0, 0, 1 << 31), **percents)
    made = {name: [whole[index] for index in indices] for name, indices in parts.items()}
    if "train" in samples:
        people = len(set(groups(made["val"])))
        notes.append(f"{root} has no val: {len(made['val'])} of train's {len(whole)} images, of {people} patients, are it")
    return {name: made.get(name, samples.get(name, [])) for name in SPLITS}


def groups(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the patients' numbers [n]."""
    return np.array([sample.patient for sample in samples], dtype=np.int64)


def check_classes(
    root: Path, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], options: Options, notes: list[str]
) -> None:
    """Refuse a split without images, or without some class unless that is allowed."""
    allow = one_of(options, "empty", ("refuse", "allow")) == "allow"
    for name, samples in splits.items():
        lacking = [classes[index] for index in sorted(set(range(len(classes))) - {sample.label for sample in samples})]
        if not samples or (lacking and not allow):
            what = f"images of the class {lacking[0]!r}" if samples else "images"
            raise DataError(
                f"dicom: {root}: the {name} split has no {what}; four patients of each class at least are wanted to be dealt out"
                f"{', or empty=allow' if samples else ''}"
            )
        notes += [f"{root}: the {name} split lacks {', '.join(lacking[:5])}"] if lacking else []


def check_size(root: Path, splits: Mapping[str, Sequence[Sample]], sample_bytes: int, options: Options) -> None:
    """Refuse a split that takes more than what half of the memory or of the free disk holds, unless it is allowed."""
    allowed = GIB * int_option(options, "max_gib", 0, 0, 1 << 20) or memory_bytes() // 2
    allowed = max(allowed, 0 if "max_gib" in options else room())
    for name, samples in splits.items():
        takes = len(samples) * sample_bytes
        if takes > allowed:
            raise DataError(
                f"dicom: {root}: the {name} split takes {takes / GIB:.1f} GiB at this size, more than "
                f"{allowed / GIB:.1f} GiB; give a smaller size, or allow it by the option max_gib={-(-takes // GIB)}"
            )
