"""`edgebench targets`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgebench.cli import console


def command(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the kinds of device, and what each runs."""
    from edgebench import discovery
    from edgebench.profile import read_target

    known = [read_target(name) for name in discovery.names("edgebench.targets", ".yaml")]
    if json:
        console.print_json([target.model_dump(mode="json") for target in known])
        return
    rows = [
        {
            "target": target.name,
            "description": target.description,
            "transport": target.transport,
            "runs": "; ".join(f"{a.format} {'/'.join(a.precisions)}" for a in target.accepts),
        }
        for target in known
    ]
    console.print_table("Targets", rows)
