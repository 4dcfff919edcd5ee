"""Maps of what a model looks at, as numbers: how alike two are, and what covering cells in their order does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.schema.explanation import Agreement

Array = NDArray[np.float64]
TOP = 0.1
"""Share of the cells whose overlap is looked at."""
FLAT = 1e-9
"""A map whose values lie within this share of its largest magnitude is the same everywhere."""


def is_flat(map_: Array) -> bool:
    """Return whether a map is the same everywhere, or holds what is no number: then it orders nothing."""
    if not np.isfinite(map_).all():
        return True
    return bool(np.ptp(map_) <= FLAT * max(np.abs(map_).max(), 1e-30))


def correlation(one: Array, other: Array) -> float | None:
    """Return Spearman's rank correlation of two maps, ties by mean ranks; None where either is the same everywhere.

    C. Spearman 1904: Pearson's correlation of the ranks.
    """
    from scipy.stats import rankdata

    if is_flat(one) or is_flat(other):
        return None
    first, second = (rankdata(each.ravel()) for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    return float((first @ second) / np.sqrt((first @ first) * (second @ second)))


def overlap(one: Array, other: Array, share: float = TOP) -> float | None:
    """Return intersection over union of the highest cells of two maps; None where either is the same everywhere.

    As many cells as `share` of all, one at least; of equal values at the edge the first ones.
    """
    if is_flat(one) or is_flat(other):
        return None
    count = max(1, round(share * one.size))
    first, second = (set(order(each)[:count].tolist()) for each in (one, other))
    return len(first & second) / len(first | second)


def order(map_: Array) -> NDArray[np.intp]:
    """List the cells of a map, the highest first; equal ones in their order."""
    return np.argsort(-map_.ravel(), kind="stable")


@dataclass(frozen=True)
class Pairs:
    """Maps compared pair by pair."""

    correlations: tuple[float | None, ...]
    """None: left out."""
    overlaps: tuple[float | None, ...]
    lost: int = 0
    undefined: int = 0

    def agreement(self, some: Sequence[int] | None = None) -> Agreement:
        """Summarise all pairs, or some of them."""
        indices = range(len(self.correlations)) if some is None else some
        known = [value for index in indices if (value := self.correlations[index]) is not None]
        common = [value for index in indices if (value := self.overlaps[index]) is not None]
        return Agreement(
            samples=len(known),
            correlation=float(np.median(known)) if known else None,
            low=float(np.quantile(known, 0.25)) if known else None,
            overlap=float(np.median(common)) if common else None,
        )


def compare(reference: Array, others: Array) -> Pairs:
    """Compare maps [n, rows, columns] pair by pair.

    Where the reference's map is the same everywhere, a pair is undefined and
    left out. Where the other's alone is, what it showed is lost: correlation
    and overlap count as 0.
    """
    correlations: list[float | None] = []
    overlaps: list[float | None] = []
    lost = undefined = 0
    for before, after in zip(reference, others, strict=True):
        gone = is_flat(after) and not is_flat(before)
        undefined += is_flat(before)
        lost += gone
        correlations.append(0.0 if gone else correlation(before, after))
        overlaps.append(0.0 if gone else overlap(before, after))
    return Pairs(tuple(correlations), tuple(overlaps), lost, undefined)


def shuffled(maps: Array) -> Array:
    """Put the map of the next image in each one's place."""
    return np.roll(maps, -1, axis=0)


def lower(one: Agreement, other: Agreement) -> Agreement:
    """Return the agreement of the two that is lower; one without a figure is the lower."""
    return min(one, other, key=lambda each: -2.0 if each.correlation is None else each.correlation)


def steps(orders: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """Show ever fewer cells: bool [n, count + 1, cells] from all shown to none, by orders [n, cells] of what goes first."""
    cells = orders.shape[1]
    gone = np.round(np.linspace(0, cells, count + 1)).astype(np.int64)
    place = np.empty_like(orders)
    np.put_along_axis(place, orders, np.broadcast_to(np.arange(cells), orders.shape), axis=1)
    return np.asarray(place[:, None, :] >= gone[None, :, None])


def area(values: Array) -> float:
    """Return the area under a curve whose points lie evenly from 0 to 1, by the trapezoidal rule."""
    return float((values[1:] + values[:-1]).mean() / 2)


def infidelity(maps: Array, hidden: NDArray[np.bool_], drops: Array) -> float | None:
    """Return how badly maps predict what hiding cells does to the score; None where it does nothing.

    maps [n, cells]; hidden [m, cells]; drops [n, m]: score of the whole image
    less that with these cells hidden. (C.-K. Yeh et al. 2019, eq. 1, with
    their optimal scaling; divided by the mean square of the drops, so that 0
    is perfect and 1 is what a map without any information has. Mean over images.)
    """
    found = []
    for map_, drop in zip(maps, drops, strict=True):
        expected, energy = hidden @ map_, float((drop**2).mean())
        if energy <= 0 or not np.isfinite(drop).all():
            continue
        power = float((expected**2).mean())
        scale = float((expected * drop).mean()) / power if power > 0 else 0.0
        found.append(float(((scale * expected - drop) ** 2).mean()) / energy)
    return float(np.mean(found)) if found else None
