"""`edgebench data requirements`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgebench.cli import console

MB = 1_000_000


def command(
    dataset: Annotated[str, typer.Argument(help="cifar10, chest-xray, rsna or medmnist:NAME; options as ,key=value.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a public data set requires: how to get it, its size, its samples by split and class as published."""
    from dataclasses import asdict

    from edgebench import api

    found = api.data_requirements(dataset)
    if json:
        console.print_json(asdict(found))
        return
    console.say(found.what)
    columns: dict[str, dict[str, int]] = {split: dict(counts) for split, counts in found.classes.items()}
    names = next(iter(columns.values()), {})
    rows: list[dict[str, Any]] = [{"class": name, **{split: _share(columns[split], name) for split in columns}} for name in names]
    if rows:
        console.print_table("Published, by class", rows, right=list(columns))
    console.say(f"samples: {', '.join(f'{split} {count}' for split, count in found.counts.items())}")
    for what, size in (("fetched", found.bytes), ("on the disk", found.unpacked_bytes)):
        console.say(f"{what}: {'not published' if size is None else f'{size / MB:,.0f} MB'}")
    console.say(f"checked: {found.check}")
    console.say(f"fetch it: {found.fetch}" if found.fetch else "nothing is fetched")


def _share(counts: dict[str, int], name: str) -> str:
    return f"{counts[name]} ({100 * counts[name] / sum(counts.values()):.1f} %)"
