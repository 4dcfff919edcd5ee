"""A record in one flat line: what tables, filters and charts need of it, without its samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgebench.errors import UnknownName

if TYPE_CHECKING:
    from edgebench.schema import Paired, Record, Scenario, Subset

GROUPS = ("dataset", "target", "format", "precision", "model")
"""What a table may be made of."""
ALWAYS = ("mode", "device", "scenario", "method", "judged", "evaluation_sha256")
"""What may never be mixed in one table, asked for or not: the samples of a data set may have changed under its name."""
NO_DATASET = "no data set"
"""What cells without one are chosen by, and what tables call it."""
FILTERS = {
    **{name: name for name in (*GROUPS, "role", "mode", "runtime")},
    "dataset": f"CASE WHEN judged THEN dataset ELSE '{NO_DATASET}' END",
    "scenario": "scenario_kind",
    "verdict": "coalesce(verdict, status)",
}
"""What rows can be chosen by, and how the index knows it."""
COMBINATION = ("status", "dataset", "target", "device", "mode", "scenario", "model", "format", "precision", "options")
"""Of the records that agree in all of these, the newest counts."""


@dataclass(frozen=True)
class Entry:
    """One line of the index; figures are blank (None) where there are none, shares are fractions of 1."""

    combination: int
    """Hash of what `COMBINATION` names."""
    path: str
    """Of the record, below the folder of results, with `/`."""
    sha256: str
    key: str
    status: str
    started_at: str
    dataset: str
    """Empty where none was given; then nothing is judged."""
    evaluation_sha256: str
    target: str
    device: str
    mode: str
    scenario: str
    """As JSON, without what is as ever."""
    scenario_kind: str
    method: int
    judged: bool
    """Whether a data set was given: cells with and without accuracy are never in one table."""
    model: str
    format: str
    precision: str
    options: str
    """Of the runtime, as JSON."""
    runtime: str
    """Its name, version and options."""
    role: str
    task: str | None
    model_sha256: str | None
    size_bytes: int | None
    parameters: int | None
    headline: str | None
    """The metric that ranks models of this task."""
    metric: float | None
    auroc: float | None
    median_ns: float | None
    median_low_ns: float | None
    median_high_ns: float | None
    p90_ns: float | None
    p99_ns: float | None
    batch: int | None
    per_second: float | None
    peak_bytes: int | None
    device_bytes: int | None
    energy_joules: float | None
    energy_provenance: str | None
    energy_source: str
    """Provenance and rail, empty without a figure: by energy, rows of different sources are never ranked together."""
    energy_reason: str | None
    energy_short: bool | None
    energy_meter_cost: float | None
    verdict: str | None
    samples: str | None
    """The file with its raw samples, beside it."""
    details: str
    """As JSON: what only the rows that are shown need; see `more`."""

    @cached_property
    def more(self) -> dict[str, Any]:
        """Read `details`.

        trial_medians_ns, stages_ns, to_fp32, to_teacher, reasons (each with a
        reason and a recommendation), failure, failed_stage, parents (sha256 of
        checkpoints), recipe, pruned (of pruned models), trained (what a transfer
        let learn, and its cost), macs, interval (of an accuracy), validation and
        controls (metrics on the validation split), environment (what of it tables
        name), bundle (its sha256).
        """
        found: dict[str, Any] = json.loads(self.details)
        return found

    @property
    def asked(self) -> Scenario:
        """Read the scenario."""
        from edgebench.schema import Scenario

        return Scenario.model_validate_json(self.scenario)

    @property
    def joules(self) -> float | None:
        """Energy of one inference, where it may be compared: not in windows under 60 s."""
        return None if self.energy_short else self.energy_joules

    @property
    def name(self) -> str:
        """Name the cell as messages do."""
        return f"{self.model} {self.format} {self.precision}"

    def values_of(self, names: Iterable[str]) -> tuple[Any, ...]:
        """Return some of its columns."""
        return tuple(getattr(self, name) for name in names)


@dataclass(frozen=True)
class Selection:
    """What tables are made from."""

    shown: tuple[Entry, ...]
    """The rows, each table's in its order."""
    beside: tuple[Entry, ...]
    """Teachers and FP32 references, shown or not."""
    failed: tuple[Entry, ...]
    left_out: Mapping[tuple[Any, ...], int]
    """How many rows a table has beyond the first ones, by its values of `grouping`."""


FIELDS = {field.name: str(field.type) for field in fields(Entry)}
REVISION = 5
"""To be raised where `flatten` makes other lines of the same records: indexes of before are then made anew."""
CONTROLS = ("parent", "ptq", "control", "shuffled_text")
"""What stands before the name of a model's validation metric, for what its own is to be held against."""
ENVIRONMENT = ("board", "cpu", "machine", "virtual", "cores", "threads", "os")


def _some(subset: Subset | None) -> str:
    """Name a part of the test split: what was judged on it stands in a table of its own."""
    return "" if subset is None else f" ({subset.samples} samples, seed {subset.seed})"


