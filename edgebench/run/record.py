"""Raw readings → a record: summary, accuracy, verdict, or the reason why there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgebench import __version__
from edgebench.analysis import chance, energy, generation, metrics, stats
from edgebench.analysis.metrics import Labels, hits, scores_of
from edgebench.analysis.printed import program_of
from edgebench.analysis.summary import counted, derived
from edgebench.analysis.verdict import with_outputs
from edgebench.bundle import doubts, prompts
from edgebench.data._arrays import Limit, open_npz
from edgebench.errors import DataError, written
from edgebench.run.plan import CellJob
from edgebench.schema import (
    RECORD_SCHEMA,
    Accuracy,
    Cell,
    Energy,
    Failure,
    FewSamples,
    LoadGen,
    Measurement,
    Memory,
    MeterSpec,
    ModeSpec,
    Paired,
    Predictions,
    Reason,
    Record,
    RightOutput,
    Role,
    Warned,
)
from edgebench.store import records


def make_record(
    subject: CellJob,
    measurement: Measurement,
    spec: ModeSpec,
    started_at: str,
    seconds: float,
    meters: Sequence[MeterSpec] = (),
    meter_cost: float | None = None,
) -> Record:
    """Turn raw readings into a record: summary, accuracy, verdict, or the reason why there are none."""
    bundle = subject.bundle
    record = skeleton(subject.cell, subject.key, bundle.model.role, started_at, seconds).model_copy(
        update={
            "model": bundle.model,
            "size_bytes": bundle.size_bytes,
            "parameters": bundle.model.parameters,
            "macs": bundle.macs,
            "calibration": bundle.calibration,
            "parity": bundle.parity,
            "bundle_details": bundle.details,
            "tools": {**bundle.tools, "edgebench": __version__},
            "environment": dict(measurement.environment),
            "clock": dict(measurement.clock),
        }
    )
    failure = measurement.failure
    accuracy: Accuracy | None = None
    warnings = doubts.of_file(bundle.parity, bundle.calibration)
    few: FewSamples | None = None
    if failure is None:
        try:
            if subject.judged:
                accuracy, warnings = judge(subject, measurement.predictions)
            few = compare_few(subject, measurement) if subject.chosen else None
        except (ValueError, DataError) as error:
            failure = Failure("predictions", written(error), "look at the model on the device; export it again")
    if failure is not None:
        return failed(record, failure)
    judged = accuracy or few
    agreement = None if judged is None else judged.host_agreement
    try:
        right_texts = [each.get("reference") for each in prompts.of_bundle(subject.folder, bundle)]
        given = (subject.cell, measurement, spec.min_samples, agreement, bundle.details)
        found = derived(*given, bundle.prompts, right_texts)
        found["program"] = program_of(measurement.programs)
    except ValueError as error:
        return failed(record, Failure("samples", str(error), "run again; report it if it stays"))
    right = tuple(right_outputs(measurement.outputs or ()))
    found["verdict"] = with_outputs(found["verdict"], right)
    trials = counted(subject.cell, measurement.trials)
    windows = [window for trial in trials for window in trial.windows]
    headline, rails = energy.energies(measurement.power, windows, meters, meter_cost)
    if found["generation"] is not None:
        found["generation"] = generation.with_energy(found["generation"], measurement.power, headline, trials)
    update = {
        "status": "done",
        "memory": Memory.model_validate(dict(measurement.memory)),
        "accuracy": accuracy,
        "few_samples": few,
        "right_outputs": right,
        "warnings": tuple(warnings),
        "energy": headline,
        "rails": rails,
        "finish": None if measurement.finish is None else dict(measurement.finish),
        "loadgen": None if measurement.loadgen is None else LoadGen.model_validate(dict(measurement.loadgen)),
        **found,
    }
    return record.model_copy(update=update)


def controlled(record: Record, control: CellJob | None, measured: Sequence[Measurement]) -> Record:
    """Write down what was decided where each sample had another's text; the record as it is where nothing was."""
    if record.accuracy is None or control is None:
        return record
    try:
        found, _ = judge(control, measured[0].predictions)
    except (ValueError, DataError) as error:
        what = f"with others' texts: {written(error)}"
        bare = record.model_copy(update={"accuracy": None, "latency": None, "verdict": None})
        return failed(bare, Failure("predictions", what, "look at the model on the device; export it again"))
    shuffled = found.metrics.get(found.headline)  # null where the labels do not define it, as the metric itself is
    return record.model_copy(update={"accuracy": record.accuracy.model_copy(update={"shuffled_text": shuffled})})


def right_outputs(outputs: Iterable[Mapping[str, Any]]) -> Iterator[RightOutput]:
    """Keep what the device says of the outputs of which right ones are known."""
    for each in outputs:
        if each["off"] is not None or each["reason"] is not None:
            yield RightOutput.model_validate({name: each.get(name) for name in RightOutput.model_fields})


def compared(
    record: Record, measurement: Measurement, labels: Labels | None, references: Iterable[tuple[Path, Record]]
) -> Record:
    """Compare its decisions with those of the same model in FP32, and of its teacher, on the same samples.

    FP32 is torch's where that was measured; a file that is itself in FP32 is compared with torch alone.
    """
    model, predictions = record.model, measurement.predictions
    if labels is None or record.accuracy is None or model is None or predictions is None:
        return record
    own = hits(model.task, labels, scores_of(predictions.values, predictions.columns), model.head)
    if own is None:
        return record
    found: dict[str, Paired] = {}
    for path, other in references:
        if other.model is None or other.key == record.key:
            continue
        same, teacher = other.model.sha256 == model.sha256, other.model.sha256 in model.lineage.parents
        same = same and (other.cell.format == "torch" or record.cell.precision != "fp32")
        arrays = records.read_samples(path, other) if same or teacher else {}
        if "predictions" in arrays and arrays["predictions"].shape == (len(labels), predictions.columns):
            others = hits(model.task, labels, arrays["predictions"])
            assert others is not None
            paired = stats.paired_difference(others, own)
            found["to_fp32" if same else "to_teacher"] = paired.model_copy(update={"reference": other.key})
    return record.model_copy(update={"accuracy": record.accuracy.model_copy(update=found)})


