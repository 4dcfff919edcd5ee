"""What is told apart: of two classes the positive one, of several each against the rest, of labels each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis.resampling import Floats
from edgebench.analysis.shares import Bools
from edgebench.errors import InputError

MOST = 20
"""Of so many classes each is looked at unless the user names some."""


@dataclass(frozen=True)
class Target:
    """One class against the rest."""

    name: str
    column: int
    truth: Bools
    """Of the judged samples [n]."""
    val_truth: Bools
    """Of the validation split [m]."""

    @property
    def tested(self) -> bool:
        """Return whether the judged samples hold both kinds."""
        return bool(self.truth.any() and not self.truth.all())

    @property
    def tuned(self) -> bool:
        """Return whether the validation samples hold both kinds."""
        return bool(self.val_truth.any() and not self.val_truth.all())


@dataclass(frozen=True)
class Targets:
    """The classes that are looked at."""

    each: tuple[Target, ...]
    closely: bool
    """Whether each is looked at in groups and decision curves too: where there is one, or the user named them."""
    note: str = ""


def targets(
    task: str, classes: Sequence[str], labels: NDArray[np.int64], val_labels: NDArray[np.int64], wanted: Sequence[str]
) -> Targets:
    """Choose classes; `InputError` where one is named that is not among them."""
    for name in wanted:
        if name not in classes:
            raise InputError(f"--positive {name}: is no class; classes: {', '.join(classes[:12])}{', …' * (len(classes) > 12)}")
    one_hot = tasks.part(task, "one_hot")
    truth, val_truth = (np.asarray(one_hot(each, len(classes))) > 0 for each in (labels, val_labels))
    binary = len(classes) == 2 and tasks.part(task, "PROBABILITIES") == "softmax"
    columns = [classes.index(name) for name in wanted] or ([1] if binary else list(range(len(classes))))
    note = ""
    if len(columns) > MOST:
        columns = sorted(columns, key=lambda column: -int(truth[:, column].sum()))[:MOST]
        note = f"Of {len(classes)} classes the {MOST} with the most samples are looked at; --positive names others."
    each = tuple(Target(classes[column], column, truth[:, column], val_truth[:, column]) for column in columns)
    return Targets(each, bool(wanted) or len(each) == 1, note)


def log_odds(task: str, scores: Floats, column: int) -> Floats:
    """Return the log odds of one class [n]; scores: logits [n, classes]. Their order is that of its probability."""
    from scipy.special import logsumexp

    if tasks.part(task, "PROBABILITIES") == "sigmoid":
        return np.asarray(scores[:, column])
    return np.asarray(scores[:, column] - logsumexp(np.delete(scores, column, axis=1), axis=1))


def probability(odds: Floats) -> Floats:
    """Return the probability of log odds."""
    from scipy.special import expit

    return np.asarray(expit(odds))
