"""`edgebench results list`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.store.row import Entry

FIRST = 50
"""So many lines a terminal shows unless it is asked for more."""
NUMBERS = ("p50 ms", "metric %")


def command(
    results: options.ResultsFolder = Path("results"),
    where: options.Where = None,
    limit: Annotated[int | None, typer.Option(help="So many lines, 0 for all; a terminal shows 50 unless given.", min=0)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List records, a line each; columns are separated by tabs where the output is no terminal.

    Exit code 1 where a record could not be read; the others are listed all the same.
    """
    from edgebench.report import leaderboard as verbs

    screen = sys.stdout.isatty() and not json
    first = (FIRST if screen else None) if limit is None else limit or None
    with console.progress() as progress:
        found = verbs.listing(results, where=options.filters(where), first=first, progress=progress)
    for damaged in found.damaged:
        console.complain(f"left out: {damaged.reason}")
    lines = [_line(entry) for entry in found.entries]
    for line in found.json() if json else console.aligned(lines, NUMBERS) if screen else _tabbed(lines):
        print(line)
    if not found.entries and not json:
        console.complain("no records here: `edgebench run` makes them, and --where may leave none")
    if found.beyond and not json:
        console.complain(f"{found.beyond} more; --limit 0 lists all, --where model=resnet* fewer")
    if found.damaged:
        raise typer.Exit(1)


def _line(entry: Entry) -> dict[str, str]:
    from edgebench.report.columns import milliseconds, percent

    line = {
        "model": entry.model,
        "format": entry.format,
        "precision": entry.precision,
        "target": entry.target,
        "device": entry.device[:10],
        "mode": entry.mode,
        "data set": entry.dataset,
        "measured": entry.started_at,
        "verdict": entry.verdict or entry.status,
        "p50 ms": milliseconds(entry.median_ns),
        "metric %": percent(entry.metric),
        "record": entry.path,
    }
    return {name: console.plain(value) for name, value in line.items()}


def _tabbed(lines: Sequence[dict[str, str]]) -> Iterator[str]:
    """Write lines under their headings with tabs between, for programs."""
    yield from ("\t".join(line) for line in lines[:1])
    yield from ("\t".join(line.values()) for line in lines)
