"""What an agent answers: a line each, which is an event, or is not ours and passed over."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from edgebench.device.bounds import BadEvent, one_line
from edgebench.device.budget import Budget
from edgebench.errors import TransportError
from edgebench.schema import Keep, Stream, Transport

SILENCE_SECONDS = 60.0
"""The agent speaks once a second; after so long without a word it is given up."""
MOST_VALUES, MOST_GROUPS = 1 << 22, 1 << 16
"""Values, and lists or objects, in one line: more are not even parsed, for they take much more memory than the line."""
Event = dict[str, Any]
Take = Callable[[Event], bool]
OnEvent = Callable[[Mapping[str, Any]], None]


class NotStarted(TransportError):
    """The agent could not be started at all."""


def ask(
    transport: Transport,
    arguments: Sequence[str],
    job: str,
    take: Take,
    keep: Keep | None = None,
    budget: Budget | None = None,
) -> str | None:
    """Start the agent with a job and give each of its events to `take`, until that returns True or the agent ends.

    Returns None where `take` has what it waited for, else the last line of the agent's standard error, in brackets.
    Raises `NotStarted`, `TransportError` after a silence of `SILENCE_SECONDS`, and `BadEvent` for what no device may
    send, more than the `budget` included (usually what one answer may take). The agent is gone when this ends, however
    it ends, unless it is kept and its device was lost.
    """
    try:
        stream = transport.run(arguments, job, keep)
    except TransportError as error:
        raise NotStarted(str(error)) from error
    try:
        if any(take(event) for event in events(stream, budget or Budget())):
            return None
    finally:
        stream.stop()
    return last_words(stream)


def events(stream: Stream, budget: Budget) -> Iterator[Event]:
    """Parse lines; whatever is no event is not ours and is passed over, and counts all the same."""
    for line in stream.lines(SILENCE_SECONDS):
        budget.spend(line)
        event = parsed(line)
        if event is not None and isinstance(event.get("event"), str):
            yield event


def parsed(line: str) -> Event | None:
    """Read a line; None where it is no event, `BadEvent` where it would be one and cannot be read."""
    if not line.startswith("{") or '"event"' not in line:
        return None
    values, groups = line.count(","), line.count("[") + line.count("{")
    if values > MOST_VALUES or groups > MOST_GROUPS:
        raise BadEvent(f"a line of {values} values in {groups} lists and objects; {MOST_VALUES} in {MOST_GROUPS} are the most")
    try:
        found = json.loads(line, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise BadEvent("lists or objects that are nested too deep") from error
    except ValueError as error:
        if not line.endswith("\n"):  # cut off where the agent ended
            return None
        raise BadEvent(f"a line that is no JSON: {one_line(str(error), 100)} in {one_line(line, 60)}") from error
    return found if isinstance(found, dict) else None


def _not_finite(text: str) -> NoReturn:
    raise BadEvent(f"{text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadEvent(f"{text[:20]}, which is too large a number")
    return value


def last_words(stream: Stream) -> str:
    """Quote the last line of the agent's standard error."""
    lines = stream.stderr().splitlines()
    return f" ({one_line(lines[-1], 300)})" if lines else ""
