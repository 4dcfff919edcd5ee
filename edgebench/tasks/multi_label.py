"""Any number of labels for each sample, each decided by itself; labels: int64 [n, labels] of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Separated, Worst
from edgebench.tasks.multi_class import auroc

if TYPE_CHECKING:
    import torchmetrics
    from torch import Tensor

Array = NDArray[Any]
HEADLINE = "auroc"
PROBABILITIES = "sigmoid"
VALIDATION = "auroc"


def misshapen(shape: Sequence[int], classes: int | None = None) -> str:
    """Say what labels of a shape lack."""
    if len(shape) != 2 or (classes is not None and shape[1] != classes):
        return "wants [n, labels]" if classes is None else f"wants [n, {classes}]"
    return ""


def most(classes: int) -> int:
    """Return 1: a label is there, or is not."""
    return 1


def classes_in(labels: Array) -> int:
    """Count the labels of each sample."""
    return int(labels.shape[1])


def decisions(scores: Array) -> NDArray[np.int64]:
    """Decide for the labels of which more than one half is held likely [n, labels]."""
    return np.asarray(scores > 0).astype(np.int64)


def commonest(labels: Array) -> float:
    """Return the share of labels that are right where each is always, or never, said to be there."""
    return float(np.maximum(labels.mean(axis=0), 1 - labels.mean(axis=0)).mean())


def probabilities(scores: Array) -> Array:
    """Turn scores into the probability of each label by itself."""
    from scipy.special import expit

    return np.asarray(expit(scores.astype(np.float64)))


def one_hot(labels: Array, classes: int) -> Array:
    """Return labels as they are."""
    return labels


def metrics(labels: Array, scores: Array) -> dict[str, float]:
    """Compute the share of labels that are right, and F1 and AUROC averaged over the labels."""
    from sklearn.metrics import f1_score

    decided = decisions(scores)
    return {
        "accuracy": float((decided == labels).mean()),
        "f1": float(f1_score(labels, decided, average="macro", zero_division=0.0)),
        **auroc(labels, scores.astype(np.float64)),
    }


# ---------------------------------------------------------------- what a report draws


def confusion(labels: Array, scores: Array, names: Sequence[str]) -> list[tuple[str, Sequence[str], Array]]:
    """Count each label by itself: where it is there, and where it is not."""
    from sklearn.metrics import multilabel_confusion_matrix

    counts = multilabel_confusion_matrix(labels, decisions(scores), labels=np.arange(len(names)))
    return [
        (f"{name}: {what}", ("decided absent", "decided present"), row)
        for name, matrix in zip(names, counts, strict=True)
        for what, row in zip(("absent", "present"), matrix, strict=True)
    ]


def separated(labels: Array, scores: Array, names: Sequence[str]) -> Separated:
    """Tell the samples of each label from those without it."""
    return Separated(names, labels, probabilities(scores))


def calibration(labels: Array, scores: Array) -> tuple[str, Array, Array]:
    """Hold the probability of each label against whether it is there."""
    return "probability of each label", labels.ravel(), probabilities(scores).ravel()


def worst(labels: Array, scores: Array) -> Worst:
    """Rate samples by the binary cross-entropy of the label that is most wrong."""
    wide, rows = scores.astype(np.float64), np.arange(len(labels))
    loss = np.logaddexp(0, np.where(labels > 0, -wide, wide))
    likely, decided, column = probabilities(scores), decisions(scores), loss.argmax(axis=1)
    given = np.where(decided > 0, likely, 1 - likely)
    return Worst(loss=loss.max(axis=1), truth=labels, decided=decided, confidence=given[rows, column])


# ---------------------------------------------------------------- what a recipe trains by


def loss(
    labels: Array, classes: int, balanced: bool, smoothing: float = 0.0, gamma: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the binary cross-entropy (logits, labels → scalar); balanced: labels weigh by how rare they are among `labels`.

    smoothing: a label of 1 becomes 1 − smoothing / 2, one of 0 becomes smoothing / 2. gamma above 0: the focal loss of each
    label, (1 − p)^gamma times its cross-entropy, where p is the probability of what is true (T.-Y. Lin et al., 2017).
    """
    import torch
    from torch.nn import functional

    positive = torch.from_numpy(labels).float().mean(dim=0).clamp(min=1e-3)
    weight = ((1 - positive) / positive).clamp(max=100) if balanced else None

    def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
        moved = None if weight is None else weight.to(logits.device)
        wanted = truth.float() * (1 - smoothing) + smoothing / 2
        if not gamma:
            return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=moved)
        each = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=moved, reduction="none")
        likely = torch.sigmoid(logits)
        missed = torch.where(truth > 0, 1 - likely, likely)
        return (missed**gamma * each).mean()

    return cross_entropy


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute T² × KL(teacher ‖ student) of each label's Bernoulli distribution at temperature T, averaged over all."""
    import torch
    from torch.nn import functional

    target = torch.sigmoid(teacher / temperature)
    cross = functional.binary_cross_entropy_with_logits(student / temperature, target)
    return temperature**2 * (cross - functional.binary_cross_entropy(target, target))


def validation(classes: int) -> torchmetrics.Metric:
    """Make the metric that picks a checkpoint: AUROC, averaged over the labels."""
    from torchmetrics.classification import MultilabelAUROC

    return MultilabelAUROC(num_labels=classes)
