"""`edgebench tune`."""

from __future__ import annotations

import shlex
import shutil
import sys
from typing import Annotated, Any, Literal

import typer

from edgebench.cli import console
from edgebench.cli.options import AcceptNewHostKey, Host


def command(
    action: Annotated[Literal["show", "apply", "restore"], typer.Argument(help="What to do.")] = "show",
    target: Annotated[str, typer.Option(help="Target name or YAML file.")] = "cpu",
    host: Host = None,
    accept_new_host_key: AcceptNewHostKey = False,
    state: Annotated[str | None, typer.Option(help="Where the device keeps what was before.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Set a device's clocks and interrupts for steady timing, and put them back."""
    from edgebench import api
    from edgebench.config import read_target

    device = read_target(target, host)
    remedy = _as_root(["tune", action, "--target", target, *(["--state", state] if state else [])], device.transport == "local")
    rows = api.tune(action, target=device, state=state, remedy=remedy, accept_new_host_key=accept_new_host_key)
    if json:
        console.print_json(rows)
    else:
        heading = {"show": "would change", "apply": "changed", "restore": "put back"}[action]
        console.print_table(f"Tune {device.name}", [_printed(row, heading) for row in rows])
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _as_root(arguments: list[str], local: bool) -> str:
    """Say how to do the same as root; sudo does not search the user's own PATH."""
    installed = shutil.which("edgebench")
    if not local:
        return "log in there as root: --host root@…"
    return "run: " + shlex.join(["sudo", *([installed] if installed else [sys.executable, "-m", "edgebench"]), *arguments])


def _printed(row: dict[str, Any], heading: str) -> dict[str, Any]:
    changed = {True: "yes", False: "no", None: "unknown"}[row["changed"]]
    return {
        "knob": row["name"],
        "now": row["now"],
        "wanted": row["wanted"] or "as it is",
        heading: changed if row["available"] and not row["error"] else "",
        "saved": row["before"],
        "": f"failed: {row['error']}" if row["error"] else row["reason"],
    }
