"""`edgebench recommend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options
from edgebench.cli.limits import LimitGroup

if TYPE_CHECKING:
    from edgebench.report.limits import Choice


@options.grouped
def command(
    limits: LimitGroup,
    results: options.ResultsFolder = Path("results"),
    sort: Annotated[str, typer.Option(help="What is best: metric, latency, p99, size, memory or energy.")] = "metric",
    by: options.By = "dataset,target",
    where: options.Where = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose a model: what keeps to your limits, best first, and which limit each of the others breaks.

    Exit code 1 where nothing does.
    """
    from edgebench.report.limits import choose

    read = limits.read()
    made = options.tables(results, sort=sort, by=by, where=where)
    found = choose(made.tables, read)
    if json:
        console.print_json([choice.values() for choice in found])
    else:
        for choice in found:
            _print(choice)
    if not any(choice.kept for choice in found):
        console.complain("nothing keeps to these limits" if found else "no records here; `edgebench run` makes them")
        raise typer.Exit(1)


def _print(choice: Choice) -> None:
    from edgebench.report import columns
    from edgebench.report.limits import SHOWN

    chosen = columns.chosen(choice.table.headline, SHOWN)
    title = f"{columns.title(choice.table)} ({choice.table.mode})"
    rows = [{column.heading: column.fill(row) for column in chosen} for row in choice.kept]
    console.print_table(title, rows, right=[column.heading for column in chosen if column.number])
    if choice.kept:
        console.say(f"Best: {choice.kept[0].entry.name}.")
    for row, reasons in choice.excluded:
        console.say(f"left out: {row.entry.name}: {'; '.join(reasons)}")
