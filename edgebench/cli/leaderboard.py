"""`edgebench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgebench.cli import console
from edgebench.errors import InputError

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
    by: Annotated[str, typer.Option(help="What makes a table of its own.")] = "dataset,target",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these rows: precision=int8,fp16 or model=resnet*; may be repeated.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Only these, in this order: model,p50,size.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare records: a table per data set and target, made from records alone."""
    from edgebench import api, report

    groups, names, wanted = parts(by), parts(columns), filters(where or [])
    if out is not None:
        api.leaderboard(results, out=out, format=format, sort=sort, by=groups, where=wanted, columns=names)
    tables = api.tables(results, sort=sort, by=groups, where=wanted)
    if out is not None:
        print(f"{out}: {sum(len(table.rows) for table in tables)} rows", flush=True)
    if json or (format is not None and out is None):
        print(report.render(tables, "json" if json else str(format), names), end="")
    elif out is None:
        _print(tables, names)


def parts(text: str) -> list[str]:
    """Split at commas."""
    return [part for part in text.split(",") if part]


def filters(texts: list[str]) -> dict[str, list[str]]:
    """Read `precision=int8,fp16`; names that are given twice add up."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, mark, values = text.partition("=")
        if not mark or not parts(values):
            raise InputError(f"--where {text}: not name=value, for instance precision=int8")
        found.setdefault(name, []).extend(parts(values))
    return found


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
