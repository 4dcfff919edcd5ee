"""`edgebench targets show`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console

if TYPE_CHECKING:
    from edgebench.schema import Accepts, Target


def command(
    name: Annotated[str, typer.Argument(help="Target name or YAML file.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all that is known of one target."""
    from edgebench.config import read_target

    target = read_target(name, trust=True)  # nothing of it is run
    if json:
        console.print_json(target.model_dump(mode="json"))
        return
    console.print_table(f"{target.name}: {target.description}", _facts(target))
    console.print_table("Formats", [_format(accepts) for accepts in target.accepts])
    for accepts in target.accepts:
        if operators := accepts.limits.get("operators"):
            versions = ", ".join(f"{operator} {version}" for operator, version in operators.items())
            _print_text(f"Operators that {accepts.format} may have, in their highest version (0: none)", [versions])
    meters = [
        {
            "meter": spec.name,
            "rail": spec.rail or "its first",
            "covers": spec.provenance or "as it says",
            "options": spec.options or "",
        }
        for spec in target.meters
    ]
    console.print_table("Power meters, the first that can be read gives the headline", meters)
    _print_text("Notes", [target.notes] if target.notes else [])
    _print_text("Sources", target.sources)


def _print_text(title: str, paragraphs: Sequence[str]) -> None:
    console.say(f"{title}:" if paragraphs else f"{title}: none")
    for paragraph in paragraphs:
        for line in textwrap.wrap(
            console.plain(paragraph), 118, break_on_hyphens=False, initial_indent="  ", subsequent_indent="  "
        ):
            console.say(line)


def _facts(target: Target) -> list[dict[str, Any]]:
    """List what is one value each."""
    expects = target.expects
    from edgebench.device.deploy import shown_host

    facts = {
        "transport": target.transport,
        "host": shown_host(target)
        or ("in its file" if target.host else None)
        or ("this computer" if target.transport == "local" else "give --host"),
        "interpreter": target.python or ("edgebench's own" if target.transport == "local" else "python3"),
        "machine": " or ".join(expects.machine) or "any",
        "board": expects.board or "any",
        "usb": " or ".join(expects.usb) or "any",
        "NVIDIA GPU": {None: "none needed", ".": "any"}.get(expects.gpu, expects.gpu),
        "system": expects.os or "any",
        "Python": expects.python or "any",
        "setup brings": ", ".join(target.setup.requirements) or "nothing",
        "": "the environment sees the system's packages" if target.setup.system_site_packages else None,
        "cache": f"{target.cache.path}, {target.cache.mebibytes} MiB at most",
        "tuning": ", ".join(f"{key} {value}" for key, value in target.tuning.items()) or "edgebench's defaults",
        "own plugins": ", ".join(target.agent_plugins) or None,
    }
    return [{"what": what, "is": value} for what, value in facts.items() if value is not None]


def _format(accepts: Accepts) -> dict[str, Any]:
    limits, onnx = accepts.limits, accepts.format == "onnx"
    return {
        "format": accepts.format,
        "precisions": "/".join(accepts.precisions),
        "runtime": accepts.runtime,
        "highest opset": limits.get("opset") or "",
        "highest IR": limits.get("ir") or "",
        "int8": f"{limits['activations']} × int8, {'per channel' if limits['per_channel'] else 'per tensor'}" if onnx else "",
        "operators": "as below" if limits.get("operators") else "any that the runtime knows",
    }
