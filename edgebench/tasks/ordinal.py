"""One of several classes that have an order: how far off a decision is counts as well."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.tasks.multi_class import auroc, decisions, of_decisions, one_hot, probabilities

LIKE = "multi-class"
ORDERED = True


def metrics(labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float]:
    """Compute those of `multi-class`, the mean absolute error in classes, and Cohen's kappa with quadratic weights."""
    from sklearn.metrics import cohen_kappa_score

    found, classes = decisions(scores), scores.shape[1]
    kappa = float(cohen_kappa_score(labels, found, weights="quadratic", labels=np.arange(classes)))
    return {
        **of_decisions(labels, scores),
        "mae": float(np.abs(found - labels).mean()),
        **({"kappa": kappa} if np.isfinite(kappa) else {}),
        **auroc(one_hot(labels, classes), probabilities(scores)),
    }