def skeleton(cell: Cell, key: str, role: Role, started_at: str, seconds: float) -> Record:
    """Start a record that says nothing yet."""
    return Record(
        schema_version=RECORD_SCHEMA,
        key=key,
        status="failed",
        cell=cell,
        model=None,
        role=role,
        started_at=started_at,
        seconds=round(seconds, 3),
        energy=Energy(reason="no power meter"),
    )


def failed(record: Record, failure: Failure) -> Record:
    """Turn a record into one of a failure."""
    reason = Reason(reason=failure.reason, recommendation=failure.remedy)
    return record.model_copy(update={"status": "failed", "failure": reason, "failed_stage": failure.stage})


def judge(subject: CellJob, predictions: Predictions | None) -> tuple[Accuracy, list[Warned]]:
    """Compute the task's metrics from the device's own outputs, and what makes them doubtful.

    ValueError where those, or the host's, are not whole.
    """
    assert subject.data is not None
    test, model = subject.data.read("test"), subject.bundle.model
    fitting = (len(model.classes), 1) if len(model.classes) == 2 else (len(model.classes),)
    if predictions is None or predictions.rows != len(test) or predictions.columns not in fitting:
        got = "nothing" if predictions is None else f"{predictions.rows} × {predictions.columns} scores"
        raise ValueError(f"{got} arrived, {len(test)} × {len(model.classes)} are wanted")
    scores = scores_of(predictions.values, predictions.columns)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    found = metrics.evaluate(model.task, test.labels, scores, model.head)
    drawn = subject.cell.subset is not None and test.labels.ndim == 1 and "accuracy" in found
    accuracy = Accuracy(
        samples=len(test),
        headline=metrics.headline(model.task),
        metrics={name: round(value, 6) for name, value in found.items()},
        commonest=chance.commonest(model.task, test.labels),
        interval=stats.share_interval(found["accuracy"], len(test)) if drawn else None,
        host_agreement=_host_agreement(subject, scores),
    )
    return accuracy, doubts.of_test(subject.bundle, subject.data, scores)


def compare_few(subject: CellJob, measurement: Measurement) -> FewSamples:
    """Compare the outputs of some samples with the exporting host's; ValueError where they are not whole."""
    assert subject.data is not None
    predictions = measurement.predictions
    if measurement.unpredicted:
        return FewSamples(samples=0, reason=measurement.unpredicted, host_agreement=None, max_abs=None)
    model, chosen = subject.bundle.model, list(subject.chosen)
    if predictions is None or predictions.rows != len(chosen):
        raise ValueError(f"{0 if predictions is None else predictions.rows} of {len(chosen)} samples' scores arrived")
    scores = scores_of(predictions.values, predictions.columns)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    found: dict[str, float] = {}
    with contextlib.suppress(ValueError):  # so few samples may lack a class
        found = metrics.evaluate(model.task, subject.data.read("test").labels[chosen], scores, model.head)
    host = _host_scores(subject)
    return FewSamples(
        samples=len(chosen),
        reason=subject.because,
        host_agreement=None if host is None else metrics.agreement(model.task, host, scores, model.head),
        max_abs=None if host is None else float(np.abs(host.astype(np.float64) - scores).max()),
        metrics={name: round(value, 6) for name, value in found.items() if np.isfinite(value)},
    )


def _host_scores(subject: CellJob) -> np.ndarray[Any, Any] | None:
    """Read the exporting host's scores of the chosen samples; None where it has none of these."""
    known = {index: row for row, index in enumerate(subject.bundle.parity_samples)}
    if "parity.npz" not in subject.bundle.files or subject.data is None or not set(subject.chosen) <= set(known):
        return None
    if subject.data.ref != subject.bundle.model.lineage.dataset:
        return None
    with open_npz(subject.folder / "parity.npz", Limit.of(None)) as saved:
        return np.asarray(saved.read("outputs"))[[known[index] for index in subject.chosen]]


def _host_agreement(subject: CellJob, scores: np.ndarray[Any, Any]) -> float | None:
    """Compare the device's decisions with what the same file decided on the exporting host."""
    chosen = list(subject.bundle.parity_samples)
    if not chosen or "parity.npz" not in subject.bundle.files:
        return None
    if subject.data is None or subject.data.ref != subject.bundle.model.lineage.dataset:
        return None
    with open_npz(subject.folder / "parity.npz", Limit.of(None)) as saved:
        header, some = saved.header("outputs", "f"), subject.data.indices
        last = len(scores) if some is None else max(chosen) + 1
        if header.shape != (len(chosen), scores.shape[1]) or not 0 <= min(chosen) <= max(chosen) < last:
            raise ValueError(f"parity.npz of the bundle has {header} for {len(chosen)} of {len(scores)} samples; export it again")
        outputs, model = saved.read("outputs"), subject.bundle.model
    if some is None:
        return metrics.agreement(model.task, outputs, scores[chosen], model.head)
    _, known, own = np.intersect1d(chosen, some, assume_unique=True, return_indices=True)
    return metrics.agreement(model.task, outputs[known], scores[own], model.head) if len(own) else None
