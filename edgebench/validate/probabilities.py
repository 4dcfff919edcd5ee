"""Whether probabilities are right, the temperature that makes them so, and what deciding by them is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebench.analysis import operating, scaling
from edgebench.analysis.resampling import Units
from edgebench.errors import InputError
from edgebench.schema import Temperature
from edgebench.validate.decisions import Lines, values
from edgebench.validate.options import ValidateOptions
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.targets import Targets, log_odds, probability

THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)
"""Of decision curves: probabilities from which on is acted."""
FITTED, CARRIED = "fitted", "carried"


@dataclass(frozen=True)
class Scaled:
    """What a file's logits are divided by."""

    value: float
    """1: as they are."""
    origin: str
    """`fitted` on the validation data here, `carried` in the bundle, or why there is none."""
    fitted: Temperature | None = None


def temperature(file: Scored, data: Judged) -> Scaled:
    """Fit a temperature on the validation data; where there are no scores of it, take the bundle's own."""
    carried = None if file.bundle is None else file.bundle.temperature
    if file.val is None:
        return Scaled(1.0, file.val_where) if carried is None else Scaled(carried.value, CARRIED)
    found = scaling.fit(data.whole.task, data.val_labels, file.val)
    if found is None:
        return Scaled(1.0, "no finite temperature is best: the validation data are decided too well, or by chance")
    kept = Temperature(
        value=found.value,
        samples=len(data.val_labels),
        split_sha256=data.whole.read("val").sha256,
        dataset=str(data.whole.ref),
        before=found.before,
        after=found.after,
        scores=file.val_where,
    )
    return Scaled(found.value, FITTED, kept)


def calibrations(files: Sequence[Scored], scaled: Mapping[str, Scaled], data: Judged, units: Units | None) -> Lines:
    """Rate each file's probabilities as they are, and with its temperature."""
    lines = []
    for file in files:
        found = scaled[file.name]
        line = {
            "file": file.name,
            "temperature": found.value if found.origin in (FITTED, CARRIED) else None,
            "origin": found.origin,
            "plain": _rated(file, data, 1.0, units),
            "scaled": _rated(file, data, found.value, units) if found.origin in (FITTED, CARRIED) else None,
        }
        if line["plain"] is not None:
            lines.append(line)
    return lines


def _rated(file: Scored, data: Judged, value: float, units: Units | None) -> dict[str, Any] | None:
    found = scaling.calibrated(data.whole.task, data.labels, file.test, value, units)
    if found is None:
        return None
    plain = {"what": found.what, "ece": found.ece, "ece_by_chance": found.ece_by_chance}
    return {**plain, "brier": values(found.brier), "bins": found.bins}


def decision_curves(
    files: Sequence[Scored], scaled: Mapping[str, Scaled], data: Judged, found: Targets, options: ValidateOptions
) -> Lines:
    """Return net benefits by the probability from which on is acted, of each file and class that is looked at closely.

    At the judged samples' own prevalence, and at those that were stated.
    """
    lines: Lines = []
    for target in found.each if found.closely else ():
        for prevalence in (None, *options.prevalence):
            for file in files:
                odds = log_odds(data.whole.task, file.test / scaled[file.name].value, target.column)
                benefit, every = operating.net_benefit(target.truth, probability(odds), THRESHOLDS, prevalence)
                line = {"class": target.name, "file": file.name, "thresholds": THRESHOLDS.tolist()}
                rate = float(target.truth.mean()) if prevalence is None else prevalence
                own = {"prevalence": rate, "stated": prevalence is not None}
                drawn = {"benefit": np.round(benefit, 5).tolist(), "all": np.round(every, 5).tolist()}
                lines.append({**line, **own, **drawn})
    return lines


def keep(files: Sequence[Scored], scaled: Mapping[str, Scaled]) -> dict[str, float]:
    """Write what was fitted into the bundles; returns it by the bundles' folders. `InputError` where nothing was."""
    from edgebench.bundle.manifest import write_temperature

    written = {}
    for file in files:
        found = scaled[file.name]
        if file.folder is None or found.fitted is None:
            raise InputError(f"{file.name}: no temperature to keep: {found.origin}; leave --keep-temperature out")
        written[file.folder] = found.fitted
    for folder, fitted in written.items():
        write_temperature(folder, fitted)
    return {str(folder): fitted.value for folder, fitted in written.items()}
