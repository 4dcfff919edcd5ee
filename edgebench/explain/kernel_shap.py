"""KernelSHAP: Shapley values of the cells by weighted least squares (S. Lundberg, S.-I. Lee 2017).

Sampled in pairs of a mask and its opposite, with the values' sum held to what
is between the covered image and the whole one (I. Covert, S.-I. Lee 2021); all
masks, and so the exact values, where they are no more than was asked for.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

NEEDS = "scores"
SEEDED = True
EVALUATIONS = 500


def masks(cells: int, evaluations: int, random: Any) -> Any:
    """Show no cell, then subsets: all there are, or drawn by the kernel in pairs."""
    none = np.zeros((1, cells), bool)
    if 2**cells - 1 <= evaluations:
        every = np.array(list(itertools.product((False, True), repeat=cells)))
        return np.concatenate([none, every[1:-1]])
    sizes = np.arange(1, cells)
    weights = 1.0 / (sizes * (cells - sizes))
    drawn = random.choice(sizes, size=max(1, (evaluations - 1) // 2), p=weights / weights.sum())
    ranks = random.random((len(drawn), cells)).argsort(axis=1).argsort(axis=1)
    shown = ranks < drawn[:, None]
    return np.concatenate([none, shown, ~shown])


def attribute(masks: Any, scores: Any, whole: Any) -> Any:
    """Return Shapley values; they add up to the whole image's score less that of the covered one."""
    cells, shown = masks.shape[1], masks[1:].astype(np.float64)
    weights = _weights(shown, cells)
    gained = scores[:, 1:] - scores[:, :1]
    products = (shown * weights[:, None]).T @ shown
    right = (gained * weights) @ shown
    inverse = np.linalg.pinv(products)
    free = right @ inverse
    ones = inverse.sum(axis=1)
    missing = whole - scores[:, 0] - free.sum(axis=1)
    return free + missing[:, None] * ones / ones.sum()


def _weights(shown: Any, cells: int) -> Any:
    """Weigh subsets by the kernel where all are there; drawn ones came by it."""
    if len(shown) != 2**cells - 2:
        return np.full(len(shown), 1 / len(shown))
    sizes = shown.sum(axis=1)
    found = np.array([(cells - 1) / (math.comb(cells, int(size)) * size * (cells - size)) for size in sizes])
    return found / found.sum()
