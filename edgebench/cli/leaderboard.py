"""`edgebench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console

if TYPE_CHECKING:
    from edgebench.report.tables import Table


def command(
    results: Annotated[Path, typer.Argument(help="The folder that holds records/.")] = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Write markdown there, for instance results/LEADERBOARD.md.")] = None,
    sort: Annotated[str, typer.Option(help="latency, metric or size.")] = "latency",
    by: Annotated[str, typer.Option(help="What makes a table of its own.")] = "dataset,target",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare records: a table per data set and target, made from records alone."""
    from edgebench import api

    groups = [part for part in by.split(",") if part]
    tables = api.tables(results, sort=sort, by=groups)
    if out is not None:
        api.leaderboard(results, out=out, sort=sort, by=groups)
        print(f"{out}: {sum(len(table.rows) for table in tables)} rows", flush=True)
    if json:
        console.print_json(
            [
                {
                    "group": table.title,
                    "mode": table.mode,
                    "environment": table.environment,
                    "rows": [row.values() for row in table.rows],
                    "failed": [record.model_dump(mode="json", by_alias=True) for _, record in table.failed],
                }
                for table in tables
            ]
        )
    elif out is None:
        _print(tables)


LEFT_OUT = {"role", "runtime", "AUROC", "p90 ms", "per second", "parameters M", "energy mJ"}
"""Columns that a terminal has no room for; markdown and JSON have them."""


def _print(tables: list[Table]) -> None:
    from edgebench.report.markdown import columns

    if not tables:
        print("No records yet: `edgebench run` makes them.")
    for table in tables:
        title = ", ".join(f"{name} {value}" for name, value in table.title.items()) + f" ({table.mode})"
        chosen = [column for column in columns(table) if column[0] not in LEFT_OUT]
        rows = [{name: fill(row) for name, _, fill in chosen} for row in table.rows]
        console.print_table(title, rows, right=[name for name, align, _ in chosen if align == "-:"])
        for _, record in table.failed:
            cell = record.cell
            reason = record.failure.reason if record.failure else ""
            print(f"failed: {cell.model} {cell.format} {cell.precision}: {record.failed_stage}: {reason}")
