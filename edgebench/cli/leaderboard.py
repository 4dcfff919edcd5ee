"""`edgebench leaderboard`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.report.tables import Table

FIRST = 20
"""Rows of a table that a terminal shows unless it is asked for more."""
MANY, LISTED = 12, 40
"""More tables than so many are listed by their first rows, and of those only so many."""


def command(
    results: options.ResultsFolder = Path("results"),
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
    task: Annotated[str | None, typer.Option(help="generation: the tables of language models, which stand in no other.")] = None,
    top: Annotated[
        int | None, typer.Option(help="Only the first rows of each table; 0: all. A terminal shows 20 unless given.", min=0)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare records: a table per data set and target, made from records alone.

    Exit code 1 where a record could not be read; the others are shown all the same.
    """
    from edgebench.report import leaderboard as verbs

    if task is not None and _has_own_tables(task):
        _generation(results, out, "json" if json else format, where)
        return
    names, shown = options.parts(columns), json or format is not None or out is not None
    cut = {"top": top or None} if shown or top is not None else {"top": FIRST, "many": MANY}
    made = options.tables(results, sort=sort, by=by, where=where, **cut)
    if out is not None:
        verbs.publish(made, results, out=out, format=format, columns=names)
        console.say(f"{out}: {sum(len(table.rows) for table in made.tables)} rows", flush=True)
    if json or (format == "json" and out is None):
        console.print_json_text(verbs.publish(made, results, format="json"))
    elif format is not None and out is None:
        console.print_document(verbs.publish(made, results, format=format, columns=names))
    elif out is None:
        _print(made.tables, names)
    if made.damaged:
        raise typer.Exit(1)


def _has_own_tables(task: str) -> bool:
    """Return whether a task has tables of its own; `InputError` where it has none."""
    from edgebench import tasks

    if not tasks.part(task, "GENERATES"):
        own = tasks.generating()
        raise InputError(f"--task {task}: stands in the tables that all share; leave it out, or name {own}")
    return True


def _generation(results: Path, out: Path | None, format: str | None, where: list[str] | None) -> None:
    """Print or write the tables of language models."""
    from edgebench.report import columns, generation

    made = generation.make(results, options.filters(where))
    for damaged in made.damaged:
        console.complain(f"left out: {damaged.reason}")
    if out is not None or format is not None:
        text = generation.publish(made, results, out, format)
        if out is not None:
            console.say(f"{out}: {sum(len(table.rows) for table in made.tables)} rows", flush=True)
        elif format == "json":
            console.print_json_text(text)
        else:
            console.print_document(text)
    else:
        for table in made.tables:
            console.print_table(table.title, generation.grid(table), right=generation.NUMBERS)
            for note in filter(None, (*generation.notes(table, verdicts=False), generation.advice(table))):
                console.say(note)
        for entry in made.failed:
            console.say(f"failed: {columns.failure(entry)}")
        if not made.tables and not made.failed:
            console.say("No records of language models here: `edgebench run FOLDER --prompts FILE` makes them.")
    if made.damaged:
        raise typer.Exit(1)


def _print(tables: Sequence[Table], names: list[str]) -> None:
    if not tables:
        console.say("No records here: `edgebench run` makes them, and --where may leave none; of language models: --task.")
    elif len(tables) > MANY and all(len(table.rows) <= 1 for table in tables):
        _print_first(tables)
    else:
        _print_all(tables, names)


def _print_first(tables: Sequence[Table]) -> None:
    """Print the first row of each table, where there are too many to read."""
    from edgebench.report import columns

    listed = sorted(tables, key=lambda table: -len(table.rows) - table.beyond)[:LISTED]
    rows = []
    for table in listed:
        chosen = columns.chosen("metric", ("model", "format", "precision", "metric", "p50", "size", "verdict"))
        first = {column.heading: column.fill(table.rows[0]) if table.rows else "" for column in chosen}
        rows.append({"table": f"{columns.title(table)} ({table.mode})", "rows": len(table.rows) + table.beyond, **first})
    console.print_table(f"The first row of each of {len(tables)} tables, the longest first", rows, right=["rows"])
    console.say(f"{len(tables) - len(listed)} more tables. --where target=NAME shows one whole, --out FILE writes all.")


def _print_all(tables: Sequence[Table], names: list[str]) -> None:
    from edgebench.report import columns

    for table in tables:
        chosen = columns.chosen(table.headline, names or columns.narrow(table))
        rows = [{column.heading: column.fill(row) for column in chosen} for row in table.rows]
        title = f"{columns.title(table)} ({table.mode})"
        console.print_table(title, rows, right=[column.heading for column in chosen if column.number])
        if line := columns.advice(table):
            console.say(line)
        for entry in table.failed:
            console.say(f"failed: {columns.failure(entry)}")
        if table.beyond:
            console.say(f"{table.beyond} more rows; --top 0 shows all, --out FILE writes them.")
