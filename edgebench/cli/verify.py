"""`edgebench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    results: Annotated[Path, typer.Argument(help="The folder that holds records/, or one record or explanation.")] = Path(
        "results"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute every number of every record again from its raw samples, and of every explanation from its maps."""
    from edgebench import api

    with console.progress() as progress:
        checked = api.verify(results, progress=progress)
    wrong = [found for found in checked if found.wrong]
    if json:
        console.print_json(
            [
                {each.kind: str(each.path), "numbers": each.numbers, "wrong": [*each.wrong], "as_written": [*each.as_written]}
                for each in checked
            ]
        )
    else:
        for found in wrong:
            for line in found.wrong:
                console.say(f"{found.path}: {line}" if str(found.path) not in line else line)
        for kind, source in (("record", "samples"), ("explanation", "maps")):
            mine = [found for found in checked if found.kind == kind]
            if mine or (kind == "record" and not checked):
                hold, total = sum(not found.wrong for found in mine), sum(found.numbers for found in mine)
                console.say(f"{hold} of {len(mine)} {kind}s hold; {total} numbers were computed again from their {source}")
        if unconfirmed := sorted({name.removesuffix("_bytes") for found in checked for name in found.as_written}):
            console.say(f"as written by whoever measured, with nothing here to confirm it: {', '.join(unconfirmed)}")
    if wrong:
        raise typer.Exit(1)
