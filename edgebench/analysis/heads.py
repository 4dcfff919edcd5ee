"""What a network's outputs are: scores before or after its activation, one for each class, or one for two classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks

HEADS = ("logits", "softmax", "sigmoid")
LEAST = 8
"""Of fewer samples nothing is concluded."""
NEAR = 0.02
"""How far rows of probabilities may be from 1 together, as those of a quantized output are."""


def head_of(task: str, scores: NDArray[Any]) -> str:
    """Look at scores [n, columns]: `softmax` or `sigmoid` where they are probabilities already, else `logits`."""
    if len(scores) < LEAST or scores.ndim != 2 or not np.isfinite(scores).all():
        return "logits"
    if scores.min() < 0 or scores.max() > 1 or scores.min() == scores.max():
        return "logits"
    if scores.shape[1] == 1 or tasks.part(task, "PROBABILITIES") == "sigmoid":
        return "sigmoid"
    alike = np.abs(scores.astype(np.float64).sum(axis=1) - 1).max() <= NEAR
    return "softmax" if alike and tasks.part(task, "PROBABILITIES") == "softmax" else "logits"


def logits(task: str, scores: NDArray[Any], head: str | None = None) -> NDArray[np.float64]:
    """Return scores [n, columns] as logits in float64, whose task's activation gives the network's own probabilities.

    `head`: what they are, None: as `head_of` sees them. One column of two classes
    becomes two, of which the second is positive where it is above 0, or above one half.
    """
    wide = scores.astype(np.float64)
    head = head or head_of(task, scores)
    if head == "logits":
        pass
    elif head == "sigmoid":
        inside = np.clip(wide, 0, 1)
        with np.errstate(divide="ignore"):
            wide = np.clip(np.log(inside) - np.log1p(-inside), -1e3, 1e3)
    else:
        with np.errstate(divide="ignore"):
            wide = np.maximum(np.log(np.maximum(wide, 0)), -1e3)
    if wide.ndim == 2 and wide.shape[1] == 1 and tasks.part(task, "PROBABILITIES") == "softmax":
        wide = np.concatenate([np.zeros_like(wide), wide], axis=1)
    return wide


def of_classes(task: str, scores: NDArray[Any], classes: Any, head: str | None = None) -> NDArray[np.float64]:
    """Return the logit of each row's class [n]; of one column for two classes, the first has the opposite of the second's."""
    found, wanted = logits(task, scores, head), np.asarray(classes)
    if scores.shape[1] == 1 and found.shape[1] == 2:
        return np.asarray(found[:, 1] * (2 * wanted - 1))
    return np.asarray(found[np.arange(len(found)), wanted])
