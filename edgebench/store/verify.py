"""Compute every number of a record again from its raw samples, and of an explanation from its maps; name what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgebench.analysis import energy, generation, metrics, stats, summary
from edgebench.analysis.chance import commonest
from edgebench.analysis.metrics import scores_of
from edgebench.analysis.verdict import with_outputs
from edgebench.errors import EdgebenchError, RecordError
from edgebench.files import is_sealed, parse_json, sha256_json
from edgebench.schema import METHOD, MODES, Bundle, Energy, Measurement, Progress, Prompts, Record
from edgebench.store import explanations, maps, records, samples
from edgebench.store.layout import EXPLANATIONS, results_of

TOLERANCE = 1e-9
"""Relative; another processor or numpy may sum in another order."""
RESTS = ("environment", "memory", "finish", "loadgen", "right_outputs", "program", "few_samples", "tools")
OF_BUNDLE = ("size_bytes", "parameters", "macs", "calibration", "parity", "bundle_details")
SINCE_2 = {"median_ns.low", "median_ns.high", "batch", "precise_trials", "verdict"}
"""What method 1 computed otherwise, or not at all."""
METRICS_SINCE_4 = ("auroc_classes",)
"""Metrics that records of an older schema do not have."""


@dataclass(frozen=True)
class Checked:
    """One record or explanation, how many of its numbers were computed again, and which differ."""

    path: Path
    numbers: int
    wrong: tuple[str, ...]
    as_written: tuple[str, ...] = ()
    """What nothing here can confirm: it rests on the word of whoever measured."""
    kind: Literal["record", "explanation"] = "record"


def verify(results: Path, progress: Progress) -> Iterator[Checked]:
    """Check every record and explanation below a folder, one after the other; a damaged one does not stop the others.

    results: such a folder, or one record or explanation.
    """
    own = results.is_file() and results.absolute().parent.parent.name == EXPLANATIONS
    paths = [] if own else records.record_paths(results)
    explained = [results] if own else list(explanations.paths(results))
    others = maps.Others(results_of(results.absolute()) if own else results)
    count = len(paths) + len(explained)
    for number, path in enumerate([*paths, *explained], 1):
        yield check(path) if number <= len(paths) else check_explanation(path, others)
        progress(f"verifying {results}", number, count)


def check(path: Path) -> Checked:
    """Check one record: its hash, its samples' hash, and every number against the samples."""
    try:
        record = records.owned(path, records.read_content(path))
        if record.status != "done":
            return Checked(path, 0, ())
        arrays = records.read_samples(path, record)
        manifest = _manifest(record, arrays)
        stored, computed = _pairs(record, samples.measured(arrays, record), arrays, manifest)
    except EdgebenchError as error:
        return Checked(path, 0, (str(error),))
    except Exception as error:  # whoever wrote the samples decides what goes wrong in them
        return Checked(path, 0, (records.unreadable(error),))
    unconfirmed = RESTS + (() if manifest else OF_BUNDLE)
    as_written = tuple(name for name in unconfirmed if getattr(record, name))
    return Checked(path, len(computed), _differing(stored, computed, "samples"), as_written)


def _differing(stored: Mapping[str, Any], computed: Mapping[str, Any], source: str) -> tuple[str, ...]:
    return tuple(
        f"{name}: {stored.get(name)} is written, the {source} give {computed.get(name)}"
        for name in sorted(stored.keys() | computed.keys())
        if not _same(stored.get(name), computed.get(name))
    )


def check_explanation(path: Path, others: maps.Others) -> Checked:
    """Check one explanation: its hash and key, its maps' and pictures' hashes, and every number that maps decide.

    What it was compared with must lie in the same folder; where it does not, the drift stays as it was written.
    """
    kind: Literal["explanation"] = "explanation"
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        each = explanations.owned(path, explanations.read_content(path))
        results = others.results
        if results / explanations.place(each) != (path if path.is_absolute() or not results.is_absolute() else path.absolute()):
            raise RecordError(f"{path}: does not lie where it belongs, {explanations.place(each)}; put it there")
        arrays = maps.arrays_of(results, each)
        sides = [dict(_flat("", side)) for side in maps.alone(each, arrays)]
        number, wrong = len(sides[1]), _differing(sides[0], sides[1], "maps")
        candidates = others.of(each) if each.drift is not None else []
        for other in candidates:
            written, computed = maps.beside(each, arrays, other, maps.arrays_of(results, other))
            found.append((dict(_flat("", written)), dict(_flat("", computed))))
    except EdgebenchError as error:
        return Checked(path, 0, (str(error),), kind=kind)
    except Exception as error:  # whoever wrote the maps decides what goes wrong in them
        return Checked(path, 0, (f"its maps cannot be read ({type(error).__name__}: {error}); explain again",), kind=kind)
    unconfirmed = tuple(name for name in maps.RESTS if getattr(each, name) is not None)
    if found:  # one of them is what it was compared with: on this device or another
        nearest = min((_differing(*pair, "maps") for pair in found), key=len)
        return Checked(path, number + len(found[0][1]), wrong + nearest, unconfirmed, kind)
    return Checked(path, number, wrong, unconfirmed + (("drift",) if each.drift is not None else ()), kind)


