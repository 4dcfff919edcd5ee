"""`edgebench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.report.tables import Table


def command(
    results: Annotated[Path, typer.Argument(help="The folder that holds records/.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Write it there: results/LEADERBOARD.md, or a file that ends in .csv, .json or .tex.")
    ] = None,
    format: Annotated[
        Literal["markdown", "csv", "json", "latex"] | None, typer.Option(help="What to write or print, whatever the ending.")
    ] = None,
    sort: Annotated[str, typer.Option(help="latency, p99, metric, size, memory or energy; the best first.")] = "latency",
    by: options.By = "dataset,target",
    where: options.Where = None,
    columns: Annotated[str, typer.Option(help="Only these, in this order: model,p50,size.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare records: a table per data set and target, made from records alone."""
    from edgebench import api

    names = options.parts(columns)
    tables = api.tables(results, sort=sort, by=options.parts(by), where=options.filters(where))
    if out is not None:
        api.publish(tables, results, out=out, format=format, columns=names)
        print(f"{out}: {sum(len(table.rows) for table in tables)} rows", flush=True)
    if json or (format is not None and out is None):
        print(api.publish(tables, results, format="json" if json else format, columns=names), end="")
    elif out is None:
        _print(tables, names)


def _print(tables: list[Table], names: list[str]) -> None:
    from edgebench.report import columns

    if not tables:
        print("No records here: `edgebench run` makes them, and --where may leave none.")
    for table in tables:
        chosen = columns.chosen(table.headline, names or columns.NARROW)
        rows = [{column.heading: column.fill(row) for column in chosen} for row in table.rows]
        title = f"{columns.title(table)} ({table.mode})"
        console.print_table(title, rows, right=[column.heading for column in chosen if column.number])
        for _, record in table.failed:
            print(f"failed: {columns.failure(record)}")
