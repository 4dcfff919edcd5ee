"""How well a model tells classes apart: confusion, ROC and precision-recall curves, calibration, the worst samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis import agreement, curves, delong
from edgebench.analysis.curves import Curve
from edgebench.analysis.heads import logits
from edgebench.analysis.metrics import Scores
from edgebench.schema import Interval, Separated

Lines = list[dict[str, Any]]
BINS = 15
WORST = 12
AVERAGE_CORNERS, CORNERS, CORNERS_OF_MANY = 100, 60, 30
MANY, MOST = 10, 20
"""Above so many classes their curves are coarser; above so many the least well told apart are drawn alone."""
MATRIX = 100
"""A confusion matrix of more classes is nothing that can be read."""
POOLED = 10_000_000
"""Scores of more samples × classes are not pooled into one curve."""


@dataclass(frozen=True)
class Evaluation:
    """What the scores of one evaluation split show, thinned for drawing; areas are those of the whole curves."""

    samples: int
    confusion: Lines | None
    """A line for each true class: true, total, predicted [c] (names), count [c]. Multi-label: two lines for each label."""
    roc: Lines
    """A line for each curve: curve ("micro-average", "macro-average" or a class), average (whether it is one), area,
    x [k] (false positive rate), y [k] (true positive rate)."""
    precision_recall: Lines
    """Likewise: area is the average precision, x recall, y precision."""
    calibration: Lines
    """One line: ece, what (is counted); bins that are not empty: confidence [b], accuracy [b], count [b], begin [b], end [b]."""
    worst: Lines
    """The samples of the highest loss: index, truth, decision (names), confidence (in the decision), loss."""
    statistics: Lines
    """A line for each: what (Cohen's κ, MCC, the AUC of a class), value, and low and high of its 95 % interval, or null."""
    notes: tuple[str, ...]
    """What was left out, and why."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values, under the names of its fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"notes": list(self.notes)}


def evaluate(
    task: str, classes: Sequence[str], labels: NDArray[Any], scores: NDArray[Any], head: str | None = None
) -> Evaluation:
    """Evaluate scores [n, classes] against a task's labels; ValueError where they do not fit."""
    if np.isfinite(scores).all():
        scores = logits(task, scores, head)
    _check(task, classes, labels, scores)
    names = distinct(classes)
    notes: list[str] = []
    confusion, separated = _confusion(task, names, labels, scores, notes), tasks.part(task, "separated")
    drawn = None if separated is None else _with_curves(separated(labels, scores, names), notes)
    return Evaluation(
        samples=len(labels),
        confusion=confusion,
        roc=[] if drawn is None else _lines(drawn, curves.roc, notes),
        precision_recall=[] if drawn is None else _lines(drawn, curves.precision_recall, []),
        calibration=_calibration(task, labels, scores),
        worst=_worst(task, names, labels, scores),
        statistics=_statistics(task, names, labels, scores),
        notes=tuple(notes),
    )


def _check(task: str, classes: Sequence[str], labels: NDArray[Any], scores: Scores) -> None:
    wanted = (len(labels), len(classes))
    if not len(labels) or scores.shape != wanted or labels.shape != tasks.load(task).decisions(scores).shape:
        raise ValueError(f"scores {list(scores.shape)} and labels {list(labels.shape)} do not fit {len(classes)} classes")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")
    if labels.min() < 0 or labels.max() > tasks.load(task).most(len(classes)):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, and there are {len(classes)} classes")


def distinct(names: Sequence[str]) -> list[str]:
    """Keep names apart that are the same: the second is numbered 2."""
    found: list[str] = []
    for name in names:
        again = sum(other == name for other in names[: len(found)])
        found.append(f"{name} ({again + 1})" if again else name)
    return found


# ---------------------------------------------------------------- confusion


def _confusion(task: str, names: Sequence[str], labels: NDArray[Any], scores: Scores, notes: list[str]) -> Lines | None:
    confusion = tasks.part(task, "confusion")
    if confusion is None:
        return None
    if len(names) > MATRIX:
        notes.append(f"No confusion matrix of {len(names)} classes: up to {MATRIX} can be read.")
        return None
    return [_line(true, predicted, counts) for true, predicted, counts in confusion(labels, scores, names)]


def _line(true: str, predicted: Sequence[str], counts: NDArray[Any]) -> dict[str, Any]:
    return {"true": true, "total": int(counts.sum()), "predicted": list(predicted), "count": counts.tolist()}


# ---------------------------------------------------------------- curves


def _with_curves(found: Separated, notes: list[str]) -> Separated:
    """Leave out, and note, the classes that have no curve."""
    notes += [found.note] if found.note else []
    present = found.truth.sum(axis=0)
    for name, count in zip(found.names, present, strict=True):
        if count == 0:
            notes.append(f"No curve of {name}: no sample is of it.")
        elif count == len(found.truth):
            notes.append(f"No curve of {name}: every sample is of it.")
    kept = np.flatnonzero((present > 0) & (present < len(found.truth)))
    return Separated([found.names[int(index)] for index in kept], found.truth[:, kept], found.likely[:, kept])


def _lines(separated: Separated, draw: Callable[..., Curve], notes: list[str]) -> Lines:
    """Draw the averages and each class; of many, those of the smallest areas."""
    each = [draw(name, separated.truth[:, index], separated.likely[:, index]) for index, name in enumerate(separated.names)]
    lines = [curve.values(AVERAGE_CORNERS) for curve in _averages(separated, each, draw, notes)]
    corners = CORNERS if len(each) <= MANY else CORNERS_OF_MANY
    if len(each) > MOST:
        notes.append(f"Of {len(each)} classes the {MOST} with the smallest areas have a curve of their own; averages are of all.")
        each = sorted(each, key=lambda curve: curve.area)[:MOST]
    return lines + [curve.values(corners) for curve in each]


def _averages(separated: Separated, each: Sequence[Curve], draw: Callable[..., Curve], notes: list[str]) -> list[Curve]:
    """Pool all classes' scores (micro), and average the classes' curves (macro)."""
    if len(each) < 2:
        return []
    macro = curves.mean("macro-average", each)
    if separated.truth.size > POOLED:
        notes.append(f"No micro-average: {len(separated.truth)} samples of {len(each)} classes are too many to pool.")
        return [macro]
    return [draw("micro-average", separated.truth.ravel(), separated.likely.ravel(), average=True), macro]


# ---------------------------------------------------------------- calibration


def _calibration(task: str, labels: NDArray[Any], scores: Scores) -> Lines:
    """Compare how likely something is held with how often it is so."""
    calibration = tasks.part(task, "calibration")
    if calibration is None:
        return []
    what, right, confidence = calibration(labels, scores)
    return [{"what": what, **reliability(right, confidence)}]


def reliability(right: NDArray[Any], confidence: NDArray[Any]) -> dict[str, Any]:
    """Return the bins of a reliability diagram, and the expected calibration error.

    ECE = Σ |bin| / n × |accuracy − mean confidence| over bins of equal width, open
    below (Naeini et al. 2015, with the 15 bins of Guo et al. 2017).
    """
    from sklearn.calibration import calibration_curve

    accuracy, mean = calibration_curve(right, np.clip(confidence, 0, 1), n_bins=BINS)
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=BINS)
    filled = np.flatnonzero(counts)
    error = float((counts[filled] / len(right) * np.abs(accuracy - mean)).sum())
    return {
        "ece": round(error, 5),
        "confidence": np.round(mean, 4).tolist(),
        "accuracy": np.round(accuracy, 4).tolist(),
        "count": counts[filled].tolist(),
        "begin": np.round(edges[filled], 4).tolist(),
        "end": np.round(edges[filled + 1], 4).tolist(),
    }


