"""Run a job on a device: raw readings, and never a mean."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.device.events import Collected, Event, NotStarted, OnEvent, ask
from edgebench.errors import MeasureError, TransportError
from edgebench.schema import Failure, Keep, Measurement, Transport


def probe(transport: Transport, agent: str) -> dict[str, Any]:
    """Ask a device what it is: environment, runtimes, clock."""
    found, _ = hello(transport, [agent, "probe"])
    return found


def hello(transport: Transport, arguments: Sequence[str], job: str = "") -> tuple[dict[str, Any], float]:
    """Return what a device says of itself, and when that came (seconds since 1970); `MeasureError` where it says nothing."""
    found: list[tuple[Event, float]] = []

    def take(event: Event) -> bool:
        if event["event"] == "hello":
            found.append((event, time.time()))
        return bool(found)

    words = ask(transport, arguments, job, take)
    if words is not None:
        raise MeasureError("probe", f"the agent ended without a word{words}", "check the target's python")
    [(event, came)] = found
    return {key: value for key, value in event.items() if key != "event"}, came


def measure(
    transport: Transport, agent: str, job: Mapping[str, Any], on_event: OnEvent, resume: bool = False
) -> list[Measurement]:
    """Run a job on a device and collect what it says; a measurement for each of its cells.

    A stream that ends without `done` is a failure, and what arrived before is
    kept. The agent is gone when this returns, however it returns, unless the
    device was lost: then it goes on there, and `resume` takes it up.
    """
    collected = Collected(len(job["cells"]))
    line = json.dumps(job) + "\n"
    name = hashlib.sha256(f"{agent}\n{line}".encode()).hexdigest()[:32]

    def take(event: Event) -> bool:
        collected.take(event)
        on_event(event)
        return False

    try:
        words = ask(transport, [agent, "cell"], line, take, Keep(name, resume))
    except NotStarted as error:
        collected.failure = Failure("start", str(error), "check the target and run again")
    except TransportError as error:
        collected.failure = Failure(collected.stage, str(error), "the device may hang; look at it and run again")
    else:
        if not collected.done and collected.failure is None:
            reason = f"the agent ended before it was done{words}"
            collected.failure = Failure(collected.stage, reason, "run again: only this cell is measured anew")
    return collected.measurements()


def failed(failure: Failure) -> Measurement:
    """Return the measurement of a cell whose agent never started."""
    collected = Collected(1)
    collected.failure = failure
    return collected.measurements()[0]
