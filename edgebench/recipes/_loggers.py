"""Where the epochs of a training are written as it goes on, where that is asked for: TensorBoard, MLflow, Weights & Biases.

The history beside every model (`history.json`, `history.csv`) is written in any case.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebench.errors import InputError, MissingExtra

BEGUN = ".training-"
"""What the name of a folder begins with in which a model is trained."""
PROJECT = "edgebench"
"""What experiments (MLflow) and projects (Weights & Biases) are called."""


def check(names: Sequence[str]) -> None:
    """Raise `MissingExtra` for a logger whose package, called as the logger, is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"logging to {name}", name, name)


def opened(names: Sequence[str], training: Path, options: Mapping[str, Any]) -> list[Any]:
    """Open Lightning's loggers for one training, and tell them its options; `InputError` where one cannot be opened.

    Files lie in `logs/` beside the folder of models; MLflow's go where `MLFLOW_TRACKING_URI` says, if it says so.
    """
    if not names:
        return []
    root = next(each for each in (training, *training.parents) if each.name.startswith(BEGUN))
    run = "-".join([root.name.removeprefix(BEGUN), *training.relative_to(root).parts])
    logs = root.parent.parent / "logs"
    return [_opened(name, logs, run, options) for name in names]


def _opened(name: str, logs: Path, run: str, options: Mapping[str, Any]) -> Any:
    try:
        logger = OPEN[name](logs, run)
        logger.log_hyperparams(dict(options))
    except Exception as error:  # what these raise, where they are not set up, are classes of their own
        raise InputError(f"logging to {name}: cannot begin ({told(error)}); set it up, or leave it out of loggers") from error
    return logger


def told(error: Exception) -> str:
    """Say on one line what a logger or a tracker says."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def close(loggers: Sequence[Any]) -> None:
    """End what Lightning leaves open: a process has one run of Weights & Biases at a time, and the next wants its own."""
    for logger in loggers:
        if hasattr(logger.experiment, "finish"):
            logger.experiment.finish()


def _tensorboard(logs: Path, run: str) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(logs / "tensorboard", name=run, version="", default_hp_metric=False)


def _mlflow(logs: Path, run: str) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    logs.mkdir(parents=True, exist_ok=True)
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(logs / 'mlflow.db').absolute()}"
    return MLFlowLogger(experiment_name=PROJECT, run_name=run, tracking_uri=where)


def _wandb(logs: Path, run: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    logs.mkdir(parents=True, exist_ok=True)
    return WandbLogger(project=PROJECT, name=run, id=run, resume="allow", save_dir=logs)


OPEN = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
