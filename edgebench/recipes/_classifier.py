"""What the recipes train and write: the network with its loss and metric, and its model folder; `_trainer` runs it."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torchmetrics
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgebench import models
from edgebench.agent.runtimes import preprocess
from edgebench.data import Dataset, Split
from edgebench.data._mapped import release
from edgebench.errors import InputError
from edgebench.files import new_folder, sha256_file, storage
from edgebench.models import tokens
from edgebench.models.normalization import preprocessing, sides
from edgebench.recipes import Job, _groups, _history, _loggers, _losses, _processes, _trainer, describe
from edgebench.recipes._augment import Augmentation, augmentation, shifted
from edgebench.recipes._groups import Group, whole
from edgebench.recipes._losses import Loss, label_loss, learnt, soft_and_hard
from edgebench.recipes._trainer import BEST, IMPROVEMENTS, as_is
from edgebench.schema import Fusion, Lineage, Network, NewHead, Preprocessing, Pruned

if TYPE_CHECKING:
    from edgebench.recipes.train import Options, Training

__all__ = ["label_loss", "soft_and_hard"]  # of the losses, what recipes take from here
Ranges = dict[str, tuple[float, float]]
JUDGED, JUDGED_BYTES = 256, 64 << 20
"""Samples that go through a network alone at once, and float32 bytes of volumes."""


Beside = tuple[Tensor, ...]
"""What else a network takes of each sample, in its order: ids and mask of a text."""


class Samples(TorchDataset[tuple[Any, Tensor]]):
    """A split, preprocessed batch by batch with the code that the device runs."""

    def __init__(self, split: Split, spec: Preprocessing, augmentation: Augmentation | None = None, beside: Beside = ()) -> None:
        self.split = split
        self.spec = spec.model_dump()
        self.augmentation = augmentation
        self.beside = beside

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.split)

    @property
    def together(self) -> int:
        """Return how many are judged at once: volumes fewer where they are large."""
        each = 4 * math.prod(self.split.images.shape[1:])
        return JUDGED if self.split.images.ndim == 4 else max(1, min(JUDGED, JUDGED_BYTES // each))

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, Tensor]:
        """Return images float32 [n, c, h, w], or volumes [n, c, d, h, w], and labels; a list of those and what is beside them."""
        pixels = self.split.images[list(indices)]
        if self.augmentation is not None:
            pixels = self.augmentation(preprocess.whole(pixels, {**self.spec, "channels": pixels.shape[3]}), indices)
        images = preprocess.apply(pixels, self.spec)
        release(self.split.images)
        labels = torch.from_numpy(self.split.labels[list(indices)])
        if self.beside:
            return [torch.from_numpy(images), *(each[list(indices)] for each in self.beside)], labels
        return torch.from_numpy(images), labels


def apart(given: Any) -> tuple[Tensor, list[Tensor]]:
    """Return a batch's images, and what a network takes beside them."""
    return (given, []) if isinstance(given, Tensor) else (given[0], list(given[1:]))


class Classifier(lightning.LightningModule):
    """A network, its loss, and the metric that picks its checkpoint."""

    best: Tensor
    """The best epoch's metric and negated loss, and how many epochs were better than all before."""

    def __init__(
        self, network: torch.nn.Module, loss: Loss, dataset: Dataset, options: Training, groups: Sequence[Group] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.options = options
        self.groups = tuple(groups) or whole(network)
        self.metric: torchmetrics.Metric = learnt(dataset, "validation")(len(dataset.classes))
        self.register_buffer("best", torch.tensor([-math.inf, -math.inf, 0]))

    def training_step(self, batch: tuple[Any, Tensor], index: int) -> Tensor:
        """Return the loss of an augmented batch, computed in float32 whatever the network is trained in."""
        (images, beside), labels = apart(batch[0]), batch[1]
        images, others, share = shifted(images, self.options.augment), None, 1.0
        if self.options.mixup:
            images, others, share = _losses.mixed(images, self.options.mixup)
        logits = self.network(images, *beside)
        with exactly(images):
            loss = self.loss(logits.float(), images, labels)
            if others is not None:
                loss = share * loss + (1 - share) * self.loss(logits.float(), images, labels[others])
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=self.options.devices > 1)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], index: int) -> None:
        """Gather the validation metric and loss, of the network in float32, as it is kept."""
        (images, beside), labels = apart(batch[0]), batch[1]
        with exactly(images):
            logits = self.network(images, *beside)
            self.metric.update(logits, labels)
            loss = self.loss(logits, images, labels)
        self.log("val_loss", loss, batch_size=len(labels), sync_dist=self.options.devices > 1)

    def on_validation_epoch_end(self) -> None:
        """Log the metric of the epoch, and how many epochs so far had a better one (then a lower loss) than all before."""
        metric = self.metric.compute()
        self.metric.reset()
        self.log("val_metric", metric)
        score = [float(metric), -float(self.trainer.callback_metrics["val_loss"])]
        if score > self.best[:2].tolist():
            self.best = self.best.new_tensor([*score, float(self.best[2]) + 1])
        self.log(IMPROVEMENTS, self.best[2], logger=False)
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch, "learning_rate": rate}, self.global_step)

    def configure_optimizers(self) -> Any:
        """AdamW over the groups, with the learning-rate schedule of the options."""
        return _groups.optimizer(self.groups, self.options, int(self.trainer.estimated_stepping_batches))


