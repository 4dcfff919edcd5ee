"""What a page is made of, and what its program reads: rows, limits, charts, and what is behind each record."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgebench.report import columns, limits, record_card
from edgebench.report.charts import tradeoff
from edgebench.report.columns import INVISIBLE
from edgebench.report.tables import Row, Table
from edgebench.schema import Record
from edgebench.store.row import NO_DATASET, Entry

FACETS = {
    "target": "Target",
    "dataset": "Data set",
    "model": "Model",
    "format": "Format",
    "precision": "Precision",
    "role": "Role",
    "mode": "Mode",
    "verdict": "Verdict",
    "scenario": "Scenario",
    "runtime": "Runtime",
}
"""What rows can be filtered by, as `--where` calls it."""
TOGETHER = 10
"""Records whose evidence is packed together: a quarter smaller than each for itself, and still opened at once."""
LEFT = ("to_fp32", "to_teacher", "stages_ns", "explanation")
"""What the page reads from the record itself."""
AXES = ("p50", "p99", "size", "memory", "energy")
"""What the metric is drawn against."""
LIMITED = {
    "max_p50": ("p50 at most", "median_ns"),
    "max_p90": ("p90 at most", "p90_ns"),
    "max_p99": ("p99 at most", "p99_ns"),
    "max_size": ("Size at most", "size_bytes"),
    "max_memory": ("Memory at most", "peak_bytes"),
    "max_energy": ("Energy at most", "joules"),
    "min_metric": ("Metric at least", "metric_value"),
    "min_rate": ("Per second at least", "per_second"),
}
"""What each limit is called on the page, and the key of a row that it is about."""
UNITS = (
    (limits.TIMES, "milliseconds", "20ms"),
    (limits.SIZES, "mebibytes", "5MB"),
    (limits.ENERGIES, "millijoules", "3mJ"),
    (limits.SHARES, "percent", "85%"),
    (limits.RATES, "rate", "100"),
)
"""How the page writes a value of these units, and an example of a limit."""


@dataclass(frozen=True)
class Page:
    """What a page is made of."""

    orders: Mapping[str, Sequence[Table]]
    """The tables in each order of `SORTS`; the leaderboard is that by latency."""
    facts: Sequence[Mapping[str, Any] | None] = ()
    """What people read of each of the entries, as `facts` returns it; None: it could not be read."""
    evidence: Sequence[str] = ()
    """What is behind each of the entries: `Evidence.values()` as `written` returns it, or `null`."""
    pictures: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Samples by the hash of their split and their index: PNG in base64."""
    left_out: Sequence[tuple[str, str]] = ()
    """Records that could not be read, and why."""
    results: str = "results"
    """The folder of records, as the command line calls it."""
    base: Path = field(default_factory=Path)
    """The same folder, as it is reached from where the page will lie."""
    by: Sequence[str] = ("dataset", "target")
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def tables(self) -> Sequence[Table]:
        """Return the leaderboard's tables."""
        return self.orders["latency"]

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """List the rows' records, then those of failed cells; the place is what the page knows a record by."""
        failed = {entry.path: entry for table in self.tables for entry in table.failed}
        return (*(row.entry for row in self.rows), *failed.values())

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """List the rows of all tables."""
        return tuple(row for table in self.tables for row in table.rows)

    @cached_property
    def places(self) -> dict[str, int]:
        """Find a record's place by its path."""
        return {entry.path: place for place, entry in enumerate(self.entries)}

    def link(self, entry: Entry) -> str:
        """Say where a record's file is reached."""
        return quote(os.fsencode((self.base / entry.path).as_posix()))


def packed(content: object) -> str:
    """Pack JSON values as the page unpacks them."""
    return zipped(written(content))


def zipped(text: str) -> str:
    """Pack text: gzip in base64, the same bytes for the same text."""
    return base64.b64encode(gzip.compress(text.encode(errors="replace"), 9, mtime=0)).decode()


def facts(record: Record) -> dict[str, Any]:
    """Take from a record what people read of it, as plain JSON values."""
    return {
        "word": record.verdict.word if record.verdict else record.status,
        "reasons": record_card.reasons(record),
        "sections": [[section.title, section.lines] for section in record_card.sections(record)],
        "medians": record.latency.trial_medians_ns if record.latency else (),
        "split": record.cell.evaluation_sha256,
    }


