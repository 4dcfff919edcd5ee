"""`edgebench data synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    dataset: Annotated[str, typer.Argument(help="cifar10, chest-xray, rsna or medmnist:NAME; options as ,key=value.")],
    into: Annotated[Path, typer.Option(help="The folder that is written; synthetic data of the same names in it are replaced.")],
    full: Annotated[bool, typer.Option("--full", help="As many samples as the data set has, in place of tens.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write synthetic data in the exact form of a public data set (names, sizes, splits, labels), marked wherever shown."""
    from edgebench import api

    with console.progress():
        made = api.synthesize_data(dataset, into, full=full, seed=seed)
    if json:
        console.print_json({"dataset": str(made), **made.model_dump(mode="json")})
        return
    console.say(f"--dataset {made}")
