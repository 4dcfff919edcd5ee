"""Samples dealt out to splits: stratified, by seeds that never change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import DataError

ALIASES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What splits are called, in small letters, and what they are called here."""


def deal(labels: NDArray[np.int64], **percents: int) -> dict[str, NDArray[np.intp]]:
    """Deal every class out by percentages, halves up; the rest is `train`. Returns indices by split, class by class."""
    dealt: dict[str, list[NDArray[np.intp]]] = {name: [] for name in (*percents, "train")}
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        order = np.random.default_rng(int(label)).permutation(len(mine))
        ends = np.cumsum([-(-len(mine) * percent // 100) for percent in percents.values()])
        for name, part in zip(dealt, np.split(order, ends), strict=True):
            dealt[name].append(mine[np.sort(part)])
    return {name: np.concatenate(parts or [np.zeros(0, np.intp)]) for name, parts in dealt.items()}


def subset(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.intp]:
    """Choose so many samples, each class in its share (at least one), by a seed; all where there are no more.

    What is over goes to the classes with the largest rests. Labels that are no classes [n, labels] are drawn from as they are.
    Returns indices in order; those of a smaller subset of the same seed are among them but for what rounding moves.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    if labels.ndim != 1:
        return np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
    every = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if count < len(every):
        raise DataError(f"{count} samples of {len(every)} classes: each class wants one at least; give more")
    shares = np.array([len(mine) for mine in every]) * count / len(labels)
    takes = np.maximum(1, np.floor(shares).astype(int))
    for index in np.argsort(takes - shares, kind="stable"):
        takes[index] += int(takes.sum() < count)
    while takes.sum() > count:
        takes[np.argmax(takes)] -= 1
    drawn = [
        np.random.default_rng([seed, index]).permutation(mine)[:take]
        for index, (mine, take) in enumerate(zip(every, takes, strict=True))
    ]
    return np.sort(np.concatenate(drawn))
