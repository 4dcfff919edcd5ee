"""`edgebench results merge`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console

if TYPE_CHECKING:
    from edgebench.store.merge import Conflict, Merged

FEW = 20
"""So many files that took a place, or gave way, are named."""


def command(
    sources: Annotated[list[Path], typer.Argument(metavar="FROM...", help="Folders of results, each with records/ in it.")],
    into: Annotated[Path, typer.Option(help="The folder that they are merged into.")] = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take the records of other folders into one; each is checked against its hash, and its samples against theirs.

    Where both have measured the same cell, the newer stays. Exit code 1 where something was refused; the rest is taken.
    """
    from edgebench.report import leaderboard as verbs

    with console.progress() as progress:
        found = verbs.merge(sources, into, dry_run=dry_run, progress=progress)
    if json:
        console.print_json(found.values())
    else:
        for line in _merged(found, into, dry_run):
            console.say(line)
    if found.counts["refused"]:
        raise typer.Exit(1)


def _merged(found: Merged, into: Path, dry_run: bool) -> Iterator[str]:
    """Say what a merge did."""
    for each in found.of("refused"):
        yield f"refused: {each.reason}"
    for does, files in (("takes the place of an older one", found.of("newer")), ("gives way to a newer one", found.of("older"))):
        yield from (f"{each.path}: {does} at {each.place}" for each in files[:FEW])
        if len(files) > FEW:
            yield f"and {len(files) - FEW} more; --json names them all"
    for conflict in found.conflicts:
        yield from _conflict(conflict)
    counts = found.counts
    rest = [f"{counts['same']} were there already"] if counts["same"] else []
    rest += [f"{counts['older']} older than what is there"] if counts["older"] else []
    rest += [f"{found.migrated} of an older schema, which is migrated on reading"] if found.migrated else []
    rest += [f"{counts['refused']} refused"] if counts["refused"] else []
    taken = f"{found.taken} file{'' if found.taken == 1 else 's'} {'would be taken' if dry_run else 'taken'}"
    done = taken if found.taken else "nothing to do"
    yield "; ".join([f"{into}: {done}", *rest])


def _conflict(conflict: Conflict) -> Iterator[str]:
    """Name the devices that share a name, and what tells them apart."""
    yield f"target {conflict.target} names {len(conflict.devices)} devices; their tables stay apart:"
    for device, facts in conflict.devices.items():
        listed = ", ".join(f"{name} {'unknown' if value is None else value}" for name, value in facts.items())
        yield f"- {device[:10]}: {listed or 'no fact that people know them by'}"
