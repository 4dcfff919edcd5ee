"""How much a device may take and say: seconds, events and bytes, by what it was asked (docs/method.md)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebench.device.bounds import BadEvent

WAIT_SECONDS = 60.0
"""A wait for one line counts for so long at most: what is longer is an outage of the connection."""
START_SECONDS = 300.0
"""To start, import, load or answer once: the agent itself ends a process that is silent for so long."""
SLACK, LATE = 3.0, 10.0
"""A trial may take so many times the mode's cap; a program that takes the samples itself so many times the mode's least."""
SAMPLE_SECONDS = 5.0
"""To infer one sample of the evaluation split."""
TOKEN_SECONDS = 2.0
"""A language model's token, its part of the prompt included."""
WARM_WINDOWS, STEPS = 10, 7
"""The agent's: windows of a warm-up, and rates that a server trial tries."""
EVENTS_PER_SECOND, BYTES_PER_SECOND = 100, 4 << 10
"""Conditions, meters and signs of life."""
SAMPLE_BYTES_PER_SECOND = 4 << 20
"""Of samples: an inference each 2.5 µs, which is the shortest that is timed by itself."""
EVENTS, BYTES, MOST_BYTES = 10_000, 32 << 20, 1 << 30


@dataclass(frozen=True)
class Allowance:
    """What one part of a job may take and say."""

    seconds: float
    events: int
    bytes: int


def allow(seconds: float, more_events: float = 0.0, more_bytes: float = 0.0) -> Allowance:
    """Derive events and bytes from the seconds."""
    events = EVENTS + EVENTS_PER_SECOND * seconds + more_events
    return Allowance(seconds, int(events), min(MOST_BYTES, int(BYTES + BYTES_PER_SECOND * seconds + more_bytes)))


def between(job: Mapping[str, Any]) -> Allowance:
    """Allow what goes before, between and after passes: files are hashed, meters marked, the device is left alone."""
    return allow(START_SECONDS + LATE * float(job["mode"]["idle_seconds"]))


def of_pass(job: Mapping[str, Any], wanted: Mapping[str, Any]) -> Allowance:
    """Allow a pass what it asks for."""
    name, mode, cell = wanted["name"], job["mode"], job["cells"][wanted["cell"]]
    if name == "turns":
        asked, sides = wanted["turns"], len(wanted["cells"])
        start = 3 * START_SECONDS + SLACK * WARM_WINDOWS * asked["seconds"] + LATE * mode["warmup_seconds"]
        round_ = 2 * (START_SECONDS + LATE * asked["seconds"])  # the cap ends it after a whole one
        longest = asked["cap_seconds"] + sides * (WARM_WINDOWS * asked["seconds"] + mode["warmup_seconds"])
        seconds = sides * (start + round_) + SLACK * asked["cap_seconds"]
        return allow(seconds, sides * asked["turns"], SAMPLE_BYTES_PER_SECOND * longest)
    if name == "finish":
        return allow(START_SECONDS + cell["finish"]["timeout_seconds"])
    if name == "outputs":
        count = (cell["golden"] or {"samples": 1})["samples"]
        return allow(START_SECONDS + SAMPLE_SECONDS * count, 1, 4096 * len(cell["outputs"]))
    if name == "accuracy":
        count = len(cell.get("chosen") or range(cell["samples"]))
        return allow(START_SECONDS + SAMPLE_SECONDS * count, count, count * (200 + 8 * columns(cell)))
    if name in ("trial", "loadgen"):
        longest = mode["cap_seconds"] + WARM_WINDOWS * mode["window_seconds"] + mode["warmup_seconds"]
        seconds = 3 * START_SECONDS + SLACK * longest + LATE * (mode["min_seconds"] + mode["warmup_seconds"])
        if cell["scenario"]["kind"] == "server":
            seconds += STEPS * max(START_SECONDS, SLACK * mode["cap_seconds"])
        more = generation_seconds(cell)
        return allow(seconds + more, 2 * (seconds + more) / mode["window_seconds"], SAMPLE_BYTES_PER_SECOND * longest)
    return allow(2 * START_SECONDS + generation_seconds(cell))


def generation_seconds(cell: Mapping[str, Any]) -> float:
    """Allow a language model its sweeps: those of the warm-up, and the one that goes over the cap."""
    asked = cell.get("prompts")
    return 0.0 if asked is None else TOKEN_SECONDS * (WARM_WINDOWS + 3) * asked["count"] * asked["max_new_tokens"]


def columns(cell: Mapping[str, Any]) -> int:
    """Count the scores of one sample: the values of all scored outputs."""
    return sum(math.prod(each["shape"]) for each in cell["outputs"] if each["name"] in cell["scored"])


ANSWER = allow(START_SECONDS)
"""For a question that is answered at once: what a device is."""
SETUP_SECONDS = 2 * 3600.0
UNPACKED_BYTES_PER_SECOND = 1 << 18


class Budget:
    """Counts what a device takes and says against what it was allowed."""

    def __init__(self, allowed: Allowance = ANSWER, what: str = "its answer") -> None:
        self._latest = time.monotonic()
        self.grant(allowed, what)

    def grant(self, allowed: Allowance, what: str) -> None:
        """Begin anew; `what` is awaited."""
        self._allowed, self._what = allowed, what
        self._spent, self._events, self._bytes = 0.0, 0, 0

    def spend(self, line: str) -> None:
        """Count a line; `BadEvent` where that was too much."""
        now = time.monotonic()
        self._spent += min(now - self._latest, WAIT_SECONDS)
        self._latest = now
        self._events += 1
        self._bytes += len(line)
        allowed = self._allowed
        if self._spent > allowed.seconds:
            raise BadEvent(f"signs of life for {allowed.seconds:.0f} s and not {self._what}")
        if self._events > allowed.events:
            raise BadEvent(f"more than {allowed.events} lines and not {self._what}")
        if self._bytes > allowed.bytes:
            raise BadEvent(f"more than {allowed.bytes >> 20} MiB and not {self._what}")
