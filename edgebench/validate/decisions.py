"""How well files tell classes apart, and how good their decisions are at operating points chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebench import tasks
from edgebench.analysis import agreement, curves, delong, operating, shares
from edgebench.analysis.resampling import Floats, Units
from edgebench.analysis.shares import Bools
from edgebench.analysis.subgroups import holm
from edgebench.schema import Interval
from edgebench.validate.options import ValidateOptions
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.targets import Target, Targets, log_odds, probability

Lines = list[dict[str, Any]]
CORNERS = 60
"""Of a curve that is drawn."""
AS_IT_DECIDES = "as it decides"


@dataclass(frozen=True)
class Point:
    """One file's operating point for one class."""

    rule: str
    threshold: float | None
    """Of the log odds; None: the file's own decision."""
    decided: Bools
    """Of the judged samples [n]."""
    reached: tuple[float, float] | None
    """Sensitivity and specificity on the validation data that it was chosen on."""


def values(found: Interval | None) -> dict[str, float | None] | None:
    """Write an interval as plain JSON values."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def decided(task: str, scores: Floats, target: Target) -> Bools:
    """Return whether samples are decided to be of a class."""
    found = tasks.load(task).decisions(scores)
    return np.asarray(found[:, target.column] > 0 if found.ndim == 2 else found == target.column)


# ---------------------------------------------------------------- over all classes


def overall(files: Sequence[Scored], data: Judged, units: Units | None) -> Lines:
    """Rate decisions over all classes: a line for each file; nothing where a task decides label by label."""
    task, count = data.whole.task, len(data.whole.classes)
    if tasks.part(task, "hits") is None:
        return []
    lines = []
    for file in files:
        found = np.asarray(tasks.load(task).decisions(file.test))
        line = {
            "file": file.name,
            "accuracy": values(shares.share(found == data.labels, units)),
            "kappa": values(agreement.between(data.labels, found, count, units)),
            "mcc": agreement.correlation(agreement.table(data.labels, found, count)),
        }
        if tasks.part(task, "ORDERED"):
            line["weighted_kappa"] = values(agreement.between(data.labels, found, count, units, quadratic=True))
        lines.append(line)
    return lines


def changes(files: Sequence[Scored], data: Judged, units: Units | None) -> Lines:
    """Compare the decisions of each further file with the first's, sample by sample."""
    task = data.whole.task
    if tasks.part(task, "hits") is None:
        return []
    hits = [np.asarray(tasks.load(task).decisions(file.test) == data.labels) for file in files]
    return [
        {"first": files[0].name, "second": file.name, **change(shares.changed(hits[0], other, units))}
        for file, other in zip(files[1:], hits[1:], strict=True)
    ]


def change(found: shares.Changed | None) -> dict[str, Any]:
    """Write what changed as plain JSON values."""
    if found is None:
        return {"samples": 0, "gained": 0, "lost": 0, "difference": None, "mcnemar_p": None}
    return {
        "samples": found.samples,
        "gained": found.gained,
        "lost": found.lost,
        "difference": values(found.difference),
        "mcnemar_p": found.mcnemar_p,
    }


# ---------------------------------------------------------------- areas


def areas(files: Sequence[Scored], data: Judged, found: Targets, units: Units | None) -> Lines:
    """Return the area under the ROC curve of each file and class, with DeLong's interval."""
    return [
        {
            "file": file.name,
            "class": target.name,
            "positive": int(target.truth.sum()),
            "negative": int((~target.truth).sum()),
            "auc": values(delong.area(target.truth, log_odds(data.whole.task, file.test, target.column), units)),
        }
        for target in found.each
        for file in files
    ]


def roc_curves(files: Sequence[Scored], data: Judged, found: Targets) -> Lines:
    """Return the ROC curve of each file, thinned for drawing, for classes that are looked at closely."""
    return [
        {
            "class": target.name,
            "file": file.name,
            **{axis: drawn[axis] for axis in ("x", "y")},
        }
        for target in found.each
        if found.closely and target.tested
        for file in files
        for drawn in [curves.roc("", target.truth, log_odds(data.whole.task, file.test, target.column)).values(CORNERS)]
    ]


def area_tests(files: Sequence[Scored], data: Judged, found: Targets, units: Units | None) -> Lines:
    """Test each further file's area against the first's, class by class; p is also corrected for how many tests there are."""
    lines = []
    for target in found.each:
        first, *others = (log_odds(data.whole.task, file.test, target.column) for file in files)
        for file, other in zip(files[1:], others, strict=True):
            compared = delong.compare(target.truth, first, other, units)
            if compared is not None:
                line = {"class": target.name, "first": files[0].name, "second": file.name}
                lines.append({**line, "difference": values(compared.difference), "p": compared.p})
    return corrected(lines)


def corrected(lines: Lines) -> Lines:
    """Put beside each p what it is corrected for all of them (Holm 1979)."""
    return [{**line, "p_holm": p} for line, p in zip(lines, holm([line["p"] for line in lines]), strict=True)]


# ---------------------------------------------------------------- operating points


def rules(options: ValidateOptions) -> dict[str, Callable[[Bools, Floats], float]]:
    """Name the ways to choose an operating point, the one that groups are judged at first."""
    return {
        f"sensitivity {100 * options.sensitivity:g} %": lambda truth, odds: operating.at_sensitivity(
            truth, odds, options.sensitivity
        ),
        f"specificity {100 * options.specificity:g} %": lambda truth, odds: operating.at_specificity(
            truth, odds, options.specificity
        ),
        "Youden": operating.youden,
    }


def points(file: Scored, task: str, target: Target, options: ValidateOptions) -> Iterator[Point]:
    """Choose operating points on the validation data, and decide the judged samples by them; the file's own decision last."""
    odds = log_odds(task, file.test, target.column)
    if file.val is not None and target.tuned:
        before = log_odds(task, file.val, target.column)
        for rule, choose in rules(options).items():
            threshold = choose(target.val_truth, before)
            held = before >= threshold
            reached = float(held[target.val_truth].mean()), float((~held[~target.val_truth]).mean())
            yield Point(rule, threshold, odds >= threshold, reached)
    yield Point(AS_IT_DECIDES, None, decided(task, file.test, target), None)


def performances(files: Sequence[Scored], data: Judged, found: Targets, units: Units | None, options: ValidateOptions) -> Lines:
    """Rate decisions at every operating point: a line for each class, file and rule."""
    return [
        _performance(file, target, point, units, options.prevalence)
        for target in found.each
        for file in files
        for point in points(file, data.whole.task, target, options)
    ]


def _performance(file: Scored, target: Target, point: Point, units: Units | None, prevalence: Sequence[float]) -> dict[str, Any]:
    rated = operating.performance(target.truth, point.decided, units)
    names = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "f1", "mcc", "kappa")
    return {
        "file": file.name,
        "class": target.name,
        "rule": point.rule,
        "threshold": None if point.threshold is None else float(probability(np.array([point.threshold]))[0]),
        "reached": None if point.reached is None else {"sensitivity": point.reached[0], "specificity": point.reached[1]},
        "counts": dict(vars(rated.counts)),
        **{name: values(getattr(rated, name)) for name in names},
        "predictive": [_predictive(target, point.decided, each, units) for each in prevalence],
    }


def _predictive(target: Target, found: Bools, prevalence: float, units: Units | None) -> dict[str, Any]:
    stated = operating.predictive(target.truth, found, prevalence, units)
    return {"prevalence": prevalence, "ppv": values(stated.ppv), "npv": values(stated.npv)}
