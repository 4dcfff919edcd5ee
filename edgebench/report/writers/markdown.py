"""Tables as markdown that GitHub renders; the same tables give the same bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from edgebench.report import columns
from edgebench.report.columns import Column
from edgebench.report.tables import Row, Table

HEADER = """# Leaderboard

Made by `edgebench leaderboard` from the records beside it, and from nothing else; a model's name links to its record.
● marks rows that no other row beats in metric, latency and size at once.
Δ is the difference to the same model in torch FP32; reduction and retained compare with the teacher in FP32.
Latency is one inference, batch 1 unless said otherwise, host tensor to host tensor; p50 is the median over trials.
Rows were not measured in turn, and tie readily: unless all of their ratio's interval lies beyond 2 % and the device's noise.
"""
MARKUP = re.compile(r"[\\|*~`\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
BEGINNING = re.compile(r"(?:[-+]|#{1,6})(?: |$)|-{3,}$")
"""Where a list, a heading or a line across the page would begin."""
NUMBERED = re.compile(r"\d{1,9}(?=[.)](?: |$))")
LINKED = re.compile(r":(?=//)|(?:www|WWW)(?=\.)|@(?=[A-Za-z0-9])|#(?=[0-9])|\b[Gg][Hh]-(?=[0-9])")
"""What GitHub makes a link of together with what follows: addresses, people, issues."""
APART = r"\g<0><!-- -->"
"""A comment parts text for whoever looks for links in it, and is not to be seen."""
PLAIN = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}


def render(tables: Sequence[Table], names: Sequence[str] = (), base: Path = Path()) -> str:
    """Write every table with its failed cells and the reasons of its verdicts.

    names: the columns, all unless given. base: the folder of results, as it is
    reached from where the text will lie; links to records begin with it.
    """
    if not tables:
        return HEADER + "\nNo records yet: `edgebench run` makes them.\n"
    return HEADER + "".join(_section(table, names, base) for table in tables)


def _section(table: Table, names: Sequence[str], base: Path) -> str:
    lines = [f"\n## {escape(columns.title(table))}\n"]
    if table.rows:
        lines += [escape("; ".join(columns.circumstances(table))) + ".", "", *_grid(table, names, base), ""]
        lines += [f"{escape(unstable)}\n"] if (unstable := columns.advice(table)) else []
        lines += [f"- {escape(note)}" for note in columns.notes(table)]
    if table.failed:
        lines += ["\n**Failed cells**\n", *(f"- {escape(columns.failure(entry))}" for entry in table.failed), ""]
    return "\n".join(lines)


def _grid(table: Table, names: Sequence[str], base: Path) -> list[str]:
    chosen = columns.chosen(table.headline, names, table.filled)
    lines = [
        _line(escape(column.heading) for column in chosen),
        "|" + "|".join("-:" if each.number else "-" for each in chosen) + "|",
    ]
    return lines + [_line(_cell(column, row, base) for column in chosen) for row in table.rows]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(column: Column, row: Row, base: Path) -> str:
    text = escape(column.fill(row))
    if column.name != "model":
        return text
    return f"[{text}]({quote(os.fsencode((base / row.entry.path).as_posix()))})"


def escape(text: str) -> str:
    """Keep text from ending a table cell, and from becoming markup, a link, somebody's name or a formula."""
    shown = MARKUP.sub(r"\\\g<0>", columns.plain(text).translate(PLAIN))
    return LINKED.sub(APART, _begun(shown)).replace("$", "<span>$</span>")


def _begun(text: str) -> str:
    """Keep text from beginning a list, a heading or a line across the page."""
    number = NUMBERED.match(text)
    return f"{number[0]}\\{text[number.end() :]}" if number else f"\\{text}" if BEGINNING.match(text) else text
