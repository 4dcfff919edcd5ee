"""The area under a ROC curve with its interval, and whether two on the same samples differ. Pure functions.

DeLong, DeLong and Clarke-Pearson (1988) by mid-ranks (Sun and Xu 2014); where patients have several samples the variance is
Obuchowski's for clustered data (1997), which is DeLong's where each has one.
truth: bool [n]; scores: float [n], the higher the likelier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.resampling import Floats, Units, alone, totals
from edgebench.analysis.shares import Bools, Z
from edgebench.schema import Interval


@dataclass(frozen=True)
class Components:
    """How each sample takes part in the areas of several scores."""

    areas: Floats
    """[k]"""
    positive: Floats
    """For each positive sample the share of negatives that it stands above, ties half [m, k]."""
    negative: Floats
    """For each negative sample the share of positives that stand above it [n, k]."""


@dataclass(frozen=True)
class Difference:
    """Two areas on the same samples, second less first."""

    difference: Interval
    p: float | None
    """Two-sided; None: they differ, and their variance is not known."""


def components(truth: Bools, scores: Sequence[Floats]) -> Components:
    """Place every sample among those of the other kind; scores: k arrays [n]. Both kinds must be there."""
    from scipy.stats import rankdata

    positive, negative = [], []
    m, n = int(truth.sum()), int((~truth).sum())
    for each in scores:
        every = rankdata(each)
        positive.append((every[truth] - rankdata(each[truth])) / n)
        negative.append(1 - (every[~truth] - rankdata(each[~truth])) / m)
    rows, columns = np.stack(positive, axis=1), np.stack(negative, axis=1)
    return Components(rows.mean(axis=0), rows, columns)


def covariance(truth: Bools, found: Components, units: Units | None = None) -> Floats:
    """Return the covariance of the areas [k, k]; infinite where one unit has all samples of a kind."""
    above, below = found.positive - found.areas, found.negative - found.areas
    m, n = len(above), len(below)
    if alone(units):
        return _scatter(above, above, m) / m**2 + _scatter(below, below, n) / n**2
    assert units is not None
    spread = np.zeros((2, len(truth), above.shape[1]))
    spread[0, truth], spread[1, ~truth] = above, below
    by_unit = [totals(each, units) for each in spread]
    has = [np.bincount(units[kind], minlength=len(by_unit[0])) > 0 for kind in (truth, ~truth)]
    counts = [int(each.sum()) for each in has]
    cross = _scatter(by_unit[0], by_unit[1], len(by_unit[0])) / (m * n)
    own = [_scatter(by_unit[kind], by_unit[kind], counts[kind]) / size**2 for kind, size in enumerate((m, n))]
    return np.asarray(own[0] + own[1] + cross + cross.T)


def _scatter(one: Floats, other: Floats, count: int) -> Floats:
    """Sum products over rows, times count / (count − 1); of one row nothing is known."""
    if count < 2:
        return np.full((one.shape[1], other.shape[1]), np.inf)
    return np.asarray(one.T @ other * (count / (count - 1)))


def area(truth: Bools, scores: Floats, units: Units | None = None) -> Interval | None:
    """Return the area with its 95 % interval on the logit scale; None where one kind of sample is missing.

    Where no pair is in the wrong order, or each is, the variance is 0: Newcombe's interval then (2006, method 5).
    """
    if truth.all() or not truth.any():
        return None
    found = components(truth, [scores])
    value, variance = float(found.areas[0]), float(covariance(truth, found, units)[0, 0])
    return area_interval(value, variance, *_units_of(truth, units))


def _units_of(truth: Bools, units: Units | None) -> tuple[int, int]:
    """Count the positive and the negative samples, of each patient one."""
    if units is None:
        return int(truth.sum()), int((~truth).sum())
    return len(np.unique(units[truth])), len(np.unique(units[~truth]))


def area_interval(value: float, variance: float, positive: int, negative: int) -> Interval:
    """Put an interval around an area of known variance."""
    if not math.isfinite(variance):
        return Interval(value=value)
    if variance < 1e-12 or not 0 < value < 1:
        return newcombe(value, positive, negative)
    centre, half = math.log(value / (1 - value)), Z * math.sqrt(variance) / (value * (1 - value))
    low, high = (_expit(each) for each in (centre - half, centre + half))
    return Interval(value=value, low=low, high=high)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def newcombe(value: float, positive: int, negative: int) -> Interval:
    """Return the areas whose Hanley–McNeil standard error reaches this one, with both kinds' mean for either (Newcombe 2006)."""
    mean = (positive + negative) / 2 - 1

    def beyond(area: float) -> float:
        inside = area * (1 - area) * (1 + mean * ((1 - area) / (2 - area) + area / (1 + area)))
        return abs(area - value) - Z * math.sqrt(max(inside, 0.0) / (positive * negative))

    return Interval(value=value, low=_end(beyond, value, 0.0), high=_end(beyond, value, 1.0))


def _end(beyond: Callable[[float], float], value: float, end: float) -> float:
    """Find where an interval ends between its value and an end of the scale."""
    from scipy.optimize import brentq

    near = value + math.copysign(1e-9, end - value)
    if value == end or beyond(near) >= 0:
        return value
    return float(brentq(beyond, near, end)) if beyond(end) > 0 else end


def compare(truth: Bools, first: Floats, second: Floats, units: Units | None = None) -> Difference | None:
    """Test whether two scores of the same samples have the same area; None where one kind of sample is missing."""
    from scipy.stats import norm

    if truth.all() or not truth.any():
        return None
    found = components(truth, [first, second])
    spread = covariance(truth, found, units)
    value = float(found.areas[1] - found.areas[0])
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]) if np.isfinite(spread).all() else math.inf
    if not 1e-15 < variance < math.inf:
        return Difference(Interval(value=value), 1.0 if abs(value) < 1e-12 else None)
    error = math.sqrt(variance)
    ends = (max(-1.0, value - Z * error), min(1.0, value + Z * error))
    return Difference(Interval(value=value, low=ends[0], high=ends[1]), float(2 * norm.sf(abs(value) / error)))


def without(truth: Bools, scores: Floats, units: Units | None = None) -> NDArray[np.float64]:
    """Return the area without each unit's samples [units], in closed form from the shares of pairs in order.

    NaN where a unit has all samples of a kind.
    """
    found = components(truth, [scores])
    m, n = len(found.positive), len(found.negative)
    lost = np.zeros(len(truth))
    lost[truth], lost[~truth] = found.positive[:, 0] * n, found.negative[:, 0] * m
    groups = np.arange(len(truth)) if units is None else units
    pairs, there = totals(lost, groups)[:, 0], totals(np.stack([truth, ~truth], axis=1), groups)
    for unit in np.flatnonzero((there > 0).all(axis=1)):
        mine = groups == unit
        inside = scores[mine & truth][:, None] - scores[mine & ~truth]
        pairs[unit] -= float((inside > 0).sum() + (inside == 0).sum() / 2)
    left = (m - there[:, 0]) * (n - there[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left > 0, (float(found.areas[0]) * m * n - pairs) / left, np.nan)
