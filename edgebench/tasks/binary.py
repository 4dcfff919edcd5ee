"""One of two classes, of which the second counts as positive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Separated
from edgebench.tasks.multi_class import auroc, of_decisions, one_hot, probabilities

LIKE = "multi-class"


def metrics(labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float]:
    """Compute accuracy, F1, and the AUROC of the positive class."""
    truth = one_hot(labels, scores.shape[1])
    return {**of_decisions(labels, scores), **auroc(truth[:, 1:], (scores[:, 1:] - scores[:, :1]).astype(np.float64))}


def separated(labels: NDArray[Any], scores: NDArray[Any], names: Sequence[str]) -> Separated:
    """Tell the positive class from the other."""
    truth, likely = one_hot(labels, len(names)), probabilities(scores)
    note = f"Curves are those of {names[1]}, which counts as positive."
    return Separated(names[1:2], truth[:, 1:2], likely[:, 1:2], note)
