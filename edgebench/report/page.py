"""Tables and what is behind their rows as one HTML file that opens from disk and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.errors import MissingExtra
from edgebench.report import columns, content, lineage
from edgebench.report.charts import tradeoff
from edgebench.report.columns import Column
from edgebench.report.content import Page
from edgebench.report.tables import SORTS, Row, Table
from edgebench.store.row import Entry

if TYPE_CHECKING:
    import jinja2

WEB = Path(__file__).with_name("web")
SCRIPTS = (
    *("dom", "format", "state", "choice", "filters", "limits", "tables"),
    *("charts", "parts", "evaluation", "explanations", "record", "start"),
)
"""The page's own program, in this order."""
GLOBAL = "window.vegaEmbed = vegaEmbed;"
"""What the page's program calls of the library that draws."""
STYLES = ("style", "parts")
TOLD = ("target", "dataset", "mode")
"""What is told of a page's rows also where it is the same for all."""
VARIANT = ("metric", "retained", "p50", "size", "reduction")
"""Columns that a family shows."""


def render(page: Page, version: str = "") -> str:
    """Write the page; `MissingExtra` where what draws its charts is not installed."""
    try:
        templates, vega = environment(), _vega()
    except ImportError as error:
        raise MissingExtra("edgebench report", "report", error.name or "vl_convert") from error
    program = _program()
    return templates.get_template("page.html.j2").render(
        script=program,
        policy=_policy((program, vega)),
        style=styles(STYLES),
        data=content.inert(content.program(page)),
        packed=[("vega", content.zipped(vega)), *content.packs(page)],
        version=version,
        source=page.results,
        **_context(page),
    )


def environment() -> jinja2.Environment:
    """Make what fills the templates: text is escaped, and a name that is not given is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )


def styles(names: Iterable[str]) -> str:
    """Read style sheets of the pages."""
    return "".join((WEB / f"{name}.css").read_text(encoding="utf-8") for name in names)


@cache
def _vega() -> str:
    """Bundle the library that draws; that takes seconds, and is the same for every page."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(GLOBAL)
    return bundle


def _template(name: str) -> str:
    """Read a template without its indentation, which a page of many rows need not carry."""
    return INDENTED.sub("", (WEB / name).read_text(encoding="utf-8"))


INDENTED = re.compile(r"^[ \t]+", re.MULTILINE)


def _shown(value: Any) -> Any:
    """Keep text from turning what stands beside it; what is marked as safe is not text."""
    return columns.plain(value) if type(value) is str else value


def _program() -> str:
    parts = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


def _policy(scripts: Iterable[str]) -> str:
    """Allow the page's own programs by their hashes, and nothing from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


# ---------------------------------------------------------------- for the template


def _context(page: Page) -> dict[str, Any]:
    return {
        "counts": list(_counts(page)),
        "rows": bool(page.rows),
        "filters": [_filter(page, name, heading) for name, heading in content.FACETS.items()],
        "tables": [_board(page, number, table) for number, table in enumerate(page.tables)],
        "families": [_family(page, number, table) for number, table in enumerate(page.tables) if table.rows],
        "left_out": page.left_out,
        "axes": content.AXES,
        "groups": tradeoff.GROUPS,
        "kinds": content.kinds(),
        "sorts": list(SORTS),
    }


def _counts(page: Page) -> Iterator[tuple[str, str]]:
    """Count what the page holds, and say when it was measured."""
    entries, done = page.entries, len(page.rows)
    for name, count in (
        ("measurement", done),
        ("model", len({entry.model for entry in entries})),
        ("target", len({entry.target for entry in entries})),
        ("data set", len({entry.dataset for entry in entries if entry.judged})),
        ("failed cell", len(entries) - done),
        *([("unreadable record", len(page.left_out))] if page.left_out else []),
    ):
        yield name + ("" if count == 1 else "s"), str(count)
    days = sorted(entry.started_at[:10] for entry in entries)
    if days:
        yield "measured", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _filter(page: Page, name: str, heading: str) -> dict[str, Any]:
    """Count the records of each value; one that is the same everywhere is told at most."""
    counts = Counter(content.facet(entry, name) for entry in page.entries)
    return {"name": name, "heading": heading, "options": sorted(counts.items()), "told": name in TOLD}


def _board(page: Page, number: int, table: Table) -> dict[str, Any]:
    chosen = columns.chosen(table.headline, filled=table.filled)
    return {
        "id": f"table-{number}",
        "title": columns.title(table),
        "mode": table.mode,
        "circumstances": "; ".join(columns.circumstances(table)) + "." if table.rows else "",
        "columns": chosen,
        "rows": [_line(page, row, chosen) for row in table.rows],
        "advice": columns.advice(table),
        "notes": columns.notes(table),
        "failed": [_failed(page, entry) for entry in table.failed],
    }


def _line(page: Page, row: Row, chosen: Sequence[Column]) -> dict[str, Any]:
    return {
        "id": page.places[row.entry.path],
        "link": page.link(row.entry),
        "cells": [(column, column.fill(row)) for column in chosen],
        "no_energy": row.entry.energy_joules is None,
    }


def _failed(page: Page, entry: Entry) -> dict[str, Any]:
    name, _, reason = columns.failure(entry).partition(": ")
    return {"id": page.places[entry.path], "link": page.link(entry), "name": name, "reason": reason}


def _family(page: Page, number: int, table: Table) -> dict[str, Any]:
    chosen = columns.chosen(table.headline, VARIANT)
    return {
        "table": f"table-{number}",
        "title": columns.title(table),
        "open": len(page.tables) == 1,
        "columns": chosen,
        "members": [_member(page, member, chosen) for member in lineage.members(table)],
    }


def _member(page: Page, member: lineage.Member, chosen: Sequence[Column]) -> dict[str, Any]:
    parameters = f"{member.parameters / 1e6:.2f} M parameters" if member.parameters else ""
    fewer = f"{columns.percent(member.reduction)} % fewer than the teacher" if member.reduction else ""
    macs = f"{member.macs / 1e6:.2f} M MACs" if member.macs else ""
    controls = [f"{kind} {columns.percent(value)} %" for kind, value in member.controls.items()]
    return {
        "depth": member.depth,
        "name": member.name,
        "role": member.role,
        "facts": ", ".join(each for each in (member.made, parameters, fewer, macs, *controls) if each),
        "rows": [
            {**_line(page, row, chosen), "format": row.entry.format, "precision": row.entry.precision} for row in member.rows
        ],
    }
