"""Rows as CSV for spreadsheets and scripts: one line a cell, all tables in one, numbers as they were measured."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgebench.report import columns
from edgebench.report.tables import Table

FAILED = ("model", "role", "format", "precision", "runtime")
"""What is known of a failed cell."""
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""How text begins that a spreadsheet would compute, in some countries the wide forms too."""


def render(tables: Sequence[Table], names: Sequence[str] = ()) -> str:
    """Write a line for each row and for each failed cell, with the group and the mode first; empty: not known."""
    text = io.StringIO()
    lines = list(_lines(tables, names))
    heads = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def _lines(tables: Sequence[Table], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    filled = [name for table in tables for name in table.filled]
    for table in tables:
        device = {"device": table.device} if table.device else {}
        shared = {**table.title, **device, "mode": table.mode, "scenario": table.first.scenario_kind}
        keys = [key for column in columns.chosen(table.headline, names, filled) for key in column.keys]
        for row in table.rows:
            values = row.values()
            yield {**shared, "status": "done", **{key: values.get(key) for key in keys}, "record": row.entry.path, "reason": ""}
        for entry in table.failed:
            known = {key: getattr(entry, key) for key in FAILED if key in keys}
            yield {**shared, "status": "failed", **known, "record": entry.path, "reason": columns.failure(entry)}


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if not isinstance(value, str):
        return value
    text = columns.plain(value)
    return f"'{text}" if text.startswith(FORMULA) else text
