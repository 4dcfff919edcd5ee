"""`edgebench profiles`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console, options

if TYPE_CHECKING:
    from edgebench.run.catalogue import Wanted


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Names or YAML files; all that there are unless given.")] = None,
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: also what each data set is, and its samples.")] = False,
) -> None:
    """List profiles: what data each wants, how to get it, how large it is, and about how long it all takes."""
    from edgebench import api

    found = api.profiles(names or (), trust=trust)
    if json:
        console.print_json([each.values() for each in found])
        return
    console.print_table("Profiles", [_row(each) for each in found], right=("samples", "fetch", "disk", "models", "cells"))
    for each in {each.fetch: each for each in found}.values():
        if each.fetch is not None:
            console.say(f"{each.dataset}: {each.what}")
            console.say(f"    {each.fetch}")
    console.say("Times are estimates for two cores and no accelerator, from multiply-accumulates at 15 billion a second.")
    console.say("`edgebench run PROFILE --synthetic --tiny` shows in minutes that all of one runs; nothing is fetched for it.")
    for each in found:
        if each.why:
            console.say(f"{each.profile} {each.stage}: {each.why}")


def _row(each: Wanted) -> dict[str, Any]:
    from edgebench.run.forecast import about

    return {
        "profile": each.profile,
        "stage": each.stage,
        "data": each.dataset,
        "here": {True: "yes", False: "no", None: ""}[each.here],
        "samples": "" if each.samples is None else each.samples,
        "fetch": _size(each.fetch_bytes),
        "disk": _size(each.unpacked_bytes),
        "models": len(each.models),
        "cells": each.cells,
        "explained by": ", ".join(each.explained),
        "takes (estimate)": "" if each.seconds is None else about(each.seconds),
    }


def _size(count: int | None) -> str:
    """Write bytes; empty where nobody published them."""
    return "" if count is None else f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
