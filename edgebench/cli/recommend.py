"""`edgebench recommend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.report.limits import Choice


def command(
    results: options.ResultsFolder = Path("results"),
    max_p50: Annotated[str | None, typer.Option(help="Median latency, for instance 20ms.")] = None,
    max_p90: Annotated[str | None, typer.Option(help="Nine of ten inferences are as fast.")] = None,
    max_p99: Annotated[str | None, typer.Option(help="99 of 100 inferences are as fast.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Of the bundle's files: 5MB, 4MiB.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Peak memory of the process.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Of one inference: 3mJ.")] = None,
    min_metric: Annotated[
        str | None, typer.Option("--min-metric", "--min-accuracy", help="The task's headline metric: 0.85 or 85%.")
    ] = None,
    min_rate: Annotated[str | None, typer.Option(help="Inferences per second.")] = None,
    sort: Annotated[str, typer.Option(help="What is best: metric, latency, p99, size, memory or energy.")] = "metric",
    by: options.By = "dataset,target",
    where: options.Where = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose a model: what keeps to your limits, best first, and which limit each of the others breaks.

    Exit code 1 where nothing does.
    """
    from edgebench.report import leaderboard as verbs
    from edgebench.report.limits import choose

    given = {
        "max_p50": max_p50,
        "max_p90": max_p90,
        "max_p99": max_p99,
        "max_size": max_size,
        "max_memory": max_memory,
        "max_energy": max_energy,
        "min_metric": min_metric,
        "min_rate": min_rate,
    }
    limits = {name: text for name, text in given.items() if text is not None}
    read = verbs.read_limits(limits)
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
