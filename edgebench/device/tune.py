"""Set a device's clocks and interrupts for steady timing, and put them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from edgebench.device import facts
from edgebench.device.bounds import BadEvent, read
from edgebench.device.budget import Budget, allow
from edgebench.device.events import Event, ask
from edgebench.errors import InputError, MeasureError
from edgebench.schema import Transport

Action = Literal["show", "apply", "restore"]

STATE = "/var/lib/edgebench/tune.json"
"""Where a device keeps what was before: one place for all users, which a reboot leaves alone."""
TUNE_SECONDS = 1800.0


def tune(
    transport: Transport, agent: str, action: Action, state: str, wanted: Mapping[str, Any], remedy: str
) -> list[dict[str, Any]]:
    """Show, set or put back a device's knobs; returns a row for each.

    `state`: the device's file for the values before; `wanted`: the target's
    `tuning`, `{"mode": 0}` or empty. A row holds name, available, reason, now, wanted, changed, error and
    before (what is saved); `changed` is what was done, or for `show`, what would be.
    Raises `InputError` with the `remedy` where the device's user is not allowed to,
    `MeasureError` where nothing could be done; a knob that failed is a row with its error.
    """
    unknown = [key for key, value in wanted.items() if key != "mode" or not isinstance(value, int)]
    if unknown:
        raise InputError(f"tuning: {unknown[0]}: only mode is known, with the number that `nvpmodel -q` prints")
    job = {"action": action, "state": state, "wanted": dict(wanted)}
    tuned: list[facts.Tuned] = []

    def take(event: Event) -> bool:
        if event["event"] == "tuned":
            tuned.append(read(facts.Tuned, event))
        elif event["event"] == "failed":
            failed = read(facts.Failed, event)
            if failed.privilege:
                raise InputError(f"{failed.reason}; {remedy}")
            if not tuned:
                raise MeasureError("tune", failed.reason)
        return event["event"] in {"done", "failed"} and bool(tuned)

    try:
        words = ask(transport, [agent, "tune"], json.dumps(job) + "\n", take, budget=Budget(allow(TUNE_SECONDS)))
    except BadEvent as error:
        raise MeasureError("tune", str(error), "look at the device, then run `edgebench tune restore`") from error
    if words is not None:
        reason = f"the agent ended before it was done{words}"
        raise MeasureError("tune", reason, "run `edgebench tune restore` to put back what it changed")
    return [knob.values() for knob in tuned[-1].knobs]
