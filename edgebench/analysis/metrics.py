"""What a task says of the scores that a device returned: decisions, metrics, agreement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis.heads import logits

Scores = NDArray[np.float32]
Labels = NDArray[np.int64]


def headline(task: str) -> str:
    """Name the metric that ranks models of a task; empty: none does."""
    return tasks.load(task).HEADLINE


def agreement(task: str, one: Scores, other: Scores, head: str | None = None) -> float:
    """Return the share of decisions (of single labels, for multi-label) that are alike."""
    decide = tasks.load(task).decisions
    return float((decide(logits(task, one, head)) == decide(logits(task, other, head))).mean())


def evaluate(task: str, labels: Labels, scores: Scores, head: str | None = None) -> dict[str, float]:
    """Compute every metric that is defined on these labels; scores: [n, columns], `head` as `heads.logits` has it."""
    return tasks.load(task).metrics(labels, logits(task, scores, head))


def hits(task: str, labels: Labels, scores: Scores, head: str | None = None) -> NDArray[np.bool_] | None:
    """Say of each sample whether it is decided rightly; None where a task does not say it of whole samples."""
    found = tasks.part(task, "hits")
    return None if found is None else np.asarray(found(labels, logits(task, scores, head)))


def near_ties(task: str, reference: Scores, outputs: Scores, head: str | None = None) -> int | None:
    """Count the samples that are decided otherwise where the reference nearly ties; None where a task does not tell."""
    found = tasks.part(task, "near_ties")
    return None if found is None else int(found(logits(task, reference, head), logits(task, outputs, head)).sum())


def scores_of(values: bytes, columns: int) -> NDArray[np.float32]:
    """Turn an agent's float32 bytes into scores [n, classes]."""
    return np.frombuffer(values, "<f4").reshape(-1, columns)
