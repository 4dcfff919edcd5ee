"""Whether two cells differ, where that can be told without resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

LEAST_SHIFT = 0.02
"""Smaller differences are never called different."""


def certain(first: Sequence[float], second: Sequence[float], floor: float | None) -> bool | None:
    """Return whether `stats.compare` would call cells that were not interleaved different, by their trials' medians.

    No draw changes the answer where the shift is too small, or where the trials
    of one lie beyond all of the other's. None where the draws decide.
    """
    if min(len(first), len(second)) < 2 or min(*first, *second) <= 0:
        return None
    before, after = ([math.log(value) for value in values] for values in (first, second))
    if abs(math.expm1(median(after) - median(before))) <= max(LEAST_SHIFT, floor or 0.0):
        return False
    return True if min(after) > max(before) or max(after) < min(before) else None
