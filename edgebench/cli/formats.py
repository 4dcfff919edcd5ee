"""`edgebench formats`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgebench.cli import console


def command(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the formats and precisions, and whether they can be exported here."""
    from edgebench.device.doctor import check_formats

    rows = check_formats()
    if json:
        console.print_json(rows)
    else:
        console.print_table("Formats", rows)
