"""What is explained: a deployed file on its device, or a torch network here; both answer changed images with scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.agent.runtimes import preprocess
from edgebench.analysis import heads
from edgebench.analysis.metrics import scores_of
from edgebench.config import read_dataset
from edgebench.data import Split, open_images
from edgebench.device.job import Pass
from edgebench.errors import InputError, MeasureError
from edgebench.models import PROGRAM
from edgebench.models.source import ENDINGS, SourceOptions, open_source
from edgebench.run.bring import is_runnable, tie
from edgebench.run.interleave import Part, run_passes
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, forget_samples
from edgebench.schema import Model, Network, Preprocessing, Target, no_progress
from edgebench.schema.explanation import ExplainedFile

if TYPE_CHECKING:
    from edgebench.data import Dataset

TOGETHER = 16
"""Images that go through a torch network at once."""
NETWORK, HOST = "network", "host"
Images = NDArray[np.uint8]
Scores = NDArray[Any]
Ask = Callable[[Images, str, Part], Scores]
"""Answers images [n, h, w, c] with scores [n, columns]; the label and the part say how far that is."""


@dataclass(frozen=True)
class Subject:
    """What is explained."""

    file: ExplainedFile
    model: Model
    data: Dataset
    spec: Preprocessing
    ask: Ask
    report: Callable[[str, float, float], None] = no_progress
    """Hears how far gradients are; whatever is asked reports by itself."""
    network: Network | None = None
    """None: a deployed file, which gives no gradients."""
    head: str | None = None
    """What its scores are, once that was looked at."""

    def looked_at(self, scores: Scores) -> Subject:
        """Remember what its scores [n, columns] of whole images are: covered ones may look otherwise."""
        return replace(self, head=self.model.head or heads.head_of(self.model.task, scores))

    def logits(self, scores: Scores) -> NDArray[np.float64]:
        """Return scores [n, columns] as logits [n, classes]."""
        return heads.logits(self.model.task, scores, self.head)

    def of_classes(self, scores: Scores, classes: Any) -> NDArray[np.float64]:
        """Return the logit of each row's class [n]."""
        return heads.of_classes(self.model.task, scores, classes, self.head)

    def likely(self, scores: Scores) -> NDArray[np.float64]:
        """Return how likely each class is held [n, classes]."""
        return np.asarray(tasks.part(self.model.task, "probabilities")(self.logits(scores)), np.float64)


def subjects(session: Session, sources: list[str | Path | SourceOptions], target: Target, dataset: str | None) -> list[Subject]:
    """Open what is to be explained, in the order given; the first is what others are compared with.

    `InputError` where one is no classifier of images, or they do not know the same classes and images.
    """
    found = [subject(session, source, target, dataset) for source in sources]
    first = found[0]
    for each in found[1:]:
        if each.model.classes != first.model.classes or each.data.read("test").sha256 != first.data.read("test").sha256:
            names = f"{first.file.name} and {each.file.name}"
            raise InputError(f"{names}: have other classes or test samples; compare what was made of one data set")
    return found


def subject(session: Session, source: str | Path | SourceOptions, target: Target, dataset: str | None) -> Subject:
    """Open a bundle's folder or a model file on the target, or a model folder, a checkpoint or an architecture here."""
    if not isinstance(source, SourceOptions):
        path = Path(source)
        if is_runnable(path) and path.suffix.lower() not in ENDINGS:
            return deployed(session, tie(session, path, target, dataset))
        source = SourceOptions(str(source), trust=session.options.trust)
    return of_network(session, source, dataset)


def deployed(session: Session, job: CellJob) -> Subject:
    """Explain a bundle that is tied to its device; `MeasureError` where that does not tell what it returns."""
    cell, bundle = job.cell, job.bundle
    if job.chosen:
        raise MeasureError("explain", f"{bundle.name}: {cell.runtime} cannot infer many changed images: {job.because}")
    file = ExplainedFile(
        model=cell.model,
        model_sha256=bundle.model.sha256,
        format=cell.format,
        precision=cell.precision,
        sha256=cell.bundle_sha256,
        target=cell.target,
        device=cell.device,
        runtime=cell.runtime,
        runtime_version=cell.runtime_version,
        options=dict(cell.options),
    )
    data = _explainable(bundle.model, job.data)

    def ask(images: Images, label: str, part: Part) -> Scores:
        split = Split(images, np.zeros(len(images), np.int64))
        asked = replace(job, data=data.judged_on(split), chosen=())
        try:
            [found] = run_passes(session, [asked], [Pass("accuracy")], label, (), part=part)
        finally:
            forget_samples(session, asked)
        predictions = found.predictions
        if predictions is None or predictions.rows != len(images):
            raise MeasureError(
                "explain", f"{bundle.name}: {cell.target} returned no scores: {found.unpredicted or 'nothing came'}"
            )
        return finite(bundle.name, scores_of(predictions.values, predictions.columns))

    return Subject(file, bundle.model, data, bundle.model.preprocessing, ask)


def of_network(session: Session, source: SourceOptions, dataset: str | None) -> Subject:
    """Explain a torch network in this process."""
    data = open_images(read_dataset(dataset)) if dataset else None
    model, load = open_source(source, data)
    if data is None and model.lineage.dataset is not None:
        data = open_images(model.lineage.dataset)
    import torch

    data, spec, network = _explainable(model, data), model.preprocessing, load()
    file = ExplainedFile(
        model=model.name,
        model_sha256=model.sha256,
        format=NETWORK,
        precision="fp32",
        sha256=model.sha256,
        target=HOST,
        device="",
        runtime="torch",
        runtime_version=f"torch {torch.__version__}",
    )
    together = 1 if model.architecture == PROGRAM else TOGETHER

    def ask(images: Images, label: str, part: Part) -> Scores:
        rows = []
        for first in range(0, len(images), together):
            session.report(label, part.begun + part.size * first / len(images), part.total)
            rows.append(next(iter(network.run(tensor(images[first : first + together], spec)).values())).float().numpy())
        return finite(file.name, np.concatenate(rows))

    return Subject(file, model, data, spec, ask, session.report, network)


def tensor(images: Images, spec: Preprocessing) -> Any:
    """Make a network's input, a float32 tensor [n, c, h, w], of images [n, h, w, c]."""
    import torch

    return torch.from_numpy(preprocess.apply(np.ascontiguousarray(images), spec.model_dump()))


def finite(name: str, scores: Scores) -> Scores:
    """Return scores as they are; `MeasureError` where one is no finite number."""
    if not np.isfinite(scores).all():
        raise MeasureError("explain", f"{name}: returns scores that are not finite", "look at the file with `edgebench run`")
    return scores


def _explainable(model: Model, data: Dataset | None) -> Dataset:
    """Return the data; `InputError` where there is none, or the network is no classifier of one image."""
    if data is None:
        raise InputError(f"{model.name}: explanations are of a data set's images; give --dataset")
    if not model.classes or tasks.part(model.task, "probabilities") is None:
        raise InputError(f"{model.name}: is no classifier (task {model.task}); explanations are of the scores of classes")
    if len(model.inputs) != 1 or not model.inputs[0].is_image or model.inputs[0].shape[0] not in (0, 1):
        raise InputError(f"{model.name}: takes {len(model.inputs)} inputs; explanations are of networks that take one image")
    if data.classes != model.classes:
        raise InputError(f"{model.name}: knows {len(model.classes)} classes, {data.ref} has {len(data.classes)}; choose its own")
    return data
