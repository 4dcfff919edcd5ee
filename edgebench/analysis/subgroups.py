"""Whether a file is as good for every group of patients: permutation tests, and how many of them there were. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.resampling import Floats, Units, numbered, totals
from edgebench.analysis.shares import Bools

FEW = 30
"""Of fewer samples a group's figures say little, as of fewer than `FEW_OF_A_KIND` positive or negative ones."""
FEW_OF_A_KIND = 10
PERMUTATIONS = 2000
CELLS = 20_000_000
"""Of a table of permutations × units that is held at once."""
TIE = 1e-12


@dataclass(frozen=True)
class Tested:
    """What a permutation test found."""

    largest_gap: float
    """Between the groups with the highest and the lowest value."""
    p: float
    """How likely groups that differ by chance alone differ as much (mid-p); not corrected for other tests."""


def blocks(groups: NDArray[np.int64], units: Units | None) -> Units:
    """Return the number of what is permuted as a whole: a patient's samples of one group, or each sample."""
    if units is None:
        return np.arange(len(groups))
    return numbered(units * (int(groups.max(initial=0)) + 1) + groups)


def means(
    values: NDArray[Any], groups: NDArray[np.int64], units: Units | None, permutations: int = PERMUTATIONS, seed: int = 0
) -> Tested | None:
    """Test whether the mean of values [n] differs between groups; None where there are fewer than two.

    The groups of patients are dealt out anew; the statistic is Σ n (mean of the group − mean)², the sum of squares between.
    """
    groups = numbered(groups)
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        return None
    held = blocks(groups, units)
    sums = totals(np.stack([values, np.ones(len(values))], axis=1), held)
    mine = np.zeros(len(sums), np.int64)
    mine[held] = groups
    seen = _between(mine[None], sums, count)
    random = np.random.default_rng(seed)
    step = max(1, CELLS // len(mine))
    by_chance = [
        _between(random.permuted(np.tile(mine, (min(step, permutations - first), 1)), axis=1), sums, count)
        for first in range(0, permutations, step)
    ]
    each = np.array([values[groups == group].mean() for group in range(count)])
    return Tested(float(each.max() - each.min()), mid_p(float(seen[0]), np.concatenate(by_chance)))


def mid_p(seen: float, by_chance: Floats) -> float:
    """Return the share of permutations [m] whose statistic is larger than the data's, or as large, which counts half.

    The mid-p of Lancaster (1961): a statistic of few values, as that of decisions, would else reject too seldom. The data are
    one more permutation that counts wholly, so that p is never 0 (Phipson and Smyth 2010) and exact where none is as large.
    """
    margin = TIE * max(1.0, abs(seen))
    larger = by_chance > seen + margin
    alike = np.abs(by_chance - seen) <= margin
    return float(larger.sum() + alike.sum() / 2 + 1) / (len(by_chance) + 1)


def _between(dealt: NDArray[np.int64], sums: Floats, count: int) -> Floats:
    """Return the sum of squares between groups of each permutation [m]; dealt: [m, blocks], sums: sum and size [blocks, 2]."""
    whole = sums.sum(axis=0)
    found = np.zeros(len(dealt))
    for group in range(count):
        parts = (dealt == group) @ sums
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = parts[:, 1] * (parts[:, 0] / parts[:, 1] - whole[0] / whole[1]) ** 2
        found += np.where(parts[:, 1] > 0, apart, 0.0)
    return found


def areas(
    truth: Bools,
    scores: Floats,
    groups: NDArray[np.int64],
    units: Units | None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Tested | None:
    """Test whether the area under the ROC curve differs between groups; None where fewer than two have both kinds of sample.

    Groups are dealt out anew among patients with a positive sample and among those without, so that prevalence may differ. The
    statistic is Σ w (area − mean area)² with w = positives × negatives / (positives + negatives).
    """
    groups = numbered(groups)
    kept = [group for group in range(int(groups.max(initial=-1)) + 1) if _both(truth[groups == group])]
    if len(kept) < 2:
        return None
    inside = np.isin(groups, kept)
    truth, scores, groups = truth[inside], scores[inside], numbered(groups[inside])
    held = blocks(groups, None if units is None else numbered(units[inside]))
    mine = np.zeros(int(held.max()) + 1, np.int64)
    mine[held] = groups
    strata = totals(truth.astype(np.float64), held)[:, 0] > 0
    order = np.argsort(scores, kind="stable")
    ranked, kinds = scores[order], truth[order]
    ends = np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")
    count = len(kept)
    seen, each = _spread(groups[order][None], kinds, ends, count)
    random, step = np.random.default_rng(seed), max(1, CELLS // (8 * len(truth)))
    by_chance = []
    for first in range(0, permutations, step):
        dealt = np.tile(mine, (min(step, permutations - first), 1))
        for side in (strata, ~strata):
            dealt[:, side] = random.permuted(dealt[:, side], axis=1)
        by_chance.append(_spread(dealt[:, held[order]], kinds, ends, count)[0])
    return Tested(float(np.ptp(each)), mid_p(float(seen[0]), np.concatenate(by_chance)))


def _both(truth: Bools) -> bool:
    return bool(truth.any() and not truth.all())


def _spread(
    dealt: NDArray[np.int64], truth: Bools, ends: tuple[NDArray[np.intp], NDArray[np.intp]], count: int
) -> tuple[Floats, Floats]:
    """Return how far groups' areas are apart in each permutation [m], and the areas [m, groups], NaN without both kinds.

    dealt: each sample's group, by rising score [m, n]; ends: where the samples of its score begin and end [n].
    """
    found, weights = np.full((len(dealt), count), np.nan), np.zeros((len(dealt), count))
    for group in range(count):
        mine = dealt == group
        below = np.zeros((len(dealt), len(truth) + 1), np.int32)
        np.cumsum(mine & ~truth, axis=1, out=below[:, 1:])
        places = np.flatnonzero(truth)
        chosen = mine[:, places]
        twice = below[:, ends[0][places]] + below[:, ends[1][places]]
        positive, negative = chosen.sum(axis=1), below[:, -1]
        pairs = positive * negative
        known = pairs > 0
        found[known, group] = (chosen * twice).sum(axis=1)[known] / (2 * pairs[known])
        weights[known, group] = pairs[known] / (positive + negative)[known]
    held = np.where(weights > 0, found, 0.0)
    centre = (weights * held).sum(axis=1, keepdims=True) / np.maximum(weights.sum(axis=1, keepdims=True), TIE)
    return (weights * (held - centre) ** 2).sum(axis=1), found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for each other (Holm 1979); None stays None."""
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        found[place] = highest
    return found
