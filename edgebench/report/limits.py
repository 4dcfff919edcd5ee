"""Which rows keep to the user's limits, and which limit each of the others breaks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgebench.errors import InputError
from edgebench.report.columns import mebibytes, milliseconds, percent
from edgebench.report.tables import Row, Table

TIMES = {"s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1.0}
SPANS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
ENERGIES = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6}
SHARES = {"": 1.0, "%": 0.01}
RATES = {"": 1.0, "/s": 1.0}
SHOWN = ("model", "format", "precision", "metric", "p50", "p99", "size", "memory", "energy", "verdict")
"""The columns that a choice shows."""
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ%/]*)")


@dataclass(frozen=True)
class Kind:
    """One thing that can be limited."""

    what: str
    units: Mapping[str, float]
    value: Callable[[Row], float | None]
    show: Callable[[float], str]
    highest: bool = True
    """Whether the limit is the most that is allowed; else it is the least."""


def _of(key: str) -> Callable[[Row], float | None]:
    return lambda row: row.values()[key]


KINDS: dict[str, Kind] = {
    "max_p50": Kind("p50", TIMES, _of("median_ns"), lambda value: f"{milliseconds(value)} ms"),
    "max_p90": Kind("p90", TIMES, _of("p90_ns"), lambda value: f"{milliseconds(value)} ms"),
    "max_p99": Kind("p99", TIMES, _of("p99_ns"), lambda value: f"{milliseconds(value)} ms"),
    "max_size": Kind("size", SIZES, _of("size_bytes"), lambda value: f"{mebibytes(int(value))} MiB"),
    "max_memory": Kind("peak memory", SIZES, _of("peak_bytes"), lambda value: f"{mebibytes(int(value))} MiB"),
    "max_energy": Kind("energy", ENERGIES, lambda row: row.entry.joules, lambda value: f"{1e3 * value:.3g} mJ"),
    "min_metric": Kind("metric", SHARES, lambda row: row.entry.metric, lambda value: f"{percent(value)} %", highest=False),
    "min_rate": Kind("rate", RATES, _of("per_second"), lambda value: f"{value:.0f} per second", highest=False),
}


@dataclass(frozen=True)
class Choice:
    """A table's rows that keep to all limits, best first, and the others with what they break."""

    table: Table
    kept: tuple[Row, ...]
    excluded: tuple[tuple[Row, tuple[str, ...]], ...]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "group": self.table.title,
            "mode": self.table.mode,
            "kept": [row.values() for row in self.kept],
            "excluded": [{**row.values(), "breaks": list(reasons)} for row, reasons in self.excluded],
        }


def quantity(name: str, text: str) -> float:
    """Read `20ms`, `5 MB` or `85%` in nanoseconds, bytes, joules or shares of 1; `InputError` where it is none."""
    units = KINDS[name].units
    example = {id(TIMES): "20ms", id(SIZES): "5MB", id(ENERGIES): "3mJ", id(SHARES): "0.85 or 85%"}.get(id(units), "100")
    return amount(f"--{name.replace('_', '-')}", text, units, example)


def amount(option: str, text: str, units: Mapping[str, float], example: str) -> float:
    """Read a number with one of these units, which are factors of the one returned; `InputError` where it is none."""
    found = QUANTITY.fullmatch(text.strip())
    value = float(found[1]) * units.get(found[2], math.inf) if found is not None else math.inf
    if not math.isfinite(value):
        raise InputError(f"{option} {text}: not understood; write it like {example}")
    return value


def choose(tables: Iterable[Table], limits: Mapping[str, float]) -> list[Choice]:
    """Divide each table's rows by the limits, in the units of `quantity`.

    What is not known keeps to no limit; a measurement that is INVALID is no
    choice at all. The best comes first, as the table ranks.
    """
    found = []
    for table in tables:
        judged = [(row, breaks(row, limits)) for row in table.rows]
        kept = tuple(row for row, reasons in judged if not reasons)
        found.append(Choice(table, kept, tuple((row, reasons) for row, reasons in judged if reasons)))
    return found


def breaks(row: Row, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Say which limits a row breaks, and by how much."""
    reasons = ["its measurement is INVALID"] if row.entry.verdict == "INVALID" else []
    for name, limit in limits.items():
        kind = KINDS[name]
        value = kind.value(row)
        if value is None or math.isnan(value):
            given = row.entry.judged or name != "min_metric"
            reasons.append(f"{kind.what} is not known" + ("" if given else ": no data set given"))
        elif (value > limit) if kind.highest else (value < limit):
            reasons.append(f"{kind.what} {kind.show(value)}, {kind.show(limit)} is the {'most' if kind.highest else 'least'}")
    return tuple(reasons)