def _manifest(record: Record, arrays: Mapping[str, Any]) -> Bundle | None:
    """Read the bundle's manifest beside the samples; None in records from before it was kept there."""
    if "bundle" not in arrays:
        return None
    content = parse_json(str(arrays["bundle"]))
    if not is_sealed(content) or content["sha256"] != record.cell.bundle_sha256:
        raise RecordError("the bundle.json beside its samples is not of the bundle that it names; measure this cell again")
    return Bundle.model_validate(content)


def _pairs(
    record: Record, measurement: Measurement, arrays: Mapping[str, Any], manifest: Bundle | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the written and the computed numbers by name."""
    cell = record.cell
    labels: Any = arrays.get("labels")
    least = MODES[cell.mode].min_samples
    asked = _asked(manifest, arrays)
    found: dict[str, Any] = summary.derived(cell, measurement, least, record.host_agreement, record.bundle_details, *asked)
    if found["generation"] is not None:
        trials = summary.counted(cell, measurement.trials)
        found["generation"] = generation.with_energy(found["generation"], measurement.power, record.energy, trials)
    found["verdict"] = with_outputs(found["verdict"], record.right_outputs)
    stored: dict[str, Any] = {name: getattr(record, name) for name in found}
    for name, own, again in _energies(record, measurement):
        stored[name], found[name] = own, again
    if manifest is not None:
        found |= {"model": manifest.model, "parameters": manifest.model.parameters, "bundle_details": manifest.details}
        found |= {name: getattr(manifest, name) for name in ("size_bytes", "macs", "calibration", "parity")}
        found["cell"] = {"model": manifest.model.name, "format": manifest.format, "precision": manifest.precision}
        stored |= {name: getattr(record, name) for name in ("model", *OF_BUNDLE)}
        stored["cell"] = {name: getattr(cell, name) for name in found["cell"]}
    judged = cell.dataset is not None and labels is not None and record.model is not None
    if judged and record.model is not None and measurement.predictions is not None:
        scores = scores_of(measurement.predictions.values, measurement.predictions.columns)
        judged_again = metrics.evaluate(record.model.task, labels, scores, record.model.head)
        written = record.accuracy.metrics if record.accuracy is not None else {}
        since = {name for name in METRICS_SINCE_4 if name not in written}
        found["accuracy"] = {name: round(value, 6) for name, value in judged_again.items() if name not in since}
        if record.accuracy is not None and record.accuracy.commonest is not None:
            stored["commonest"], found["commonest"] = record.accuracy.commonest, commonest(record.model.task, labels)
        if record.accuracy is not None and record.accuracy.interval is not None:
            between = stats.share_interval(judged_again["accuracy"], len(labels))
            stored["accuracy_interval"], found["accuracy_interval"] = record.accuracy.interval, between
    if record.accuracy is not None and ("accuracy" in found or cell.dataset is None):  # without a data set there can be none
        stored["accuracy"] = record.accuracy.metrics
    flat = [{name: value for name, value in _flat("", side) if not _changed(cell.method, name)} for side in (stored, found)]
    return flat[0], flat[1]


def _asked(manifest: Bundle | None, arrays: Mapping[str, Any]) -> tuple[Prompts | None, Sequence[str | None]]:
    """Return what a language model was asked, and the right answers; `RecordError` where they are not its bundle's."""
    prompts = None if manifest is None else manifest.prompts
    if prompts is None or prompts.sha256 is None:
        return prompts, ()
    written: Any = parse_json(str(arrays["prompts"])) if "prompts" in arrays else None
    if sha256_json(written) != prompts.sha256:
        raise RecordError("the prompts beside its samples are not those of its bundle; measure this cell again")
    return prompts, [each.get("reference") for each in written]


def _energies(record: Record, measurement: Measurement) -> Iterator[tuple[str, Energy, Energy]]:
    """Integrate every rail's power again."""
    trials = summary.counted(record.cell, measurement.trials)
    windows = [window for trial in trials for window in trial.windows]
    for own in (record.energy, *record.rails):
        for trace in measurement.power.traces:
            if (trace.meter, trace.rail) == (own.meter, own.rail) and own.counter in (None, trace.counter):
                found = energy.measured(measurement.power, trace, windows, own.meter_cost)
                yield f"energy {trace.meter} {trace.rail}", own, found.model_copy(update={"provenance": own.provenance})


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """List every leaf with its dotted name."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}[{index}]", inner)
    else:
        yield prefix, value


def _changed(method: int, name: str) -> bool:
    return method < METHOD and any(part in name for part in SINCE_2)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)
    return bool(one == other)
