"""`edgebench export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, files, options

if TYPE_CHECKING:
    from edgebench.schema import Bundle


@options.grouped
def command(
    source: Annotated[str, typer.Argument(help="Model folder, checkpoint, .pt2 program, or architecture.")],
    format: Annotated[str, typer.Option(help="What `edgebench formats` lists.")],
    network: options.SourceGroup,
    ranges: options.CalibrationGroup,
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8, … as the format has them.")] = "fp32",
    scale: files.Scale = files.SCALE,
    dataset: Annotated[str | None, typer.Option(help="For parity, and for int8 calibration.")] = None,
    target: Annotated[str, typer.Option(help="Whose limits to keep: a target's name or YAML file.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder that the bundle's folder is written into.")] = Path("bundles"),
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Let the file take any batch size.")] = False,
    samples: Annotated[
        int | None, typer.Option(help="Test samples for parity and goals, each class in its share; 256 unless given.", min=1)
    ] = None,
    threshold: options.Threshold = None,
    max_degradation: options.MaxDegradation = None,
    percent_max_degradation: options.PercentMaxDegradation = None,
    min_mapped: Annotated[float, typer.Option(help="Least share of operators on an accelerator.", min=0, max=1)] = 0.9,
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print the bundle's manifest.")] = False,
) -> None:
    """Export a model to a format; the file must agree with the torch model."""
    from edgebench import api
    from edgebench.run.options import ExportOptions

    goals = {
        "threshold": threshold,
        "max_degradation": max_degradation,
        "percent_max_degradation": percent_max_degradation,
        "min_mapped": min_mapped,
    }
    with console.progress() as progress:
        result = api.export(
            replace(network.read(source, trust), scale=files.scale_of(scale)),
            format=format,
            precision=precision,
            dataset=network.dataset(dataset),
            target=target,
            options=ExportOptions(out, ranges.read(), dynamic_batch, goals, samples),
            progress=progress,
        )
    bundle, parity = result.bundle, result.bundle.parity
    if json:
        content = bundle.model_dump(mode="json", by_alias=True)
        console.print_json({"folder": str(result.folder), "cached": result.cached, **content})
        return
    assert parity is not None
    by = f" in {parity.runtime}" if parity.runtime else ""
    agree = "" if parity.top1_agreement is None else f"top-1 agreement {100 * parity.top1_agreement:.1f} %, "
    drop = "" if parity.metric_drop is None else f", drop {100 * parity.metric_drop:.1f} points"
    console.say(
        f"{result.folder}: {bundle.size_bytes / 2**20:.2f} MiB{' (as before)' if result.cached else ''}; parity on "
        f"{parity.samples} {parity.source} samples{by}: {agree}"
        f"max |Δ| {parity.max_abs:.2g}, cosine {parity.cosine:.5f}{drop}{_metric(bundle)}"
    )
    console.warn(bundle.warnings)
    if bundle.details.get("weight_bits") == 7:
        from edgebench.analysis.processor import WEIGHTS

        console.complain(WEIGHTS)
    if bundle.model.lineage.recipe == "checkpoint" and network.mean is None and bundle.scored is not None:
        spec = bundle.model.preprocessing
        console.complain(
            f"normalised with mean {spec.mean} and std {spec.std}, {'taken from the data' if dataset else 'as for ImageNet'}; "
            "if it was trained with others, give --mean and --std"
        )


def _metric(bundle: Bundle) -> str:
    """Say how good the file is on the parity samples, beside what naming the commonest class gives."""
    from edgebench.analysis import metrics

    parity = bundle.parity
    if parity is None or parity.metric is None:
        return ""
    name = metrics.headline(bundle.model.task)
    beside = (
        "" if parity.commonest is None or name != "accuracy" else f" (the commonest class alone: {100 * parity.commonest:.1f} %)"
    )
    return f"; {name} {100 * parity.metric:.1f} %{beside}"
