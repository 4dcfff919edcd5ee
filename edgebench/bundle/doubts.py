"""Why to look twice at a file's numbers: one place for `export`, `run` and whatever shows a record."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edgebench import tasks
from edgebench.analysis import chance, metrics
from edgebench.analysis.heads import logits
from edgebench.analysis.order import Order, better_order, named
from edgebench.bundle.samples import Array
from edgebench.data._warnings import of_data
from edgebench.schema import Bundle, Calibration, Model, Parity, Warned

if TYPE_CHECKING:
    from edgebench.data import Dataset

FEW = 64
"""Of fewer samples an agreement of 99.5 % cannot be told from one of 95 %."""
RANDOM = "random-weights"
SHOWN = 100
"""Of more classes not all names are printed."""


def of_file(parity: Parity | None, calibration: Calibration | None) -> list[Warned]:
    """Warn of few parity samples, and of samples that calibration left out."""
    told = []
    if parity is not None and parity.samples < FEW:
        text = f"only {parity.samples} {parity.source} samples carry the parity with torch: fewer than {FEW} show little"
        told.append(Warned(kind="few-parity-samples", text=text))
    if calibration is not None and calibration.excluded:
        text = (
            f"calibration left out {calibration.excluded} of {calibration.excluded + calibration.samples} samples, "
            "which stand in the test split too"
        )
        told.append(Warned(kind="calibration-left-out", text=text))
    return told


def of_scores(model: Model, labels: Array, scores: Array) -> list[Warned]:
    """Warn of classes that are in another order, or of metrics near chance; scores [n, columns] as the file gives them."""
    if not metrics.headline(model.task) or not len(labels):
        return []
    decided = tasks.load(model.task).decisions(logits(model.task, scores, model.head))
    order = better_order(labels, decided, len(model.classes)) if labels.ndim == decided.ndim == 1 else None
    if order is not None:
        return [Warned(kind="class-order", text=_told(order, model.classes))]
    found = metrics.evaluate(model.task, labels, scores, model.head)
    told = chance.near_chance(model.task, labels, found, len(model.classes))
    if told and model.lineage.recipe == RANDOM:
        return [Warned(kind=each.kind, text=f"{each.text.partition(': ')[0]}: its weights are random") for each in told]
    return told


def _told(order: Order, classes: tuple[str, ...]) -> str:
    """Say that the outputs' classes are in another order, in which, and how that is mended."""
    text = (
        f"the outputs' classes are in another order than the data set's: accuracy {100 * order.before:.1f} % as they stand, "
        f"{100 * order.after:.1f} % (p = {order.p:.1g}) where outputs 0, 1, 2, … are {named(order, classes, SHOWN)}"
    )
    if len(classes) > SHOWN:
        return f"{text}; write all names into a file, one a line in the outputs' order, and give --classes-file FILE"
    line = " ".join(shlex.quote(classes[index]) for index in order.classes)
    return f"{text}; to mend it: printf '%s\\n' {line} > classes.txt, then --classes-file classes.txt"


def of_test(bundle: Bundle, data: Dataset, scores: Array) -> list[Warned]:
    """Warn of all that bears on metrics over the test split; scores: of a device, for each of its samples."""
    told = [*of_file(bundle.parity, bundle.calibration), *of_scores(bundle.model, data.read("test").labels, scores)]
    return [*told, *of_data(data)]
