"""The training loop that the recipes share, on Lightning and torchmetrics."""

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
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgebench import models, tasks
from edgebench.agent.runtimes import preprocess
from edgebench.data import Dataset, Split
from edgebench.data._mapped import release
from edgebench.errors import InputError
from edgebench.files import new_folder, sha256_file, storage
from edgebench.models.normalization import preprocessing
from edgebench.recipes import Job, _history, _loggers, describe
from edgebench.recipes._augment import Augmentation, augmentation, shifted
from edgebench.schema import Lineage, Network, Preprocessing, Pruned

if TYPE_CHECKING:
    from edgebench.recipes.train import Options, Training

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Ranges = dict[str, tuple[float, float]]
RESUME, BEST = "resume.ckpt", "best.ckpt"
IMPROVEMENTS = "improvements"


def label_loss(dataset: Dataset, weighting: str) -> Loss:
    """Make the loss on labels (logits, images, labels → scalar), with balanced class weights if asked for."""
    made = learnt(dataset, "loss")(dataset.read("train").labels, len(dataset.classes), weighting == "balanced")

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


class Samples(TorchDataset[tuple[Tensor, Tensor]]):
    """A split, preprocessed batch by batch with the code that the device runs."""

    def __init__(self, split: Split, spec: Preprocessing, augmentation: Augmentation | None = None) -> None:
        self.split = split
        self.spec = spec.model_dump()
        self.augmentation = augmentation

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.split)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images float32 [n, c, h, w] and labels."""
        pixels = self.split.images[list(indices)]
        if self.augmentation is not None:
            pixels = self.augmentation(preprocess.whole(pixels, {**self.spec, "channels": pixels.shape[3]}), indices)
        images = preprocess.apply(pixels, self.spec)
        release(self.split.images)
        return torch.from_numpy(images), torch.from_numpy(self.split.labels[list(indices)])


def as_is(batch: Any) -> Any:
    """Leave a batch as `__getitems__` made it."""
    return batch


class Classifier(lightning.LightningModule):
    """A network, its loss, and the metric that picks its checkpoint."""

    best: Tensor
    """The best epoch's metric and negated loss, and how many epochs were better than all before."""

    def __init__(self, network: torch.nn.Module, loss: Loss, dataset: Dataset, options: Training) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.options = options
        self.metric: torchmetrics.Metric = learnt(dataset, "validation")(len(dataset.classes))
        self.register_buffer("best", torch.tensor([-math.inf, -math.inf, 0]))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of an augmented batch."""
        images, labels = batch
        images = shifted(images, self.options.augment)
        loss = self.loss(self.network(images), images, labels)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Gather the validation metric and loss."""
        images, labels = batch
        logits = self.network(images)
        self.metric.update(logits, labels)
        self.log("val_loss", self.loss(logits, images, labels), batch_size=len(labels))

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
        """AdamW, with the learning-rate schedule of the options."""
        settings, peak = self.options, self.options.learning_rate
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=peak, weight_decay=settings.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        if settings.schedule == "constant":
            return optimizer
        if settings.schedule == "one-cycle":
            schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps + 1)
        else:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(job: Job, options: Options, lineage: Lineage, folder: Path, loss: Loss, spec: Preprocessing | None = None) -> None:
    """Train and write `folder`: model.json, checkpoint.pt, history.json."""
    spec = spec or preprocessing(job.dataset, job.input, options.pretrained)
    training = training_folder(folder)
    with quietly(options, training):
        network = models.build(job.architecture, len(job.dataset.classes), job.input.channels, job.input.size, options.pretrained)
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
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        seed(options)
        yield


def seed(options: Training) -> None:
    """Begin anew with chance, so that what comes before, or was done before an interruption, changes nothing."""
    lightning.seed_everything(options.seed, verbose=False)


@dataclass(frozen=True)
class Found:
    """What a training came to at its best epoch."""

    metrics: dict[str, float]
    history: list[dict[str, float]]


def learn(job: Job, options: Training, network: torch.nn.Module, loss: Loss, spec: Preprocessing, training: Path) -> Found:
    """Train a network, and leave it with the weights of its best epoch."""
    _train(Classifier(network, loss, job.dataset, options), job, spec, training)
    best = torch.load(training / BEST, weights_only=True)
    state = best["state_dict"]
    network.cpu().load_state_dict(
        {key.removeprefix("network."): value.cpu() for key, value in state.items() if key.startswith("network.")}
    )
    metrics = {metric_name(job): round(float(state["best"][0]), 6), "best_epoch": best["epoch"]}
    return Found(metrics, _epochs(training))


