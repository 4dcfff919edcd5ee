"""`edgebench quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, options
from edgebench.cli.export import numbers

if TYPE_CHECKING:
    from edgebench.quantize.search import Result


def command(
    source: Annotated[str, typer.Argument(help="Model folder, checkpoint, .pt2 program, or architecture.")],
    dataset: Annotated[str, typer.Option(help="For calibration, the search, and accuracy at the end.")],
    format: Annotated[str, typer.Option(help="What to write; the search mixes precisions in onnx alone.")] = "onnx",
    target: Annotated[str, typer.Option(help="Where it must be fast: a target's name or YAML file.")] = "cpu",
    host: options.Host = None,
    accept_new_host_key: options.AcceptNewHostKey = False,
    trust: options.Trust = False,
    search: Annotated[
        bool, typer.Option("--search", help="Find which nodes should stay in floating point, measuring on the target.")
    ] = False,
    by: Annotated[Literal["block", "node"], typer.Option(help="search: what changes precision together.")] = "block",
    max_degradation: Annotated[
        float | None,
        typer.Option(help="Most that the metric may lose against float32; 0.005 (half a point) in a search.", min=0, max=1),
    ] = None,
    minutes: Annotated[float, typer.Option(help="search: start nothing new after so long.", min=0)] = 10.0,
    samples: Annotated[int, typer.Option(help="search: held-out images that accuracy is judged on.", min=1)] = 256,
    out: Annotated[Path, typer.Option(help="Folder that the bundle's folder is written into.")] = Path("bundles"),
    architecture: Annotated[str | None, typer.Option(help="The network that a checkpoint belongs to.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels, 1 or 3.", min=1, max=3)] = None,
    mean: Annotated[str | None, typer.Option(help="What it was trained with, for instance 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Likewise; the training split's own unless given.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Fetch torchvision's weights.")] = False,
    calibration_samples: options.CalibrationSamples = 256,
    calibration: options.Calibration = None,
    percentile: options.Percentile = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long the last comparison runs.")] = "quick",
    threads: options.Threads = None,
    affinity: options.Affinity = None,
    results: Annotated[Path, typer.Option(help="Where the target's noise is known.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Export in INT8 and measure it beside float32 on the target; or search which nodes should stay in float."""
    from edgebench import api
    from edgebench.bundle.goals import check_goals
    from edgebench.config import read_target
    from edgebench.schema import Goals

    with console.progress() as progress:
        result = api.quantize(
            source,
            format=format,
            dataset=dataset,
            target=read_target(target, host),
            search=search,
            by=by,
            max_degradation=max_degradation,
            minutes=minutes,
            samples=samples,
            out=out,
            architecture=architecture,
            name=name,
            size=size,
            channels=channels,
            mean=numbers("--mean", mean),
            std=numbers("--std", std),
            pretrained=pretrained,
            calibration=options.calibration(calibration_samples, calibration, percentile),
            mode=mode,
            scenario=options.scenario(threads=threads, affinity=affinity),
            accept_new_host_key=accept_new_host_key,
            trust=trust,
            results=results,
            work=work,
            progress=progress,
        )
    if json:
        console.print_json(_values(result))
    else:
        _print(result)
    if result.warning:
        console.complain(result.warning)
    check_goals(result.bundle, Goals(max_degradation=0.005 if search and max_degradation is None else max_degradation))


def _values(result: Result) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "cached": result.cached,
        "size_bytes": result.bundle.size_bytes,
        "metric_drop": result.bundle.parity.metric_drop,
        "compared": list(result.candidates),
        "recipe": result.bundle.details.get("recipe"),
        "warning": result.warning,
    }


def _print(result: Result) -> None:
    recipe = result.bundle.details.get("recipe")
    if recipe:
        console.print_table("Blocks, each tried alone in INT8", [_block(row) for row in recipe["blocks"]])
    console.print_table(
        "On the target, in turn; accuracy on the test split", [_candidate(row, result) for row in result.candidates]
    )
    before = " (as before)" if result.cached else ""
    print(f"{result.folder}: {result.bundle.size_bytes / 2**20:.2f} MiB{before}; {_sentence(result)}")


def _block(row: dict[str, Any]) -> dict[str, Any]:
    tried = row["ratio"] is not None
    return {
        "block": row["name"],
        "operators": ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in row["operators"].items()),
        "Δ metric": f"{0.0 - 100 * row['drop']:+.1f} points" if tried else "",
        "Δ scores": f"{100 * row['divergence']:.1f} %" if tried else "",
        "Δ latency": f"{row['latency_change_ns'] / 1e3:+.0f} µs ({100 * (row['ratio'] - 1):+.1f} %)" if tried else "",
        "computes in": {"int8": "INT8", "int8-weights": "FP32, INT8 weights", "fp32": "FP32"}[row["choice"]],
        "why": row["why"],
    }


def _candidate(row: Any, result: Result) -> dict[str, Any]:
    against, first = row["against"], result.candidates[0]
    ratio = None if against is None else against["ratio"]
    return {
        "precision": row["name"],
        "p50 ms": f"{row['median_ns'] / 1e6:.3f}",
        "latency": "" if ratio is None else f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]",
        "is": "" if against is None else against["word"],
        "metric": f"{100 * row['metric']:.2f} %",
        "MiB": f"{row['size_bytes'] / 2**20:.2f}",
        "size": f"{row['size_bytes'] / first['size_bytes']:.3f}",
    }


def _sentence(result: Result) -> str:
    """Say how the file does beside float32."""
    first, last = result.candidates[0], result.candidates[-1]
    smaller = first["size_bytes"] / last["size_bytes"]
    against = last["against"]
    share = 100 * (against["ratio"]["value"] - 1)
    speed = "as fast as" if against["word"] == "same" else f"{abs(share):.0f} % {against['word']} than"
    points = 100 * (first["metric"] - last["metric"])
    lost = f"loses {points:.1f} points" if points > 0 else "loses no accuracy"
    return f"{last['name']} is {speed} {first['name']} on this target, {smaller:.1f} times smaller, and {lost} on the test split"