def exactly(images: Tensor) -> torch.autocast:
    """Compute in the precision of the weights, where the training around it computes in a lower one."""
    return torch.autocast(images.device.type, enabled=False)


def fit(job: Job, options: Options, lineage: Lineage, folder: Path, loss: Loss, spec: Preprocessing | None = None) -> None:
    """Train and write `folder`: model.json, checkpoint.pt, history.json."""
    spec = spec or preprocessing(job.dataset, job.input, options.pretrained)
    training = training_folder(folder)
    with quietly(options, training):
        given = (job.architecture, len(job.dataset.classes), job.input.channels, job.input.size, options.pretrained)
        network = models.build(*given, volume=spec.volume)
        found = learn(job, options, network, loss, spec, training)
    write(job, network, spec, lineage, folder, found)


def training_folder(folder: Path) -> Path:
    """Name the folder in which a model is trained; its files go on where an interrupted training stopped."""
    return folder.parent / f"{_loggers.BEGUN}{folder.name}"


@contextmanager
def quietly(options: Training, training: Path) -> Iterator[None]:
    """Train without the libraries' advice, with the threads and the seed of the options."""
    _loggers.check(options.loggers)
    with warnings.catch_warnings(), storage(training, own=False), threads(options.threads):
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        seed(options)
        yield


def seed(options: Training) -> None:
    """Begin anew with chance, so that what comes before, or was done before an interruption, changes nothing."""
    lightning.seed_everything(options.seed, verbose=False)


@dataclass(frozen=True)
class Text:
    """What a network reads beside its image, and how."""

    fusion: Fusion
    tokenizer: str
    """The tokenizer.json."""


@dataclass(frozen=True)
class Found:
    """What a training came to at its best epoch."""

    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float = 0.0


def learn(
    job: Job,
    options: Training,
    network: torch.nn.Module,
    loss: Loss,
    spec: Preprocessing,
    training: Path,
    groups: Sequence[Group] = (),
    beside: Callable[[Split], Beside] = lambda _: (),
) -> Found:
    """Train a network, all of it or its groups as they say; its best epoch's weights are left in it, and evaluation mode.

    `beside` makes of a split what the network takes beside its images.
    """
    classifier = Classifier(network, loss, job.dataset, options, groups)
    learned = job.dataset.read("train")
    change = augmentation(options.augment, options.seed, lambda: classifier.current_epoch, learned.images)
    judged = job.dataset.read("val")
    train, val = Samples(learned, spec, change, beside(learned)), Samples(judged, spec, beside=beside(judged))
    seconds = _trainer.run(classifier, job, train, val, training)
    best = torch.load(training / BEST, weights_only=True)
    state = best["state_dict"]
    network.cpu().eval().load_state_dict(
        {key.removeprefix("network."): value.cpu() for key, value in state.items() if key.startswith("network.")}
    )
    metrics = {metric_name(job): round(float(state["best"][0]), 6), "best_epoch": best["epoch"]}
    return Found(metrics, _epochs(training), seconds)


def metric_name(job: Job) -> str:
    """Name the validation metric among a model's: `val_accuracy`."""
    return f"val_{learnt(job.dataset, 'VALIDATION')}"


def judge(job: Job, network: torch.nn.Module, spec: Preprocessing, beside: Beside = ()) -> float:
    """Compute the validation metric of a network as it is, with what it takes beside the validation split's images."""
    metric: torchmetrics.Metric = learnt(job.dataset, "validation")(len(job.dataset.classes))
    network.eval()
    with torch.no_grad():
        samples = Samples(job.dataset.read("val"), spec, beside=beside)
        for given, labels in DataLoader(samples, samples.together, collate_fn=as_is):
            images, others = apart(given)
            metric.update(network(images, *others), labels)
    return round(float(metric.compute()), 6)


