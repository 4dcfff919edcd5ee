"""Train a network for INT8: it rounds weights and activations in training, and its files keep the ranges that it learned.

Its control is the same network trained for as many steps in float, and then
quantized as any other: often most of what is gained is the training. A format
whose weights or activations are rounded otherwise (one scale for all channels,
Edge TPU's dense layers) keeps the ranges of activations all the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from edgebench.data import Dataset
from edgebench.errors import InputError
from edgebench.recipes import Job, Work, train
from edgebench.schema import Lineage, Network

PARENTS = ("parent",)
"""Models that a profile or `--parent` must give it."""
ROLE = "quantized"


class Options(train.Training):
    """What can be set beside the options of a training."""

    epochs: int = Field(5, ge=1)
    learning_rate: float = Field(1e-4, gt=0, description="peak of the schedule")
    symmetric: bool = Field(False, description="activations have zero point 0, as TensorRT wants them")
    follow: float = Field(0.5, ge=0, le=1, description="share of the steps in which ranges follow activations; then they stay")
    samples: int = Field(256, ge=1, description="of the training split, from which ranges begin")
    control: bool = Field(True, description="train in float for as long, then quantize, and show that metric")

    @model_validator(mode="after")
    def _in_one_process(self) -> Options:
        if self.devices > 1 or self.precision_train != 32:
            raise ValueError("ranges are learned by one process, in float32; leave devices and precision_train out")
        return self


def work(options: Options, dataset: Dataset) -> Work:
    """Count what all epochs take, the control's too."""
    return train.work(options.model_copy(update={"epochs": options.epochs * (2 if options.control else 1)}), dataset)


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Train with rounding, train the control, and write the model folder with the learned ranges."""
    from edgebench.recipes import _classifier
    from edgebench.recipes._fake_quant import FakeQuantized

    parent = _classifier.parent_of(job)
    spec, training, [example] = parent.model.preprocessing, _classifier.training_folder(folder), parent.example()
    if spec.volume is not None:
        raise InputError(f"{job.name}: sees volumes, of which no INT8 file is written (docs/data.md); leave qat out")
    loss, name = _classifier.label_loss(job.dataset, options), _classifier.metric_name(job)
    network = copy.deepcopy(parent.module)
    with _classifier.quietly(options, training):
        metrics = {f"parent_{name}": _classifier.judge(job, parent.module, spec)}
        rounding = FakeQuantized(network, example, options.symmetric)
        rounding.calibrate(_batches(job, options, parent))
        metrics[f"ptq_{name}"] = _classifier.judge(job, rounding, spec)
        rounding.follow(round(options.follow * train.work(options, job.dataset).steps))
        found = _classifier.learn(job, options, rounding, loss, spec, training / "rounded")
        rounding.calibrate_scores(_batches(job, options, parent))
        found = replace(found, metrics={**found.metrics, name: _classifier.judge(job, rounding, spec)})
        ranges = rounding.ranges()
        rounding.release()
        if options.control:
            control = FakeQuantized(copy.deepcopy(parent.module), example, options.symmetric)
            _classifier.seed(options)
            _classifier.learn(job, options, control, loss, spec, training / "control")
            control.calibrate(_batches(job, options, parent))
            metrics[f"control_{name}"] = _classifier.judge(job, control, spec)
    found = replace(found, metrics={**found.metrics, **metrics})
    _classifier.write(job, network, spec, lineage, folder, found, parent.model.pruned, ranges)


def _batches(job: Job, options: Options, parent: Network) -> Iterator[Any]:
    """Yield images of the training split, evenly drawn."""
    from edgebench.recipes import _classifier

    samples = _classifier.Samples(job.dataset.read("train"), parent.model.preprocessing)
    chosen = range(0, len(samples), math.ceil(len(samples) / options.samples))
    for start in range(0, len(chosen), options.batch_size):
        yield samples.__getitems__(chosen[start : start + options.batch_size])[0]
