"""`edgebench trust`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgebench.cli import console


def command(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="Profiles, targets, fleets, model folders.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Take the files from the list.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let files run the code that they name, as long as they stay as they are; without a file, list those that may.

    A target or fleet can name plugins, an interpreter, programs and packages, a profile or a model folder a network's factory.
    Look at them first: they run with your rights, here or on the device.
    """
    from edgebench import api
    from edgebench.errors import InputError
    from edgebench.trust import allowed
    from edgebench.trust import forget as forget_

    rows: list[dict[str, Any]] = []
    for given in files or ():
        if forget:
            path = given / "model.json" if given.is_dir() else given
            if not forget_(path):
                raise InputError(f"{given}: is not on the list; `edgebench trust` shows it")
            rows.append({"file": str(given), "names": [], "trusted": False})
            continue
        for path, names in api.trust_file(given).items() or [(given, ())]:
            rows.append({"file": str(path), "names": list(names), "trusted": bool(names)})
    if not files:
        rows = [{"file": path, "sha256": digest} for digest, path in allowed().items()]
    if json:
        console.print_json(rows)
    elif not files:
        console.print_table("Files that may run code", rows)
    else:
        for row in rows:
            state = "may run" if row["trusted"] else "may run nothing any more" if forget else "names no code"
            console.say(f"{row['file']}: {state}{': ' * bool(row['names'])}{'; '.join(row['names'])}")
