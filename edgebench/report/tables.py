"""Records → one table per data set and target: rows with what readers compare, ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgebench import stats
from edgebench.errors import UnknownName
from edgebench.schema import Paired, Record, Scenario

GROUPS: dict[str, Callable[[Record], str]] = {
    "dataset": lambda record: str(record.cell.dataset),
    "target": lambda record: record.cell.target,
    "format": lambda record: record.cell.format,
    "precision": lambda record: record.cell.precision,
    "model": lambda record: record.cell.model,
}
ALWAYS: dict[str, Callable[[Record], str]] = {
    "mode": lambda record: record.cell.mode,
    "device": lambda record: record.cell.device,
    "scenario": lambda record: record.cell.scenario.model_dump_json(exclude_defaults=True),
    "method": lambda record: str(record.cell.method),
}
"""What may never be mixed in one table, asked for or not."""
FILTERS: dict[str, Callable[[Record], str]] = {
    **GROUPS,
    "role": lambda record: record.role,
    "mode": lambda record: record.cell.mode,
    "scenario": lambda record: record.cell.scenario.kind,
    "runtime": lambda record: record.cell.ran_by,
    "verdict": lambda record: record.verdict.word if record.verdict else record.status,
}
"""What rows can be chosen by."""


@dataclass(frozen=True)
class Row:
    """One finished cell beside its reference and its teacher; shares are fractions of 1."""

    rank: int | None
    """None where the order asked for has no value for it."""
    pareto: bool
    path: str
    record: Record
    metric: float
    metric_delta: float | None
    reduction_size: float | None
    reduction_parameters: float | None
    retained: float | None

    @property
    def joules(self) -> float | None:
        """Energy of one inference, where it may be compared: not in windows under 60 s."""
        energy = self.record.energy
        return None if energy.joules is None or energy.short else energy.joules.value

    def values(self) -> dict[str, Any]:
        """Return the row as plain JSON values, units in the names."""
        record = self.record
        assert record.latency and record.accuracy and record.verdict
        latency = record.latency
        return {
            "rank": self.rank,
            "pareto": self.pareto,
            "model": record.cell.model,
            "role": record.role,
            "format": record.cell.format,
            "precision": record.cell.precision,
            "runtime": record.cell.ran_by,
            "metric": record.accuracy.headline,
            "metric_value": self.metric,
            "metric_delta": self.metric_delta,
            "to_fp32": _paired(record.accuracy.to_fp32),
            "to_teacher": _paired(record.accuracy.to_teacher),
            "auroc": record.accuracy.metrics.get("auroc"),
            "median_ns": latency.median_ns.value,
            "median_low_ns": latency.median_ns.low,
            "median_high_ns": latency.median_ns.high,
            "p90_ns": latency.p90_ns,
            "p99_ns": latency.p99_ns,
            "batch": latency.batch,
            "stages_ns": latency.stages_ns,
            "per_second": record.per_second,
            "size_bytes": record.size_bytes,
            "parameters": record.parameters,
            "reduction_size": self.reduction_size,
            "reduction_parameters": self.reduction_parameters,
            "retained": self.retained,
            "peak_bytes": record.memory.peak_bytes,
            "device_bytes": record.memory.device_bytes,
            "energy_joules": record.energy.joules.value if record.energy.joules else None,
            "energy_provenance": record.energy.provenance,
            "energy_reason": record.energy.reason,
            "verdict": record.verdict.word,
            "record": self.path,
        }


def _paired(paired: Paired | None) -> dict[str, Any] | None:
    return None if paired is None else paired.model_dump(mode="json")


@dataclass(frozen=True)
class Table:
    """One group of comparable rows, and the cells of the group that failed."""

    title: dict[str, str]
    mode: str
    scenario: Scenario
    environment: dict[str, Any]
    headline: str
    teacher: str | None
    rows: tuple[Row, ...]
    failed: tuple[tuple[str, Record], ...]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "group": self.title,
            "mode": self.mode,
            "environment": self.environment,
            "rows": [row.values() for row in self.rows],
            "failed": [record.model_dump(mode="json", by_alias=True) for _, record in self.failed],
        }


SORTS: dict[str, Callable[[Row], float | None]] = {
    "latency": lambda row: _median_ns(row.record),
    "p99": lambda row: row.record.latency.p99_ns if row.record.latency else None,
    "metric": lambda row: -row.metric,
    "size": lambda row: row.record.size_bytes,
    "memory": lambda row: row.record.memory.peak_bytes,
    "energy": lambda row: row.joules,
}
"""Orders, best first; where there is no value the row comes last, without a rank."""


def _median_ns(record: Record) -> float:
    assert record.latency is not None
    return record.latency.median_ns.value


def choose(records: Iterable[tuple[Path, Record]], where: Mapping[str, Sequence[str]]) -> list[tuple[Path, Record]]:
    """Keep the records that fit one pattern (`resnet*`) of each name in `where`; `UnknownName` for a name that is none."""
    for name in where:
        if name not in FILTERS:
            raise UnknownName("filter", name, FILTERS)
    return [
        (path, record)
        for path, record in records
        if all(any(fnmatchcase(FILTERS[name](record), one) for one in patterns) for name, patterns in where.items())
    ]


Floor = Callable[[Record], float | None]
"""Knows the noise of a record's device."""


