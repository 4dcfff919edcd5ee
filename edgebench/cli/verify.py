"""`edgebench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    results: Annotated[Path, typer.Argument(help="The folder that holds records/, or one record.")] = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute every number of every record again from its raw samples."""
    from edgebench import api

    with console.progress() as progress:
        checked = api.verify(results, progress=progress)
    wrong = [found for found in checked if found.wrong]
    if json:
        console.print_json([{"record": str(c.path), "numbers": c.numbers, "wrong": list(c.wrong)} for c in checked])
    else:
        for found in wrong:
            for line in found.wrong:
                print(console.plain(f"{found.path}: {line}" if str(found.path) not in line else line))
        total = sum(found.numbers for found in checked)
        print(
            f"{len(checked) - len(wrong)} of {len(checked)} records hold; {total} numbers were computed again from their samples"
        )
    if wrong:
        raise typer.Exit(1)
