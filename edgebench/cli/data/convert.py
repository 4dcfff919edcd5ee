"""`edgebench data convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    dataset: Annotated[str, typer.Argument(help="dicom:PATH, medmnist:NAME, …; options as ,key=value.")],
    into: Annotated[Path, typer.Option(help="The folder that is written; one that was written so is replaced.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a data set as PNG files, a folder per split and class, which `image-folder` reads back to the same pixels.

    Names of files are numbers, and so are patients in manifest.csv: nothing of who they are is written.
    """
    from edgebench import api

    with console.progress():
        made = api.convert_data(dataset, into)
    if json:
        console.print_json(made.as_json())
        return
    of = {name: f" of {made.patients[name]} patients" for name in made.patients}
    console.say(
        f"{made.folder}: {', '.join(f'{name} {count} images{of.get(name, str())}' for name, count in made.counts.items())}"
    )
    for old, new in made.renamed.items():
        console.complain(f"the class {old!r} is the folder {new!r}")
