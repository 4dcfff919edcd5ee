"""Operating points of one class against the rest: where they are put, and how good decisions are there.

truth: bool [n]; scores: float [n], the higher the likelier; a sample is held positive at the threshold and above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import agreement
from edgebench.analysis.resampling import Floats, Units, interval
from edgebench.analysis.shares import Bools, Z, effective_count, share
from edgebench.schema import Interval

Scores = NDArray[np.float64]


# ---------------------------------------------------------------- thresholds


def at_sensitivity(truth: Bools, scores: Scores, wanted: float) -> float:
    """Return the highest threshold at which so large a share of the positive samples is found."""
    positive = np.sort(scores[truth])[::-1]
    return float(positive[_rank(wanted, len(positive)) - 1])


def at_specificity(truth: Bools, scores: Scores, wanted: float) -> float:
    """Return the lowest score at which so large a share of the negative samples lies below; above all scores if none is."""
    negative = np.sort(scores[~truth])
    last = negative[_rank(wanted, len(negative)) - 1]
    above = scores[scores > last]
    return float(above.min()) if len(above) else float(np.nextafter(last, math.inf))


def youden(truth: Bools, scores: Scores) -> float:
    """Return the threshold with the largest sensitivity + specificity − 1 (Youden 1950); of several the highest."""
    thresholds = np.unique(scores)[::-1]
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    sensitivity = 1 - np.searchsorted(positive, thresholds, "left") / len(positive)
    specificity = np.searchsorted(negative, thresholds, "left") / len(negative)
    index = np.round(sensitivity + specificity, 12)
    return float(thresholds[int(index.argmax())])


def _rank(wanted: float, count: int) -> int:
    return min(count, max(1, math.ceil(round(wanted * count, 6))))


# ---------------------------------------------------------------- how good decisions are


@dataclass(frozen=True)
class Counts:
    """Samples by what they are and what they were decided to be."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def positive(self) -> int:
        """Samples that are positive."""
        return self.true_positive + self.false_negative

    @property
    def negative(self) -> int:
        """Samples that are negative."""
        return self.false_positive + self.true_negative


@dataclass(frozen=True)
class Performance:
    """How good decisions are; None where the samples do not define it."""

    counts: Counts
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    """At the samples' own prevalence, as `npv`."""
    npv: Interval | None
    accuracy: Interval | None
    f1: Interval | None
    mcc: Interval | None
    kappa: Interval | None


def counts(truth: Bools, decided: Bools) -> Counts:
    """Count samples."""
    found = (truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided)
    return Counts(*(int(each.sum()) for each in found))


def performance(truth: Bools, decided: Bools, units: Units | None = None) -> Performance:
    """Rate decisions; shares have Wilson's interval (by the effective count of patients), F1 and MCC the bootstrap's by patient.

    κ has the interval of Fleiss, Cohen and Everitt (1969), or where patients have several samples the bootstrap's.
    """

    def part(chosen: Bools, hits: Bools) -> Interval | None:
        return share(hits[chosen], None if units is None else _renumbered(units[chosen]))

    table = _table(truth, decided)
    return Performance(
        counts=counts(truth, decided),
        sensitivity=part(truth, decided),
        specificity=part(~truth, ~decided),
        ppv=part(decided, truth),
        npv=part(~decided, ~truth),
        accuracy=share(truth == decided, units),
        f1=interval(f1, table, units),
        mcc=interval(mcc, table, units),
        kappa=agreement.between(truth.astype(np.int64), decided.astype(np.int64), 2, units),
    )


def _table(truth: Bools, decided: Bools) -> Floats:
    return np.stack([truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided], axis=1).astype(np.float64)


def _renumbered(units: Units) -> Units:
    return np.unique(units, return_inverse=True)[1].reshape(-1).astype(np.int64)


def f1(cells: Floats) -> Floats:
    """Return 2 TP / (2 TP + FP + FN); cells: TP, FP, FN, TN [m, 4]."""
    positive, false, missed, _ = cells.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2 * positive / (2 * positive + false + missed))


def mcc(cells: Floats) -> Floats:
    """Return Matthews' correlation (1975); cells: TP, FP, FN, TN [m, 4]; 0 where all are decided alike, as scikit-learn says."""
    positive, false, missed, negative = cells.T
    below = (positive + false) * (positive + missed) * (negative + false) * (negative + missed)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (positive * negative - false * missed) / np.sqrt(below)
    return np.where(below > 0, found, 0.0)


# ---------------------------------------------------------------- predictive values


@dataclass(frozen=True)
class Predictive:
    """What a decision means where so large a share has the condition."""

    prevalence: float
    ppv: Interval | None
    npv: Interval | None


def predictive(truth: Bools, decided: Bools, prevalence: float, units: Units | None = None) -> Predictive:
    """Compute predictive values at a prevalence by Bayes' theorem, with intervals on the logit scale (Mercaldo et al. 2007).

    Where all or none of either kind are decided rightly, the interval is of shares with z²/2 samples added to each side.
    """
    sides = [truth, ~truth]
    if not all(side.any() for side in sides):
        return Predictive(prevalence, None, None)
    hits = [decided[truth], ~decided[~truth]]
    found = [None if units is None else _renumbered(units[side]) for side in sides]
    sizes = [effective_count(each, unit) for each, unit in zip(hits, found, strict=True)]
    shares = [float(each.mean()) for each in hits]
    odds = prevalence / (1 - prevalence)
    return Predictive(prevalence, _bayes(shares, sizes, odds), _bayes(shares[::-1], sizes[::-1], 1 / odds))


def _bayes(shares: Sequence[float], sizes: Sequence[float], odds: float) -> Interval | None:
    """Return the predictive value of the first share's decision; sizes: the samples of either."""
    found, missed = shares[0] * odds, 1 - shares[1]
    if found + missed == 0:
        return None
    value = found / (found + missed)
    if min(shares) <= 0 or max(shares) >= 1:
        shares = [(each * size + Z * Z / 2) / (size + Z * Z) for each, size in zip(shares, sizes, strict=True)]
        sizes = [size + Z * Z for size in sizes]
    centre = math.log(shares[0] * odds / (1 - shares[1]))
    half = Z * math.sqrt((1 - shares[0]) / (shares[0] * sizes[0]) + shares[1] / ((1 - shares[1]) * sizes[1]))
    low, high = (1 / (1 + math.exp(-each)) for each in (centre - half, centre + half))
    return Interval(value=value, low=min(low, value), high=max(high, value))


# ---------------------------------------------------------------- decision curves


def net_benefit(truth: Bools, likely: Scores, thresholds: Floats, prevalence: float | None = None) -> tuple[Floats, Floats]:
    """Return the net benefit of acting on probabilities from each threshold on, and of acting on all (Vickers and Elkin 2006).

    Sensitivity × prevalence − (1 − specificity) × (1 − prevalence) × t / (1 − t); prevalence: the samples' own unless given.
    """
    rate = float(truth.mean()) if prevalence is None else prevalence
    positive, negative = np.sort(likely[truth]), np.sort(likely[~truth])
    found = 1 - np.searchsorted(positive, thresholds, "left") / max(len(positive), 1)
    false = 1 - np.searchsorted(negative, thresholds, "left") / max(len(negative), 1)
    cost = (1 - rate) * thresholds / (1 - thresholds)
    return np.asarray(found * rate - false * cost), np.asarray(rate - cost)
