"""`edgebench explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.explain._work import Explained, Result
    from edgebench.models.source import SourceOptions
    from edgebench.schema.explanation import Agreement


@options.grouped
def command(
    sources: Annotated[
        list[str], typer.Argument(help="Models and bundles; the first is what the others' maps are compared with.")
    ],
    device: options.DeviceGroup,
    network: options.SourceGroup,
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    dataset: Annotated[str | None, typer.Option(help="Whose images; as a bundle was exported with unless given.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="occlusion, lime, kernel-shap (any file); grad-cam, grad-cam++, integrated-gradients (models); repeatable."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Test images drawn at random; figures are of these.", min=0)] = 16,
    worst: Annotated[int, typer.Option(help="And so many that the first file is worst at.", min=0)] = 8,
    of_class: Annotated[
        str, typer.Option("--class", help="What maps are about: predicted (by the first file), true, or a class.")
    ] = "predicted",
    cells: Annotated[int, typer.Option(help="An image is divided into so many rows and columns.", min=2, max=64)] = 8,
    baseline: Annotated[Literal["mean", "black", "blur"], typer.Option(help="What covers a cell.")] = "mean",
    evaluations: Annotated[int | None, typer.Option(help="lime, kernel-shap: covered images an image; 500 unless given.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="grad-cam, grad-cam++: the layer; the last with a map of 4 × 4 unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples and of methods.", min=0)] = 0,
    min_correlation: Annotated[
        float | None, typer.Option(help="Fail where a file's maps correlate less with the first one's.", min=-1, max=1)
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write the pictures there too, as PNG.")] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Make maps again that were made before.")] = False,
    option: options.RuntimeOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every figure and sample.")] = False,
) -> None:
    """Show what models look at, also as deployed on a device, and whether INT8 still looks there."""
    from dataclasses import replace

    from edgebench import api
    from edgebench.errors import GoalMissed
    from edgebench.files import write_atomic
    from edgebench.run.options import ExplainOptions, MeasureOptions

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise InputError(f"--sheet {sheet}: is written as PNG; give a name that ends so")

    names = [each for text in method or ["occlusion"] for each in options.parts(text)]
    wanted = ExplainOptions(names, samples, worst, seed, of_class, cells, baseline, evaluations, layer, min_correlation)
    missed: GoalMissed | None = None
    with console.progress() as progress:
        try:
            result = api.explain(
                [_source(text, network, device.trust) for text in sources],
                dataset=network.dataset(dataset),
                target=device.read(),
                options=wanted,
                measure=MeasureOptions("quick", cores.scenario(), runtime=options.assigned(option, "compute_units=CPU_ONLY")),
                run=replace(folders.options(device), repeat=repeat),
                progress=progress,
            )
        except GoalMissed as error:
            missed, result = error, error.result
    if sheet is not None:
        write_atomic(sheet, result.sheet.read_bytes())
    if json:
        console.print_json(result.values())
    else:
        _print(result)
    if missed is not None:
        raise missed


def _source(text: str, network: options.SourceGroup, trust: bool) -> Path | SourceOptions:
    from edgebench.models.source import ENDINGS
    from edgebench.run.bring import is_runnable

    path = Path(text)
    return path if is_runnable(path) and path.suffix.lower() not in ENDINGS else network.read(text, trust)


def _print(result: Result) -> None:
    console.print_table("What files look at", [_row(each) for each in result.found])
    compared = [each for each in result.found if each.explanation.drift is not None]
    if compared:
        reference = compared[0].explanation.drift
        assert reference is not None
        console.print_table(f"Maps against those of {reference.reference}", [_drift(each) for each in compared])
    first = result.found[0].explanation
    count = sum(how == "random" for how in first.chosen) or len(first.chosen)
    console.say(f"Figures are of {count} samples of {first.dataset}; pictures: {result.sheet}")


def _row(each: Explained) -> dict[str, Any]:
    found = each.explanation
    return {
        "file": found.file.name,
        "on": found.file.target,
        "method": found.method,
        "deletion": f"{found.curves.deletion:.3f} (random {found.curves.random_deletion:.3f})",
        "insertion": f"{found.curves.insertion:.3f} (random {found.curves.random_insertion:.3f})",
        "infidelity": "" if found.infidelity is None else f"{found.infidelity:.3f}",
        "agrees with itself": _said(found.own),
        "s an image": f"{found.seconds_per_image:.3f}" + (" (as before)" if each.cached else ""),
    }


def _drift(each: Explained) -> dict[str, Any]:
    drift = each.explanation.drift
    assert drift is not None
    return {
        "file": each.explanation.file.name,
        "on": each.explanation.file.target,
        "method": each.explanation.method,
        "rank correlation, top tenth": _said(drift.found),
        "with itself": _said(drift.own),
        "another image's": _said(drift.other),
        "lost": f"{drift.lost} of {drift.found.samples}",
        "decide alike": f"{100 * drift.decided_alike:.0f} %",
    }


def _said(agreement: Agreement) -> str:
    """Write a correlation and an overlap."""
    values = (agreement.correlation, agreement.overlap)
    return ", ".join("none" if value is None else f"{value:.2f}" for value in values)
