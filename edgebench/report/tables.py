"""Records → one table per data set and target: rows with what readers compare, ranked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgebench.analysis import ties
from edgebench.store.row import Entry, Selection, grouping


@dataclass(frozen=True)
class Row:
    """One finished cell beside its reference and its teacher; shares are fractions of 1."""

    rank: int | None
    """None where the order asked for has no value for it."""
    pareto: bool
    entry: Entry
    metric_delta: float | None
    reduction_size: float | None
    reduction_parameters: float | None
    retained: float | None
    teacher: str | None
    """The record that it is compared with, by its path."""
    drift: Mapping[str, Any] | None = None
    """Of its explanations, as `store.explanations.Found` has it; None: nothing was explained."""

    def values(self) -> dict[str, Any]:
        """Return the row as plain JSON values, units in the names."""
        return self._values

    @cached_property
    def _values(self) -> dict[str, Any]:
        entry, more = self.entry, self.entry.more
        return {
            "rank": self.rank,
            "pareto": self.pareto,
            "model": entry.model,
            "role": entry.role,
            "format": entry.format,
            "precision": entry.precision,
            "runtime": entry.runtime,
            "metric": entry.headline,
            "metric_value": entry.metric,
            "metric_low": more["interval"][0] if more["interval"] else None,
            "metric_high": more["interval"][1] if more["interval"] else None,
            "metric_delta": self.metric_delta,
            "to_fp32": more["to_fp32"],
            "to_teacher": more["to_teacher"],
            "auroc": entry.auroc,
            "median_ns": entry.median_ns,
            "median_low_ns": entry.median_low_ns,
            "median_high_ns": entry.median_high_ns,
            "p90_ns": entry.p90_ns,
            "p99_ns": entry.p99_ns,
            "batch": entry.batch,
            "stages_ns": more["stages_ns"],
            "per_second": entry.per_second,
            "size_bytes": entry.size_bytes,
            "parameters": entry.parameters,
            "macs": more["macs"],
            "validation": more["validation"],
            "controls": more["controls"],
            "reduction_size": self.reduction_size,
            "reduction_parameters": self.reduction_parameters,
            "retained": self.retained,
            "peak_bytes": entry.peak_bytes,
            "device_bytes": entry.device_bytes,
            "energy_joules": entry.energy_joules,
            "energy_provenance": entry.energy_provenance,
            "energy_reason": entry.energy_reason,
            "verdict": entry.verdict,
            **({} if self.drift is None else {"explanation": dict(self.drift), "explained": self.drift["found_correlation"]}),
            **({} if more["shuffled_text"] is None else {"shuffled_text": more["shuffled_text"]}),
            "record": entry.path,
            **more.get("trained", {}),
        }


@dataclass(frozen=True)
class Table:
    """One group of comparable rows, and the cells of the group that failed."""

    title: dict[str, str]
    first: Entry
    """One of its cells, for what all have in common."""
    rows: tuple[Row, ...]
    failed: tuple[Entry, ...]
    teacher: str | None = None
    device: str = ""
    """What its name does not say, where another table's device has the same: else empty."""
    beyond: int = 0
    """Rows after these, which were not asked for."""

    @property
    def mode(self) -> str:
        """Name the mode that all were measured in."""
        return self.first.mode

    @property
    def environment(self) -> dict[str, Any]:
        """Say where rows were measured; empty where there are none."""
        return dict(self.first.more["environment"]) if self.rows else {}

    @property
    def explained(self) -> bool:
        """Return whether explanations of any row were compared."""
        return any(row.drift is not None for row in self.rows)

    @property
    def filled(self) -> tuple[str, ...]:
        """Name the columns that any row has something in, of those that few tables have."""
        reads = any(row.entry.more["shuffled_text"] is not None for row in self.rows)
        return (*(("shuffled",) if reads else ()), *(("explained",) if self.explained else ()))

    @property
    def judged(self) -> bool:
        """Return whether its cells have a data set, and with it a metric."""
        return self.first.judged

    @property
    def headline(self) -> str:
        """Name the metric that ranks its models."""
        return self.first.headline or "metric"

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "group": self.title,
            "mode": self.mode,
            "device": self.device,
            "environment": self.environment,
            "rows": [row.values() for row in self.rows],
            "failed": [_lost(entry) for entry in self.failed],
            "beyond": self.beyond,
        }


