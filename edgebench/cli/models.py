"""`edgebench models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.architectures import ARCHITECTURES, SCRATCH, VIDEO
from edgebench.cli import console


def command(
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the architectures that can be built, and the models made here."""
    from edgebench import models

    made = [
        {
            "folder": str(path.parent),
            "model": model.name,
            "role": model.role,
            "architecture": model.architecture,
            "data": "" if model.lineage.dataset is None else str(model.lineage.dataset),
            "parameters": model.parameters,
            "metrics": ", ".join(f"{key} {value:g}" for key, value in model.metrics.items()),
        }
        for path in sorted((work / "models").glob("*/model.json"))
        for model in [models.read_model(path.parent)]
    ]
    if json:
        console.print_json({"architectures": [*ARCHITECTURES, *SCRATCH, *VIDEO], "models": made})
        return
    console.say("Architectures: " + ", ".join((*ARCHITECTURES, *SCRATCH, *VIDEO, *models.OTHERS)))
    console.say()
    console.print_table(f"Models in {work}", made, right=("parameters",))
