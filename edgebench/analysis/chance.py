"""Whether a metric says anything: beside what the commonest class gives, or no knowledge at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis.stats import share_interval
from edgebench.schema import Warned

Z = 1.959964
"""Of a 95 % interval."""


def commonest(task: str, labels: NDArray[Any]) -> float | None:
    """Return the accuracy of always deciding for what is commonest; None where a task does not say."""
    found = tasks.part(task, "commonest")
    return None if found is None or not len(labels) else float(found(labels))


def near_chance(task: str, labels: NDArray[Any], metrics: Mapping[str, float], classes: int) -> list[Warned]:
    """Warn of an accuracy whose 95 % interval reaches down to the commonest class's share, and of an AUROC near one half."""
    share, accuracy, area = commonest(task, labels), metrics.get("accuracy"), metrics.get("auroc")
    told = []
    if share is not None and accuracy is not None and tasks.part(task, "hits") is not None:
        found = share_interval(accuracy, len(labels))
        if found.low is not None and found.high is not None and found.low <= share:
            between = f"95 % interval {100 * found.low:.1f}…{100 * found.high:.1f} %"
            told.append(
                f"accuracy {100 * accuracy:.1f} % of {len(labels)} samples ({between}) is no better than always naming "
                f"the commonest class, {100 * share:.1f} %"
            )
    one_hot = tasks.part(task, "one_hot")
    if area is not None and one_hot is not None:
        half = Z * area_deviation(one_hot(labels, classes))
        if area <= 0.5 + half:
            told.append(f"AUROC {area:.3f} is no better than scores by chance have (up to {0.5 + half:.3f} with these samples)")
    return (
        [Warned(kind="near-chance", text=f"{'; '.join(told)}: the classes' order, the normalisation or the weights may be wrong")]
        if told
        else []
    )


def area_deviation(truth: NDArray[Any]) -> float:
    """Return the standard deviation of the mean area under ROC curves by chance; truth: 0 and 1, [n, classes].

    Of one class √((a + b + 1) / 12ab) with a samples of it and b others (Mann and Whitney 1947). Classes share their
    samples, so that averaging is not taken to make it smaller.
    """
    inside = truth.sum(axis=0).astype(np.float64)
    inside = inside[(inside > 0) & (inside < len(truth))]
    outside = len(truth) - inside
    return float(np.sqrt((len(truth) + 1) / (12 * inside * outside)).mean()) if len(inside) else 0.5
