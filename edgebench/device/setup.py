"""Bring runtimes to a device, also to one without internet: look, plan, push wheels, make an environment, check it.

Every step can be done again: what is there stays, and the environment that is
in force is replaced at the very end or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from packaging.utils import canonicalize_name
from pydantic import BaseModel

from edgebench import plugins
from edgebench.device import deploy, facts, wheelhouse
from edgebench.device.bounds import BadEvent, read
from edgebench.device.budget import SETUP_SECONDS, UNPACKED_BYTES_PER_SECOND, Budget, allow
from edgebench.device.events import Event, ask
from edgebench.device.wheelhouse import Interpreter, Wheel, Wheelhouse
from edgebench.errors import InputError, MeasureError
from edgebench.files import sha256_json
from edgebench.schema import Brought, Progress, Target, Transport, TransportModule

T = TypeVar("T", bound=BaseModel)
COMPILED = 1.25
"""Installed files over unpacked ones: Python keeps what it compiled beside them."""
ENVIRONMENT_BYTES = 16 << 20
"""An environment without any wheel, and a margin."""


@dataclass(frozen=True)
class Plan:
    """What a setup will do to a device."""

    target: Target
    device: Mapping[str, Any]
    """What the device said of itself."""
    python: Interpreter
    requirements: tuple[str, ...]
    house: Wheelhouse
    brought: tuple[Brought, ...] = ()
    """What the transport brought before, by itself."""

    @property
    def name(self) -> str:
        """Name the environment by all that it is made of."""
        content = [wheel.sha256 for wheel in self.house.wheels]
        python = [self.device["executable"], self.python.abi, self.python.machine]
        return sha256_json([content, python, self.target.setup.system_site_packages])[:16]

    @property
    def done(self) -> bool:
        """Return whether the device has this environment in force."""
        return bool((self.device["environment"] or {}).get("name") == self.name)

    @property
    def missing(self) -> tuple[Wheel, ...]:
        """List the wheels that the device lacks, the largest last."""
        there: Mapping[str, int] = self.device["wheels"]
        wheels = [wheel for wheel in self.house.wheels if not self.done and there.get(_place(wheel)) != wheel.bytes]
        return tuple(sorted(wheels, key=lambda wheel: wheel.bytes))

    @property
    def push_bytes(self) -> int:
        """Count what will be sent."""
        return sum(wheel.bytes for wheel in self.missing)

    @property
    def needed_bytes(self) -> int:
        """Estimate the disk space that this takes while it is at work, unpacked and compiled files included."""
        unpacked = sum(wheel.unpacked_bytes for wheel in self.house.wheels)
        return 0 if self.done else self.push_bytes + int(COMPILED * unpacked) + ENVIRONMENT_BYTES


@dataclass(frozen=True)
class Outcome:
    """What a setup did."""

    made: bool
    """False where the environment was there already, and works."""
    pushed_bytes: int
    freed_bytes: int
    """Of environments that this one replaces, and of wheels that are not needed any more."""
    path: str
    runtimes: Mapping[str, Mapping[str, str | None]]
    """Version, or the reason why it cannot run, by name."""


def plan(transport: Transport, agent: str, target: Target, requirements: Sequence[str], house: Path, progress: Progress) -> Plan:
    """Look at a device and find the wheels that fit it; nothing on the device is changed.

    `requirements` come on top of the target's own, in the place of those with
    the same name. `house` is this computer's folder of wheels. Raises
    `InputError` where there is nothing to bring or no wheel fits, `MeasureError`
    where the device cannot have an environment.
    """
    wanted = _merged(target, requirements)
    progress = _lane(progress, target)
    progress(f"looking at {target.name}", 0, 1)
    device = _one(transport, agent, target, {"action": "facts"}, "device", facts.DevicePython)
    if device.refused:
        raise MeasureError("setup", f"{target.name}: {device.refused}")
    if device.glibc is None and device.macos is None:
        raise MeasureError("setup", f"{target.name}: the device names neither a glibc nor a macOS, which wheels must fit")
    markers = device.markers.model_dump()
    python = Interpreter(device.python, device.abi, device.machine, device.glibc, device.macos, markers)
    brings = plugins.declared(deploy.transport_module(target), "brings", TransportModule.brings)
    brought = tuple(brings(python.machine)) if brings is not None else ()
    return Plan(target, device.model_dump(), python, wanted, wheelhouse.resolve(wanted, python, house, progress), brought)


def _merged(target: Target, given: Sequence[str]) -> tuple[str, ...]:
    """Put the given requirements in the place of the target's of the same name."""
    named = {canonicalize_name(each.name) for each in wheelhouse.parse(given)}
    own = [str(each) for each in wheelhouse.parse(target.setup.requirements) if canonicalize_name(each.name) not in named]
    wanted = (*own, *given)
    if not wanted:
        where = f"add setup: {{requirements: […]}} to {target.name}, or give --requirement, for instance onnxruntime==1.10.0"
        raise InputError(f"{target.name}: names nothing to bring to the device; {where}")
    return wanted