def flatten(path: str, record: Record) -> Entry:
    """Take from a record what an `Entry` holds; path: below the folder of results."""
    cell, latency, accuracy, energy = record.cell, record.latency, record.accuracy, record.energy
    values: dict[str, Any] = {
        "path": path,
        "sha256": record.sha256,
        "key": record.key,
        "status": record.status,
        "started_at": record.started_at,
        "dataset": "" if cell.dataset is None else f"{cell.dataset}{_some(cell.subset)}",
        "evaluation_sha256": cell.evaluation_sha256 or "",
        "target": cell.target,
        "device": cell.device,
        "mode": cell.mode,
        "scenario": cell.scenario.model_dump_json(exclude_defaults=True),
        "scenario_kind": cell.scenario.kind,
        "method": cell.method,
        "judged": cell.dataset is not None,
        "model": cell.model,
        "format": cell.format,
        "precision": cell.precision,
        "options": json.dumps(cell.options, sort_keys=True, ensure_ascii=False),
        "runtime": record.ran_by,
        "role": record.role,
        "task": record.model.task if record.model else None,
        "model_sha256": record.model.sha256 if record.model else None,
        "size_bytes": record.size_bytes,
        "parameters": record.parameters,
        "headline": accuracy.headline if accuracy else None,
        "metric": accuracy.metrics.get(accuracy.headline) if accuracy else None,
        "auroc": accuracy.metrics.get("auroc") if accuracy else None,
        "median_ns": latency.median_ns.value if latency else None,
        "median_low_ns": latency.median_ns.low if latency else None,
        "median_high_ns": latency.median_ns.high if latency else None,
        "p90_ns": latency.p90_ns if latency else None,
        "p99_ns": latency.p99_ns if latency else None,
        "batch": latency.batch if latency else None,
        "per_second": record.per_second if latency else None,
        "peak_bytes": record.memory.peak_bytes,
        "device_bytes": record.memory.device_bytes,
        "energy_joules": energy.joules.value if energy.joules else None,
        "energy_provenance": energy.provenance,
        "energy_source": f"{energy.provenance} {energy.rail}" if energy.joules else "",
        "energy_reason": energy.reason,
        "energy_short": energy.short,
        "energy_meter_cost": energy.meter_cost,
        "verdict": record.verdict.word if record.verdict else None,
        "samples": record.samples.file if record.samples else None,
        "details": json.dumps(_details(record), ensure_ascii=False, separators=(",", ":")),
    }
    same = hashlib.sha256("\0".join(values[name] for name in COMBINATION).encode())
    return Entry(combination=int.from_bytes(same.digest()[:8], "big", signed=True), **values)


def grouping(by: Iterable[str], sort: str) -> tuple[str, ...]:
    """Name the columns whose values make a table of its own; `UnknownName` for one that may not."""
    for name in by:
        if name not in GROUPS:
            raise UnknownName("group", name, GROUPS)
    return (*by, *ALWAYS, *(("energy_source",) if sort == "energy" else ()))


def _details(record: Record) -> dict[str, Any]:
    latency, accuracy = record.latency, record.accuracy
    return {
        "trial_medians_ns": latency.trial_medians_ns if latency else (),
        "stages_ns": latency.stages_ns if latency else {},
        "to_fp32": _paired(accuracy.to_fp32) if accuracy else None,
        "to_teacher": _paired(accuracy.to_teacher) if accuracy else None,
        "reasons": [reason.model_dump() for reason in record.verdict.reasons] if record.verdict else [],
        "failure": record.failure.model_dump() if record.failure else None,
        "failed_stage": record.failed_stage,
        "parents": record.model.lineage.parents if record.model else (),
        "recipe": record.model.lineage.recipe if record.model else None,
        **_pruned(record),
        **_trained(record),
        "macs": record.macs,
        "interval": _interval(record),
        **_controls(record),
        "shuffled_text": None if record.accuracy is None else record.accuracy.shuffled_text,
        "bundle": record.cell.bundle_sha256,
        "environment": {name: record.environment[name] for name in ENVIRONMENT if name in record.environment},
    }


def _pruned(record: Record) -> dict[str, Any]:
    """Say how a model was pruned, where it was: its strategy, and the share of zeros where its shapes stayed."""
    if record.model is None or "strategy" not in record.model.lineage.options:
        return {}
    return {"pruned": {"strategy": record.model.lineage.options["strategy"], "zeros": record.model.metrics.get("zeros")}}


def _trained(record: Record) -> dict[str, Any]:
    """Say what a transfer let learn and what that cost, where the recipe counted it."""
    if record.model is None or "trainable_parameters" not in record.model.metrics:
        return {}
    found = {name: record.model.metrics.get(name) for name in ("trainable_parameters", "epochs_to_best", "seconds")}
    return {"trained": {"freeze": record.model.lineage.options.get("freeze"), **found}}


def _interval(record: Record) -> tuple[float, float] | None:
    """Return the 95 % interval of a headline that is a share of the samples decided rightly, by their number."""
    accuracy = record.accuracy
    if accuracy is None or accuracy.headline != "accuracy" or accuracy.headline not in accuracy.metrics or not accuracy.samples:
        return None
    from edgebench.analysis.stats import share_interval

    found = share_interval(accuracy.metrics["accuracy"], accuracy.samples)
    assert found.low is not None and found.high is not None
    return found.low, found.high


def _controls(record: Record) -> dict[str, Any]:
    """Return what a recipe's network, and its controls, came to on the validation split.

    `control`: trained otherwise, as the recipe says; `ptq`: its parent, quantized without training; `shuffled text`: the
    same network, where each sample gets another's text.
    """
    metrics = {} if record.model is None else record.model.metrics
    own = [name for name in metrics if name.startswith("val_") and any(f"{kind}_{name}" in metrics for kind in CONTROLS)]
    if not own:
        return {"validation": None, "controls": {}}
    found = {kind.replace("_", " "): metrics[f"{kind}_{own[0]}"] for kind in CONTROLS if f"{kind}_{own[0]}" in metrics}
    return {"validation": metrics[own[0]], "controls": found}


def _paired(paired: Paired | None) -> dict[str, Any] | None:
    return None if paired is None else paired.model_dump(mode="json")
