"""`edgebench import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console, files, options


@options.grouped
def command(
    what: Annotated[
        list[str], typer.Argument(help="Model files: .onnx, .tflite, .pt2, TorchScript, engines, .mlpackage, .gguf.")
    ],
    device: options.DeviceGroup,
    file: files.FileGroup,
    out: Annotated[Path, typer.Option(help="Folder that the bundle's folder is written into.")] = Path("bundles"),
    dataset: Annotated[str | None, typer.Option(help="Evaluation data; without, no accuracy is measured.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the bundles' manifests.")] = False,
) -> None:
    """Make bundles of model files as they are, and try whether they load."""
    from edgebench import api
    from edgebench.bundle.import_file import told_apart
    from edgebench.bundle.kinds import expanded

    paths = [Path(text) for text in expanded(what)]
    data, made = file.dataset(dataset), []
    for given in told_apart([file.read(path, len(paths) > 1) for path in paths]):
        with console.progress() as progress:
            made.append(
                api.import_file(given, out=out, target=device.read(), dataset=data, trust=device.trust, progress=progress)
            )
    if json:
        content = [
            {"folder": str(each.folder), "cached": each.cached, **each.bundle.model_dump(mode="json", by_alias=True)}
            for each in made
        ]
        console.print_json(content if len(content) > 1 else content[0])
        return
    for each in made:
        bundle = each.bundle
        taken = ", ".join(f"{one.name} {list(one.shape)} {one.dtype}" for one in bundle.inputs)
        given_back = ", ".join(f"{one.name} {list(one.shape)}" for one in bundle.outputs)
        console.say(
            f"{each.folder}: {bundle.format} {bundle.precision}, {bundle.size_bytes / 2**20:.2f} MiB, "
            f"{bundle.model.parameters} parameters{' (as before)' if each.cached else ''}; {taken} → {given_back}"
        )
