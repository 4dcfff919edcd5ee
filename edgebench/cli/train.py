"""`edgebench train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console, options


def command(
    architecture: Annotated[
        str, typer.Argument(help="A torchvision classifier's name, cnn3d or resnet3d for volumes, or package.module:factory.")
    ],
    dataset: Annotated[
        str, typer.Option(help="digits, medmnist:NAME, image-folder:PATH, or dicom:PATH; options as ,key=value.")
    ] = "digits",
    recipe: Annotated[str, typer.Option(help="train, transfer, distill, prune or qat.")] = "train",
    teacher: Annotated[Path | None, typer.Option(help="Model folder of the teacher, for distill.")] = None,
    parent: Annotated[Path | None, typer.Option(help="Model folder to begin with; for transfer also a checkpoint file.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels, 1 or 3.", min=1, max=3)] = None,
    option: Annotated[list[str] | None, typer.Option(help="A recipe option, for instance epochs=30.")] = None,
    precision_train: Annotated[str | None, typer.Option(help="What is computed in training: bf16, 16 or 32.")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes that share each batch: one a GPU, or on the CPU.", min=1)] = None,
    strategy: Annotated[str | None, typer.Option(help="How devices share a training: ddp.")] = None,
    trust: options.Trust = False,
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train, transfer, distil or prune a model, or train it for INT8; writes a model folder with its lineage."""
    from edgebench import api, models
    from edgebench.models.source import SourceOptions
    from edgebench.recipes import is_first

    trainer = {"precision_train": precision_train, "devices": devices, "parallel": strategy}
    given = options.assigned(option, "epochs=30") | {key: value for key, value in trainer.items() if value is not None}
    with console.progress() as progress:
        folder = api.train(
            SourceOptions(architecture, name=name, size=size, channels=channels, trust=trust),
            dataset=dataset,
            recipe=recipe,
            teacher=teacher,
            parent=parent,
            options=given,
            work=work,
            progress=progress,
        )
    if not is_first():  # of the processes that torchrun started, one speaks
        return
    model = models.read_model(folder)
    if json:
        console.print_json({"folder": str(folder), "warnings": [], **model.model_dump(mode="json")})
    else:
        found = ", ".join(f"{key} {value:g}" for key, value in model.metrics.items())
        console.say(f"{folder}: {model.name}, {model.parameters / 1e6:.2f} M parameters, {found}")
        console.warn(model.warnings)
