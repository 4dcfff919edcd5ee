"""Rows as CSV for spreadsheets and scripts: one line a cell, all tables in one, numbers as they were measured."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgebench.report import columns
from edgebench.report.tables import Table

FORMULA = ("=", "+", "-", "@")
"""How text begins that a spreadsheet would compute."""


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
    for table in tables:
        shared = {**table.title, "mode": table.mode, "scenario": table.scenario.kind}
        keys = [key for column in columns.chosen(table.headline, names) for key in column.keys]
        for row in table.rows:
            values = row.values()
            yield {**shared, "status": "done", **{key: values[key] for key in keys}, "record": row.path, "reason": ""}
        for path, record in table.failed:
            cell = record.cell
            known = {"model": cell.model, "role": record.role, "format": cell.format, "precision": cell.precision}
            known = {key: value for key, value in {**known, "runtime": cell.ran_by}.items() if key in keys}
            yield {**shared, "status": "failed", **known, "record": path, "reason": columns.failure(record)}


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if not isinstance(value, str):
        return value
    text = columns.printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text
