"""LIME: a linear model of the score by which cells are shown, near the whole image (M. T. Ribeiro et al. 2016)."""

from __future__ import annotations

from typing import Any

import numpy as np

NEEDS = "scores"
SEEDED = True
EVALUATIONS = 500
WIDTH = 0.25
"""Of the kernel exp(−d² / width²) over the cosine distance to the whole image, as the authors' own program has it."""
RIDGE = 1.0
"""Weight of the coefficients' squares, likewise."""


def masks(cells: int, evaluations: int, random: Any) -> Any:
    """Show each cell with a probability of one half; the first shows all."""
    drawn = random.random((evaluations, cells)) < 0.5
    drawn[0] = True
    return drawn


def attribute(masks: Any, scores: Any, whole: Any) -> Any:
    """Return the coefficients of a weighted ridge regression of the scores."""
    from sklearn.linear_model import Ridge

    shown = masks.mean(axis=1)
    near = np.exp(-((1 - np.sqrt(shown)) ** 2) / WIDTH**2)  # the cosine of k ones among n with all ones is √(k / n)
    fitted = Ridge(alpha=RIDGE).fit(masks.astype(np.float64), scores.T, sample_weight=near)
    return np.asarray(fitted.coef_, np.float64).reshape(len(scores), -1)
