"""`edgebench results`: list and show records, remove what no table shows any more, and merge what several people measured."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options, show

if TYPE_CHECKING:
    from edgebench.store.cleanup import Cleaned
    from edgebench.store.merge import Conflict, Merged
    from edgebench.store.row import Entry

app = typer.Typer(
    name="results",
    help="List and show records, remove what no table shows any more, and merge what several people measured.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FIRST = 50
"""So many lines a terminal shows unless it is asked for more."""
FEW = 20
"""So many files that took a place, or gave way, are named."""
NUMBERS = ("p50 ms", "metric %")
Folder = Annotated[Path, typer.Argument(help="The folder that holds records/.")]
Limit = Annotated[int | None, typer.Option(help="So many lines, 0 for all; a terminal shows 50 unless given.", min=0)]


@app.command(name="list")
def listing(
    results: Folder = Path("results"),
    where: options.Where = None,
    limit: Limit = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List records, a line each; columns are separated by tabs where the output is no terminal.

    Exit code 1 where a record could not be read; the others are listed all the same.
    """
    from edgebench.report import leaderboard as verbs

    screen = sys.stdout.isatty() and not json
    first = (FIRST if screen else None) if limit is None else limit or None
    with console.progress() as progress:
        found = verbs.listing(results, where=options.filters(where), first=first, progress=progress)
    for damaged in found.damaged:
        console.complain(f"left out: {damaged.reason}")
    lines = [_line(entry) for entry in found.entries]
    for line in found.json() if json else console.aligned(lines, NUMBERS) if screen else _tabbed(lines):
        print(line)
    if not found.entries and not json:
        console.complain("no records here: `edgebench run` makes them, and --where may leave none")
    if found.beyond and not json:
        console.complain(f"{found.beyond} more; --limit 0 lists all, --where model=resnet* fewer")
    if found.damaged:
        raise typer.Exit(1)


app.command(name="show")(show.command)


def _line(entry: Entry) -> dict[str, str]:
    from edgebench.report.columns import milliseconds, percent

    line = {
        "model": entry.model,
        "format": entry.format,
        "precision": entry.precision,
        "target": entry.target,
        "device": entry.device[:10],
        "mode": entry.mode,
        "data set": entry.dataset,
        "measured": entry.started_at,
        "verdict": entry.verdict or entry.status,
        "p50 ms": milliseconds(entry.median_ns),
        "metric %": percent(entry.metric),
        "record": entry.path,
    }
    return {name: console.plain(value) for name, value in line.items()}


def _tabbed(lines: Sequence[dict[str, str]]) -> Iterator[str]:
    """Write lines under their headings with tabs between, for programs."""
    yield from ("\t".join(line) for line in lines[:1])
    yield from ("\t".join(line.values()) for line in lines)


# ---------------------------------------------------------------- clean


@app.command()
def clean(
    results: Folder = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is named; without it nothing is.")] = False,
    keep: Annotated[int, typer.Option(help="So many of the newest records of a combination stay.", min=1)] = 1,
    older_than: Annotated[str | None, typer.Option(help="Only records that were measured longer ago, for instance 90d.")] = None,
    where: options.Where = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what no table shows any more; says what goes, and removes it with --yes.

    That is: records of which there is a newer one (of the same model, format, precision, target, device, mode, scenario,
    data set and options), failures older than a result of their cell, samples that no record names, and files of killed
    writers. Records that a kept one was compared with or made from stay, and so do damaged ones.
    """
    from edgebench.report import leaderboard as verbs

    with console.progress() as progress:
        found = verbs.clean(results, yes=yes, keep=keep, older_than=older_than, where=options.filters(where), progress=progress)
    if json:
        console.print_json({**found.values(), "removed": yes})
    else:
        _print_cleaned(found, yes)


app.command(name="prune", hidden=True)(clean)  # as it was called before


def _print_cleaned(found: Cleaned, yes: bool) -> None:
    for each in found.damaged:
        console.complain(f"stays: {each.reason}")
    for going in found.going:
        print(f"{'removed' if yes else 'goes'}: {console.plain(going.path)} ({NAMES[going.why]}, {_size(going.bytes)})")
    if found.referred:
        print(f"superseded records that stay, because others were compared with them or made from them: {found.referred}")
    counts = Counter(NAMES[going.why] for going in found.going)
    total = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
    done = "removed" if yes else "to remove"
    print(f"{total} {done}" + (f", {_size(found.bytes)}" if found.going else ""))
    if found.going and not yes:
        print("Nothing was removed; the same command with --yes does it.")


NAMES = {
    "superseded": "superseded",
    "failure": "failure with a later result",
    "samples": "samples of no record",
    "temporary": "left by a killed writer",
}


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB" if count >= 2**10 else f"{count} bytes"


# ---------------------------------------------------------------- merge


@app.command()
def merge(
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
            print(console.plain(line))
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
