"""`edgebench quantize`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.cli import console, files, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.quantize.search import Result


@options.grouped
def command(
    source: Annotated[str, typer.Argument(help="Model folder, checkpoint, .pt2 program, architecture, or a .onnx as it is.")],
    device: options.DeviceGroup,
    network: options.SourceGroup,
    ranges: options.CalibrationGroup,
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    feed: files.FeedGroup,
    dataset: Annotated[str | None, typer.Option(help="For calibration, the search, and accuracy at the end.")] = None,
    samples_file: Annotated[
        Path | None, typer.Option("--calibration-file", help="A .onnx as it is: calibration samples (.npz, by input).")
    ] = None,
    format: Annotated[str, typer.Option(help="What to write; the search mixes precisions in onnx alone.")] = "onnx",
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
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="How long the last comparison runs.")] = "quick",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Export in INT8 and measure it beside float32 on the target; or search which nodes should stay in float."""
    from edgebench import api
    from edgebench.errors import GoalMissed
    from edgebench.run.options import MeasureOptions, QuantizeOptions

    missed: GoalMissed | None = None
    wanted = QuantizeOptions(search, by, max_degradation, minutes, samples, out, ranges.read(), samples_file)
    given: Any = network.read(source, device.trust)
    strange = [option for option in feed.given if option != "--scale"]
    if source.endswith(".onnx"):
        given = feed.read(Path(source), mean=given.mean, std=given.std, head=given.head)
    elif strange:
        raise InputError(f"{strange[0]}: belongs to a model file, and {source} is none")
    else:
        given = replace(given, scale=files.scale_of(feed.scale))
    with console.progress() as progress:
        try:
            result = api.quantize(
                given,
                format=format,
                dataset=network.dataset(dataset),
                target=device.read(),
                options=wanted,
                measure=MeasureOptions(mode, cores.scenario()),
                run=folders.options(device),
                progress=progress,
            )
        except GoalMissed as error:
            missed, result = error, error.result
    if json:
        console.print_json(_values(result))
    else:
        _print(result)
    if result.warning:
        console.complain(result.warning)
    if missed is not None:
        raise missed


def _values(result: Result) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "cached": result.cached,
        "size_bytes": result.bundle.size_bytes,
        "metric_drop": result.bundle.parity.metric_drop if result.bundle.parity else None,
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
    console.say(f"{result.folder}: {result.bundle.size_bytes / 2**20:.2f} MiB{before}; {_sentence(result)}")


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
        "metric": "" if row["metric"] is None else f"{100 * row['metric']:.2f} %",
        "MiB": f"{row['size_bytes'] / 2**20:.2f}",
        "size": f"{row['size_bytes'] / first['size_bytes']:.3f}",
    }


def _sentence(result: Result) -> str:
    """Say how the file does beside float32."""
    first, last = result.candidates[0], result.candidates[-1]
    smaller = first["size_bytes"] / last["size_bytes"]
    against = last["against"]
    share = 100 * (against["ratio"]["value"] - 1)
    words = {"same": "as fast as", "inconclusive": "perhaps as fast as"}
    speed = words.get(against["word"], f"{abs(share):.0f} % {against['word']} than")
    told = f"{last['name']} is {speed} {first['name']} on this target, {smaller:.1f} times smaller"
    if first["metric"] is None or last["metric"] is None:
        return f"{told}; no data set says what it loses"
    points = 100 * (first["metric"] - last["metric"])
    lost = f"loses {points:.1f} points" if points > 0 else "loses no accuracy"
    return f"{told}, and {lost} on the test split"
