"""Run a job on a device: raw readings, and never a mean."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgebench.device import budget
from edgebench.device.bounds import BadEvent, read
from edgebench.device.collect import Collected
from edgebench.device.events import Event, NotStarted, OnEvent, ask
from edgebench.device.facts import Hello, Inspected
from edgebench.errors import MeasureError, TransportError
from edgebench.schema import Failure, Keep, Measurement, Transport

REPAIR = "look at the device: it is broken, or does not run edgebench's agent"


def probe(transport: Transport, agent: str, options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Ask a device what it is: environment, runtimes, clock; `options` of runtimes whose version they decide, by their names."""
    if not options:
        return hello(transport, [agent, "probe"])[0]
    return hello(transport, [agent, "probe", "options"], json.dumps(dict(options)) + "\n")[0]


def hello(
    transport: Transport, arguments: Sequence[str], job: str = "", model: type[Hello] = Hello
) -> tuple[dict[str, Any], float]:
    """Return what a device says of itself, and when that came (seconds since 1970).

    `MeasureError` where it says nothing, or what no device can say.
    """
    found: list[tuple[Hello, float]] = []

    def take(event: Event) -> bool:
        if event["event"] == "hello":
            found.append((read(model, event), time.time()))
        return bool(found)

    try:
        words = ask(transport, arguments, job, take)
    except BadEvent as error:
        raise MeasureError("probe", str(error), REPAIR) from error
    if words is not None:
        raise MeasureError("probe", f"the agent ended without a word{words}", "check the target's python")
    [(answer, came)] = found
    return answer.values(), came


def inspect(transport: Transport, agent: str, job: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """Return all that a device is and has, as `hello` does."""
    return hello(transport, [agent, "inspect"], json.dumps(job) + "\n", Inspected)


def measure(
    transport: Transport, agent: str, job: Mapping[str, Any], on_event: OnEvent, resume: bool = False
) -> list[Measurement]:
    """Run a job on a device and collect what it says; a measurement for each of its cells.

    A stream that ends without `done`, sends what no device may send, or takes
    and says more than the job asks for (`budget`), is a failure, and what
    arrived before is kept. The agent is gone when this returns, however it
    returns, unless the device was lost: then it goes on there, and `resume`
    takes it up.
    """
    collected, spent = Collected(job), budget.Budget(budget.between(job), "the start of a pass")
    line = json.dumps(job) + "\n"
    name = hashlib.sha256(f"{agent}\n{line}".encode()).hexdigest()[:32]

    def take(event: Event) -> bool:
        message = collected.take(event)
        if event["event"] == "started" and collected.current is not None:
            spent.grant(budget.of_pass(job, collected.current), f"the end of {collected.stage}")
        elif event["event"] == "finished" and collected.current is None:
            spent.grant(budget.between(job), "what comes next")
        on_event(event if message is None else {**event, **dict(message)})
        return collected.done or collected.failure is not None

    try:
        words = ask(transport, [agent, "cell"], line, take, Keep(name, resume), spent)
    except NotStarted as error:
        collected.failure = Failure("start", str(error), "check the target and run again")
    except BadEvent as error:
        collected.failure = Failure(collected.stage, str(error), f"{REPAIR}; then run again")
    except TransportError as error:
        collected.failure = Failure(collected.stage, str(error), "the device may hang; look at it and run again")
    else:
        if not collected.done and collected.failure is None:
            reason = f"the agent ended before it was done{words}"
            collected.failure = Failure(collected.stage, reason, "run again: only this cell is measured anew")
    return collected.measurements()


def failed(failure: Failure) -> Measurement:
    """Return the measurement of a cell whose agent never started."""
    return Measurement({}, {}, [], {}, None, [], failure)
