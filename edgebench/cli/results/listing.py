"""`edgebench results list`."""

from __future__ import annotations

import sys
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
    if json:
        for part in found.json():
            console.print_json_text(f"{part}\n")
    elif screen:
        for text in console.aligned(lines, NUMBERS):
            console.say(text)
    else:
        for cells in [list(lines[0]), *(line.values() for line in lines)] if lines else ():
            console.say_cells(cells)
    if not found.entries and not json:
        console.complain("no records here: `edgebench run` makes them, and --where may leave none")
    if found.beyond and not json:
        console.complain(f"{found.beyond} more; --limit 0 lists all, --where model=resnet* fewer")
    if found.damaged:
        raise typer.Exit(1)


def _line(entry: Entry) -> dict[str, str]:
    from edgebench.report.columns import milliseconds, percent
    from edgebench.store.row import NO_DATASET

    line = {
        "model": entry.model,
        "format": entry.format,
        "precision": entry.precision,
        "target": entry.target,
        "device": entry.device[:10],
        "mode": entry.mode,
        "data set": entry.dataset or NO_DATASET,
        "measured": entry.started_at,
        "verdict": entry.verdict or entry.status,
        "p50 ms": milliseconds(entry.median_ns),
        "metric %": percent(entry.metric),
        "record": entry.path,
    }
    return {name: console.plain(value) for name, value in line.items()}
