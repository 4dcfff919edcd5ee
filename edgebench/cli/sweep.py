"""`edgebench sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.run.outcome import CellOutcome
    from edgebench.search.sweep import Swept


@options.grouped
def command(
    profile: Annotated[str, typer.Argument(help="A profile's name or YAML file.")],
    over: Annotated[
        list[str],
        typer.Option(help="An option of its recipes and its values: learning_rate=1e-3,1e-2, or MODEL.OPTION=…; repeatable."),
    ],
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    jobs: Annotated[int, typer.Option(help="Train so many models at once; measuring is one after the other.", min=1)] = 1,
    target: Annotated[list[str] | None, typer.Option(help="Target name or YAML file; may be repeated.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Its address as ssh takes it, one for each --target.")] = None,
    only: Annotated[str | None, typer.Option(help="For instance format=onnx,precision=int8.")] = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long to measure.")] = "quick",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False,
    accept_new_host_key: options.AcceptNewHostKey = False,
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make and measure a profile's models with every combination of recipe options; again, only what is missing."""
    from edgebench import api
    from edgebench.run.options import MeasureOptions, RunOptions

    grid = values(over)
    with console.progress() as progress:
        swept = api.sweep(
            profile,
            grid,
            target=options.devices(target, host, None, trust),
            jobs=jobs,
            only=only,
            measure=MeasureOptions(mode, cores.scenario()),
            options=RunOptions(
                folders.results, folders.work, dry_run=dry_run, accept_new_host_key=accept_new_host_key, trust=trust
            ),
            progress=progress,
        )
    if json:
        console.print_json({"cells": [_values(cell, swept) for cell in swept.result.cells]})
    else:
        _print(swept, list(grid), folders.results)
    if swept.result.failed:
        raise typer.Exit(1)


def values(over: list[str]) -> dict[str, list[Any]]:
    """Read `--over learning_rate=1e-3,1e-2`: values as YAML reads them, and numbers as Python writes them."""
    found: dict[str, list[Any]] = {}
    for text in over:
        name, equals, rest = text.partition("=")
        if not equals or not name or not options.parts(rest):
            raise InputError(f"--over {text}: not OPTION=VALUES, for instance learning_rate=1e-3,1e-2")
        if name in found:
            raise InputError(f"--over {name}: is given twice; write its values with commas between")
        found[name] = [_value(name, part) for part in options.parts(rest)]
    return found


def _value(name: str, text: str) -> Any:
    value = options.assigned([f"{name}={text}"], "learning_rate=1e-3")[name]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _values(cell: CellOutcome, swept: Swept) -> dict[str, Any]:
    record = cell.record
    return {
        "options": dict(swept.options.get(cell.model, {})),
        **{name: getattr(cell, name) for name in ("target", "model", "format", "precision", "state", "reason", "seconds")},
        "record": None if record is None else record.model_dump(mode="json", by_alias=True),
    }


def _print(swept: Swept, names: list[str], results: Path) -> None:
    cells = swept.result.cells
    rows = [_row(cell, swept, names) for cell in cells]
    console.print_table("Sweep", rows, right=(*names, "metric %", "p50 ms", "MiB"))
    for cell in swept.result.failed:
        console.say(f"failed: {cell.model} {cell.format} {cell.precision} on {cell.target}: {cell.reason}")
    todo = sum(cell.state == "to do" for cell in cells)
    if todo:
        console.say(f"{todo} of {len(cells)} cells to do: {swept.result.ahead}")
        return
    done = len(cells) - len(swept.result.failed)
    console.say(f"{done} of {len(cells)} cells have a result; `edgebench leaderboard {shlex.quote(str(results))}` compares them")


def _row(cell: CellOutcome, swept: Swept, names: list[str]) -> dict[str, Any]:
    from edgebench.report.columns import mebibytes, milliseconds, percent

    record, given = cell.record, swept.options.get(cell.model, {})
    measured = record is not None and record.latency is not None
    accuracy = record.accuracy if record is not None else None
    return {
        "model": cell.model,
        **{name: given.get(name, "") for name in names},
        "target": cell.target,
        "file": f"{cell.format} {cell.precision}",
        "state": cell.state,
        "metric %": percent(accuracy.metrics.get(accuracy.headline)) if accuracy is not None else "",
        "p50 ms": milliseconds(record.latency.median_ns.value) if record is not None and record.latency is not None else "",
        "MiB": mebibytes(record.size_bytes) if measured and record is not None else "",
    }
