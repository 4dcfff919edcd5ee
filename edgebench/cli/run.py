"""`edgebench run`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, files, options

if TYPE_CHECKING:
    from edgebench.run.outcome import CellOutcome, RunResult
    from edgebench.schema import Generation, Record


SHOWN = ("target", "model", "format", "precision", "state", "reason", "seconds")


@options.grouped
def command(
    what: Annotated[
        list[str] | None, typer.Argument(help="A profile (digits unless given), bundle folders, or model files as they are.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Target name or YAML file; may be repeated.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Its address as ssh takes it, one for each --target.")] = None,
    fleet: Annotated[Path | None, typer.Option(help="YAML file with many devices, measured side by side.")] = None,
    accept_new_host_key: options.AcceptNewHostKey = False,
    trust: options.Trust = False,
    resume: Annotated[bool, typer.Option("--resume", help="Take up what a device went on measuring when it was lost.")] = False,
    reconnect: Annotated[float, typer.Option(help="Seconds to look for a device that was lost.", min=0)] = 60.0,
    mode: Annotated[Literal["quick", "standard", "strict", "sustained"], typer.Option(help="How long to measure.")] = "quick",
    repeat: Annotated[bool, typer.Option("--repeat", help="Measure finished cells again.")] = False,
    only: Annotated[str | None, typer.Option(help="For instance model=resnet18,format=onnx.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Evaluation data, for bundles exported without.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Judge so many test samples, each class in its share; all unless given.", min=1)
    ] = None,
    samples_seed: Annotated[int, typer.Option(help="Which ones.", min=0)] = 0,
    scenario: options.ScenarioGroup = options.ScenarioGroup(),
    file: files.FileGroup = files.FileGroup(),
    meter: options.Meter = None,
    option: options.RuntimeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False,
    results: Annotated[Path, typer.Option(help="Where records are written.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a profile's cells, bundles or model files that have no result yet."""
    from edgebench import api
    from edgebench.run.options import MeasureOptions, RunOptions

    changes = scenario.scenario()
    profile, sources = files.sources(what or ["digits"], file)
    with console.progress() as progress:
        result = api.run(
            profile,
            bundle=sources,
            target=options.devices(target, host, fleet, trust),
            only=only,
            dataset=file.dataset(dataset),
            measure=MeasureOptions(
                mode,
                changes,
                options.meters(meter),
                options.assigned(option, "compute_units=CPU_ONLY"),
                samples=samples,
                seed=samples_seed,
            ),
            options=RunOptions(results, work, repeat, dry_run, resume, reconnect, accept_new_host_key, trust),
            progress=progress,
        )
    if json:
        _print_json(result)
    elif dry_run:
        _print_plan(result)
    else:
        _print_outcome(result, results)
    if result.failed:
        raise typer.Exit(1)


def _print_json(result: RunResult) -> None:
    console.print_json(
        {
            "seconds": result.seconds,
            "cells": [{name: getattr(cell, name) for name in SHOWN} for cell in result.cells],
            "records": [record.model_dump(mode="json", by_alias=True) for record in result.records],
        }
    )


def _print_plan(result: RunResult) -> None:
    rows = [{**_name(cell), "state": cell.state, "": cell.reason} for cell in result.cells]
    console.print_table("Plan", rows)
    todo = sum(cell.state == "to do" for cell in result.cells)
    console.say(f"{todo} of {len(result.cells)} cells to do" + (f": {result.ahead}" if result.ahead else ""))


def _print_outcome(result: RunResult, results: Path) -> None:
    rows, failed = [], []
    for cell in result.cells:
        rows.append({**_name(cell), "state": cell.state, **_numbers(cell.record)})
        failed += [_failure(cell, cell.record)] if cell.state == "failed" else []
    console.print_table("Cells", rows, right=("metric %", "p50 ms", "per second", "size MiB"))
    for line in filter(None, (*_commonest(result), _advice(result), *failed)):
        console.say(line)
    _warn(result)
    where = shlex.quote(str(results))
    generates = [record.generation is not None for record in result.records if record.status == "done"]
    table = "edgebench leaderboard" + (" --task generation" if generates and all(generates) else "")
    console.say(f"{len(rows) - len(failed)} of {len(rows)} cells have a result; `{table} {where}` compares them")
    if failed:
        names = f"`edgebench results list {where} --where verdict=failed` names their records"
        console.say(f"{len(failed)} failed; {names}, and the same command tries them again")


def _commonest(result: RunResult) -> list[str]:
    """Say beside accuracies what naming the commonest class gives, once for each data set."""
    judged = [(record.cell.dataset, record.accuracy) for record in result.records if record.accuracy is not None]
    found = {
        f"{data}: always naming the commonest class has accuracy {100 * accuracy.commonest:.1f} % of {accuracy.samples} samples"
        for data, accuracy in judged
        if accuracy.commonest is not None
    }
    return sorted(found)


def _warn(result: RunResult) -> None:
    """Print each warning once, with the cells that it is of where those are not all."""
    cells: dict[str, list[str]] = {}
    judged = [record for record in result.records if record.status == "done"]
    for record in judged:
        for each in record.warnings:
            cells.setdefault(each.text, []).append(f"{record.cell.model} {record.cell.format} {record.cell.precision}")
    for text, names in cells.items():
        whose = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: "
        console.complain(f"{'' if len(names) == len(judged) > 1 else whose}{text}")


def _advice(result: RunResult) -> str:
    """Say what UNSTABLE means where more than half of the cells are."""
    from edgebench.report.advice import unstable

    judged = [(record.cell.mode, record.verdict) for record in result.records if record.verdict is not None]
    verdicts = [(verdict.word, [reason.model_dump() for reason in verdict.reasons]) for _, verdict in judged]
    return unstable(verdicts, judged[0][0]) if judged else ""


def _failure(cell: CellOutcome, record: Record | None) -> str:
    """Say which cell failed, why, and what to do."""
    from edgebench.report import record_card

    why = record_card.reasons(record) if record is not None and record.failure is not None else [cell.reason]
    return f"failed: {cell.model} {cell.format} {cell.precision} on {cell.target}: {'; '.join(why)}"


def _tokens(found: Generation) -> str:
    rate = found.decode_per_second.median.value
    return f"{rate:.0f} tokens" if rate >= 1000 else f"{rate:.4g} tokens"


def _name(cell: CellOutcome) -> dict[str, Any]:
    return {"target": cell.target, "model": cell.model, "format": cell.format, "precision": cell.precision}


def _numbers(record: Record | None) -> dict[str, Any]:
    from edgebench.report.columns import mebibytes, milliseconds, percent

    if record is None or record.latency is None or record.verdict is None:
        return {"metric %": "", "p50 ms": "", "per second": "", "size MiB": "", "verdict": ""}
    accuracy = record.accuracy
    return {
        "metric %": "" if accuracy is None else percent(accuracy.metrics.get(accuracy.headline)),
        "p50 ms": milliseconds(record.latency.median_ns.value),
        "per second": f"{record.per_second:.4g}" if record.generation is None else _tokens(record.generation),
        "size MiB": mebibytes(record.size_bytes),
        "verdict": record.verdict.word,
    }
