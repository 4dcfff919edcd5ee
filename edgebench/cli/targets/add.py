"""`edgebench targets add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    file: Annotated[Path, typer.Argument(help="The YAML file to write.")],
    target: Annotated[str, typer.Option(help="What the device is: a target's name, or another file of your own.")],
    host: Annotated[
        str | None,
        typer.Option(
            help="Its address: user@host, ssh://user@host:port, a name of ~/.ssh/config; a phone's serial number, address:port or "
            "mDNS name. Without it the phones that are attached are listed."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it in tables; as the target is called unless given.")] = None,
    python: Annotated[str | None, typer.Option(help="Interpreter on the device; its python3 unless given.")] = None,
    cache: Annotated[str | None, typer.Option(help="Folder on the device for what is pushed there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a file for one device of your own: a target of the catalogue, its address, and what is otherwise there."""
    from edgebench.config import read_target, write_target
    from edgebench.device.deploy import attached, shown_host
    from edgebench.errors import InputError

    if host is None:
        found = attached(read_target(target))
        if found is None:
            raise InputError(f"{target}: give its address by --host user@address")
        rows = [{"--host": each.host, "what": each.what, "first": each.remedy} for each in found]
        console.print_table("Attached", rows)
        raise InputError(f"{file}: not written; " + ("name one of them by --host" if found else "connect one (docs/targets.md)"))
    given = {"name": name, "host": host, "python": python, "cache": {"path": cache} if cache else None}
    written = write_target(file, target, {key: value for key, value in given.items() if value is not None}, force)
    at = f" at {shown_host(written)}" if shown_host(written) else ""
    console.say(f"{file}: {written.name}{at}; look at it with: edgebench targets probe --target {file}")
