"""What a device is, what it has, and where it differs from its target: nothing is measured on the wrong one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench import plugins
from edgebench.config import read_target
from edgebench.device import measure
from edgebench.errors import MeasureError, UnknownName
from edgebench.schema import RuntimeModule, Target, Transport


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise than the target says."""

    what: str
    wanted: str
    found: str
    refuse: bool
    """Whether nothing may be measured on such a device; the rest is told."""
    remedy: str = ""


def inspect(transport: Transport, agent: str, target: Target) -> dict[str, Any]:
    """Ask a device for all that it is and has; as `measure.probe`, with `device` and `skew_seconds` beside.

    `skew_seconds`: the device's clock less this computer's, as of when its
    answer came; nothing that is measured rests on it.
    """
    cache = posixpath.dirname(posixpath.dirname(agent))
    job = {"meters": [spec.model_dump(mode="json") for spec in target.meters], "cache": cache}
    found, came = measure.inspect(transport, agent, job)
    return {**found, "skew_seconds": found["wall_s"] - came}


def differences(target: Target, found: Mapping[str, Any]) -> list[Difference]:
    """Compare what a device said of itself (`hello`) with what its target expects: what is refused comes first."""
    every = [*_identity(target, found["identity"]), *_runtimes(target, found["runtimes"])]
    return sorted(every, key=lambda item: not item.refuse)


def _identity(target: Target, identity: Mapping[str, Any]) -> Iterator[Difference]:
    expects, machine = target.expects, identity["machine"]
    if expects.machine and machine not in expects.machine:
        yield Difference("machine", " or ".join(expects.machine), machine, refuse=True)
    elif expects.machine and identity["bits"] != 64:
        yield Difference("system", "64 bit", f"{identity['bits']} bit", refuse=True, remedy="install the 64-bit system")
    if expects.board is not None and not _matches(expects.board, identity["board"]):
        yield Difference("board", _shown(expects.board), identity["board"] or "no name of a board", refuse=True)
    if expects.usb and not set(expects.usb) & set(identity["usb"]):
        remedy = "plug it in, and look at it with lsusb"
        yield Difference("usb", " or ".join(expects.usb), ", ".join(identity["usb"]) or "nothing", refuse=True, remedy=remedy)
    if expects.gpu is not None and not any(_matches(expects.gpu, name) for name in identity["gpus"]):
        wanted = "an NVIDIA GPU" + (f" {_shown(expects.gpu)}" if expects.gpu != "." else "")
        remedy = "install NVIDIA's driver if there is one"
        yield Difference("gpu", wanted, ", ".join(identity["gpus"]) or "none", refuse=True, remedy=remedy)
    if expects.os is not None and not _matches(expects.os, identity["os"]):
        yield Difference("os", _shown(expects.os), identity["os"] or "unknown", refuse=False)
    if expects.python is not None and not f"{identity['python']}.".startswith(f"{expects.python}."):
        remedy = "the runtimes that setup brings are for another Python; name it with python: in your own file"
        yield Difference("python", expects.python, identity["python"], refuse=False, remedy=remedy)


def _matches(pattern: str, text: str | None) -> bool:
    return text is not None and re.search(pattern, text) is not None


def _shown(pattern: str) -> str:
    """Write a regular expression as people read it, where it is hardly one."""
    return pattern.replace("\\.", ".").replace("|", " or ")


def _runtimes(target: Target, runtimes: Mapping[str, Mapping[str, str | None]]) -> Iterator[Difference]:
    """Find the runtimes that the target's formats want and the device lacks."""
    for name in dict.fromkeys(accepts.runtime for accepts in target.accepts):
        if _is_optional(name) and not (runtimes.get(name) or {}).get("version"):
            continue
        formats = ", ".join(accepts.format for accepts in target.accepts if accepts.runtime == name)
        wanted, found = f"{name} (for {formats})", runtimes.get(name)
        if found is None:
            remedy = f"name your rt_{name}.py under agent_plugins: in the target file"
            yield Difference("runtime", wanted, "this agent has none of that name", refuse=False, remedy=remedy)
        elif found["version"] is None:
            yield Difference("runtime", wanted, found["reason"] or "none", refuse=False, remedy=install(target, name))


def _is_optional(runtime: str) -> bool:
    """Return whether a target that takes its formats is whole without it; those of the user's own are not known here."""
    known = runtime in plugins.on_device("runtimes")
    return known and plugins.declared(plugins.load_device("runtimes", runtime), "OPTIONAL", RuntimeModule.OPTIONAL)


def install(target: Target, runtime: str) -> str:
    """Say how a runtime comes to a device."""
    packages, by_hand = _packages(runtime)
    if by_hand:
        return by_hand
    brought = {re.split(r"[^A-Za-z0-9-]", text.replace("_", "-"), maxsplit=1)[0].lower() for text in target.setup.requirements}
    if target.transport == "local":
        return f"python -m pip install {packages[0]}"
    more = "" if brought & set(packages) else f" --requirement {packages[0]}"
    return f"edgebench targets setup{more}, with the same --target and --host"


def _packages(runtime: str) -> tuple[tuple[str, ...], str]:
    """Name the packages of which one brings a runtime, and what else to do; one of the user's own is called like it."""
    try:
        plugin = plugins.load_device("runtimes", runtime)
    except UnknownName:
        return (runtime,), ""
    return plugin.DISTRIBUTIONS, plugins.declared(plugin, "INSTALL", RuntimeModule.INSTALL)


def refuse(target: Target, found: Mapping[str, Any]) -> None:
    """Raise `MeasureError` where a device is not what its target says, with what differs and which targets would fit."""
    wrong = [item for item in differences(target, found) if item.refuse]
    if not wrong:
        return
    what = "; ".join(f"{item.what}: wanted {item.wanted}, found {item.found}" for item in wrong)
    hints = list(dict.fromkeys(item.remedy for item in wrong if item.remedy))
    others = fitting(found, target.transport)
    hints += [f"this device is what --target {' or '.join(others)} describes"] if others else []
    hints.append(f"or write your own file with extends: {target.name} and other expects: (docs/targets.md)")
    raise MeasureError("probe", f"the device is not a {target.name}: {what}", "; ".join(hints))


def fitting(found: Mapping[str, Any], transport: str) -> list[str]:
    """List the catalogue's targets that would accept a device, those that say most about it first."""
    catalogue = [read_target(name) for name in plugins.names("edgebench.targets", ".yaml")]
    fits = [
        target
        for target in catalogue
        if target.transport == transport and not any(item.refuse for item in _identity(target, found["identity"]))
    ]
    return [target.name for target in sorted(fits, key=lambda target: -_specific(target))]


def _specific(target: Target) -> int:
    """Count what a target expects of the device itself."""
    return sum(map(bool, (target.expects.machine, target.expects.board, target.expects.usb, target.expects.gpu)))


@dataclass(frozen=True)
class Probed:
    """What a device said of itself, and how that differs from its target."""

    target: Target
    found: Mapping[str, Any]
    differences: Sequence[Difference]
    fits: Sequence[str]
    """Targets that describe it, where its own does not."""

    @property
    def refused(self) -> bool:
        """Return whether nothing will be measured on it."""
        return any(each.refuse for each in self.differences)


def probed(transport: Transport, agent: str, device: Target) -> Probed:
    """Look at a device and compare it with its target."""
    found = inspect(transport, agent, device)
    different = differences(device, found)
    refused = any(each.refuse for each in different)
    return Probed(device, found, different, fitting(found, device.transport) if refused else [])
