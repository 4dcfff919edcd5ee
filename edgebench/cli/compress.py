"""`edgebench compress`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options
from edgebench.cli.limits import LimitGroup
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.search.compress import Compressed
    from edgebench.search.outcome import Candidate


@options.grouped
def command(
    source: Annotated[str, typer.Argument(help="Model folder or checkpoint.")],
    dataset: Annotated[str, typer.Option(help="What it was trained on: digits, medmnist:NAME, or image-folder:PATH.")],
    limits: LimitGroup,
    device: options.DeviceGroup,
    network: options.SourceGroup,
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    budget: Annotated[str, typer.Option(help="Start nothing new after so long, continuations included: 90s, 20min, 2h.")] = "1h",
    sort: Annotated[
        str | None,
        typer.Option(help="What is best of what keeps to the limits: latency, metric, size, p99, memory or energy."),
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Architecture that may be distilled; repeatable; some small ones unless given.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Shares of channels that may be pruned: 0.3,0.5; none: nothing is pruned.")
    ] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="Only this format; repeatable; all that the target runs unless given.")
    ] = None,
    mixed_minutes: Annotated[
        float, typer.Option(help="For the search of one mixture of precisions; 0: no mixtures.", min=0)
    ] = 3.0,
    option: Annotated[
        list[str] | None, typer.Option(help="Of a recipe (train, distill, prune, qat): distill.epochs=30; repeatable.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Judge so many test samples, each class in its share; all unless given.", min=1)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; compressed/NAME.TARGET-KEY unless given.")] = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long a trial is measured.")] = "quick",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search what keeps to your limits on the target: students, pruning, distillation, quantization and formats.

    Every trial is measured there. The same command again goes on where it stopped. Exit code 1 where nothing keeps to the limits.
    """
    from edgebench import api
    from edgebench.report.limits import SPANS, amount
    from edgebench.run.options import CompressOptions, MeasureOptions

    wanted = CompressOptions(
        limits=limits.read(),
        sort=sort,
        budget_seconds=amount("--budget", budget, SPANS, "20min or 2h"),
        students=_students(student),
        ratios=_ratios(ratio),
        formats=format or (),
        mixed_minutes=mixed_minutes,
        recipes=recipes(option),
        out=out,
    )
    with console.progress() as progress:
        found = api.compress(
            network.read(source, device.trust),
            dataset=str(network.dataset(dataset)),
            target=device.read(),
            options=wanted,
            measure=MeasureOptions(mode, cores.scenario(), samples=samples),
            run=folders.options(device),
            progress=progress,
        )
    for note in found.notes:
        console.complain(note)
    if json:
        console.print_json(_values(found))
    else:
        _print(found)
    if found.found.best is None:
        console.complain("nothing keeps to these limits")
        raise typer.Exit(1)


def _students(given: list[str] | None) -> list[str] | None:
    """Read `--student`; `none` alone: nothing is distilled."""
    return [] if given == ["none"] else given


def _ratios(text: str | None) -> list[float] | None:
    if text == "none":
        return []
    found = options.real_numbers("--ratio", text)
    return None if found is None else list(found)


def recipes(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """Read `--option distill.epochs=30`."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in options.assigned(given, "distill.epochs=30").items():
        recipe, dot, option = name.partition(".")
        if not dot or not option:
            raise InputError(f"--option {name}: of which recipe? write it like distill.epochs=30")
        found.setdefault(recipe, {})[option] = value
    return found


def _values(found: Compressed) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "ended": found.complete,
        "spent_seconds": found.spent_seconds,
        "notes": list(found.notes),
        "verdict": found.verdict,
        **found.found.values(),
    }


def _print(found: Compressed) -> None:
    shown = found.found
    rows = [_row(each, each is shown.best) for each in shown.unbeaten]
    console.print_table(
        "Pareto set: beaten by nothing in metric, latency and size", rows, right=("metric %", "p50 ms", "p99 ms", "MiB")
    )
    for each in shown.candidates:
        if each is not shown.best and each not in shown.unbeaten:
            console.say(f"left out: trial {each.tried.number}, {each.tried.choice.told()}: {shown.why_not(each)}")
    if shown.best is not None:
        console.say(f"Best: {shown.best.name}, {shown.best.tried.choice.told()}; {shlex.quote(str(found.folder / 'best'))}")
    console.say(found.verdict)
    pages = "".join(f"; {page}" for page in found.pages)
    console.say(f"{found.folder}: {len(shown.candidates)} trials in {found.spent_seconds:.0f} s, {found.complete}{pages}")


def _row(candidate: Candidate, best: bool) -> dict[str, Any]:
    from edgebench.report.columns import mebibytes, milliseconds, percent

    entry = candidate.entry
    assert entry is not None
    return {
        "": "best" if best else "",
        "recipe": candidate.tried.choice.told(),
        "metric %": percent(entry.metric),
        "p50 ms": milliseconds(entry.median_ns),
        "p99 ms": milliseconds(entry.p99_ns),
        "MiB": mebibytes(entry.size_bytes),
        "limits": "kept" if candidate.keeps else "; ".join(candidate.broken),
        "verdict": entry.verdict,
    }
