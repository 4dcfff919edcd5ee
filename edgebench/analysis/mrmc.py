"""Reader studies: several readers rate the same cases in several ways, for instance without and with aid. Pure functions.

The analysis of Obuchowski and Rockette (1995) with the jackknife's covariances and the degrees of freedom of Hillis (2007):
readers and cases are both samples of more. Its F is that of Dorfman, Berbaum and Metz (1992) as Hillis et al. (2008) have it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import delong
from edgebench.analysis.resampling import Floats, Units, totals
from edgebench.analysis.shares import Bools
from edgebench.schema import Interval


@dataclass(frozen=True)
class Study:
    """What a reader study found."""

    figures: Floats
    """Of each reader in each way [readers, ways]."""
    means: tuple[Interval, ...]
    """Of each way over readers."""
    difference: Interval
    """The second way less the first."""
    f: float | None
    """None: nothing varies."""
    df: tuple[float, float]
    p: float | None
    variance: float
    """Of one reader's figure, from cases."""
    covariances: tuple[float, float, float]
    """Of figures of the same reader in two ways, of two readers in the same way, and of two readers in two ways."""


def jackknifed(truth: Bools, ratings: Floats, units: Units | None = None) -> tuple[Floats, Floats]:
    """Return areas under ROC curves [readers, ways], and without each unit [units, readers, ways].

    truth: bool [n]; ratings: [readers, ways, n]. `ValueError` where one unit has all samples of a kind.
    """
    readers, ways, _ = ratings.shape
    each = [(reader, way) for reader in range(readers) for way in range(ways)]
    areas = [float(delong.components(truth, [ratings[place]]).areas[0]) for place in each]
    left = np.stack([delong.without(truth, ratings[place], units) for place in each], axis=1)
    if not np.isfinite(left).all():
        raise ValueError("one patient has all samples of a kind")
    return np.array(areas).reshape(readers, ways), left.reshape(-1, readers, ways)


def shares(hits: Floats, units: Units | None = None) -> tuple[Floats, Floats]:
    """Return the share of hits [readers, ways], and without each unit; hits: 0 and 1, [readers, ways, n]."""
    readers, ways, count = hits.shape
    groups = np.arange(count) if units is None else units
    sums = totals(np.moveaxis(hits, 2, 0).reshape(count, -1), groups).reshape(-1, readers, ways)
    sizes = np.bincount(groups).reshape(-1, 1, 1)
    return hits.mean(axis=2), (sums.sum(axis=0) - sums) / (count - sizes)


def analyse(figures: Floats, left: Floats) -> Study:
    """Compare two ways; figures: [readers, 2], left: the same without each unit [units, readers, 2].

    `ValueError` below two readers.
    F = MS(way) / (MS(way × reader) + max(readers × (Cov2 − Cov3), 0)) with 1 and Hillis' degrees of freedom.
    """
    readers, ways = figures.shape
    if readers < 2 or ways != 2:
        raise ValueError("a reader study wants two readers at least, and two ways")
    variance, one, two, three = covariances(left)
    grand, by_way, by_reader = figures.mean(), figures.mean(axis=0), figures.mean(axis=1)
    of_ways = readers * float(((by_way - grand) ** 2).sum()) / (ways - 1)
    beside = figures - by_way - by_reader[:, None] + grand
    of_both = float((beside**2).sum()) / ((ways - 1) * (readers - 1))
    from_cases = max(readers * (two - three), 0.0)
    below = of_both + from_cases
    freedom = below**2 * (ways - 1) * (readers - 1) / of_both**2 if of_both > 0 else math.inf
    value = float(by_way[1] - by_way[0])
    f = of_ways / below if below > 0 else None
    return Study(
        figures=figures,
        means=tuple(_mean(figures[:, way], left[:, :, way]) for way in range(ways)),
        difference=_around(value, math.sqrt(2 / readers * below), freedom, -1.0),
        f=f,
        df=(float(ways - 1), freedom),
        p=None if f is None else _tail(f, ways - 1, freedom),
        variance=variance,
        covariances=(one, two, three),
    )


def covariances(left: Floats) -> tuple[float, float, float, float]:
    """Return the variance of a figure, and Obuchowski's and Rockette's three covariances; left: [units, readers, ways].

    The jackknife: (c − 1) / c times the scatter of what is left without each of c units (Tukey 1958).
    """
    count, readers, ways = left.shape
    flat = (left - left.mean(axis=0)).reshape(count, -1)
    spread = (flat.T @ flat * (count - 1) / count).reshape(readers, ways, readers, ways)
    same_reader, same_way = np.eye(readers, dtype=bool), np.eye(ways, dtype=bool)

    def mean(reader: NDArray[np.bool_], way: NDArray[np.bool_]) -> float:
        chosen = spread[reader[:, None, :, None] & way[None, :, None, :]]
        return float(chosen.mean()) if chosen.size else 0.0

    return (
        mean(same_reader, same_way),
        mean(same_reader, ~same_way),
        mean(~same_reader, same_way),
        mean(~same_reader, ~same_way),
    )


def _mean(figures: Floats, left: Floats) -> Interval:
    """Average one way over readers, for readers and cases like these (Hillis 2014)."""
    readers = len(figures)
    _, _, two, _ = covariances(left[:, :, None])
    between = float(figures.var(ddof=1))
    below = between + max(readers * two, 0.0)
    freedom = below**2 * (readers - 1) / between**2 if between > 0 else math.inf
    return _around(float(figures.mean()), math.sqrt(below / readers), freedom, 0.0)


def _around(value: float, error: float, freedom: float, least: float) -> Interval:
    """Put an interval around a figure, within the scale from `least` to 1; none where nothing varies."""
    from scipy.stats import norm, t

    if error < 1e-12:
        return Interval(value=value)
    quantile = float(t.ppf(0.975, freedom)) if math.isfinite(freedom) else float(norm.ppf(0.975))
    return Interval(value=value, low=max(least, value - quantile * error), high=min(1.0, value + quantile * error))


def _tail(f: float, first: float, second: float) -> float:
    from scipy.stats import chi2
    from scipy.stats import f as fisher

    return float(fisher.sf(f, first, second)) if math.isfinite(second) else float(chi2.sf(f * first, first))
