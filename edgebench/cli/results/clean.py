"""`edgebench results clean`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.store.cleanup import Cleaned


def command(
    results: options.ResultsFolder = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is named; without it nothing is.")] = False,
    keep: Annotated[int, typer.Option(help="So many of the newest records of a combination stay.", min=1)] = 1,
    older_than: Annotated[str | None, typer.Option(help="Only records that were measured longer ago, for instance 90d.")] = None,
    where: options.Where = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what no table shows any more; says what goes, and removes it with --yes.

    That is: records of which there is a newer one (of the same model, format, precision, target, device, mode, scenario,
    data set and options), failures older than a result of their cell, what `edgebench explain` found of files whose records
    go, samples and maps that nothing names, and files of killed writers. Records that a kept one was compared with or made
    from stay, and so do damaged ones.
    """
    from edgebench.report import leaderboard as verbs

    with console.progress() as progress:
        found = verbs.clean(results, yes=yes, keep=keep, older_than=older_than, where=options.filters(where), progress=progress)
    if json:
        console.print_json({**found.values(), "removed": yes})
    else:
        _print_cleaned(found, yes)


def _print_cleaned(found: Cleaned, yes: bool) -> None:
    for each in found.damaged:
        console.complain(f"stays: {each.reason}")
    for going in found.going:
        console.say(f"{'removed' if yes else 'goes'}: {going.path} ({NAMES[going.why]}, {_size(going.bytes)})")
    if found.referred:
        console.say(f"superseded records that stay, because others were compared with them or made from them: {found.referred}")
    counts = Counter(NAMES[going.why] for going in found.going)
    total = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
    done = "removed" if yes else "to remove"
    console.say(f"{total} {done}" + (f", {_size(found.bytes)}" if found.going else ""))
    if found.going and not yes:
        console.say("Nothing was removed; the same command with --yes does it.")


NAMES = {
    "superseded": "superseded",
    "failure": "failure with a later result",
    "explanation": "explanation of a file without a record",
    "samples": "samples of no record",
    "maps": "maps or pictures of no explanation",
    "temporary": "left by a killed writer",
}


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB" if count >= 2**10 else f"{count} bytes"
