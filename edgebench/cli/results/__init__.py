"""`edgebench results`: list and show records, remove what no table shows any more, and merge what several people measured."""

from __future__ import annotations

import typer

from edgebench.cli.results import clean, listing, merge, show

app = typer.Typer(
    name="results",
    help="List and show records, remove what no table shows any more, and merge what several people measured.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command(name="list")(listing.command)
app.command(name="show")(show.command)
app.command(name="clean")(clean.command)
app.command(name="prune", hidden=True)(clean.command)  # as it was called before
app.command(name="merge")(merge.command)
