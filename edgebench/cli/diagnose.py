"""`edgebench diagnose`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.diagnose.diagnose import Diagnosis

OPERATORS = 12
"""So many rows of operators are printed; `--json` has all."""
PLACES = 4
WORDS = {
    "integer": "integer kernels",
    "float": "floating point",
    "convert": "conversions (Q/DQ)",
    "layout": "rearranging",
    "cast": "casts",
}


@options.grouped
def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder; nothing is written into it.")],
    device: options.DeviceGroup,
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    against: Annotated[
        Path | None, typer.Option(help="The same model in fp32; found by itself where it lies beside the bundle.")
    ] = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long it runs without profiling.")] = "quick",
    dataset: Annotated[str | None, typer.Option(help="Input data, for a bundle exported without.")] = None,
    option: options.RuntimeOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every node, operator and finding.")] = False,
) -> None:
    """Say where a bundle's operators run, where the time goes, and why it is slow."""
    from edgebench import api
    from edgebench.run.options import MeasureOptions

    runtime = options.assigned(option, "compute_units=CPU_ONLY")
    with console.progress() as progress:
        found = api.diagnose(
            bundle,
            target=device.read(),
            against=against,
            dataset=dataset,
            measure=MeasureOptions(mode, cores.scenario(), runtime=runtime),
            options=folders.options(device),
            progress=progress,
        )
    if json:
        console.print_json(found.values())
    else:
        _print(found)


def _print(found: Diagnosis) -> None:
    console.say(found.headline)
    console.say()
    _tables(found)
    for sentence in filter(None, (found.fused, found.mapped)):
        console.say(f"{sentence}.")
    for line in _findings(found):
        console.say(line)
    console.say()
    console.say(f"Runtime: {found.runtime}. Times: {found.method}.")
    if found.graph.timed:
        added = (
            f"; {found.overhead_ns / 1e3:.1f} µs were taken off each kernel, which profiling adds" if found.overhead_ns else ""
        )
        console.say(f"Profiling slows what it times, so read the shares{added}.")
    console.say(f"The file is as it was, for instance for Netron: {found.path}")


def _tables(found: Diagnosis) -> None:
    places = [{"where": row["where"], "operators": row["count"], "time": _share(row["share"])} for row in found.placement]
    console.print_table("Where operators run", places, right=("operators", "time"))
    if not found.graph.nodes:
        return
    kinds = [{"kind": WORDS[name], "kernels": row["count"], "time": _share(row["share"])} for name, row in found.kinds.items()]
    console.print_table("What they do", kinds, right=("kernels", "time"))
    rows = [
        {"operator": row["op"], "where": row["where"], "kernels": row["count"], "time": _share(row["share"])}
        for row in found.operators[:OPERATORS]
    ]
    console.print_table("By operator", rows, right=("kernels", "time"))
    costly = [
        {"operator": n["op"], "module": n["place"], "kernel": n["kind"], "time": _share(n["share"])} for n in found.costliest
    ]
    if costly:
        console.print_table("The five costliest", costly, right=("time",))


def _findings(found: Diagnosis) -> Iterator[str]:
    """Write down each finding: what, how much, why, and what to do."""
    if not found.findings:
        yield from ("", "Nothing that stands out.")
    for number, finding in enumerate(found.findings, 1):
        share = f", {_share(finding.share)} of the time" if finding.share is not None else ""
        yield from ("", f"{number}. {finding.what}{share}")
        yield f"   Why: {finding.why}."
        if finding.places:
            more = f" and {len(finding.places) - PLACES} more" if len(finding.places) > PLACES else ""
            yield f"   In: {', '.join(finding.places[:PLACES])}{more}."
        yield f"   What to do: {finding.remedy}."


def _share(value: Any) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
