"""Shares of samples and what changes between two files, with intervals that know which samples are one patient's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.resampling import Units, alone, totals
from edgebench.analysis.stats import share_interval
from edgebench.schema import Interval

Bools = NDArray[np.bool_]
Z = 1.959964
"""Of a 95 % interval."""


def effective_count(values: NDArray[Any], units: Units | None) -> float:
    """Return how many independent samples would know a mean as well: n over the design effect (Rao and Scott 1992).

    The design effect is the variance of the mean by unit over that by sample, and counts as 1 at least. Where all
    values are the same it is not known: the number of units then.
    """
    count = len(values)
    if alone(units):
        return float(count)
    wide = np.asarray(values, np.float64)
    mean, variance = float(wide.mean()), float(wide.var())
    by_unit = totals(np.stack([wide - mean, np.ones(count)], axis=1), units)
    members = by_unit[by_unit[:, 1] > 0]
    if variance == 0 or len(members) < 2:
        return float(len(members))
    between = float((members[:, 0] ** 2).sum()) * len(members) / (len(members) - 1) / count**2
    return count / max(1.0, between / (variance / count))


def share(hits: Bools, units: Units | None = None) -> Interval | None:
    """Return the share of samples that are so, with its 95 % interval (Wilson 1927, of the effective count); None of none."""
    return share_interval(float(hits.mean()), effective_count(hits, units)) if len(hits) else None


@dataclass(frozen=True)
class Changed:
    """What a second file decides otherwise than a first on the same samples."""

    samples: int
    gained: int
    lost: int
    difference: Interval
    """Of the shares, second less first."""
    mcnemar_p: float
    """Exact, by samples (McNemar 1947)."""


def changed(first: Bools, second: Bools, units: Units | None = None) -> Changed | None:
    """Compare two files' hits on the same samples; None of none.

    The interval is that of Bonett and Price (2012): Wald's with one sample more that changed either way, of the effective count.
    """
    if not len(first):
        return None
    from scipy.stats import binomtest

    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    moved = second.astype(np.int64) - first.astype(np.int64)
    count = effective_count(moved, units)
    up, down = ((each * count / len(first) + 1) / (count + 2) for each in (gained, lost))
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    value = (gained - lost) / len(first)
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Changed(len(first), gained, lost, Interval(value=value, low=min(low, value), high=max(high, value)), p_value)