def install(transport: Transport, agent: str, plan: Plan, progress: Progress) -> Outcome:
    """Push what is missing and let the device make, check and switch to the environment.

    Where it is in force already nothing is pushed and it is only checked. Raises
    `MeasureError` with the device's reason; the environment before then stays.
    """
    free = int(plan.device["free_bytes"])
    if plan.needed_bytes > free:
        has = f"{plan.target.name}: {_mebibytes(free)} MiB are free at {plan.device['root']}"
        raise MeasureError("setup", f"{has}, about {_mebibytes(plan.needed_bytes)} are needed", "free some space and run again")
    pushed = plan.push_bytes
    progress = _lane(progress, plan.target)
    paths = {} if plan.done else {wheel: _push(transport, plan.target, wheel, progress) for wheel in plan.house.wheels}
    job = {
        "action": "install",
        "name": plan.name,
        "system_site_packages": plan.target.setup.system_site_packages,
        "wheels": [_entry(wheel, path) for wheel, path in paths.items()],
        "distributions": [wheel.name for wheel in plan.house.wheels],
        "manifest": {
            "requirements": list(plan.requirements),
            "python": str(plan.python),
            "wheels": {wheel.path.name: wheel.sha256 for wheel in plan.house.wheels},
        },
    }
    more_seconds = plan.needed_bytes / UNPACKED_BYTES_PER_SECOND
    answer = _one(transport, agent, plan.target, job, "installed", facts.Installed, progress, more_seconds)
    runtimes = {name: found.values() for name, found in answer.runtimes.items()}
    return Outcome(answer.made, pushed, answer.freed_bytes, answer.path, runtimes)


def remove(transport: Transport, agent: str, target: Target) -> int:
    """Remove every environment and wheel from a device, and what its transport brought; returns the bytes that this freed."""
    freed = _one(transport, agent, target, {"action": "remove"}, "removed", facts.Removed).freed_bytes
    more = plugins.declared(deploy.transport_module(target), "remove", TransportModule.remove)
    return freed + (more(transport) if more is not None else 0)


def _place(wheel: Wheel) -> str:
    """Name a wheel below the device's `wheels/`: by content, for the same name may mean another file."""
    return f"{wheel.sha256[:16]}/{wheel.path.name}"


def _push(transport: Transport, target: Target, wheel: Wheel, progress: Progress) -> str:
    return transport.push(wheel.path, f"wheels/{_place(wheel)}", deploy.upload_progress(progress, target))


def _lane(progress: Progress, target: Target) -> Progress:
    """Let all that is shown of a device be in a lane of its own."""

    def report(what: str, done: float, total: float, lane: str = "") -> None:
        progress(what, done, total, target.name)

    return report


def _entry(wheel: Wheel, path: str) -> dict[str, Any]:
    sizes = {"bytes": wheel.bytes, "unpacked_bytes": wheel.unpacked_bytes}
    return {"path": path, "file": wheel.path.name, "sha256": wheel.sha256, **sizes}


def _one(
    transport: Transport,
    agent: str,
    target: Target,
    job: Mapping[str, Any],
    wanted: str,
    model: type[T],
    progress: Progress | None = None,
    more_seconds: float = 0.0,
) -> T:
    """Let the device do a job; returns the one event that is its answer. `MeasureError` with its reason where it fails."""
    python = ["--python", target.python] if target.python else []
    answers: list[T] = []

    def take(event: Event) -> bool:
        if event["event"] == "failed":
            raise MeasureError("setup", f"{target.name}: {read(facts.Failed, event).reason}")
        if event["event"] == wanted:
            answers.append(read(model, event))
        elif progress is not None:
            _show(event, progress)
        return bool(event["event"] == "done")

    try:
        words = ask(
            transport, [agent, "setup", *python], json.dumps(job) + "\n", take, budget=Budget(allow(SETUP_SECONDS + more_seconds))
        )
    except BadEvent as error:
        raise MeasureError("setup", f"{target.name}: {error}", "look at the device, then run again") from error
    if words is not None:
        reason = f"{target.name}: the agent ended before it was done{words}"
        raise MeasureError("setup", reason, "run again: it goes on from there")
    if not answers:
        raise MeasureError("setup", f"{target.name}: the agent gave no answer", "run again")
    return answers[-1]


def _show(event: Mapping[str, Any], progress: Progress) -> None:
    """Tell of a sign of life."""
    kind = event["event"]
    if kind in ("verifying", "unpacking"):
        step = read(facts.Step, event)
        progress(f"{kind} {step.file}", step.done, step.total)
    elif kind == "making":
        progress("making the environment", 0, 1)
    elif kind == "checking":
        progress(f"checking {read(facts.Checking, event).runtime}", 0, 1)


def _mebibytes(count: float) -> str:
    return f"{count / (1 << 20):.1f}"
