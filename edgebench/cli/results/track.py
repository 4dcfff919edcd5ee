"""`edgebench results track`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console, options, tracking


def command(
    results: options.ResultsFolder = Path("results"),
    to: options.Track = None,
    where: options.Where = None,
    work: Annotated[Path, typer.Option(help="In its logs/ a tracker keeps what it writes on this computer.")] = Path(
        ".edgebench"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Log records, the models that they are of, and the leaderboard to MLflow or Weights & Biases: what is not there yet.

    Exit code 1 where something was not tracked; the rest is.
    """
    from edgebench.errors import InputError
    from edgebench.track import addresses

    trackers = addresses(to or ())
    if not trackers:
        raise InputError("results track: give --to, for instance --to mlflow:http://127.0.0.1:5000")
    from edgebench.track._work import track

    with console.progress() as progress:
        found = track(results, to=trackers, where=options.filters(where), folder=work / options.LOGS, progress=progress)
    if json:
        console.print_json({"tracked": [each.values() for each in found]})
    else:
        tracking.say(found)
    tracking.complain(found, results)
    if any(each.missing for each in found):
        raise typer.Exit(1)
