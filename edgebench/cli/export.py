"""`edgebench export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError


def command(
    source: Annotated[str, typer.Argument(help="Model folder, checkpoint, .pt2 program, or architecture.")],
    format: Annotated[str, typer.Option(help="What `edgebench formats` lists.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8, … as the format has them.")] = "fp32",
    dataset: Annotated[str | None, typer.Option(help="For parity, and for int8 calibration.")] = None,
    target: Annotated[str, typer.Option(help="Whose limits to keep: a target's name or YAML file.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder that the bundle's folder is written into.")] = Path("bundles"),
    architecture: Annotated[str | None, typer.Option(help="The network that a checkpoint belongs to.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    classes: Annotated[int | None, typer.Option(help="Class count, where no data set says it.", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels, 1 or 3.", min=1, max=3)] = None,
    mean: Annotated[str | None, typer.Option(help="What it was trained with, for instance 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Likewise; the training split's own unless given.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Fetch torchvision's weights.")] = False,
    calibration_samples: options.CalibrationSamples = 256,
    calibration: options.Calibration = None,
    percentile: options.Percentile = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Let the file take any batch size.")] = False,
    threshold: options.Threshold = None,
    max_degradation: options.MaxDegradation = None,
    percent_max_degradation: options.PercentMaxDegradation = None,
    min_mapped: Annotated[float, typer.Option(help="Least share of operators on an Edge TPU.", min=0, max=1)] = 0.9,
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print the bundle's manifest.")] = False,
) -> None:
    """Export a model to a format; the file must agree with the torch model."""
    from edgebench import api

    with console.progress() as progress:
        result = api.export(
            source,
            format=format,
            precision=precision,
            dataset=dataset,
            target=target,
            out=out,
            architecture=architecture,
            name=name,
            classes=classes,
            size=size,
            channels=channels,
            mean=numbers("--mean", mean),
            std=numbers("--std", std),
            pretrained=pretrained,
            calibration=options.calibration(calibration_samples, calibration, percentile),
            dynamic_batch=dynamic_batch,
            goals={
                "threshold": threshold,
                "max_degradation": max_degradation,
                "percent_max_degradation": percent_max_degradation,
                "min_mapped": min_mapped,
            },
            trust=trust,
            progress=progress,
        )
    bundle, parity = result.bundle, result.bundle.parity
    if json:
        content = bundle.model_dump(mode="json", by_alias=True)
        console.print_json({"folder": str(result.folder), "cached": result.cached, **content})
        return
    by = f" in {parity.runtime}" if parity.runtime else ""
    drop = "" if parity.metric_drop is None else f", drop {100 * parity.metric_drop:.1f} points"
    print(
        f"{result.folder}: {bundle.size_bytes / 2**20:.2f} MiB{' (as before)' if result.cached else ''}; parity on "
        f"{parity.samples} {parity.source} samples{by}: top-1 agreement {100 * parity.top1_agreement:.1f} %, "
        f"max |Δ| {parity.max_abs:.2g}, cosine {parity.cosine:.5f}{drop}"
    )
    if bundle.details.get("weight_bits") == 7:
        from edgebench.analysis.processor import WEIGHTS

        console.complain(WEIGHTS)
    if bundle.model.lineage.recipe == "checkpoint" and mean is None:
        spec = bundle.preprocessing
        print(
            f"edgebench: normalised with mean {spec.mean} and std {spec.std}, taken from the data; "
            "if it was trained with others, give --mean and --std",
            file=sys.stderr,
        )


def numbers(option: str, text: str | None) -> list[float] | None:
    """Read 0.5,0.5,0.5; `InputError` names the option."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text}: not numbers with commas between") from error