# ---------------------------------------------------------------- numbers with intervals


def _statistics(task: str, names: Sequence[str], labels: NDArray[Any], scores: Scores) -> Lines:
    """Compute what reviewers ask for beside accuracy; every sample counts for itself (`edgebench validate` knows patients)."""
    lines: Lines = []
    if tasks.part(task, "hits") is not None:
        decided = np.asarray(tasks.load(task).decisions(scores))
        counted, quadratic = agreement.table(labels, decided, len(names)), bool(tasks.part(task, "ORDERED"))
        kappa, mcc = agreement.cohen(counted, quadratic), agreement.correlation(counted)
        what = f"Cohen's κ of truth and decision{', quadratic weights' if quadratic else ''}"
        lines += [_between(what, kappa.interval)] if kappa is not None else []
        lines += [_between("Matthews' correlation (MCC)", Interval(value=mcc))] if mcc is not None else []
    separated = tasks.part(task, "separated")
    if separated is not None and len(names) <= MOST:
        found: Separated = separated(labels, scores, names)
        for column, name in enumerate(found.names):
            area = delong.area(np.asarray(found.truth[:, column]) > 0, found.likely[:, column])
            lines += [_between(f"AUC of {name} (DeLong)", area)] if area is not None else []
    return lines


def _between(what: str, found: Interval) -> dict[str, Any]:
    rounded = {name: None if value is None else round(value, 5) for name, value in found.model_dump().items()}
    return {"what": what, **rounded}


# ---------------------------------------------------------------- the worst


def _worst(task: str, names: Sequence[str], labels: NDArray[Any], scores: Scores) -> Lines:
    """List the samples of the highest loss."""
    worst = tasks.part(task, "worst")
    if worst is None:
        return []
    found = worst(labels, scores)
    return [
        {
            "index": int(sample),
            "truth": _named(names, found.truth[sample]),
            "decision": _named(names, found.decided[sample]),
            "confidence": round(float(found.confidence[sample]), 4),
            "loss": round(float(found.loss[sample]), 4),
        }
        for sample in np.argsort(-found.loss, kind="stable")[:WORST]
    ]


def _named(names: Sequence[str], chosen: NDArray[Any]) -> str:
    return ", ".join(names[int(index)] for index in np.flatnonzero(chosen)) or "none"
