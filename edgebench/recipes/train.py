"""Train a classifier on labels alone, by the loss of its task: cross-entropy, of single labels for `multi-label`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from edgebench.data import Dataset
from edgebench.recipes import Job, Work
from edgebench.schema import Frozen, Lineage


class Training(Frozen):
    """What can be set of any training; the defaults suit small medical and digit images."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(2e-3, gt=0, description="peak of the schedule")
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    patience: int | None = Field(None, ge=1, description="epochs without a better validation metric before it stops")
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["none", "affine", "flip", "light", "medical"] = Field("affine", description="drawn for each image")
    seed: int = 0
    threads: int | None = Field(None, ge=1, description="null: as torch decides; 1 is faster for small networks on busy cores")
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field((), description="where epochs are written as they go")

    @field_validator("loggers", mode="before")
    @classmethod
    def _with_commas(cls, given: Any) -> Any:
        return [part for part in given.split(",") if part] if isinstance(given, str) else given


class Options(Training):
    """What can be set."""

    pretrained: bool = False


def work(options: Training, dataset: Dataset) -> Work:
    """Count what all epochs take; fewer run where patience ends them."""
    train, val, epochs = len(dataset.read("train")), len(dataset.read("val")), options.epochs
    steps = epochs * math.ceil(train / options.batch_size)
    return Work(steps, learned=epochs * train, judged=epochs * val)


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Train, keep the epoch with the best validation metric, and write the model folder."""
    from edgebench.recipes import _classifier

    _classifier.fit(job, options, lineage, folder, _classifier.label_loss(job.dataset, options.class_weights))
