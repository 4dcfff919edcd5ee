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
        rows = [(each.path, each.numbers, each.wrong, each.as_written) for each in checked]
        console.print_json(
            [{"record": str(path), "numbers": n, "wrong": list(w), "as_written": list(a)} for path, n, w, a in rows]
        )
    else:
        for found in wrong:
            for line in found.wrong:
                console.say(f"{found.path}: {line}" if str(found.path) not in line else line)
        total = sum(found.numbers for found in checked)
        console.say(
            f"{len(checked) - len(wrong)} of {len(checked)} records hold; {total} numbers were computed again from their samples"
        )
        if unconfirmed := sorted({name.removesuffix("_bytes") for found in checked for name in found.as_written}):
            console.say(f"as written by whoever measured, with nothing here to confirm it: {', '.join(unconfirmed)}")
    if wrong:
        raise typer.Exit(1)
