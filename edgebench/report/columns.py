"""What each column of the leaderboard shows, in every format."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebench.errors import UnknownName
from edgebench.report.tables import Row, Table
from edgebench.schema import Record, Scenario

METER_COST = 0.02
"""A meter that lengthens an inference by more is named beside its figure."""
NARROW = (
    *("rank", "model", "format", "precision", "metric", "delta", "p50", "p99"),
    *("size", "reduction", "retained", "memory", "verdict"),
)
"""The columns that a terminal and a page have room for."""


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    """What `--columns` calls it."""
    heading: str
    fill: Callable[[Row], str]
    """How people read it."""
    keys: tuple[str, ...]
    """The numbers behind it, as `Row.values` calls them."""
    number: bool = True


def milliseconds(value: float | None) -> str:
    """Print nanoseconds as milliseconds with three significant digits; blank where there is none."""
    if value is None:
        return ""
    number = value / 1e6
    return f"{number:.1f}" if number >= 100 else f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def percent(value: float | None, sign: bool = False) -> str:
    """Print a fraction as percent; blank where there is none."""
    return "" if value is None else f"{100 * value:{'+' if sign else ''}.1f}"


def mebibytes(value: int | None) -> str:
    """Print bytes as MiB; blank where there is none."""
    return "" if value is None else f"{value / 2**20:.2f}"


def printable(text: str) -> str:
    """Put one space in the place of control characters, line breaks and runs of spaces."""
    return " ".join("".join(" " if unicodedata.category(each) == "Cc" else each for each in text).split())


def _columns(headline: str) -> list[Column]:
    return [
        Column("rank", "", lambda row: f"{row.rank or ''}{' ●' if row.pareto else ''}", ("rank", "pareto")),
        Column("model", "model", lambda row: row.record.cell.model, ("model",), number=False),
        Column("role", "role", lambda row: row.record.role, ("role",), number=False),
        Column("format", "format", lambda row: row.record.cell.format, ("format",), number=False),
        Column("precision", "precision", lambda row: row.record.cell.precision, ("precision",), number=False),
        Column("runtime", "runtime", lambda row: row.record.cell.ran_by, ("runtime",), number=False),
        Column("metric", f"{headline} %", lambda row: percent(row.metric), ("metric", "metric_value")),
        Column("delta", "Δ points", _delta, ("metric_delta", "to_fp32")),
        Column("auroc", "AUROC", lambda row: _number(row.values()["auroc"], ".4f"), ("auroc",)),
        Column("p50", "p50 ms", _time("median_ns"), ("median_ns", "median_low_ns", "median_high_ns")),
        Column("p90", "p90 ms", _time("p90_ns"), ("p90_ns",)),
        Column("p99", "p99 ms", _time("p99_ns"), ("p99_ns",)),
        Column("rate", "per second", lambda row: f"{row.values()['per_second']:.0f}", ("per_second",)),
        Column("size", "size MiB", lambda row: mebibytes(row.record.size_bytes), ("size_bytes",)),
        Column("parameters", "parameters M", lambda row: _number((row.record.parameters or 0) / 1e6, ".2f"), ("parameters",)),
        Column("reduction", "reduction % (size / parameters)", _reduction, ("reduction_size", "reduction_parameters")),
        Column("retained", "retained %", lambda row: percent(row.retained), ("retained",)),
        Column("memory", "peak MiB", lambda row: mebibytes(row.record.memory.peak_bytes), ("peak_bytes", "device_bytes")),
        Column("energy", "energy mJ", _energy, ("energy_joules", "energy_provenance", "energy_reason")),
        Column("verdict", "verdict", lambda row: row.values()["verdict"], ("verdict",), number=False),
    ]


def chosen(headline: str, names: Sequence[str] = ()) -> list[Column]:
    """Return the columns that are named, in that order; all where none is. `UnknownName` for one that there is not."""
    columns = {column.name: column for column in _columns(headline)}
    for name in names:
        if name not in columns:
            raise UnknownName("column", name, columns)
    return [columns[name] for name in names] or list(columns.values())


def _time(key: str) -> Callable[[Row], str]:
    return lambda row: milliseconds(row.values()[key])


def _delta(row: Row) -> str:
    """Print the difference to FP32, with its interval where both were measured on the same samples."""
    accuracy = row.record.accuracy
    paired = accuracy.to_fp32 if accuracy else None
    if paired is None or accuracy is None or accuracy.headline != "accuracy":
        return percent(row.metric_delta, sign=True)
    low, high = paired.difference.low, paired.difference.high
    return f"{percent(paired.difference.value, sign=True)} [{percent(low, sign=True)}, {percent(high, sign=True)}]"


def _reduction(row: Row) -> str:
    if row.reduction_size is None:
        return ""
    return f"{percent(row.reduction_size)} / {percent(row.reduction_parameters)}"


def _energy(row: Row) -> str:
    energy = row.record.energy
    if energy.joules is None:
        return energy.reason or ""
    flags = [str(energy.provenance)] + (["short"] if energy.short else [])
    if (energy.meter_cost or 0) > METER_COST:
        flags.append(f"metering costs {100 * (energy.meter_cost or 0):.0f} %")
    return f"{energy.joules.value * 1e3:.3g} ({', '.join(flags)})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


# ---------------------------------------------------------------- beside the rows


def title(table: Table) -> str:
    """Name a table by what its rows have in common."""
    return ", ".join(f"{name} {value}" for name, value in table.title.items())


def circumstances(table: Table) -> list[str]:
    """Say on what, and how, the rows were measured."""
    environment = table.environment
    device = environment.get("board") or environment.get("cpu") or environment.get("machine") or "unknown device"
    virtual = " (virtual machine)" if environment.get("virtual") else ""
    return [
        f"{device}{virtual}",
        f"{environment.get('cores')} cores, {environment.get('threads')} used",
        str(environment.get("os")),
        f"mode {table.mode}",
        *_scenario(table.scenario),
    ]


def _scenario(scenario: Scenario) -> list[str]:
    """Say how inferences were asked for, unless it is one after the other."""
    details = {
        "multi-stream": f"{scenario.streams} samples a query",
        "offline": "batch size of the highest throughput",
        "server": f"Poisson arrivals, p99 under {scenario.bound_ms} ms",
        "paced": f"{scenario.rate:g} per second" if scenario.rate else f"{scenario.idle_ms} ms between",
    }
    return [] if scenario.kind == "single-stream" else [f"scenario {scenario.kind} ({details[scenario.kind]})"]


def notes(table: Table) -> list[str]:
    """Say what each doubtful verdict rests on, and why something is blank."""
    lines = []
    for row in table.rows:
        verdict = row.record.verdict
        for reason in verdict.reasons if verdict else ():
            cell = row.record.cell
            name = f"{verdict.word if verdict else ''} {cell.model} {cell.format} {cell.precision}"
            lines.append(f"{name}: {reason.reason}; {reason.recommendation}.")
    if any(row.record.latency and row.record.latency.p99_ns is None for row in table.rows):
        lines.append("A blank quantile had too few samples to bound it (or its samples are batches of calls).")
    if any(row.rank is None for row in table.rows):
        lines.append("Rows without a rank have no energy that may be ranked: none was measured, or in windows under 60 s.")
    return lines


def failure(record: Record) -> str:
    """Say which cell failed where, and why."""
    cell, reason = record.cell, record.failure
    why = f"{record.failed_stage}: {reason.reason}" if reason else "no reason was written down"
    return f"{cell.model} {cell.format} {cell.precision} ({cell.mode}): {why}"
