"""How INT8 ranges are chosen from what calibration samples make of a network: min-max, percentile, entropy; or learned.

Samples go through twice where a histogram is wanted: once for the extremes, once
to be counted between them. So memory does not grow with the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.exporters._shared.learned import Point, replaced

Array = NDArray[Any]
Ranges = dict[str, tuple[float, float]]
Runs = Callable[[], Iterable[Mapping[str, Array]]]
"""Puts all samples through the network; yields each one's float tensors by name."""
METHODS = ("min-max", "entropy", "percentile")
BINS = 2048


def count(samples: Sequence[Array]) -> int:
    """Count samples, of which each input has as many, or one that is the same in each."""
    return max(map(len, samples), default=0)


def one(samples: Array, index: int, rank: int) -> Array:
    """Take a sample as a network takes it, with so many dimensions: images are kept without their batch of 1."""
    found = np.asarray(samples[index if len(samples) > 1 else 0])
    return found[None] if found.ndim < rank else found


def choose(method: str, percentile: float | None, runs: Runs, learned: Sequence[Point] = ()) -> Ranges:
    """Return (low, high) of every tensor: the extremes, or what a histogram between them says.

    A tensor that is on the first sample what a network's learned point is there has the range that was learned.
    """
    found = _chosen(method, percentile, runs)
    return {**found, **replaced(next(iter(runs())), learned)} if learned else found


def _chosen(method: str, percentile: float | None, runs: Runs) -> Ranges:
    extremes = _extremes(runs())
    if method == "min-max":
        return extremes
    folded = method == "entropy"
    counts = _counts(runs(), extremes, folded)
    if folded:
        return {name: clipped(limits, counts[name]) for name, limits in extremes.items()}
    assert percentile is not None
    return {name: central(limits, counts[name], percentile) for name, limits in extremes.items()}


def _extremes(samples: Iterable[Mapping[str, Array]]) -> Ranges:
    found: Ranges = {}
    for tensors in samples:
        for name, values in tensors.items():
            if values.size:
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return found


def _counts(samples: Iterable[Mapping[str, Array]], extremes: Ranges, folded: bool) -> dict[str, Array]:
    """Count values in equal bins from low to high, or absolute values from 0 to the largest."""
    found = {name: np.zeros(BINS, np.int64) for name in extremes}
    for tensors in samples:
        for name, values in tensors.items():
            low, high = extremes.get(name, (0.0, 0.0))
            if folded:
                values, low, high = np.abs(values), 0.0, max(abs(low), abs(high))
            if values.size:  # in float64: float32 has no 2048 bins within the range of a nearly constant tensor
                found[name] += np.histogram(values.astype(np.float64), BINS, (low, high if high > low else low + 1.0))[0]
    return found


def central(limits: tuple[float, float], counts: Array, percentile: float) -> tuple[float, float]:
    """Cut the same share off both ends, so that `percentile` percent of the values are inside at least."""
    low, high = limits
    edges, share = np.linspace(low, high, BINS + 1), np.cumsum(counts) / counts.sum()
    cut = (100 - percentile) / 200
    first = int(np.searchsorted(share, cut, side="right"))
    last = int(np.searchsorted(share, 1 - cut))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])


def clipped(limits: tuple[float, float], counts: Array) -> tuple[float, float]:
    """Clip at the magnitude at which rounding to eight bits loses the least information.

    counts: of absolute values, from 0 to the largest. The loss is the
    Kullback-Leibler divergence of the distribution and its rounded self (S.
    Migacz, 8-bit inference with TensorRT, GTC 2017); values of one sign have twice the levels.
    """
    low, high = limits
    largest = max(abs(low), abs(high))
    levels = 256 if low >= 0 or high <= 0 else 128
    sizes = range(levels, BINS + 1, 16)
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # exact zeros, as ReLU makes them, are exact at every scale
    losses = [_loss(counts, size, levels) for size in sizes]
    threshold = largest * sizes[int(np.argmin(losses))] / BINS
    return max(low, -threshold), min(high, threshold)


def _loss(counts: Array, size: int, levels: int) -> float:
    """Return the divergence if only the first `size` bins are kept, and put into so many levels."""
    kept = counts[:size]
    wanted = kept.copy()
    wanted[-1] += counts[size:].sum()
    if not wanted.sum():
        return 0.0
    starts = np.arange(levels) * size // levels
    filled = np.maximum(np.add.reduceat(kept > 0, starts), 1)
    mean = np.add.reduceat(kept, starts) / filled
    rounded = np.where(kept > 0, np.repeat(mean, np.diff([*starts, size])), 0)
    p, q = wanted / wanted.sum(), rounded / max(rounded.sum(), 1e-30)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-9))).sum())
