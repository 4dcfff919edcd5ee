"""What the commands print with: tables on standard output, progress on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebench.schema import Progress


def print_json(content: object) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(content, indent=1, ensure_ascii=False))


def print_table(title: str, rows: Sequence[Mapping[str, Any]], right: Sequence[str] = ()) -> None:
    """Print rows with the keys of the first as headings; names in `right` are aligned right."""
    cells = [{name: "" if value is None else plain(str(value)) for name, value in row.items()} for row in rows]
    if not rows:
        print(f"{plain(title)}: none")
    elif sys.stdout.isatty():
        _print_grid(plain(title), cells, right)
    else:
        print("\n".join([plain(title), *aligned(cells, right), ""]))


def _print_grid(title: str, rows: Sequence[Mapping[str, str]], right: Sequence[str]) -> None:
    """Print rows as wide as the terminal is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", header_style="bold")
    for name in rows[0]:
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    Console(file=sys.stdout).print(table)


def aligned(rows: Sequence[Mapping[str, str]], right: Sequence[str] = ()) -> Iterator[str]:
    """Write rows in columns, under their headings."""
    table = [dict(zip(rows[0], rows[0], strict=True)), *rows] if rows else []
    widths = {name: max(len(row[name]) for row in table) for name in (rows[0] if rows else ())}
    for row in table:
        cells = (text.rjust(widths[name]) if name in right else text.ljust(widths[name]) for name, text in row.items())
        yield "  ".join(cells).rstrip()


def print_markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a markdown table."""
    from edgebench.report.writers.markdown import escape

    print(f"**{escape(title)}**\n")
    if rows:
        print("| " + " | ".join(name.strip() for name in rows[0]) + " |")
        print("|" + "-|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(escape("" if value is None else str(value)) for value in row.values()) + " |")


def plain(text: str) -> str:
    """Keep text from records on its line: no control characters, nothing that turns its direction, nothing that is no text."""
    if text.isascii() and text.isprintable():
        return text
    from edgebench.report import columns

    return columns.plain(text).encode(errors="backslashreplace").decode()


def complain(text: str) -> None:
    """Print one line on standard error."""
    print(f"edgebench: {plain(text)}", file=sys.stderr)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show what is going on and how long it will take: a bar on a terminal, a line per step elsewhere.

    A line holds what is left of the whole, where that is told, and nothing else that changes as a step goes on.
    """
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
        return
    printed: set[str] = set()

    def line(what: str, done: float, total: float, lane: str = "") -> None:
        head, left = _parted(what)
        if head not in printed:
            printed.add(head)
            print(f"edgebench: {head}" + (f" ({left})" if left else ""), file=sys.stderr, flush=True)

    yield line


def _parted(what: str) -> tuple[str, str]:
    """Return what is being done, and what is left of the whole; in brackets there may be other things that change."""
    head, _, rest = what.partition(" (")
    last = rest.removesuffix(")").rpartition("; ")[2]
    return head, last if last.startswith("about ") and last.endswith(" left") else ""


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    screen = os.fdopen(os.dup(2), "w")  # exporters silence descriptor 2 while native code runs
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=screen, force_terminal=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        heads: dict[str, str] = {}

        def report(what: str, done: float, total: float, lane: str = "") -> None:
            """Show each lane's latest work; work without a lane gives way to lanes."""
            if not done and not total:
                bars.console.print(what, markup=False, highlight=False)
                return
            head = _parted(what)[0]
            if lane and "" in tasks:
                bars.remove_task(tasks.pop(""))
            if heads.get(lane) != head and lane in tasks:
                bars.remove_task(tasks.pop(lane))
            heads[lane] = head
            if lane not in tasks:
                tasks[lane] = bars.add_task(what, total=total)
            bars.update(tasks[lane], description=what, completed=done, total=total)

        yield report
