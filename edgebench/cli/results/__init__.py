"""`edgebench results`: list, show, remove, merge and track records."""

from __future__ import annotations

import typer

from edgebench.cli.results import clean, listing, merge, show, track

app = typer.Typer(
    name="results",
    help="List, show and clean up records, merge what several people measured, and log them to trackers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command(name="list")(listing.command)
app.command(name="show")(show.command)
app.command(name="clean")(clean.command)
app.command(name="prune", hidden=True)(clean.command)  # as it was called before
app.command(name="merge")(merge.command)
app.command(name="track")(track.command)
