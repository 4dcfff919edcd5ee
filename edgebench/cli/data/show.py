"""`edgebench data show`, which is `edgebench data` of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    dataset: Annotated[
        str, typer.Argument(help="digits, medmnist:NAME, image-folder:PATH, or dicom:PATH; options as ,key=value.")
    ],
    sheet: Annotated[Path | None, typer.Option(help="Write pictures of each class and split as PNG.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a data set holds: counts, sizes, what was left out, duplicates."""
    from edgebench import api

    found = api.inspect_data(dataset, sheet=sheet)
    if json:
        console.print_json(found.as_json())
        return
    total = {name: sum(counts.values()) for name, counts in found.counts.items()}
    rows = [{"class": label, **{name: found.counts[name][label] for name in found.counts}} for label in found.classes]
    console.print_table(f"{found.dataset}: {found.task}", [*rows, {"class": "all", **total}], right=list(found.counts))
    shapes = {" × ".join(map(str, shape)) for shape in found.shapes.values()}
    console.say(f"networks get samples of {' and '.join(sorted(shapes))}")
    for name, seen in (("files", found.modes), ("sizes", found.sizes)):
        if seen:
            more = f", and {len(seen) - 8} others" if len(seen) > 8 else ""
            console.say(f"{name}: {', '.join(f'{count} of {what}' for what, count in list(seen.items())[:8])}{more}")
    if found.patients:
        console.say(f"patients: {', '.join(f'{name} {count}' for name, count in found.patients.items())}")
    if found.texts:
        console.say(f"texts beside images: {', '.join(f'{name} {count}' for name, count in found.texts.items())}")
    if found.passed:
        console.say(f"passed over: {found.passed} hidden files, or those of tools")
    for each in found.duplicates:
        where = f"within {each.first}" if each.first == each.second else f"of {each.second} in {each.first}"
        console.say(f"duplicates {where}: {each.exact} exact, {each.near} near; {' and '.join(each.examples[0])}")
    for warning in found.warnings:
        console.complain(warning)
    if sheet is not None:
        console.say(f"pictures: {sheet}")
