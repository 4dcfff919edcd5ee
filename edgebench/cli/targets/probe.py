"""`edgebench targets probe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console
from edgebench.cli.options import AcceptNewHostKey, Host

if TYPE_CHECKING:
    from edgebench.device.inspect import Difference


def command(
    target: Annotated[str, typer.Option(help="Target name or YAML file.")],
    host: Host = None,
    work: Annotated[Path, typer.Option(help="Where models, bundles and local devices' caches are kept.")] = Path(".edgebench"),
    accept_new_host_key: AcceptNewHostKey = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a device: what it is and has, and where it differs from its target."""
    import dataclasses

    from edgebench import api
    from edgebench.config import read_target
    from edgebench.device.deploy import shown_host
    from edgebench.run.options import RunOptions

    seen = api.probe(read_target(target, host), options=RunOptions(work=work, accept_new_host_key=accept_new_host_key))
    device, found, differences, refused, fits = seen.target, seen.found, seen.differences, seen.refused, list(seen.fits)
    if json:
        rows = [dataclasses.asdict(item) for item in differences]
        console.print_json({"target": device.name, "found": found, "differences": rows, "refused": refused, "fits": fits})
    else:
        host = shown_host(device)
        at = f" at {host}" if host else ""
        console.print_table(f"The device{at}", [{"what": what, "is": value} for what, value in described(found)])
        console.print_table(f"What differs from {device.name}", [_printed(item) for item in differences])
    if refused:
        if not json:
            console.complain(_advice(device.name, fits))
        raise typer.Exit(1)


def _advice(name: str, fits: list[str]) -> str:
    other = f"--target {' or '.join(fits)} describes it; or " if fits else ""
    return f"nothing will be measured on it as {name}: {other}write your own file with extends: {name} and other expects:"


def _printed(item: Difference) -> dict[str, str]:
    consequence = "refused" if item.refuse else "measured all the same" if item.what != "runtime" else "its formats fail"
    return {"what": item.what, "wanted": item.wanted, "found": item.found, "": consequence, "remedy": item.remedy}


def described(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Write what a device said as pairs of words, what is not there left out or said to be missing."""
    environment, identity, device = found["environment"], found["identity"], found["device"]
    yield "board", identity["board"] or "no name of a board"
    yield "processor", f"{environment['cpu'] or 'unknown'}, {environment['cores']} cores, {identity['machine']}"
    if device.get("big_cores"):
        yield "big cores", ", ".join(map(str, device["big_cores"]))
    yield "system", f"{identity['os'] or 'unknown'}, {identity['bits']} bit, {identity['system']} {environment['kernel']}"
    if device["l4t"]:
        yield "JetPack", f"{device['jetpack'] or 'unknown'} (L4T {device['l4t']})"
    if device["mendel"]:
        yield "Mendel", device["mendel"]
    yield "Python", f"{identity['python']}, {environment['libc'] or 'unknown libc'}"
    yield "NVIDIA GPU", "; ".join(device["gpu_driver"] or identity["gpus"]) or "none"
    yield "USB", ", ".join(identity["usb"]) or "nothing"
    yield "memory", f"{_gibibytes(environment['memory_bytes'])} GiB, {_gibibytes(device['available_bytes'])} available"
    yield "disk", _disk(device["disk"])
    yield "clock", _clock(device)
    yield "temperature", "no sensor" if device["celsius"] is None else f"{device['celsius']:.1f} °C"
    if device.get("phone"):
        yield from _phone(device["phone"], environment)
    yield "time", f"{round(found['skew_seconds']):+d} s against this computer; no number rests on it"
    for name, runtime in sorted(found["runtimes"].items()):
        yield f"runtime {name}", runtime["version"] or f"no: {runtime['reason']}"
    for meter in device["meters"]:
        rails = ", ".join(f"{rail['rail']} ({rail['provenance']})" for rail in meter["rails"])
        if rails or meter["wanted"]:
            mark = "" if meter["wanted"] else "; not among the target's meters"
            yield f"meter {meter['name']}", (rails or f"no: {meter['reason']}") + mark


def _phone(phone: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Write how a phone is doing, and what it does not tell."""
    wakefulness = phone["wakefulness"] or "unknown"
    advice = "" if wakefulness in ("Awake", "Dreaming", "unknown") else "; it is off: unlock it before a run"
    yield "screen", wakefulness + advice
    charge = "charge unknown" if phone["percent"] is None else f"{phone['percent']:.0f} %"
    plugged = {True: ", plugged in: no energy is measured", False: ", unplugged", None: ""}[phone["plugged"]]
    yield "battery", f"{charge}, {str(phone['state'] or 'state unknown').lower()}{plugged}"
    saver = {True: "on: switch it off, nothing measured with it is valid", False: "off", None: "unknown"}
    yield "power saver", saver[phone["low_power"]]
    yield "thermal status", "unknown" if phone["thermal_status"] is None else f"{phone['thermal_status']} of 6"
    yield "cpuset", environment.get("cpuset") or "unknown"
    yield (
        "programs for",
        f"{', '.join(environment.get('abis') or ()) or 'unknown'}; pages of {environment.get('page_bytes')} bytes",
    )
    for missing in phone["missing"]:
        yield "not told", missing


def _gibibytes(count: float | None) -> str:
    return "?" if count is None else f"{count / (1 << 30):.1f}"


def _disk(disk: Mapping[str, Any]) -> str:
    if disk["free_bytes"] is None:
        return f"unknown: {disk['reason']}"
    reason = f"; {disk['reason']}" if disk["reason"] else ""
    return f"{_gibibytes(disk['free_bytes'])} of {_gibibytes(disk['total_bytes'])} GiB free for the cache{reason}"


def _clock(device: Mapping[str, Any]) -> str:
    """Say what sets the clock, and where it stands."""
    parts = [f"governor {device['governor']}" if device["governor"] else "no governor"]
    parts += [f"power mode {device['power_mode']}"] if device["power_mode"] else []
    parts += [f"{device['khz'] / 1e6:.2f} GHz"] if device["khz"] else []
    parts += ["throttled now"] if device["throttled"] else []
    unread = device.get("throttled_reason")
    parts += [f"whether it is throttled cannot be read: {unread}"] if unread else []
    return ", ".join(parts)
