"""Whether raters agree beyond chance: Cohen's and Fleiss' kappa. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.resampling import Floats, Units, alone, interval
from edgebench.analysis.shares import Z
from edgebench.analysis.stats import share_interval
from edgebench.schema import Interval

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance, and its standard error where the samples are independent."""

    value: float
    error: float
    interval: Interval


def table(first: Ints, second: Ints, classes: int) -> Floats:
    """Count what two raters said of the same samples [classes, classes]."""
    return np.bincount(first * classes + second, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def weights(classes: int, quadratic: bool = False) -> Floats:
    """Say how much each pair of decisions agrees: 1 on the diagonal, 0 elsewhere; quadratic: 1 − (i − j)² / (classes − 1)²."""
    if not quadratic:
        return np.eye(classes)
    numbers = np.arange(classes)
    return np.asarray(1 - (numbers[:, None] - numbers) ** 2 / max(classes - 1, 1) ** 2)


def cohen(counted: Floats, quadratic: bool = False) -> Kappa | None:
    """Return Cohen's kappa (1960, weighted 1968) with the large-sample error of Fleiss, Cohen and Everitt (1969).

    counted: a table of samples [classes, classes]. None where chance alone would agree on all. Where all agree, the interval
    is that of the observed agreement (Wilson 1927) at the same agreement by chance.
    """
    count = float(counted.sum())
    if not count:
        return None
    shares, agree = counted / count, weights(len(counted), quadratic)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, chance = float((agree * shares).sum()), float(rows @ agree @ columns)
    if 1 - chance < 1e-12:
        return None
    value = (observed - chance) / (1 - chance)
    beside = (agree @ columns)[:, None] + (rows @ agree)[None, :]
    spread = float((shares * (agree - beside * (1 - value)) ** 2).sum()) - (value - chance * (1 - value)) ** 2
    error = math.sqrt(max(spread, 0.0) / count) / (1 - chance)
    if error < 1e-9:
        low = share_interval(observed, count).low or 0.0
        return Kappa(value, error, Interval(value=value, low=(low - chance) / (1 - chance), high=value))
    low, high = max(-1.0, value - Z * error), min(1.0, value + Z * error)
    return Kappa(value, error, Interval(value=value, low=low, high=high))


def between(first: Ints, second: Ints, classes: int, units: Units | None = None, quadratic: bool = False) -> Interval | None:
    """Return Cohen's kappa of two raters of the same samples; by the bootstrap where patients have several samples."""
    if units is None or alone(units) or np.array_equal(first, second):
        counted = table(first, second, classes)
        independent = 1.0 if units is None else (int(units.max(initial=-1)) + 1) / max(len(first), 1)
        found = cohen(counted * independent, quadratic)
        return None if found is None else found.interval
    cells = np.zeros((len(first), classes * classes))
    cells[np.arange(len(first)), first * classes + second] = 1
    agree = weights(classes, quadratic).ravel()

    def kappa(sums: Floats) -> Floats:
        shares = sums / sums.sum(axis=1, keepdims=True)
        square = shares.reshape(-1, classes, classes)
        expected = np.einsum("bi,bj->bij", square.sum(axis=2), square.sum(axis=1)).reshape(len(sums), -1) @ agree
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((shares @ agree - expected) / (1 - expected))

    return interval(kappa, cells, units)


def fleiss(ratings: Ints, classes: int, units: Units | None = None) -> Interval | None:
    """Return Fleiss' kappa (1971) of ratings [n, raters], with the percentile interval of a bootstrap by patient.

    None of one rater, or where chance alone would agree on all.
    """
    raters = ratings.shape[1]
    if raters < 2 or not len(ratings):
        return None
    said = (ratings[:, :, None] == np.arange(classes)).sum(axis=1)
    agreed = ((said * said).sum(axis=1) - raters) / (raters * (raters - 1))

    def kappa(sums: Floats) -> Floats:
        count = sums[:, -1]
        shares = sums[:, 1:-1] / (raters * count[:, None])
        chance = (shares * shares).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(1 - chance > 1e-12, (sums[:, 0] / count - chance) / (1 - chance), np.nan)

    return interval(kappa, np.column_stack([agreed, said, np.ones(len(ratings))]), units)


def correlation(counted: Floats) -> float | None:
    """Return Matthews' correlation of several classes (Gorodkin 2004); counted: a table of samples [classes, classes]."""
    count, right = float(counted.sum()), float(np.trace(counted))
    rows, columns = counted.sum(axis=1), counted.sum(axis=0)
    below = (count**2 - float(rows @ rows)) * (count**2 - float(columns @ columns))
    return (right * count - float(rows @ columns)) / math.sqrt(below) if below > 0 else None
