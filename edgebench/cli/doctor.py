"""`edgebench doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgebench.cli import console


def command(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say which formats, runtimes, meters and targets work here, and each no with its remedy."""
    from edgebench.device import doctor

    found = {
        "formats": doctor.check_formats(),
        "runtimes": doctor.check_runtimes(),
        "meters": doctor.check_meters(),
        "targets": doctor.check_targets(),
        "files that may run code": doctor.check_trusted(),
    }
    if json:
        console.print_json(found)
        return
    for title, rows in found.items():
        console.print_table(title.capitalize(), rows)
