"""`edgebench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.report.build import Reported
    from edgebench.report.server import Site


def command(
    results: options.ResultsFolder = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Write the page there; report.html unless --serve or --figures asks for something else.")
    ] = None,
    where: options.Where = None,
    by: options.By = "dataset,target",
    figures: Annotated[Path | None, typer.Option(help="Write static figures into this folder, as SVG and PNG.")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this computer, with its records, and keep it up to date.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="For --serve; any that is free unless given.", min=0, max=65535)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write records as one HTML page that opens anywhere: trade-offs, tables, and everything behind each number.

    Exit code 1 where a record could not be read; the page names it and shows the others.
    """
    from edgebench.report import leaderboard as verbs

    if port is not None and not serve:
        raise InputError(f"--port {port}: goes with --serve; give both or neither")
    groups, filters = options.parts(by), options.filters(where)
    if not serve or out is not None or figures is not None:
        if out is None and figures is None:
            out = Path("report.html")
        with console.progress() as progress:
            made = verbs.report(results, out=out, figures=figures, by=groups, where=filters, progress=progress)
        _print(made, json)
    if serve:
        site = verbs.site(results, by=groups, where=filters)
        with console.progress() as progress:
            site.page(progress)
        _serve(site, port or 0, json)
    elif made.left_out:
        raise typer.Exit(1)


def _print(made: Reported, json: bool) -> None:
    for _, reason in made.left_out:
        console.complain(f"left out: {reason}")
    if json:
        console.print_json(made.values())
        return
    if made.out is not None:
        size = f"{made.size / 1e6:.1f} MB" if made.size >= 1e6 else f"{made.size / 1e3:.0f} kB"
        console.say(f"{made.out}: {made.rows} rows, {made.failed} failed cells, {size}", flush=True)
    for path in made.figures:
        console.say(str(path))


def _serve(site: Site, port: int, json: bool) -> None:
    """Answer until Ctrl-C; that is how it ends, and no error."""
    from edgebench.report.server import LOOPBACK, open_server

    with open_server(site, port) as server:
        url = f"http://{LOOPBACK}:{server.server_address[1]}/"
        if json:
            console.print_json({"url": url})
        else:
            console.say(f"{url} shows the report; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.complain("the report is served no longer")
