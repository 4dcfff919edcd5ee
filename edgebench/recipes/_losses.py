"""What recipes train by: losses on labels, on what a teacher says, and on mixed images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgebench import tasks
from edgebench.data import Dataset
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.recipes.train import Training

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def label_loss(dataset: Dataset, options: Training) -> Loss:
    """Make the loss on labels (logits, images, labels → scalar) of the data set's task, as the options shape it."""
    make = learnt(dataset, "loss")
    shape: dict[str, float] = {}
    if options.loss == "focal":
        shape["gamma"] = options.focal_gamma
    if options.label_smoothing:
        shape["smoothing"] = options.label_smoothing
    lacking = [name for name in shape if name not in inspect.signature(make).parameters]
    if lacking:
        raise InputError(f"{dataset.ref}: the loss of the task {dataset.task} has no {lacking[0]}; leave that option out")
    made = make(dataset.read("train").labels, len(dataset.classes), options.class_weights == "balanced", **shape)

    def loss(logits: Tensor, images: Tensor, truth: Tensor) -> Tensor:
        found: Tensor = made(logits, truth)
        return found

    return loss


def soft_and_hard(dataset: Dataset, teacher: torch.nn.Module, temperature: float, alpha: float, hard: Loss) -> Loss:
    """Make the loss of distillation: so much of what the teacher says at a temperature, the rest of what the labels do."""
    soft = learnt(dataset, "soft_loss")

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher.to(images.device)(images)
        missed: Tensor = soft(logits, target, temperature)
        return alpha * missed + (1 - alpha) * hard(logits, images, labels)

    return loss


def learnt(dataset: Dataset, part: str) -> Any:
    """Return what the data set's task has for recipes under a name; `InputError` where it has nothing."""
    found = tasks.part(dataset.task, part)
    if found is None:
        raise InputError(
            f"{dataset.ref}: the task {dataset.task} has no {part}, and nothing is learnt without; choose another task"
        )
    return found


def mixed(images: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Mix each image with another of its batch; returns them, which others, and the share of the own image.

    H. Zhang et al., "mixup: Beyond empirical risk minimization", 2018: one share a batch, from Beta(alpha, alpha). The loss
    is that share of the loss on the own labels, and the rest of the loss on the other's.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    others = torch.randperm(len(images)).to(images.device)
    return share * images + (1 - share) * images[others], others, share