def make(
    records: Iterable[tuple[Path, Record]],
    sort: str,
    by: Sequence[str],
    floor: Floor = lambda _: None,
    where: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Table]:
    """Group, rank and mark records; the newest record of a combination counts.

    By latency, rows that do not differ from the best of their rank share it.
    `where` chooses rows as `choose` says; those left out still serve as reference and teacher.
    """
    if sort not in SORTS:
        raise UnknownName("sort order", sort, SORTS)
    for name in by:
        if name not in GROUPS:
            raise UnknownName("group", name, GROUPS)
    groups: dict[tuple[str, ...], list[tuple[Path, Record]]] = {}
    failed: list[tuple[Path, Record]] = []
    newest = _newest(records)
    shown = {path for path, _ in choose(newest, where)}
    for path, record in newest:
        if record.status == "failed":
            failed += [(path, record)] if path in shown else []
        else:
            key = tuple(GROUPS[name](record) for name in by) + tuple(ALWAYS[name](record) for name in ALWAYS)
            key += (_provenance(record),) if sort == "energy" else ()
            groups.setdefault(key, []).append((path, record))
    wanted = [groups[key] for key in sorted(groups) if any(path in shown for path, _ in groups[key])]
    made = [_table(members, shown, failed, sort, by, floor) for members in wanted]
    left = [item for item in failed if not any(item[1].key == record.key for table in made for _, record in table.failed)]
    return made + ([_only_failed(left, by)] if left else [])


def _provenance(record: Record) -> str:
    """Name where a figure of energy comes from: by energy, rows of different provenance are never ranked together."""
    return f"{record.energy.provenance} {record.energy.rail}" if record.energy.joules else ""


