"""One option of a recipe with several values: a model for each, and how they compare on the same samples."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import models, tasks
from edgebench.agent.runtimes import preprocess
from edgebench.analysis import metrics, stats
from edgebench.data import Dataset, Split
from edgebench.schema import Interval, Model, Network, Paired

BATCH = 256


@dataclass(frozen=True)
class Alternative:
    """One value, and the model that was trained with it."""

    value: Any
    folder: Path
    model: Model
    epochs: int
    """That were trained; the model's metrics say which was kept."""
    seconds: float | None
    """Wall time; None where the model was there already."""
    val: Interval
    """The metric that chose the epoch; of accuracies with their interval by the number of samples (Wilson 1927)."""
    test: Interval
    """The task's headline metric of the network on the test split, likewise."""
    beside_first: Paired | None
    """Against the first value's model on the test split, this less that; None for the first, and where the task has no hits."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "value": self.value,
            "folder": str(self.folder),
            "sha256": self.model.sha256,
            "val": self.val.model_dump(mode="json"),
            "test": self.test.model_dump(mode="json"),
            "beside_first": None if self.beside_first is None else self.beside_first.model_dump(mode="json"),
            "best_epoch": self.model.metrics.get("best_epoch"),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "warnings": [each.model_dump(mode="json") for each in self.model.warnings],
        }


def compare(values: Sequence[Any], make: Callable[[Any], Path], data: Dataset, trust: bool) -> list[Alternative]:
    """Make a model with each value, one after the other, and judge them on the data set's test split.

    make: from a value to a model folder, made now or before.
    """
    found: list[Alternative] = []
    first: NDArray[np.bool_] | None = None
    for value in values:
        began, clock = time.time_ns(), time.monotonic()
        folder = make(value)
        seconds = time.monotonic() - clock if (folder / "model.json").stat().st_mtime_ns >= began else None
        network = models.load_model(folder, trust)
        split = data.read("test")
        outputs = scores(network, split)
        hits = metrics.hits(data.task, split.labels, outputs)
        beside = None if hits is None or first is None else stats.paired_difference(first, hits)
        first = hits if first is None else first
        test = metrics.evaluate(data.task, split.labels, outputs)[metrics.headline(data.task)]
        found.append(
            Alternative(
                value=value,
                folder=folder,
                model=network.model,
                epochs=len(json.loads((folder / "history.json").read_text(encoding="utf-8"))),
                seconds=seconds,
                val=_judged(data, "val", tasks.part(data.task, "VALIDATION"), _validated(data, network.model)),
                test=_judged(data, "test", metrics.headline(data.task), test),
                beside_first=beside,
            )
        )
    return found


def scores(network: Network, split: Split) -> NDArray[np.float32]:
    """Compute a network's scores of a split [n, columns], in torch and on this computer."""
    import torch

    spec = network.model.preprocessing.model_dump()
    parts = []
    for begin in range(0, len(split), BATCH):
        [(_, part)] = network.run(torch.from_numpy(preprocess.apply(split.images[begin : begin + BATCH], spec))).items()
        parts.append(part.numpy())
    return np.concatenate(parts)


def _validated(data: Dataset, model: Model) -> float:
    return model.metrics[f"val_{tasks.part(data.task, 'VALIDATION')}"]


def _judged(data: Dataset, split: str, name: str, value: float) -> Interval:
    """Give an accuracy its interval; other metrics stay without one."""
    whole = name == "accuracy" and tasks.part(data.task, "hits") is not None
    return stats.share_interval(value, len(data.read(split))) if whole else Interval(value=value)
