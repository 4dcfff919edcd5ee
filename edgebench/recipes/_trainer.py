"""Runs Lightning's trainer for all recipes: one process or several, phases in which more learns, and exact resumption.

An interrupted training that goes on comes to the weights that it would have had: Lightning keeps the weights, the optimizer,
the schedule and its callbacks at the end of each epoch, and all that an epoch draws follows from the seed and its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, SequentialSampler

from edgebench.errors import InputError
from edgebench.recipes import _loggers, _processes
from edgebench.recipes._groups import Group
from edgebench.recipes._order import Batches, Order, drawn, evenly

if TYPE_CHECKING:
    from edgebench.recipes import Job
    from edgebench.recipes._classifier import Classifier, Samples
    from edgebench.recipes.train import Training

RESUME, BEST = "resume.ckpt", "best.ckpt"
IMPROVEMENTS = "improvements"
PRECISIONS: dict[str | int, Any] = {"bf16": "bf16-mixed", 16: "16-mixed", 32: "32-true"}


class Phases(Callback):
    """Begins each epoch with its own chance, and lets learn what then learns."""

    def __init__(self, groups: Sequence[Group], seed: int, rank: int) -> None:
        self._groups, self._seed, self._rank = groups, seed, rank

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the epoch that an interrupted training goes on with, whose own beginning Lightning takes for done."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Draw what this epoch draws; what is drawn on the way differs between processes, the order of samples does not."""
        lightning.seed_everything(drawn(self._seed, trainer.current_epoch, self._rank), verbose=False)
        for group in self._groups:
            group.enter(trainer.current_epoch)


class Report(Callback):
    """Tells how far a training is."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Tell the steps that are done, and the epoch."""
        what = f"train {self._job.name} (epoch {trainer.current_epoch + 1} of {trainer.max_epochs})"
        self._job.progress(what, float(trainer.global_step), float(trainer.estimated_stepping_batches))


def run(classifier: Classifier, job: Job, train: Samples, val: Samples, training: Path) -> float:
    """Train from where an interrupted training stopped, the best and the latest epoch in `training`.

    Returns the seconds that it took, those before an interruption too. `InputError` where the computer has not so many devices.
    """
    options, groups = classifier.options, classifier.groups
    rank, world = (_processes.place()[0], options.devices) if options.devices > 1 else (0, 1)
    timer, told = Timer(), [] if rank else [Report(job)]
    callbacks = [*told, Phases(groups, options.seed, rank), timer, *_callbacks(options, training)]
    loggers = _loggers.opened(options.loggers, training, options.model_dump())
    trainer = _made(options, callbacks, groups, [CSVLogger(training, name=""), *loggers])
    loaders = _loaders(options, job.name, train, val, rank, world)
    classifier.train()  # Lightning leaves the mode: norms' statistics of a judged network would stand still, and nothing drop out
    quicken(classifier, len(loaders[0]))
    for group in groups:
        group.enter(0 if group.begins is None else group.begins)  # what never learns is left out of what processes share
    stopped = training / RESUME
    try:
        trainer.fit(classifier, *loaders, ckpt_path=str(stopped) if stopped.exists() else None, weights_only=True)
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from error
    finally:
        _loggers.close(loggers)
        for parameter in classifier.network.parameters():
            parameter.requires_grad_(True)
    together()
    return float(timer.time_elapsed())


def together() -> None:
    """Wait until every process that shares the training is here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def quicken(network: torch.nn.Module, steps: int) -> None:
    """Let batch norms' running statistics follow within an epoch: MobileNetV3's momentum of 0.01 wants thousands of steps."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = max(module.momentum, min(0.1, 2 / steps))


def _callbacks(options: Training, training: Path) -> list[Callback]:
    """Keep the best epoch and the latest, and stop where nothing gets better."""
    improved: dict[str, Any] = {"monitor": IMPROVEMENTS, "mode": "max"}
    saved: dict[str, Any] = {"dirpath": training, "enable_version_counter": False}
    patience = [EarlyStopping(patience=options.patience, **improved)] if options.patience else []
    best = ModelCheckpoint(filename=Path(BEST).stem, save_weights_only=True, **improved, **saved)
    return [*patience, best, ModelCheckpoint(filename=Path(RESUME).stem, **saved)]


def _made(options: Training, callbacks: list[Callback], groups: Sequence[Group], loggers: list[Any]) -> lightning.Trainer:
    """Make Lightning's trainer as the options have it."""
    shared: dict[str, Any] = {}
    if options.devices > 1:
        waits = any(group.begins for group in groups)
        shared = {"strategy": DDPStrategy(find_unused_parameters=waits), "use_distributed_sampler": False}
        if not torch.distributed.is_torchelastic_launched():
            shared["plugins"] = [LightningEnvironment()]
    try:
        return lightning.Trainer(
            max_epochs=options.epochs,
            accelerator="auto",
            devices=options.devices,
            precision=PRECISIONS[options.precision_train],
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.clip,
            logger=loggers,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            **shared,
        )
    except MisconfigurationException as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise InputError(f"devices {options.devices}: {first}; give as many as this computer has") from error


def _loaders(
    options: Training, name: str, train: Samples, val: Samples, rank: int, world: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Read the training split in the order of each epoch, and the validation split as it is, each its share."""
    if len(val) < world:
        raise InputError(f"{name}: its validation split has {len(val)} samples for {world} devices; give fewer devices")
    weights = evenly(train.split.labels, name) if options.sampler == "weighted" else None
    shares: dict[str, Any] = {"rank": rank, "world": world}
    order = Order(len(train), options.seed, weights)
    learned = Batches(order, len(train), options.batch_size, least=2, leave_out=True, **shares)
    judged = Batches(SequentialSampler(val), len(val), val.together, least=1, leave_out=False, **shares)
    own = torch.Generator()  # iterators draw when they are made, which is not the same moment where a training goes on
    shared: dict[str, Any] = {"collate_fn": as_is, "generator": own}
    return DataLoader(train, batch_sampler=learned, **shared), DataLoader(val, batch_sampler=judged, **shared)


def as_is(batch: Any) -> Any:
    """Leave a batch as `__getitems__` made it."""
    return batch