def _newest(records: Iterable[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """Keep the newest of each status per combination of model, format, precision and circumstances."""
    kept: dict[tuple[str, ...], tuple[Path, Record]] = {}
    for path, record in records:
        cell = record.cell
        circumstances = (record.status, str(cell.dataset), cell.target, cell.device, cell.mode, ALWAYS["scenario"](record))
        key = (*circumstances, cell.model, cell.format, cell.precision, str(sorted(cell.options.items())))
        if key not in kept or kept[key][1].started_at <= record.started_at:
            kept[key] = (path, record)
    return list(kept.values())


def _table(
    members: list[tuple[Path, Record]],
    shown: Set[Path],
    failed: list[tuple[Path, Record]],
    sort: str,
    by: Sequence[str],
    floor: Floor,
) -> Table:
    first = members[0][1]
    teacher = _teacher([record for _, record in members])
    rows = [_row(path, record, members, teacher) for path, record in members if path in shown]
    best = {row.path for row in rows if not any(_dominates(other, row) for other in rows)}
    values = {row.path: SORTS[sort](row) for row in rows}
    placed = sorted(rows, key=lambda row: (values[row.path] is None, values[row.path] or 0.0, _median_ns(row.record), row.path))
    ranks = _ranks(placed, floor) if sort == "latency" else _places([values[row.path] for row in placed])
    ranked = tuple(replace(row, rank=rank, pareto=row.path in best) for rank, row in zip(ranks, placed, strict=True))
    mine = [
        (path.name, record)
        for path, record in failed
        if all(GROUPS[name](record) == GROUPS[name](first) for name in by) and record.cell.mode == first.cell.mode
    ]
    assert first.accuracy is not None
    return Table(
        title={name: GROUPS[name](first) for name in by},
        mode=first.cell.mode,
        scenario=first.cell.scenario,
        environment=first.environment,
        headline=first.accuracy.headline,
        teacher=teacher.cell.model if teacher else None,
        rows=ranked,
        failed=tuple(sorted(mine, key=lambda item: item[0])),
    )


def _places(values: Sequence[float | None]) -> list[int | None]:
    """Rank values in order; equal ones share a rank, and what has none gets none."""
    first = {value: place for place, value in reversed(list(enumerate(values, 1)))}
    return [None if value is None else first[value] for value in values]


def _ranks(rows: Sequence[Row], floor: Floor) -> list[int]:
    """Rank rows in order; one that does not differ from the first of a rank shares it."""
    ranks: list[int] = []
    for position, row in enumerate(rows, 1):
        leader = rows[ranks[-1] - 1].record if ranks else None
        tied = leader is not None and not _differ(leader, row.record, floor(row.record))
        ranks.append(ranks[-1] if tied else position)
    return ranks


def _differ(one: Record, other: Record, floor: float | None) -> bool:
    assert one.latency is not None and other.latency is not None
    medians = (one.latency.trial_medians_ns, other.latency.trial_medians_ns)
    return stats.compare(*medians, paired=False, floor=floor).word != "same"


def _only_failed(left: list[tuple[Path, Record]], by: Sequence[str]) -> Table:
    """List failures where nothing else of their group succeeded."""
    first = left[0][1]
    return Table(
        title={name: GROUPS[name](first) for name in by},
        mode=first.cell.mode,
        scenario=first.cell.scenario,
        environment={},
        headline="metric",
        teacher=None,
        rows=(),
        failed=tuple((path.name, record) for path, record in left),
    )


def _teacher(records: list[Record]) -> Record | None:
    """Find the teacher's FP32 reference: its torch record, else any FP32 one."""
    found = [record for record in records if record.role == "teacher" and record.cell.precision == "fp32"]
    return min(found, key=lambda record: (record.cell.format != "torch", record.cell.format), default=None)


def _reference(record: Record, members: list[tuple[Path, Record]]) -> Record | None:
    """Find the torch FP32 record of the same model."""
    same = (other for _, other in members if other.cell.model == record.cell.model)
    return next((other for other in same if (other.cell.format, other.cell.precision) == ("torch", "fp32")), None)


def _row(path: Path, record: Record, members: list[tuple[Path, Record]], teacher: Record | None) -> Row:
    reference = _reference(record, members)
    return Row(
        rank=None,
        pareto=False,
        path=path.as_posix(),
        record=record,
        metric=_headline(record),
        metric_delta=_headline(record) - _headline(reference) if reference else None,
        reduction_size=_saved(record.size_bytes, teacher.size_bytes) if teacher else None,
        reduction_parameters=_saved(record.parameters, teacher.parameters) if teacher else None,
        retained=_headline(record) / _headline(teacher) if teacher and _headline(teacher) else None,
    )


def _headline(record: Record) -> float:
    assert record.accuracy is not None
    return record.accuracy.metrics.get(record.accuracy.headline, float("nan"))


def _saved(own: int | None, teachers: int | None) -> float | None:
    return 1 - own / teachers if own is not None and teachers else None


def _dominates(one: Row, other: Row) -> bool:
    """Say whether one is no worse in metric, latency and size, and better in one of them."""
    a, b = _axes(one), _axes(other)
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def _axes(row: Row) -> tuple[float, float, float]:
    assert row.record.latency is not None
    return (-row.metric, row.record.latency.median_ns.value, float(row.record.size_bytes or 0))
