"""Train a classifier on labels alone, by the loss of its task: cross-entropy, of single labels for `multi-label`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from edgebench.data import Dataset
from edgebench.recipes import LATER, Job, Work
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
    threads: Annotated[int | None, LATER] = Field(
        None, ge=1, description="null: as torch decides; 1 is faster for small networks on busy cores"
    )
    accumulate: Annotated[int, LATER] = Field(1, ge=1, description="batches whose gradients make one step")
    clip: Annotated[float | None, LATER] = Field(None, gt=0, description="longest that the gradient of a step may be (2-norm)")
    precision_train: Annotated[Literal["bf16", 16, 32], LATER] = Field(
        32, description="what is computed in training: bfloat16, float16 (with scaled losses) or float32; weights stay float32"
    )
    sampler: Annotated[Literal["shuffle", "weighted"], LATER] = Field(
        "shuffle", description="weighted: drawn with replacement, each class as often as any other"
    )
    loss: Annotated[Literal["cross-entropy", "focal"], LATER] = "cross-entropy"
    focal_gamma: Annotated[float, LATER] = Field(2.0, gt=0, description="of the focal loss: how little easy samples count")
    label_smoothing: Annotated[float, LATER] = Field(0.0, ge=0, lt=1, description="share of a label given to all classes alike")
    mixup: Annotated[float, LATER] = Field(0.0, ge=0, description="alpha of the Beta distribution that mixes images; 0: none")
    devices: Annotated[int, LATER] = Field(1, ge=1, description="processes that share each batch, one to a GPU or on the CPU")
    parallel: Annotated[Literal["ddp"], LATER] = Field("ddp", description="how they share it: gradients are averaged each step")

    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field((), description="where epochs are written as they go")

    @field_validator("loggers", mode="before")
    @classmethod
    def _parts(cls, given: Any) -> Any:
        """Read names with commas between as a list of them."""
        return [part for part in given.split(",") if part] if isinstance(given, str) else given

    @field_validator("precision_train", mode="before")
    @classmethod
    def _number(cls, given: Any) -> Any:
        """Read "16" and "32" as the numbers that YAML makes of them."""
        return int(given) if given in ("16", "32") else given

    @model_validator(mode="after")
    def _fit_each_other(self) -> Training:
        if self.batch_size % self.devices or self.batch_size < 2 * self.devices:
            raise ValueError(
                f"batch_size {self.batch_size} is not so many images for each of {self.devices} devices, two at least"
            )
        if self.loss == "focal" and self.label_smoothing:
            raise ValueError("loss focal and label_smoothing do not go together; leave one out")
        return self


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

    _classifier.fit(job, options, lineage, folder, _classifier.label_loss(job.dataset, options))
