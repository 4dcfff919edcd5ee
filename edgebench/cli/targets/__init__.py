"""`edgebench targets`, and what goes with a target: show, add, probe, setup."""

from __future__ import annotations

from typing import Annotated

import typer

from edgebench.cli import console
from edgebench.cli.targets import add, probe, setup, show

app = typer.Typer(
    name="targets",
    help="List the kinds of device, show one, write your own, look at a device, and bring it what it lacks.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
for command in (show, add, probe, setup):
    app.command(name=command.__name__.rsplit(".", 1)[1])(command.command)


@app.callback()
def listing(context: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the kinds of device, and what each runs."""
    if context.invoked_subcommand is not None:
        return
    from edgebench import plugins
    from edgebench.config import read_target

    known = [read_target(name) for name in plugins.names("edgebench.targets", ".yaml")]
    if json:
        console.print_json([target.model_dump(mode="json") for target in known])
        return
    rows = [
        {
            "target": target.name,
            "description": target.description,
            "transport": target.transport,
            "runs": "; ".join(f"{a.format} {'/'.join(a.precisions)}" for a in target.accepts),
        }
        for target in known
    ]
    console.print_table("Targets", rows)
