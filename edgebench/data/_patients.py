"""Samples of patients dealt out to splits: all of a patient to one, classes in their shares, by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def deal_patients(
    groups: NDArray[np.int64], labels: NDArray[np.int64], seed: int, **percents: int
) -> dict[str, NDArray[np.intp]]:
    """Deal patients out by percentages of their samples; the rest is `train`. Returns indices by split, in order.

    groups, labels: [n]. Those with the rarest classes come first (K. Sechidis et al. 2011), large ones before small ones, by a
    seed among equals; each goes where the squares of what is missing or too much of its classes grow least: as seats are dealt
    by A. Sainte-Laguë (1910).
    """
    names = ("train", *percents)
    shares = np.array([100 - sum(percents.values()), *percents.values()], dtype=np.float64) / 100
    people, who = np.unique(groups, return_inverse=True)
    known, of_class = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(people), len(known)))
    np.add.at(counts, (who, of_class), 1)
    wanted = shares[:, None] * counts.sum(axis=0)
    having = (counts > 0).sum(axis=0)
    rarest = np.where(counts > 0, having, len(people) + 1).min(axis=1)
    order = np.random.default_rng(seed).permutation(len(people))
    order = order[np.lexsort((-counts[order].sum(axis=1), rarest[order]))]
    dealt, chosen = np.zeros(wanted.shape), np.zeros(len(people), dtype=np.int64)
    for person in order:
        own = counts[person]
        grows = (own * (2 * dealt + own - 2 * wanted) / wanted).sum(axis=1)
        chosen[person] = np.argmin(grows)
        dealt[chosen[person]] += own
    return {name: np.flatnonzero(chosen[who] == number) for number, name in enumerate(names)}


def numbered(hashes: Sequence[bytes], seed: int) -> NDArray[np.int64]:
    """Give each patient a number, drawn by a seed: neither names nor their order can be told from it."""
    first: dict[bytes, int] = {}
    places = np.array([first.setdefault(each, len(first)) for each in hashes], dtype=np.int64)
    return np.random.default_rng([seed, len(first)]).permutation(len(first))[places]


def shared(groups: Mapping[str, NDArray[np.int64]]) -> tuple[str, str, int] | None:
    """Return two splits that have patients in common, and how many; None where there are none."""
    names = list(groups)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            common = len(np.intersect1d(groups[one], groups[other]))
            if common:
                return one, other, common
    return None
