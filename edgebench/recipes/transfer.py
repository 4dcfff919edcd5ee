"""Train a network that has learnt something else for the data at hand: with a new head, and as much of the rest as is wanted.

`freeze` says how much: `all` trains the head alone, on features as they are; `last:2` the last two blocks too; `gradual` one
block more at a time, from the last to the first (J. Howard, S. Ruder, "Universal language model fine-tuning", 2018); `none`
all at once. What is not the head learns at `backbone_rate` of its rate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from edgebench.data import Dataset
from edgebench.errors import InputError
from edgebench.recipes import LATER, Job, Work, train
from edgebench.schema import Lineage, NewHead

MAY_HAVE = ("parent",)
"""Models that a profile or `--parent` can give it."""


class Options(train.Training):
    """What can be set beside the options of a training."""

    learning_rate: float = Field(1e-3, gt=0, description="peak of the schedule, of the head")
    pretrained: bool = Field(False, description="begin with the weights that torchvision or timm publishes")
    weights: str | None = Field(None, description="begin with a checkpoint file of the same architecture, of any classes")
    imagenet: bool = Field(False, description="the checkpoint file's network saw ImageNet's mean and deviation")
    untrained: Annotated[bool, LATER] = Field(
        False, description="begin with random weights: what a run on synthetic data does in place of published ones"
    )
    freeze: str = Field(
        "none", pattern=r"^(all|none|gradual|last:[1-9]\d*)$", description="what does not learn; last:N: all but N blocks"
    )
    head: str = Field("linear", pattern=r"^(linear|mlp:[1-9]\d*)$", description="mlp:512: with a layer of that width")
    dropout: float = Field(0.2, ge=0, lt=1, description="before each dense layer of the head")
    backbone_rate: float = Field(0.1, gt=0, description="share of the learning rate that all but the head has")

    @model_validator(mode="after")
    def _begin_once(self) -> Options:
        begun = [name for name in ("pretrained", "weights", "untrained") if getattr(self, name)]
        if len(begun) > 1:
            raise ValueError(f"{' and '.join(begun)} are two beginnings; leave one out")
        if self.imagenet and self.weights is None:
            raise ValueError("imagenet belongs to weights; pretrained and a parent say what they saw")
        if self.freeze == "gradual" and self.epochs < 2:
            raise ValueError("freeze gradual wants 2 epochs at least")
        return self

    @property
    def new_head(self) -> NewHead:
        """Return the head as models keep it."""
        hidden = None if self.head == "linear" else int(self.head.partition(":")[2])
        return NewHead(hidden=hidden, dropout=self.dropout)


def check(name: str, options: BaseModel, given: Collection[str]) -> None:
    """Refuse a transfer from nothing, or from two things."""
    assert isinstance(options, Options)
    begun = options.pretrained or options.untrained or options.weights is not None
    if begun == ("parent" in given):
        wanted = f"one beginning (a parent, or the option pretrained or weights), and {'two are' if begun else 'none is'} given"
        raise InputError(f"{name}: the recipe transfer wants {wanted}")


def files(options: Options) -> tuple[Path, ...]:
    """Name the files that go in."""
    return () if options.weights is None else (Path(options.weights),)


def work(options: Options, dataset: Dataset) -> Work:
    """Count what all epochs take, if all learnt in all of them."""
    return train.work(options, dataset)


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Give the network its head, train it, and write the model folder with what the strategy cost."""
    from edgebench.models import heads
    from edgebench.recipes import _classifier, _transfer

    training = _classifier.training_folder(folder)
    loss = _classifier.label_loss(job.dataset, options)
    with _classifier.quietly(options, training):
        network, spec, pruned = _transfer.beginning(job, options)
        example = _transfer.example(spec)
        head = heads.replace(network, options.new_head, example, len(job.dataset.classes))
        groups = _transfer.groups(network, head, example, options, job.name)
        found = _classifier.learn(job, options, network, loss, spec, training, groups)
    learnt = sum(parameter.numel() for group in groups if group.begins is not None for parameter in group.parameters)
    cost = {
        "trainable_parameters": float(learnt),
        "epochs_to_best": found.metrics["best_epoch"] + 1.0,
        "seconds": round(found.seconds, 1),
    }
    found = replace(found, metrics={**found.metrics, **cost})
    _classifier.write(job, network, spec, lineage, folder, found, pruned, new_head=options.new_head)
