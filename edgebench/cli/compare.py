"""`edgebench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.run.compare import Compared, Suite
    from edgebench.schema import Comparison


@options.grouped
def command(
    first: Annotated[Path, typer.Argument(help="A bundle, a model file, a record, or a results folder.")],
    second: Annotated[Path, typer.Argument(help="Another of the same kind; it is compared with the first.")],
    device: options.DeviceGroup,
    scenario: options.PaceGroup,
    folders: options.FolderGroup,
    more: Annotated[list[Path] | None, typer.Argument(help="More bundles or model files, each compared with the first.")] = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long bundles run.")] = "standard",
    pairs: Annotated[int | None, typer.Option(help="Pairs of fresh processes; as the mode has unless given.", min=2)] = None,
    fail_if_slower: Annotated[str | None, typer.Option(help="Exit with 1 where the second is slower by more, as 5%.")] = None,
    inconclusive: Annotated[
        Literal["pass", "fail"], typer.Option(help="--fail-if-slower: what becomes of those that may be, and cannot be told.")
    ] = "pass",
    dataset: Annotated[str | None, typer.Option(help="Evaluation data, for bundles exported without.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare bundles or model files with the first of them by running all in turn, or two sets of records.

    Exit code 1 where --fail-if-slower is missed; with --inconclusive fail also where that cannot be told.
    """
    from edgebench import api
    from edgebench.run.options import MeasureOptions

    limit = None if fail_if_slower is None else options.share("--fail-if-slower", fail_if_slower)
    measure = MeasureOptions(mode, scenario.scenario(), pairs=pairs)
    with console.progress() as progress:
        suite = api.compare(
            first,
            second,
            *(more or ()),
            target=device.read(),
            dataset=dataset,
            measure=measure,
            options=folders.options(device),
            progress=progress,
        )
    slower = suite.slower(limit) if limit is not None else []
    undecided = suite.undecided(limit) if limit is not None and inconclusive == "fail" else []
    if json:
        values = [pair.values() for pair in suite.pairs]
        failed = {"failed": len(slower) + len(undecided), "undecided": len(undecided)}
        console.print_json({"pairs": values, "geometric_mean": suite.geometric_mean, "alone": suite.alone, **failed})
    else:
        _print(suite, markdown)
    if slower:
        console.complain(f"{len(slower)} of {len(suite.pairs)} are slower by more than {fail_if_slower}, beyond noise")
    if undecided:
        console.complain(f"{len(undecided)} of {len(suite.pairs)} may be slower by more than {fail_if_slower}: inconclusive")
    if slower or undecided:
        raise typer.Exit(1)


def _print(suite: Suite, markdown: bool) -> None:
    rows = [_row(pair) for pair in suite.pairs]
    (console.print_markdown if markdown else console.print_table)("Second against first", rows)
    if len(rows) > 1:
        console.say()
        console.say(f"Geometric mean of {len(rows)} ratios: {suite.geometric_mean:.3f}")
    for name in suite.alone:
        console.say(f"only on one side: {name}")
    for pair in suite.pairs:
        for line in _explained(pair):
            console.say(line)


def _row(pair: Compared) -> dict[str, Any]:
    from edgebench.report.columns import milliseconds

    ratio = pair.latency.ratio
    return {
        "first": pair.first.name,
        "p50 ms": milliseconds(pair.first.latency.median_ns.value),
        "second": pair.second.name,
        "p50 ms ": milliseconds(pair.second.latency.median_ns.value),
        "ratio": f"{ratio.value:.3f} [{ratio.low or 0:.3f}, {ratio.high or 0:.3f}]",
        "the second is": pair.latency.word,
        "accuracy": _accuracy(pair),
        "verdicts": f"{pair.first.verdict.word}, {pair.second.verdict.word}",
    }


def _accuracy(pair: Compared) -> str:
    found = pair.accuracy
    if found is None:
        return ""
    low, high = found.difference.low or 0.0, found.difference.high or 0.0
    return f"{100 * found.difference.value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], McNemar p {found.mcnemar_p:.2g}"


def _explained(pair: Compared) -> list[str]:
    """Say what the verdict rests on."""
    latency = pair.latency
    noise = "not measured; `edgebench noise` does" if latency.floor is None else f"{100 * latency.floor:.1f} %"
    lines = [
        f"{pair.second.name}: {_how(latency)}; shifts under {100 * latency.threshold:.1f} % count as none; "
        f"the target's noise: {noise}"
    ]
    if latency.detectable is not None:
        lines.append(
            f"{pair.second.name}: a shift of {100 * latency.detectable:.1f} % would have been found, in nine of ten cases"
        )
    if latency.advice:
        lines.append(f"{pair.second.name}: inconclusive: {latency.advice}")
    for side in (pair.first, pair.second):
        lines += [f"{side.verdict.word} {side.name}: {r.reason}; {r.recommendation}" for r in side.verdict.reasons]
    return lines


def _how(latency: Comparison) -> str:
    """Say what alternated."""
    if latency.by == "record":
        return "records of their own time"
    if latency.by == "window":
        return f"windows in turn, {latency.pairs} pairs of processes"
    return "trials in turn" + (f" and not windows ({latency.why_by_trial})" if latency.why_by_trial else "")
