"""ROC and precision-recall curves: whole from scikit-learn, averaged over classes, and thinned for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AREA_ERROR = 0.002
"""Thinning changes a drawn area by less; rounding to four decimals adds 0.0001 at most."""


@dataclass(frozen=True)
class Curve:
    """One curve from x = 0 to x = 1, and its area; lines join its points, one above the other where it jumps."""

    name: str
    x: Floats
    y: Floats
    area: float
    average: bool = False

    def values(self, most: int) -> dict[str, Any]:
        """Return it as plain JSON values, with about so many of its corners."""
        kept = thinned(self.x, self.y, most)
        return {
            "curve": self.name,
            "average": self.average,
            "area": round(self.area, 5),
            "x": np.round(self.x[kept], 4).tolist(),
            "y": np.round(self.y[kept], 4).tolist(),
        }


def roc(name: str, truth: NDArray[Any], likely: NDArray[Any], average: bool = False) -> Curve:
    """Draw true over false positive rate; truth: 0 and 1 [n], likely: probabilities [n]."""
    from sklearn import metrics

    x, y, _ = metrics.roc_curve(truth, likely)
    return Curve(name, x, y, area(x, y), average)


def precision_recall(name: str, truth: NDArray[Any], likely: NDArray[Any], average: bool = False) -> Curve:
    """Draw precision over recall as steps: each holds from the recall before it, and their area is the average precision."""
    from sklearn import metrics

    precision, recall, _ = metrics.precision_recall_curve(truth, likely, drop_intermediate=True)
    x, y = np.repeat(recall[::-1], 2)[:-1], np.repeat(precision[::-1], 2)[1:]
    x, y = np.concatenate([[0.0], x]), np.concatenate([[1.0], y])
    return Curve(name, x, y, area(x, y), average)


def mean(name: str, curves: Sequence[Curve]) -> Curve:
    """Average curves at every x; the area is the mean of theirs."""
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    sides = np.mean([_sides(curve, grid) for curve in curves], axis=0)
    return Curve(name, np.repeat(grid, 2), sides.reshape(-1), float(np.mean([curve.area for curve in curves])), True)


def _sides(curve: Curve, grid: Floats) -> Floats:
    """Read a curve just before and just after each x [n, 2]: it may jump between them."""
    between = np.interp(grid, curve.x, curve.y)
    first, last = np.searchsorted(curve.x, grid, "left"), np.searchsorted(curve.x, grid, "right") - 1
    corner = first <= last
    before, after = curve.y[np.minimum(first, len(curve.x) - 1)], curve.y[last]
    return np.stack([np.where(corner, before, between), np.where(corner, after, between)], axis=1)


# ---------------------------------------------------------------- thinning


def area(x: Floats, y: Floats) -> float:
    """Return the area under a curve (trapezoidal rule)."""
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def thinned(x: Floats, y: Floats, most: int) -> NDArray[np.int64]:
    """Choose the corners to keep, `most` or as many more as the area needs (see `AREA_ERROR`).

    The corners that change the area least go first (Visvalingam and Whyatt 1993).
    """
    kept = _without_least(x, y, most)
    while len(kept) < len(x) and abs(area(x[kept], y[kept]) - area(x, y)) > AREA_ERROR:
        most *= 2
        kept = _without_least(x, y, most)
    return kept


def _without_least(x: Floats, y: Floats, most: int) -> NDArray[np.int64]:
    """Remove corners, no two neighbours at once, until `most` are left; those that change nothing go in any case."""
    kept = np.arange(len(x))
    mixed = kept * 2_654_435_761 % 2**32  # equal corners in no order, or each pass would find one alone
    while len(kept) > 2:
        lost = _lost(x[kept], y[kept])
        order = np.empty(len(lost), int)
        order[np.lexsort((mixed[kept[1:-1]], lost))] = np.arange(len(lost))
        around = np.full(len(order) + 2, len(order))
        around[1:-1] = order
        lowest = np.flatnonzero((order < around[:-2]) & (order < around[2:]))
        excess = -(-max(len(kept) - most, 0) // 4)  # corners grow as others go: a quarter at a time
        gone = lowest[(order[lowest] < excess) | (lost[lowest] < 1e-12)]
        if not len(gone):
            break
        kept = np.delete(kept, gone + 1)
    return kept


def _lost(x: Floats, y: Floats) -> Floats:
    """Return the area of each inner corner's triangle with its neighbours."""
    twice = (x[2:] - x[:-2]) * (y[1:-1] - y[:-2]) - (x[1:-1] - x[:-2]) * (y[2:] - y[:-2])
    return np.asarray(np.abs(twice) / 2)
