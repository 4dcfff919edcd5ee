"""Records and models as runs of a tracker: parameters, metrics, tags, files and what they were made from. Pure functions."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgebench.files import sha256_json
from edgebench.report import record_card
from edgebench.report.tables import Table
from edgebench.schema import Model, Record
from edgebench.schema.tracking import TrackedRun

FIGURES = (
    *("size_bytes", "parameters", "macs", "seconds", "latency", "throughput", "server", "sustained", "loadgen"),
    *("memory", "energy", "rails", "accuracy", "few_samples", "right_outputs", "parity"),
)
"""Fields of a record whose numbers are metrics, each by its path in the record."""
NAMED_BY = ("rail", "output", "batch")
"""What tells the members of a list apart."""


Family = Mapping[str, tuple[str, Sequence[str]]]
"""Models by their hashes: what each is called, and the hashes of those that it was made from."""


def record_run(record: Record, files: Mapping[str, bytes], family: Family) -> TrackedRun:
    """Describe a record."""
    cell, begin = record.cell, _milliseconds(record.started_at)
    word = record.verdict.word if record.verdict else record.status
    reasons = "".join(f"- {each}\n" for each in record_card.reasons(record))
    judged = None if cell.dataset is None or not cell.evaluation_sha256 else (str(cell.dataset), cell.evaluation_sha256)
    return TrackedRun(
        sha256=record.sha256,
        kind="record",
        name=f"{cell.model}.{cell.format}.{cell.precision} on {cell.target}",
        group=cell.model,
        begin_ms=begin,
        end_ms=begin + round(1000 * record.seconds),
        failed=record.status == "failed",
        parameters=_configuration(record),
        metrics=figures(record),
        tags=_tags(record, family),
        labels=(word, cell.target, cell.format, cell.precision),
        note=f"{record_card.title(record)}\n\n{reasons}".strip(),
        files=files,
        parents=() if record.model is None else (record.model.sha256,),
        dataset=judged,
    )


def model_run(model: Model, seen: str, family: Family) -> TrackedRun:
    """Describe a model that records are of; `seen` is when the first of them was measured."""
    lineage, begin = model.lineage, _milliseconds(seen)
    curves = model.curves
    metrics = {f"validation.{name}": [(0, value)] for name, value in model.metrics.items()}
    if curves is not None:
        drawn = {"loss": curves.loss, "val_loss": curves.val_loss, f"val_{curves.metric}": curves.val_metric}
        metrics |= {f"training.{name}": list(zip(curves.epoch, values, strict=True)) for name, values in drawn.items()}
    told = {"architecture": model.architecture, "role": model.role, "task": model.task, "recipe": lineage.recipe}
    options = {f"recipe.{name}": _text(value) for name, value in lineage.options.items() if value is not None}
    tags = {"model_sha256": model.sha256, "lineage": chain(model, family), "parents": ", ".join(lineage.parents)}
    return TrackedRun(
        sha256=model.sha256,
        kind="model",
        name=model.name,
        group=model.name,
        begin_ms=begin,
        end_ms=begin,
        parameters={**told, "seed": str(lineage.seed), **options},
        metrics={name: values for name, values in metrics.items() if values},
        tags={name: value for name, value in tags.items() if value},
        labels=(model.role, lineage.recipe),
        note=f"{model.name}: {lineage.recipe}, {model.architecture}",
        parents=lineage.parents,
        dataset=(str(lineage.dataset), lineage.splits["train"]) if lineage.dataset and "train" in lineage.splits else None,
    )


def leaderboard_run(tables: Sequence[Table], text: Mapping[str, str], last: str) -> TrackedRun:
    """Describe the leaderboard of a folder; `text` has its files by name, `last` is when its newest record was measured."""
    rows = [row.values() for table in tables for row in table.rows]
    cells = [
        [value if value is None or isinstance(value, (str, int, float)) else _text(value) for value in row.values()]
        for row in rows
    ]
    begin = _milliseconds(last)
    return TrackedRun(
        sha256=sha256_json(dict(text)),
        kind="leaderboard",
        name=f"leaderboard of {len(rows)} rows",
        group="leaderboards",
        begin_ms=begin,
        end_ms=begin,
        files={name: content.encode(errors="backslashreplace") for name, content in text.items()},
        tables={"leaderboard": (list(rows[0]), cells)} if rows else {},
    )


def chain(model: Model, family: Family) -> str:
    """Name what a model came from, the first first: `resnet18 → student → student-pruned`; who is not known by its hash."""
    names, seen, parents = [model.name], {model.sha256}, list(model.lineage.parents[:1])
    while parents and parents[0] not in seen:
        seen.add(parents[0])
        name, before = family.get(parents[0], (parents[0][:10], ()))
        names.append(name)
        parents = list(before[:1])
    return " → ".join(reversed(names))


def figures(record: Record) -> dict[str, list[tuple[int, float]]]:
    """Collect a record's numbers by their paths, an interval's value by that of the interval, lists of numbers by steps."""
    written = record.model_dump(mode="json", by_alias=True, include=set(FIGURES))
    return {name.removesuffix(".value"): values for field in FIGURES for name, values in _numbers(field, written[field])}


def _numbers(path: str, value: Any) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        yield path, [(0, float(value))]
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{path}.{name}", inner)
    elif all(isinstance(each, (int, float)) for each in value):
        if value:
            yield path, [(step, float(each)) for step, each in enumerate(value)]
    else:
        for number, each in enumerate(value):
            yield from _numbers(f"{path}.{_member(number, each)}", each)


def _member(number: int, value: Mapping[str, Any]) -> str:
    """Name a member of a list by what it is of, else by its number."""
    name = next((key for key in NAMED_BY if value.get(key) is not None), None)
    return str(number) if name is None else f"{name}_{value[name]}" if name == "batch" else str(value[name])


def _configuration(record: Record) -> dict[str, str]:
    """Collect what the cell was asked to be."""
    cell = record.cell
    plain = ("model", "format", "precision", "target", "runtime", "runtime_version", "mode", "method")
    found = {name: _text(getattr(cell, name)) for name in plain}
    found |= {"role": record.role, "dataset": str(cell.dataset) if cell.dataset else "none"}
    inner = {"scenario": cell.scenario.model_dump(mode="json"), "option": cell.options}
    inner |= {"subset": cell.subset.model_dump(mode="json")} if cell.subset else {}
    inner |= {"calibration": {"method": record.calibration.method}} if record.calibration else {}
    found |= {f"{group}.{name}": _text(value) for group, of in inner.items() for name, value in of.items() if value is not None}
    return found


def _tags(record: Record, family: Family) -> dict[str, str]:
    """Collect what a run is looked for by: what became of it, hashes, lineage, the device."""
    cell, accuracy, model = record.cell, record.accuracy, record.model
    quantized = f" → {cell.format} {cell.precision}"
    found = {
        "verdict": record.verdict.word if record.verdict else None,
        "status": record.status,
        "failed_stage": record.failed_stage,
        "target": cell.target,
        "record_sha256": record.sha256,
        "cell_sha256": record.key,
        "bundle_sha256": cell.bundle_sha256,
        "model_sha256": model.sha256 if model else None,
        "evaluation_sha256": cell.evaluation_sha256,
        "device_sha256": cell.device,
        "samples_sha256": record.samples.sha256 if record.samples else None,
        "parents": ", ".join(model.lineage.parents) if model else None,
        "lineage": chain(model, family) + quantized if model else None,
        "compared_with_fp32": accuracy.to_fp32.reference if accuracy and accuracy.to_fp32 else None,
        "compared_with_teacher": accuracy.to_teacher.reference if accuracy and accuracy.to_teacher else None,
        "warnings": "; ".join(each.text for each in record.warnings),
        **{f"environment.{name}": _text(value) for name, value in record.environment.items() if value is not None},
    }
    return {name: value for name, value in found.items() if value}


def _text(value: Any) -> str:
    """Write a value as people would."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _milliseconds(then: str) -> int:
    """Read a record's time."""
    return round(1000 * datetime.datetime.fromisoformat(re.sub("Z$", "+00:00", then)).timestamp())
