"""Knowledge distillation: the student learns a teacher's softened outputs beside the labels.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network",
2015: KL divergence between outputs at temperature T, times T², plus
cross-entropy. The data set's task has the divergence: `multi-label` that of each
label's Bernoulli distribution.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from edgebench.data import Dataset
from edgebench.errors import InputError
from edgebench.models import load_model
from edgebench.recipes import Job, Work, train
from edgebench.schema import Lineage

PARENTS = ("teacher",)
"""Models that a profile or `--teacher` must give it."""
ROLE = "student"


class Options(train.Options):
    """What can be set beside the options of `train`."""

    temperature: float = Field(4.0, gt=0)
    alpha: float = Field(0.7, ge=0, le=1, description="share of the teacher's term; the labels have the rest")


def work(options: Options, dataset: Dataset) -> Work:
    """Count what all epochs take: the teacher sees every image that the student sees."""
    alone = train.work(options, dataset)
    return replace(alone, taught=alone.learned + alone.judged)


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Distil, keep the epoch with the best validation metric, and write the model folder."""
    from edgebench.recipes import _classifier

    assert job.teacher is not None
    network = load_model(job.teacher, job.trust)
    seen = network.model.preprocessing
    if not _classifier.alike(seen, job):
        what = f"its teacher sees {seen.sees}, the student {_classifier.wanted_of(job)}"
        raise InputError(f"{job.name}: {what}; give both the same input")
    if network.model.fusion is not None:
        raise InputError(f"{job.teacher}: reads a text beside its image, which {job.name} would not; give an image network")
    if network.model.classes != job.dataset.classes:
        raise InputError(f"{job.name}: its teacher knows other classes than {job.dataset.ref}; distil on the teacher's data set")
    hard = _classifier.label_loss(job.dataset, options)
    loss = _classifier.soft_and_hard(job.dataset, network.module, options.temperature, options.alpha, hard)
    _classifier.fit(job, options, lineage, folder, loss, seen)
