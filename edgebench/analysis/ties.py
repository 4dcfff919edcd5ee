"""Whether two cells that did not run in turn differ, without numpy: a leaderboard asks for each of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, variance

LEAST_SHIFT = 0.02
"""Smaller differences are never called different."""


def differ(first: Sequence[float], second: Sequence[float], floor: float | None) -> bool:
    """Return whether two cells differ for a rank, by their trials' medians.

    Only if the whole 95 % interval of their ratio lies beyond the larger of 2 %
    and the target's noise. What runs in turn needs less: here nothing cancels
    what else went on at either time. Student's t on the logarithms, with the
    degrees of freedom of the side that has fewer trials, which is never too narrow.
    """
    count = min(len(first), len(second))
    if count < 2 or min(*first, *second) <= 0:
        return False
    before, after = ([math.log(value) for value in values] for values in (first, second))
    error = math.sqrt(variance(before) / len(before) + variance(after) / len(after))
    shift = fmean(after) - fmean(before)
    nearest = abs(shift) - student(count - 1) * error
    return nearest > 0 and abs(math.expm1(math.copysign(nearest, shift))) > max(LEAST_SHIFT, floor or 0.0)


@cache
def student(freedom: int) -> float:
    """Return Student's t that 95 % lie within, by bisection of its distribution (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return low


def _within(value: float, freedom: int) -> float:
    """Return the share that lies within ± `value`."""
    angle = math.atan(value / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    odd = freedom % 2
    if odd:
        term = cosine
    for step in range(freedom // 2):
        total += term
        term *= cosine * cosine * (2 * step + 1 + odd) / (2 * step + 2 + odd)
    return (2 / math.pi) * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
