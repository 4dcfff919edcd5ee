"""A task's metrics, from the scores that a device returned; scikit-learn does the mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Task

HEADLINE = {"multi-class": "accuracy", "binary": "accuracy", "ordinal": "accuracy", "multi-label": "auroc"}
"""The metric that ranks models of a task."""

Scores = NDArray[np.float32]


def decisions(task: Task, scores: Scores) -> NDArray[np.int64]:
    """Decide: the class of each sample [n], or 0 and 1 for each label [n, labels]."""
    if task == "multi-label":
        return (scores > 0).astype(np.int64)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def agreement(task: Task, one: Scores, other: Scores) -> float:
    """Return the share of samples (of single labels, for multi-label) decided alike."""
    return float((decisions(task, one) == decisions(task, other)).mean())


def probabilities(task: Task, scores: Scores) -> NDArray[Any]:
    """Turn logits [n, classes] into probabilities: of each class, or of each label by itself."""
    from scipy.special import expit, softmax

    if task == "multi-label":
        return np.asarray(expit(scores))
    return np.asarray(softmax(scores.astype(np.float64), axis=1))


def one_hot(task: Task, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Write labels as 0 and 1 for each class [n, classes]."""
    return labels if task == "multi-label" else (labels[:, None] == np.arange(classes)).astype(np.int64)


def evaluate(task: Task, labels: NDArray[np.int64], scores: Scores) -> dict[str, float]:
    """Compute every metric that is defined on these labels; scores: logits [n, classes].

    AUROC is one-vs-rest and macro-averaged, over the classes that occur with
    and without; it is left out where there is none.
    """
    from sklearn import metrics

    decided = decisions(task, scores)
    if task == "multi-label":
        found = {"accuracy": float((decided == labels).mean())}
        found["f1"] = float(metrics.f1_score(labels, decided, average="macro", zero_division=0.0))
        return {**found, **_auroc(labels, probabilities(task, scores))}
    found = {
        "accuracy": float(metrics.accuracy_score(labels, decided)),
        "f1": float(metrics.f1_score(labels, decided, average="macro", zero_division=0.0)),
    }
    if task == "ordinal":
        found["mae"] = float(np.abs(decided - labels).mean())
        known = np.arange(scores.shape[1])
        kappa = metrics.cohen_kappa_score(labels, decided, weights="quadratic", labels=known)
        found |= {"kappa": float(kappa)} if np.isfinite(kappa) else {}
    truth, likely = one_hot(task, labels, scores.shape[1]), probabilities(task, scores)
    if task == "binary":
        return {**found, **_auroc(truth[:, 1:], likely[:, 1:])}
    return {**found, **_auroc(truth, likely)}


def _auroc(truth: NDArray[np.int64], likely: NDArray[Any]) -> dict[str, float]:
    """Average the areas of the columns that hold both a 0 and a 1."""
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(truth[:, column], likely[:, column])
        for column in range(truth.shape[1])
        if 0 < truth[:, column].sum() < len(truth)
    ]
    return {"auroc": float(np.mean(areas))} if areas else {}


def scores_of(values: bytes, columns: int) -> NDArray[np.float32]:
    """Turn an agent's float32 bytes into scores [n, classes]."""
    return np.frombuffer(values, "<f4").reshape(-1, columns)