def facet(entry: Entry, name: str) -> str:
    """Return what a record is filtered by."""
    if name == "verdict":
        return entry.verdict or entry.status
    if name == "dataset" and not entry.judged:
        return NO_DATASET
    return columns.plain(str(getattr(entry, "scenario_kind" if name == "scenario" else name)))


def kinds() -> list[dict[str, Any]]:
    """Say of each limit what the page must know to judge by it as `choice` does."""
    return [_kind(name, kind) for name, kind in limits.KINDS.items()]


def _kind(name: str, kind: limits.Kind) -> dict[str, Any]:
    label, key = LIMITED[name]
    show, example = next((show, example) for units, show, example in UNITS if units is kind.units)
    judged = {"what": kind.what, "units": kind.units, "highest": kind.highest}
    return {"name": name, "label": label, "key": key, "show": show, "example": example, **judged}


def program(page: Page) -> dict[str, Any]:
    """Return what the page's program reads at once, as plain JSON values."""
    return {
        "rows": [_row(page, number, row) for number, table in enumerate(page.tables) for row in table.rows],
        "failed": [_known_by(page, entry) for entry in page.entries[len(page.rows) :]],
        "tables": [_table(number, table) for number, table in enumerate(page.tables)],
        "orders": {sort: [_order(page, table) for table in tables if table.rows] for sort, tables in page.orders.items()},
        "filters": list(FACETS),
        "axes": AXES,
        "colours": tradeoff.GROUPS,
        "kinds": kinds(),
        "chosen": limits.SHOWN,
        "together": TOGETHER,
        "command": {
            "results": page.results,
            "by": "" if tuple(page.by) == ("dataset", "target") else ",".join(page.by),
            "where": page.where,
        },
    }


def _row(page: Page, number: int, row: Row) -> dict[str, Any]:
    values = {name: value for name, value in tradeoff.values(row).items() if name not in LEFT and value is not None}
    return {
        **values,
        **_known_by(page, row.entry),
        "table": f"table-{number}",
        "joules": row.entry.joules,
        "judged": row.entry.judged,
    }


def _known_by(page: Page, entry: Entry) -> dict[str, Any]:
    facets = {name: facet(entry, name) for name in FACETS}
    return {"id": page.places[entry.path], "record": entry.path, **facets}


def _table(number: int, table: Table) -> dict[str, Any]:
    return {
        "id": f"table-{number}",
        "title": columns.title(table),
        "mode": table.mode,
        "headline": table.headline if table.judged else "",
        "columns": [
            {"name": each.name, "heading": each.heading, "keys": each.keys, "number": each.number}
            for each in columns.chosen(table.headline, filled=table.filled)
        ],
    }


def _order(page: Page, table: Table) -> dict[str, Any]:
    return {"title": f"{columns.title(table)} ({table.mode})", "rows": [page.places[row.entry.path] for row in table.rows]}


def packs(page: Page) -> Iterator[tuple[str, str]]:
    """List what is unpacked when it is first looked at."""
    headlines = sorted({table.headline if table.judged else "" for table in page.tables if table.rows})
    yield (
        "charts",
        packed(
            {
                "themes": {"light": tradeoff.theme(False), "dark": tradeoff.theme(True)},
                "record": tradeoff.every(),
                "tradeoff": {
                    headline: {axis: {by: tradeoff.tradeoff(axis, headline, by) for by in tradeoff.GROUPS} for axis in AXES}
                    for headline in headlines
                },
            }
        ),
    )
    yield "facts", packed(page.facts)
    yield "pictures", packed(page.pictures)
    for first in range(0, len(page.evidence), TOGETHER):
        yield f"evidence-{first // TOGETHER}", zipped(f"[{','.join(page.evidence[first : first + TOGETHER])}]")


def written(content: object) -> str:
    """Write JSON without what turns the direction of text, and with null for what is no number."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(INVISIBLE)


def inert(content: object) -> str:
    """Write JSON that cannot end the element that holds it."""
    return written(content).translate(ESCAPES)


ESCAPES = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
