"""What the commands print with: tables on standard output, progress on standard error.

Whatever is printed goes through here, whoever wrote it: no control character, and nothing that is not to be seen, reaches a
screen. Only what this file or a library of its own adds to text, like a table's lines and colours, is printed as it is.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebench.schema import Progress, Warned


def say(text: str = "", flush: bool = False) -> None:
    """Print one line on standard output."""
    print(plain(text), flush=flush)


def say_cells(cells: Iterable[str]) -> None:
    """Print one line with tabs between its cells, for programs."""
    print("\t".join(map(plain, cells)))


def print_json(content: object) -> None:
    """Print a JSON document on standard output."""
    print_json_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def print_json_text(text: str) -> None:
    """Print JSON that is written already; what is not to be seen in it becomes an escape, which reads the same."""
    print(text if text.isascii() and "\x7f" not in text else _unseen().sub(_escaped, text), end="", flush=True)


def print_document(text: str) -> None:
    """Print a document line by line."""
    print("\n".join(map(plain, text.split("\n"))), end="")


def print_table(title: str, rows: Sequence[Mapping[str, Any]], right: Sequence[str] = ()) -> None:
    """Print rows with the keys of the first as headings; names in `right` are aligned right."""
    cells = [{plain(name): plain("" if value is None else str(value)) for name, value in row.items()} for row in rows]
    right = [plain(name) for name in right]
    if not rows:
        say(f"{title}: none")
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

    say(f"**{escape(title)}**")
    say()
    if rows:
        say("| " + " | ".join(name.strip() for name in rows[0]) + " |")
        say("|" + "-|" * len(rows[0]))
    for row in rows:
        say("| " + " | ".join(escape("" if value is None else str(value)) for value in row.values()) + " |")


def plain(text: str) -> str:
    """Keep text on its line: no control characters, nothing that is not to be seen, nothing that is no text."""
    if text.isascii() and text.isprintable():
        return text
    from edgebench.report import columns

    return columns.line(text).encode(errors="backslashreplace").decode()


@functools.cache
def _unseen() -> re.Pattern[str]:
    """Match one character that JSON may hold as it is, and a screen may not."""
    from edgebench.report.columns import UNSEEN

    ranges = ((0x7F, 0x9F), (0x2028, 0x2029), (0xD800, 0xDFFF), *UNSEEN)
    return re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]")


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place] << 8 | units[place + 1]:04x}" for place in range(0, len(units), 2))


def complain(text: str) -> None:
    """Print one line on standard error."""
    say_error(plain(f"edgebench: {text}"))


def say_error(text: str) -> None:
    """Print lines that others put together, like a library's warning, on standard error."""
    for line in text.splitlines():
        print(plain(line), file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show what is going on and how long it will take: a bar on a terminal, a line per step elsewhere.

    A line holds what is left of the whole, where that is told, and nothing else that changes as a step goes on.
    """
    if sys.stderr.isatty():
        with _bar() as report, _told_of_data(report):
            yield report
        return
    printed: set[str] = set()

    def line(what: str, done: float, total: float, lane: str = "") -> None:
        head, left = _parted(what)
        if head not in printed:
            printed.add(head)
            complain(head + (f" ({left})" if left else ""))

    with _told_of_data(line):
        yield line


@contextmanager
def _told_of_data(report: Progress) -> Iterator[None]:
    """Show what data sets do once that takes long, too."""
    from edgebench.files import PROGRESS

    token = PROGRESS.set(report)
    try:
        yield
    finally:
        PROGRESS.reset(token)


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
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=screen, force_terminal=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        heads: dict[str, str] = {}

        def report(what: str, done: float, total: float, lane: str = "") -> None:
            """Show each lane's latest work; work without a lane gives way to lanes."""
            what = plain(what)
            if not done and not total:
                bars.console.print(what, markup=False, emoji=False, highlight=False)
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


def warn(found: Iterable[Warned], whose: str = "") -> None:
    """Print why to look twice at numbers, a line each."""
    for each in found:
        complain(f"{whose}{each.text}")
