"""The bootstrap by patient: what is drawn is a unit with all its samples. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Interval

Floats = NDArray[np.float64]
Units = NDArray[np.int64]
"""Which patient each sample is of, numbered from 0 [n]."""
DRAWS = 2000
CELLS = 20_000_000
"""Of a table of draws × units that is held at once."""


def numbered(names: NDArray[Any]) -> Units:
    """Give names numbers from 0, in their order."""
    return np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)


def alone(units: Units | None) -> bool:
    """Return whether every sample is a unit of its own; None: nothing else is known."""
    return units is None or int(units.max(initial=-1)) + 1 == len(units)


def totals(values: NDArray[Any], units: Units | None) -> Floats:
    """Sum values [n, k] over each unit's samples: [units, k]."""
    wide = np.asarray(values, np.float64).reshape(len(values), -1)
    if units is None:
        return wide
    found = np.zeros((int(units.max(initial=-1)) + 1, wide.shape[1]))
    np.add.at(found, units, wide)
    return found


def drawn_sums(values: NDArray[Any], units: Units | None, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Sum values [n, k] over as many units as there are, drawn with replacement: [draws, k] (Efron 1979)."""
    by_unit = totals(values, units)
    random, count = np.random.default_rng(seed), len(by_unit)
    step = max(1, CELLS // max(count, 1))
    even = np.full(count, 1 / count)
    parts = [random.multinomial(count, even, min(step, draws - first)) @ by_unit for first in range(0, draws, step)]
    return np.concatenate(parts)


def percentile(value: float, drawn: Floats) -> Interval | None:
    """Return a value with the 95 % percentile interval of what was drawn; None where the value is not defined.

    Draws in which it is not defined are left out; more than one in twenty of them leave the interval out, as do draws that are
    all alike, of which nothing follows.
    """
    if not np.isfinite(value):
        return None
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < 0.95 * len(drawn):
        return Interval(value=float(value))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value=float(value)) if high - low < 1e-12 else Interval(value=float(value), low=float(low), high=float(high))


def interval(
    statistic: Callable[[Floats], Floats], values: NDArray[Any], units: Units | None, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """Bootstrap what can be computed of sums: statistic ([draws, k] → [draws]) of values [n, k], by unit."""
    value = float(statistic(totals(values, None).sum(axis=0, keepdims=True))[0])
    return percentile(value, statistic(drawn_sums(values, units, draws, seed)))
