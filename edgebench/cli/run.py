"""`edgebench run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, files, options, tracking
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.run.forms import Form
    from edgebench.run.outcome import CellOutcome, ExplainOutcome, RunResult
    from edgebench.schema import Generation, Record
    from edgebench.track._work import Tracking


SHOWN = ("stage", "target", "model", "format", "precision", "state", "reason", "seconds")


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
    mode: Annotated[
        Literal["tiny", "quick", "standard", "strict", "sustained"] | None,
        typer.Option(help="How long to measure; quick unless given, and tiny with --tiny."),
    ] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Measure finished cells again.")] = False,
    only: Annotated[str | None, typer.Option(help="For instance model=resnet18,format=onnx, or stage=pathmnist.")] = None,
    synthetic: Annotated[
        bool,
        typer.Option("--synthetic", help="On synthetic data of the exact form of the profile's, made here and marked as such."),
    ] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="In minutes: one epoch, small inputs, few samples; to see that all of it runs.")
    ] = False,
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
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also log the records: mlflow:URI, wandb:PROJECT or wandb:ENTITY/PROJECT; repeatable."),
    ] = None,
    results: Annotated[Path, typer.Option(help="Where records are written.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a profile's cells, bundles or model files that have no result yet."""
    from edgebench import api
    from edgebench.run.forms import Form
    from edgebench.run.options import MeasureOptions, RunOptions
    from edgebench.track import addresses

    if tiny and mode not in (None, "tiny"):
        raise InputError(f"--tiny measures in the mode tiny, so that nobody mistakes it; leave out --mode {mode}")
    form = Form(synthetic, tiny)
    trackers = addresses(track or ())
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
                mode or ("tiny" if tiny else "quick"),
                changes,
                options.meters(meter),
                options.assigned(option, "compute_units=CPU_ONLY"),
                samples=samples,
                seed=samples_seed,
            ),
            options=RunOptions(results, work, repeat, dry_run, resume, reconnect, accept_new_host_key, trust),
            form=form,
            progress=progress,
        )
        to = () if dry_run else trackers
        tracked = api.track(results, to=to, only=result.records, folder=work / options.LOGS, progress=progress)
    if json:
        _print_json(result, form, tracked)
    elif dry_run:
        _print_plan(result, form)
    else:
        _print_outcome(result, results, form)
        tracking.say(tracked)
    tracking.complain(tracked, results)
    if result.failed or any(each.state == "failed" for each in result.explained):
        raise typer.Exit(1)


def _print_json(result: RunResult, form: Form, tracked: Sequence[Tracking]) -> None:
    console.print_json(
        {
            "seconds": result.seconds,
            "synthetic": form.synthetic,
            "tiny": form.tiny,
            "cells": [{name: getattr(cell, name) for name in SHOWN} for cell in result.cells],
            "explained": [
                {
                    **{name: getattr(each, name) for name in ("stage", "model", "method", "state", "reason")},
                    "sheet": None if each.sheet is None else str(each.sheet),
                    "explanation": None if each.explanation is None else each.explanation.model_dump(mode="json", by_alias=True),
                }
                for each in result.explained
            ],
            "records": [record.model_dump(mode="json", by_alias=True) for record in result.records],
            **({"tracked": [each.values() for each in tracked]} if tracked else {}),
        }
    )


def _title(what: str, form: Form) -> str:
    """Name a table, and the form whose figures it shows."""
    marks = [name for name in ("synthetic", "tiny") if getattr(form, name)]
    return f"{what} ({', '.join(marks)})" if marks else what


def _print_plan(result: RunResult, form: Form) -> None:
    several = any(cell.stage for cell in result.cells)
    rows = [{**_name(cell, several), "state": cell.state, "": cell.reason} for cell in result.cells]
    console.print_table(_title("Plan", form), rows)
    if result.explained:
        console.say(f"{len(result.explained)} explanations of models, those that are missing, after that")
    todo = sum(cell.state == "to do" for cell in result.cells)
    console.say(f"{todo} of {len(result.cells)} cells to do" + (f": {result.ahead}" if result.ahead else ""))


def _print_outcome(result: RunResult, results: Path, form: Form) -> None:
    rows, failed = [], []
    several = any(cell.stage for cell in result.cells)
    for cell in result.cells:
        rows.append({**_name(cell, several), "state": cell.state, **_numbers(cell.record)})
        failed += [_failure(cell, cell.record)] if cell.state == "failed" else []
    console.print_table(_title("Cells", form), rows, right=("metric %", "p50 ms", "per second", "size MiB"))
    if result.explained:
        console.print_table(_title("Explanations", form), [_looked(each, several) for each in result.explained])
        for sheet in dict.fromkeys(str(each.sheet) for each in result.explained if each.sheet is not None):
            console.say(f"pictures: {sheet}")
    if form:
        console.say(form.told)
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
    stage = f"{cell.stage} " if cell.stage else ""
    return f"failed: {stage}{cell.model} {cell.format} {cell.precision} on {cell.target}: {'; '.join(why)}"


def _tokens(found: Generation) -> str:
    rate = found.decode_per_second.median.value
    return f"{rate:.0f} tokens" if rate >= 1000 else f"{rate:.4g} tokens"


def _looked(each: ExplainOutcome, several: bool) -> dict[str, Any]:
    found = each.explanation
    return {
        **({"stage": each.stage} if several else {}),
        "model": each.model,
        "method": each.method,
        "state": each.state,
        "samples": "" if found is None else len(found.samples),
        "deletion (random)": "" if found is None else f"{found.curves.deletion:.3f} ({found.curves.random_deletion:.3f})",
        "": each.reason,
    }


def _name(cell: CellOutcome, several: bool) -> dict[str, Any]:
    stage = {"stage": cell.stage} if several else {}
    return {**stage, "target": cell.target, "model": cell.model, "format": cell.format, "precision": cell.precision}


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