def _lost(entry: Entry) -> dict[str, Any]:
    """Return a failed cell as plain JSON values."""
    cell = {name: getattr(entry, name) for name in ("model", "role", "format", "precision", "runtime", "mode")}
    return {**cell, "stage": entry.more["failed_stage"], **(entry.more["failure"] or {}), "record": entry.path}


SORTS: dict[str, Callable[[Entry], float | None]] = {
    "latency": lambda entry: entry.median_ns,
    "metric": lambda entry: entry.metric,
    "size": lambda entry: entry.size_bytes,
    "p99": lambda entry: entry.p99_ns,
    "memory": lambda entry: entry.peak_bytes,
    "energy": lambda entry: entry.joules,
}
"""What rows are ranked by; where there is no value the row comes last, without a rank."""
Floor = Callable[[Entry], float | None]
"""Knows the noise of a record's device."""
Drifts = Callable[[Entry], Mapping[str, Any] | None]
"""Knows how far a record's file looks from where FP32 looks."""


def make(
    selected: Selection,
    sort: str,
    by: Sequence[str],
    floor: Floor = lambda _: None,
    top: int | None = None,
    drifts: Drifts = lambda _: None,
) -> list[Table]:
    """Group, rank and mark rows that come in order; `top`: only the first ones of each table.

    By latency, rows that do not differ from the best of their rank share it.
    """
    keys = grouping(by, sort)
    shown, beside = _grouped(selected.shown, keys), _grouped(selected.beside, keys)
    lost = _grouped(selected.failed, (*by, "mode"))
    made = []
    for key in sorted(shown, key=lambda key: (not shown[key][0].judged, key)):  # what is judged comes first
        failed = lost.get((*key[: len(by)], shown[key][0].mode), [])
        table = _table(shown[key], beside.get(key, []), failed, sort, by, floor)
        kept = tuple(replace(row, drift=drifts(row.entry)) for row in (table.rows if top is None else table.rows[:top]))
        beyond = selected.left_out.get(key, 0) + len(table.rows) - len(kept)
        made.append(replace(table, rows=kept, beyond=beyond))
    used = {entry.path for table in made for entry in table.failed}
    alone = [entries for _, entries in sorted(lost.items()) if entries[0].path not in used]
    made += [Table(_title(entries[0], by), entries[0], rows=(), failed=tuple(entries)) for entries in alone]
    return _told_apart(made)


def _grouped(entries: Iterable[Entry], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Entry]]:
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.values_of(keys), []).append(entry)
    return groups


def _table(entries: list[Entry], beside: list[Entry], failed: list[Entry], sort: str, by: Sequence[str], floor: Floor) -> Table:
    value = SORTS[sort]
    teachers = _teachers(beside)
    references = {(entry.model, entry.model_sha256): entry for entry in beside if entry.format == "torch"}
    unbeaten = front(entries)
    ranks = _ranks(entries, floor) if sort == "latency" else _places([value(entry) for entry in entries])
    rows = [
        _row(entry, rank, entry.path in unbeaten, references.get((entry.model, entry.model_sha256)), _teacher(entry, teachers))
        for entry, rank in zip(entries, ranks, strict=True)
    ]
    return Table(
        title=_title(entries[0], by),
        first=entries[0],
        teacher=next((entry.model for entry in beside if entry.role == "teacher"), None),
        rows=tuple(rows),
        failed=tuple(failed),
    )


def _places(values: Sequence[float | None]) -> list[int | None]:
    """Rank values in order; equal ones share a rank, and what has none gets none."""
    first = {value: place for place, value in reversed(list(enumerate(values, 1)))}
    return [None if value is None else first[value] for value in values]


