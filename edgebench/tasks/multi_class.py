"""One class of several for each sample; labels: int64 [n], the classes' numbers from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Separated, Worst

if TYPE_CHECKING:
    import torchmetrics
    from torch import Tensor

Array = NDArray[Any]
HEADLINE = "accuracy"
PROBABILITIES = "softmax"
VALIDATION = "accuracy"
NEAR_TIE = 0.01
"""Share of a sample's range of scores: what lies closer nearly ties."""


def misshapen(shape: Sequence[int], classes: int | None = None) -> str:
    """Say what labels of a shape lack."""
    return "" if shape and math.prod(shape) == shape[0] else "wants one label for each image"


def most(classes: int) -> int:
    """Return the number of the last class."""
    return classes - 1


def classes_in(labels: Array) -> int:
    """Count the classes up to the highest that occurs."""
    return int(labels.max()) + 1


def decisions(scores: Array) -> NDArray[np.int64]:
    """Decide for the class of the highest score [n]."""
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def hits(labels: Array, scores: Array) -> NDArray[np.bool_]:
    """Return whether each sample is decided rightly."""
    return np.asarray(decisions(scores) == labels)


def commonest(labels: Array) -> float:
    """Return the share of the class that most samples are of."""
    return float(np.bincount(labels).max() / len(labels))


def near_ties(reference: Array, outputs: Array) -> NDArray[np.bool_]:
    """Return which samples are decided otherwise, between classes whose reference scores lie within 1 % of the sample's range."""
    rows = np.arange(len(reference))
    before, after = decisions(reference), decisions(outputs)
    margin = reference[rows, before] - reference[rows, after]
    return np.asarray((before != after) & (margin < NEAR_TIE * (reference.max(axis=1) - reference.min(axis=1))))


def probabilities(scores: Array) -> Array:
    """Turn scores into the probability of each class, which are 1 together."""
    from scipy.special import softmax

    return np.asarray(softmax(scores.astype(np.float64), axis=1))


def one_hot(labels: Array, classes: int) -> NDArray[np.int64]:
    """Write labels as 0 and 1 for each class [n, classes]."""
    return np.asarray(labels[:, None] == np.arange(classes)).astype(np.int64)


def of_decisions(labels: Array, scores: Array) -> dict[str, float]:
    """Compute the metrics that decisions alone tell: the share of right ones, and F1 averaged over the classes."""
    from sklearn import metrics

    found = decisions(scores)
    return {
        "accuracy": float(metrics.accuracy_score(labels, found)),
        "f1": float(metrics.f1_score(labels, found, average="macro", zero_division=0.0)),
    }


def auroc(truth: Array, likely: Array) -> dict[str, float]:
    """Average the areas under the ROC curves of the columns [n, classes] that hold both a 0 and a 1; nothing where none does.

    `auroc_classes` says how many those are, where they are not all.
    """
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(truth[:, column], likely[:, column])
        for column in range(truth.shape[1])
        if 0 < truth[:, column].sum() < len(truth)
    ]
    covered = {} if len(areas) == truth.shape[1] else {"auroc_classes": float(len(areas))}
    return {"auroc": float(np.mean(areas)), **covered} if areas else {}


def metrics(labels: Array, scores: Array) -> dict[str, float]:
    """Compute accuracy, F1, and AUROC: one class against the rest, averaged over those that occur with and without."""
    return {**of_decisions(labels, scores), **auroc(one_hot(labels, scores.shape[1]), probabilities(scores))}


# ---------------------------------------------------------------- what a report draws


def confusion(labels: Array, scores: Array, names: Sequence[str]) -> list[tuple[str, Sequence[str], Array]]:
    """Count what each class was decided to be: a line for each true one."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, decisions(scores), labels=np.arange(len(names)))
    return [(name, names, row) for name, row in zip(names, counts, strict=True)]


def separated(labels: Array, scores: Array, names: Sequence[str]) -> Separated:
    """Tell each class from all the others."""
    return Separated(names, one_hot(labels, len(names)), probabilities(scores))


def calibration(labels: Array, scores: Array) -> tuple[str, Array, Array]:
    """Hold the probability of each decision against whether it is right."""
    return "confidence in the decision", hits(labels, scores), probabilities(scores).max(axis=1)


def worst(labels: Array, scores: Array) -> Worst:
    """Rate samples by their cross-entropy."""
    from scipy.special import log_softmax

    rows, found = np.arange(len(labels)), decisions(scores)
    classes = scores.shape[1]
    return Worst(
        loss=-log_softmax(scores.astype(np.float64), axis=1)[rows, labels],
        truth=one_hot(labels, classes),
        decided=one_hot(found, classes),
        confidence=probabilities(scores)[rows, found],
    )


# ---------------------------------------------------------------- what a recipe trains by


def loss(
    labels: Array, classes: int, balanced: bool, smoothing: float = 0.0, gamma: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the cross-entropy (logits, labels → scalar); balanced: classes weigh by how rare they are among `labels`.

    smoothing: share of each label that is dealt out to all classes (C. Szegedy et al., 2016). gamma above 0: the focal loss,
    −(1 − p)^gamma · log p of the true class's p (T.-Y. Lin et al., "Focal loss for dense object detection", 2017), averaged with
    the classes' weights, so that gamma 0 would be the cross-entropy.
    """
    import torch
    from torch.nn import functional

    counts = torch.bincount(torch.from_numpy(labels), minlength=classes).clamp(min=1).float()
    weights = counts.sum() / (len(counts) * counts) if balanced else None

    def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
        moved = None if weights is None else weights.to(logits.device)
        return functional.cross_entropy(logits, truth, weight=moved, label_smoothing=smoothing)

    def focal(logits: Tensor, truth: Tensor) -> Tensor:
        log_likely = functional.log_softmax(logits, dim=1).gather(1, truth[:, None])[:, 0]
        each = -((1 - log_likely.exp()) ** gamma) * log_likely
        own = torch.ones_like(each) if weights is None else weights.to(logits.device)[truth]
        return (own * each).sum() / own.sum()

    return focal if gamma else cross_entropy


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute T² × KL(teacher ‖ student) of the classes' distributions at temperature T, averaged over the batch."""
    from torch.nn import functional

    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def validation(classes: int) -> torchmetrics.Metric:
    """Make the metric that picks a checkpoint: accuracy."""
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(num_classes=classes, average="micro")
