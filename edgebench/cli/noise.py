"""`edgebench noise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.schema import Noise


@options.grouped
def command(
    device: options.DeviceGroup,
    cores: options.CoreGroup,
    folders: options.FolderGroup,
    bundle: Annotated[
        Path | None, typer.Argument(help="The bundle or model file to compare with itself; any bundle unless given.")
    ] = None,
    mode: Annotated[Literal["quick", "standard", "strict"], typer.Option(help="For which mode.")] = "standard",
    comparisons: Annotated[int, typer.Option(help="How many A/A comparisons.", min=2)] = 20,
    dataset: Annotated[str | None, typer.Option(help="Evaluation data, for bundles exported without.")] = None,
    meter: options.Meter = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how much a target differs from itself; comparisons and the leaderboard count less as a tie."""
    from edgebench import api
    from edgebench.run.options import MeasureOptions

    with console.progress() as progress:
        path, found = api.noise(
            bundle,
            target=device.read(),
            comparisons=comparisons,
            dataset=dataset,
            measure=MeasureOptions(mode, cores.scenario(), options.meters(meter)),
            options=folders.options(device),
            progress=progress,
        )
    if json:
        console.print_json({"path": str(path), **found.model_dump(mode="json", by_alias=True)})
    else:
        _print(path, found)
    if len(found.ratios) < comparisons:  # interrupted, and the noise of what was finished is kept
        raise typer.Exit(130)


def _print(path: Path, found: Noise) -> None:
    count, floor = len(found.ratios), 100 * found.floor
    console.say(f"{found.target}, mode {found.mode}: 95 % of {count} A/A comparisons differ by {floor:.1f} % at most")
    if found.meter_cost is not None:
        cost, flag = found.meter_cost.value, " (above 2 %: energy is flagged)" if found.meter_cost.value > 0.02 else ""
        console.say(f"metering with {', '.join(found.meters)} lengthens an inference by {100 * cost:+.1f} %{flag}")
    console.say(f"{path}: written; `edgebench compare` and `edgebench leaderboard` use it")
