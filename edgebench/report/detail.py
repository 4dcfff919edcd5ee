"""What is behind one record, read from its sidecar and thinned for drawing.

Its plain values are what `report/charts.py` draws: where a chart wants a data set
called `trials`, `series`, `power` and so on, it wants the list of that name here.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import evaluation, metrics, timeline
from edgebench.analysis.timeline import Lines, Missing
from edgebench.data import Split, open_offline
from edgebench.errors import EdgebenchError
from edgebench.report import explained
from edgebench.report.charts import training
from edgebench.report.record_card import NOT_JUDGED
from edgebench.schema import DatasetRef, Measurement, Record, Subset
from edgebench.store import records
from edgebench.store.layout import results_of

PICTURE_PIXELS = 64
APART = ("training", "explanations")
"""What does not come from raw readings."""
DAMAGED = (
    EdgebenchError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    zipfile.BadZipFile,
)
"""What reading a file may raise that was not written here."""


@dataclass(frozen=True)
class Evidence:
    """What is behind one record; a part that is missing is None, and `reasons` says why under its name."""

    trials: Lines | None = None
    """A line for each trial: trial, batch, load_ns, first_ns, samples (how many), settled; ns [k] and share [k], the
    share of samples that are no slower (ECDF); at_ns [m] and density [m], 1 at its highest (violin)."""
    series: Lines | None = None
    """A line for each trial: trial; t_s [k], seconds since the first sample, and median_ns [k] of the windows there."""
    conditions: Lines | None = None
    """A line for each quantity that was read beside the samples: what ("temperature, °C", "clock, MHz"), t_s [k], value [k]."""
    onset: Lines | None = None
    """One line where a model became slower for good under sustained load: t_s, slowdown (a share)."""
    power: Lines | None = None
    """A line for each rail of a meter: source (meter and rail), provenance, t_s [k], watts [k]."""
    stretches: Lines | None = None
    """What went on while power was read: what ("idle", "samples"), label ("idle", "trial 1"), begin_s, end_s."""
    evaluation: dict[str, Any] | None = None
    """As `evaluation.Evaluation` says: samples, confusion, roc, precision_recall, calibration, worst, statistics, notes."""
    explanations: list[dict[str, Any]] | None = None
    """As `explained.told` says: method, lines, sheet."""
    training: Lines | None = None
    """The curves of the model's training, as `charts.training.values` says; from the record alone."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Also under `pictures`, where the evaluation split is not at hand."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values, under the names of its fields."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"reasons": dict(self.reasons)}


def gather(path: Path, record: Record, split: Split | None, why: str = "") -> Evidence:
    """Read a record's sidecar; whatever is damaged or missing becomes a reason.

    split: the record's evaluation split, else `why` there is none (see `Splits.of`).
    """
    lines = training.values(record.model)
    said = {} if lines else {"training": "the record holds no history of its training"}
    found, shown = _measured(path, record, split, why), None
    try:
        shown = explained.told(results_of(path), record)
    except DAMAGED as error:
        said["explanations"] = _said(error)
    reasons = {name: reason for name, reason in found.reasons.items() if name not in APART}
    return replace(found, training=lines or None, explanations=shown, reasons={**reasons, **said})


def _measured(path: Path, record: Record, split: Split | None, why: str) -> Evidence:
    if record.samples is None:
        return _nothing("no raw readings were kept")
    try:
        measurement, labels = records.read_measurement(path, record)
        zero_ns, trials = timeline.start_ns(measurement), timeline.counted(record, measurement)
    except DAMAGED as error:
        return _nothing(_said(error))
    if labels is None and split is not None:
        labels = split.labels
    parts: dict[str, Callable[[], Any]] = {
        "trials": lambda: timeline.trials(trials),
        "series": lambda: timeline.series(trials, zero_ns),
        "conditions": lambda: timeline.conditions(measurement.conditions, zero_ns),
        "onset": lambda: timeline.onset(record),
        "power": lambda: timeline.power(record, measurement.power, zero_ns),
        "stretches": lambda: timeline.stretches(measurement, zero_ns),
        "evaluation": lambda: _evaluation(record, measurement, labels, why),
    }
    found, reasons = {}, {} if split is not None else {"pictures": why or "the evaluation split was not opened"}
    for name, make in parts.items():
        try:
            found[name] = make()
        except DAMAGED as error:
            reasons[name] = _said(error)
    return Evidence(**found, reasons=reasons)


def _nothing(reason: str) -> Evidence:
    return Evidence(reasons={each.name: reason for each in fields(Evidence) if each.name != "reasons"} | {"pictures": reason})


def _said(error: BaseException) -> str:
    """Say what is wrong: errors raised on purpose explain themselves, others came from a damaged file."""
    text = " ".join(str(error).split())
    if isinstance(error, EdgebenchError | Missing):
        return text
    return f"its raw readings are damaged ({type(error).__name__}: {text})"


# ---------------------------------------------------------------- predictions


def _evaluation(record: Record, measurement: Measurement, labels: NDArray[Any] | None, why: str) -> dict[str, Any]:
    predictions = measurement.predictions
    if record.cell.dataset is None or (record.model is not None and not metrics.headline(record.model.task)):
        raise Missing(NOT_JUDGED)
    if record.model is None or predictions is None:
        raise Missing("no predictions were kept")
    if labels is None:
        raise Missing(f"no labels were kept with the predictions, and the data set is not at hand: {why}")
    scores = np.frombuffer(predictions.values, "<f4").reshape(predictions.rows, -1)
    return evaluation.evaluate(record.model.task, record.model.classes, labels, scores, record.model.head).values()


class Splits:
    """Opens the evaluation splits of records, each data set once, and never downloads any."""

    def __init__(self) -> None:
        self._opened: dict[str, Split | str] = {}

    def of(self, record: Record) -> tuple[Split | None, str]:
        """Return the split that a record was evaluated on, or None and the reason."""
        ref = record.cell.dataset
        if ref is None:
            return None, NOT_JUDGED
        key = f"{ref} {record.cell.subset}"
        if key not in self._opened:
            self._opened[key] = _opened(ref, record.cell.subset)
        found = self._opened[key]
        if isinstance(found, str):
            return None, found
        if found.sha256 != record.cell.evaluation_sha256:
            return None, f"{ref}: its test split here is not the one that was measured (their hashes differ)"
        return found, ""


def _opened(ref: DatasetRef, subset: Subset | None) -> Split | str:
    try:
        data = open_offline(ref)
        return (data if subset is None else data.sampled(subset.samples, subset.seed)).read("test")
    except DAMAGED as error:
        return str(error) if isinstance(error, EdgebenchError) else f"{ref}: cannot be opened ({type(error).__name__}: {error})"


def pictures(split: Split, indices: Iterable[int], budget_bytes: int = 400_000) -> dict[int, str]:
    """Encode samples as PNG of 64 pixels at most, in base64, the first ones while the budget lasts.

    Key what several records share by `record.cell.evaluation_sha256`.
    """
    found: dict[int, str] = {}
    for index in dict.fromkeys(indices):
        if 0 <= index < len(split):
            text = base64.b64encode(_png(split.images[index])).decode("ascii")
            budget_bytes -= len(text)
            if budget_bytes < 0:
                break
            found[index] = text
    return found


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [h, w, c]; of a volume [d, h, w, c] its middle slice."""
    from PIL import Image

    pixels = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[:, :, 0])
    picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