def _ranks(entries: Sequence[Entry], floor: Floor) -> list[int]:
    """Rank rows in order; one that does not differ from the first of a rank shares it."""
    ranks: list[int] = []
    leader: Entry | None = None
    for position, entry in enumerate(entries, 1):
        if leader is not None and not _differ(leader, entry, floor(entry)):
            ranks.append(ranks[-1])
        else:
            leader = entry
            ranks.append(position)
    return ranks


def _differ(one: Entry, other: Entry, floor: float | None) -> bool:
    return ties.differ(one.more["trial_medians_ns"], other.more["trial_medians_ns"], floor)


def _title(entry: Entry, by: Sequence[str]) -> dict[str, str]:
    return {name: getattr(entry, name) for name in by}


def _told_apart(made: list[Table]) -> list[Table]:
    """Name device and test samples by their hashes where others bear the same name, and nowhere else."""
    devices, samples = _others(made, "device"), _others(made, "evaluation_sha256")
    told = []
    for table in made:
        name, first = str(table.title), table.first
        if name in samples and first.judged:
            data = f"{first.dataset} (test samples {first.evaluation_sha256[:10]})"
            table = replace(table, title={**table.title, "dataset": data})
        told.append(replace(table, device=first.device[:10]) if name in devices else table)
    return told


def _others(made: list[Table], field: str) -> set[str]:
    """Return the titles of tables that are of several values of a field."""
    known: dict[str, set[str]] = {}
    for table in made:
        if table.rows and getattr(table.first, field):
            known.setdefault(str(table.title), set()).add(getattr(table.first, field))
    return {name for name, values in known.items() if len(values) > 1}


def _teachers(beside: Sequence[Entry]) -> dict[str | None, Entry]:
    """Find each teacher's FP32 record, by its checkpoint: that of torch, else another."""
    found = sorted((entry for entry in beside if entry.role == "teacher"), key=_preferred, reverse=True)
    return {entry.model_sha256: entry for entry in found}


def _preferred(entry: Entry) -> tuple[bool, str, str]:
    return entry.format != "torch", entry.format, entry.path


def _teacher(entry: Entry, teachers: Mapping[str | None, Entry]) -> Entry | None:
    """Find the teacher that a model is, or came from, or the only one that there is."""
    own = [teachers[sha256] for sha256 in (entry.model_sha256, *entry.more["parents"]) if sha256 in teachers]
    return min(own or (teachers.values() if len(teachers) == 1 else ()), key=_preferred, default=None)


def _row(entry: Entry, rank: int | None, pareto: bool, reference: Entry | None, teacher: Entry | None) -> Row:
    return Row(
        rank=rank,
        pareto=pareto,
        entry=entry,
        metric_delta=_less(entry.metric, reference.metric if reference else None),
        reduction_size=_saved(entry.size_bytes, teacher.size_bytes if teacher else None),
        reduction_parameters=_saved(entry.parameters, teacher.parameters if teacher else None),
        retained=entry.metric / teacher.metric if teacher and teacher.metric and entry.metric is not None else None,
        teacher=teacher.path if teacher else None,
    )


def _less(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def _saved(own: int | None, teachers: int | None) -> float | None:
    return 1 - own / teachers if own is not None and teachers else None


def front(entries: Iterable[Entry]) -> set[str]:
    """Name the rows that no other is as good as in metric, latency and size, and better than in one of them.

    Where nothing is judged, memory takes the metric's place.
    """
    known = sorted((axes, entry.path) for entry in entries if (axes := _axes(entry)) is not None)
    best: list[tuple[float, ...]] = []
    found = set()
    for axes, path in known:
        if not any(_dominates(other, axes) for other in best):
            best.append(axes)
            found.add(path)
    return found


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(x <= y for x, y in zip(one, other, strict=True))


def _axes(entry: Entry) -> tuple[float, ...] | None:
    """Return what a row has least of at its best; None where its metric is not known, though it is judged."""
    if entry.median_ns is None or (entry.judged and entry.metric is None):
        return None
    size = float(entry.size_bytes or 0)
    if entry.metric is not None:
        return (entry.median_ns, -entry.metric, size)
    return (entry.median_ns, size, math.inf if entry.peak_bytes is None else float(entry.peak_bytes))