def gradients(job: Job, loss: Loss, spec: Preprocessing, size: int, batches: int) -> Callable[[torch.nn.Module], None]:
    """Return what fills a network's gradients from the first batches of the training split, in evaluation mode."""
    samples = Samples(job.dataset.read("train"), spec)

    def backward(network: torch.nn.Module) -> None:
        network.eval().zero_grad(set_to_none=True)
        for start in range(0, min(len(samples), size * batches), size):
            images, labels = samples.__getitems__(range(start, min(start + size, len(samples))))
            torch.autograd.backward(loss(network(images), images, labels))

    return backward


def alike(seen: Preprocessing, job: Job) -> bool:
    """Return whether another model sees what a job's is to see."""
    return (seen.depth, seen.height, seen.width, seen.channels) == (*sides(job.dataset, job.input), job.input.channels)


def wanted_of(job: Job) -> str:
    """Write what a job's model is to see: `28 × 28 × 1`."""
    found = (*sides(job.dataset, job.input), job.input.channels)
    return " × ".join(str(side) for side in found if side is not None)


def parent_of(job: Job, same_classes: bool = True) -> Network:
    """Load the parent that a model is to be made of; `InputError` where it has another architecture, input or classes."""
    assert job.parent is not None
    network = models.load_model(job.parent, job.trust)
    model = network.model
    if model.architecture == models.PROGRAM:
        raise InputError(f"{job.parent}: holds an exported program, which is not trained further; give a network's own weights")
    if model.fusion is not None:
        raise InputError(f"{job.parent}: reads a text beside its image, which {job.name} would not; give an image network")
    if model.architecture != job.architecture:
        raise InputError(f"{job.name}: its parent is a {model.architecture}; give that architecture, not {job.architecture}")
    seen = model.preprocessing
    if not alike(seen, job):
        raise InputError(
            f"{job.name}: its parent sees {seen.sees}, and {wanted_of(job)} is wanted; "
            "leave size and channels as the parent has them"
        )
    if same_classes and model.classes != job.dataset.classes:
        raise InputError(f"{job.name}: its parent knows other classes than {job.dataset.ref}; use the parent's data set")
    return network


def write(
    job: Job,
    network: torch.nn.Module,
    spec: Preprocessing,
    lineage: Lineage,
    folder: Path,
    found: Found,
    pruned: Pruned | None = None,
    ranges: Ranges | None = None,
    new_head: NewHead | None = None,
    text: Text | None = None,
) -> None:
    """Write a model folder, and remove what an interrupted training would have needed; of several processes the first does.

    What is made of a parent keeps the head that the parent has.
    """
    if not _processes.is_first():
        _trainer.together()
        return
    if new_head is None and job.parent is not None:
        new_head = models.read_model(job.parent).new_head
    with new_folder(folder, "model.json") as staging:
        buffer = io.BytesIO()
        torch.save({key: value.cpu() for key, value in network.state_dict().items()}, buffer)
        (staging / "checkpoint.pt").write_bytes(buffer.getvalue())
        model = describe(job, network, spec, lineage, sha256_file(staging / "checkpoint.pt"), found.metrics)
        digest = None if ranges is None else models.write_ranges(staging, ranges)
        curves = _history.curves(found.history, learnt(job.dataset, "VALIDATION"), found.metrics.get("best_epoch", -1))
        update: dict[str, Any] = {"pruned": pruned, "ranges": digest, "new_head": new_head, "curves": curves}
        if text is not None:
            (staging / tokens.FILE).write_text(text.tokenizer, encoding="utf-8")
            update |= {"fusion": text.fusion, "inputs": (*model.inputs, *tokens.inputs_of(text.fusion))}
        models.write_model(staging, model.model_copy(update=update))
        _history.write(staging, found.history)
    shutil.rmtree(training_folder(folder))
    _trainer.together()


def _epochs(training: Path) -> list[dict[str, float]]:
    """Read what was logged of each epoch; where a training went on, its later values count."""
    epochs: dict[int, dict[str, float]] = {}
    for path in sorted(training.glob("*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("version_"))):
        for row in csv.DictReader(path.read_text().splitlines()):
            epoch = epochs.setdefault(int(row.pop("epoch")), {})
            epoch.update({name: float(value) for name, value in row.items() if value and name != "step"})
    return [{"epoch": number, **epochs[number]} for number in sorted(epochs)]


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads: those of a small network wait for each other where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
