"""The verbs on a device itself: look at it, bring it its runtimes and take them away, set its clocks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgebench.config import read_devices
from edgebench.device.deploy import connected
from edgebench.run.options import RunOptions
from edgebench.schema import Link, Progress, Target, no_progress

if TYPE_CHECKING:
    from edgebench.device.inspect import Probed
    from edgebench.device.setup import Outcome, Plan


def probe(target: str | Target, *, options: RunOptions = RunOptions()) -> Probed:
    """Look at a device: what it is and has, and where it differs from its target."""
    from edgebench.device import inspect

    [device] = read_devices([target], options.trust)
    with connected(device, _link(device, options)) as (transport, agent):
        return inspect.probed(transport, agent, device)


def setup(
    target: str | Target,
    *,
    requirements: Sequence[str] = (),
    dry_run: bool = False,
    planned: Callable[[Plan], None] | None = None,
    userland: Path | None = None,
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> tuple[Plan, Outcome | None]:
    """Bring a target's runtimes to a device, also to one without internet; the outcome is None in a dry run.

    requirements: what to bring beside or instead of the target's own, as pip reads it;
    `planned` gets the plan before anything is done; `userland` holds the packages of a phone's Python, else fetched.
    """
    from edgebench.device import setup as setup_

    [device] = read_devices([target], options.trust)
    with connected(device, replace(_link(device, options), userland=userland)) as (transport, agent):
        plan = setup_.plan(transport, agent, device, list(requirements), options.work / "wheelhouse", progress)
        if planned is not None:
            planned(plan)
        return plan, None if dry_run else setup_.install(transport, agent, plan, progress)


def remove_setup(target: str | Target, *, options: RunOptions = RunOptions()) -> int:
    """Remove from a device what `setup` brought there; returns the bytes that are free again."""
    from edgebench.device import setup as setup_

    [device] = read_devices([target], options.trust)
    with connected(device, _link(device, options)) as (transport, agent):
        return setup_.remove(transport, agent, device)


def tune(
    action: Literal["show", "apply", "restore"] = "show",
    *,
    target: str | Target = "cpu",
    state: str | None = None,
    remedy: str = "do it as root",
    accept_new_host_key: bool = False,
) -> list[dict[str, Any]]:
    """Set a device's clocks and interrupts for steady timing, or put them back; a row for each knob.

    state: where the device keeps what was before; remedy: what a knob that wants root advises.
    """
    from edgebench.device.tune import STATE, tune

    [device] = read_devices([target])
    path = str(Path(state).absolute()) if state and device.transport == "local" else state or STATE
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:  # as root, leave nothing of root's in the user's folder
        options = RunOptions(work=Path(folder), accept_new_host_key=accept_new_host_key)
        with connected(device, _link(device, options)) as (transport, agent):
            return tune(transport, agent, action, path, device.tuning, remedy)


def _link(device: Target, options: RunOptions) -> Link:
    return Link(options.work / "device" / device.name, options.accept_new_host_key)
