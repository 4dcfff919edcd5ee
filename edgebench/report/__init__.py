"""Records → tables → text; pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgebench.errors import UnknownName

if TYPE_CHECKING:
    from edgebench.report.tables import Table

FORMATS = {"markdown": ".md", "csv": ".csv", "json": ".json", "latex": ".tex"}


def format_of(path: Path | None) -> str:
    """Tell a format by a file's ending; markdown where it says nothing."""
    return next((name for name, ending in FORMATS.items() if path is not None and Path(path).suffix == ending), "markdown")


def render(tables: Sequence[Table], format: str, columns: Sequence[str] = (), base: Path = Path()) -> str:
    """Write tables in one of `FORMATS`; links to records begin with `base`. JSON has every column."""
    from edgebench.report.writers import csv, latex, markdown

    if format == "csv":
        return csv.render(tables, columns)
    if format == "latex":
        return latex.render(tables, columns)
    if format == "json":
        return json.dumps([table.values() for table in tables], indent=2, ensure_ascii=False) + "\n"
    if format == "markdown":
        return markdown.render(tables, columns, base)
    raise UnknownName("format", format, FORMATS)