def metric_name(job: Job) -> str:
    """Name the validation metric among a model's: `val_accuracy`."""
    return f"val_{learnt(job.dataset, 'VALIDATION')}"


def judge(job: Job, network: torch.nn.Module, spec: Preprocessing) -> float:
    """Compute the validation metric of a network as it is."""
    metric: torchmetrics.Metric = learnt(job.dataset, "validation")(len(job.dataset.classes))
    network.eval()
    with torch.no_grad():
        for images, labels in DataLoader(Samples(job.dataset.read("val"), spec), 256, collate_fn=as_is):
            metric.update(network(images), labels)
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


def parent_of(job: Job) -> Network:
    """Load the parent that a model is to be made of; `InputError` where it has another architecture, input or classes."""
    assert job.parent is not None
    network, wanted = models.load_model(job.parent, job.trust), job.input
    model = network.model
    if model.architecture == models.PROGRAM:
        raise InputError(f"{job.parent}: holds an exported program, which is not trained further; give a network's own weights")
    if model.architecture != job.architecture:
        raise InputError(f"{job.name}: its parent is a {model.architecture}; give that architecture, not {job.architecture}")
    seen = model.preprocessing
    if (seen.height, seen.width, seen.channels) != (wanted.size, wanted.size, wanted.channels):
        raise InputError(
            f"{job.name}: its parent sees {seen.height} × {seen.width} × {seen.channels}, "
            f"and {wanted.size} × {wanted.size} × {wanted.channels} is wanted; leave size and channels as the parent has them"
        )
    if model.classes != job.dataset.classes:
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
) -> None:
    """Write a model folder, and remove what an interrupted training would have needed."""
    with new_folder(folder, "model.json") as staging:
        buffer = io.BytesIO()
        torch.save({key: value.cpu() for key, value in network.state_dict().items()}, buffer)
        (staging / "checkpoint.pt").write_bytes(buffer.getvalue())
        model = describe(job, network, spec, lineage, sha256_file(staging / "checkpoint.pt"), found.metrics)
        digest = None if ranges is None else models.write_ranges(staging, ranges)
        curves = _history.curves(found.history, learnt(job.dataset, "VALIDATION"), found.metrics.get("best_epoch", -1))
        models.write_model(staging, model.model_copy(update={"pruned": pruned, "ranges": digest, "curves": curves}))
        _history.write(staging, found.history)
    shutil.rmtree(training_folder(folder))


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


def quicken(network: torch.nn.Module, steps: int) -> None:
    """Let batch norms' running statistics follow within an epoch: MobileNetV3's momentum of 0.01 wants thousands of steps."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, min(0.1, 2 / steps))


def _train(classifier: Classifier, job: Job, spec: Preprocessing, training: Path) -> None:
    """Run Lightning's trainer, from where an interrupted one stopped."""
    options = classifier.options

    def report(trainer: Any, *_: Any) -> None:
        job.progress(f"train {job.name}", float(trainer.global_step), float(trainer.estimated_stepping_batches))

    improved: dict[str, Any] = {"monitor": IMPROVEMENTS, "mode": "max"}
    saved: dict[str, Any] = {"dirpath": training, "enable_version_counter": False}
    patience = [EarlyStopping(patience=options.patience, **improved)] if options.patience else []
    best = ModelCheckpoint(filename=Path(BEST).stem, save_weights_only=True, **improved, **saved)
    last = ModelCheckpoint(filename=Path(RESUME).stem, **saved)
    others = _loggers.opened(options.loggers, training, options.model_dump())
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        logger=[CSVLogger(training, name=""), *others],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[LambdaCallback(on_train_batch_end=report), *patience, best, last],
    )
    seen = job.dataset.read("train")
    change = augmentation(options.augment, options.seed, lambda: int(trainer.current_epoch), seen.images)
    train, val = Samples(seen, spec, change), Samples(job.dataset.read("val"), spec)
    ragged = len(train) % options.batch_size == 1  # batch norm cannot learn from one sample
    loaders = (
        DataLoader(train, options.batch_size, shuffle=True, collate_fn=as_is, drop_last=ragged),
        DataLoader(val, 256, collate_fn=as_is),
    )
    quicken(classifier, len(loaders[0]))
    stopped = training / RESUME
    try:
        trainer.fit(classifier, *loaders, ckpt_path=str(stopped) if stopped.exists() else None, weights_only=True)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    finally:
        _loggers.close(others)
