"""How long a run still takes: estimated from its first seconds on, and corrected by what its steps took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from edgebench.schema import Progress

KINDS = {
    "import": ("model", "to import"),
    "train": ("model", "to train"),
    "export": ("bundle", "to export"),
    "measure": ("cell", "to measure"),
}
"""What a run does, in this order, and what it does it to."""
OVERDUE = 0.1
"""A step that takes longer than expected is taken to go on for this share of the time that it has taken."""
HEARD = 0.05
"""A training's own progress is believed once so much of it was done while it was watched."""
NONE: Mapping[str, str] = MappingProxyType({})
IMPORT_SECONDS = 3.0
EXPORT_SECONDS = {"torch": 5.0, "onnx": 6.0, "tflite": 10.0}
"""An export with its parity gate: a MobileNetV2 for 16 × 16 pixels on a shared virtual machine of two cores."""
OTHER_EXPORT_SECONDS = 30.0
LOADING_SECONDS, CALIBRATING_SECONDS = 15.0, 8.0
"""What comes on top: the libraries at the first export of a format, and INT8."""


def export_seconds(format: str, calibrates: bool, loads: bool) -> float:
    """Estimate an export; loads: it is the first of its format."""
    return EXPORT_SECONDS.get(format, OTHER_EXPORT_SECONDS) + CALIBRATING_SECONDS * calibrates + LOADING_SECONDS * loads


def about(seconds: float) -> str:
    """Say how long an estimate is, rounded up: "about 40 s", "about 4 min", "about 2.5 h"."""
    if seconds <= 80:
        return f"about {max(10, 10 * math.ceil(seconds / 10))} s"
    if seconds <= 89 * 60:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {math.ceil(seconds / 360) / 10:g} h"


def with_time_left(progress: Progress, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Let what watches work see how long it still takes, in brackets behind what is done, once enough of it was watched."""
    first, latest = (0.0, 0.0), math.inf

    def shown(what: str, done: float, total: float, lane: str = "") -> None:
        nonlocal first, latest
        if done < latest:  # another piece of work
            first = clock(), done
        latest = done
        begun, before = first
        if total and done - before >= HEARD * total:
            what = _in_brackets(what, (clock() - begun) / (done - before) * (total - done))
        progress(what, done, total, lane)

    return shown


def _in_brackets(what: str, seconds: float) -> str:
    head, _, rest = what.partition(" (")
    changing = f"{rest.removesuffix(')')}; " if rest else ""
    return f"{head} ({changing}{about(seconds)} left)"


@dataclass
class Step:
    """One thing to do: how long it should take, when it began, and how much of it was done when it was heard of."""

    expected: float
    lane: str = ""
    """Steps of different lanes go on side by side, beside nothing else."""
    alone: bool = False
    """What it takes tells nothing of the others of its kind."""
    begun: float | None = None
    first: tuple[float, float] | None = None
    latest: tuple[float, float] | None = None

    def pace(self) -> tuple[float, float] | None:
        """Return which share of it was done while it was watched, and in how many seconds; None where that tells little."""
        if self.first is None or self.latest is None or self.latest[1] - self.first[1] < HEARD:
            return None
        return self.latest[1] - self.first[1], self.latest[0] - self.first[0]

    def watched(self) -> float:
        """Return what was expected of the share that is done here; one that is taken up again began further on."""
        return self.expected * (1 - (self.first[1] if self.first is not None else 0.0))

    def left(self, ratio: float, now: float) -> float:
        """Estimate what is left of it; ratio: how its kind compares with what was expected."""
        if self.begun is None:
            return self.expected * ratio
        pace, spent = self.pace(), now - self.begun
        if pace is not None and self.latest is not None:
            share, seconds = pace
            return max((1 - self.latest[1]) * seconds / share - (now - self.latest[0]), 0.0)
        return max(self.expected * ratio - spent, OVERDUE * spent)


class Forecast:
    """What a run has still to do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[tuple[str, str], Step] = {}
        self._taken: dict[str, list[tuple[float, float]]] = {}
        self.ahead, self.ahead_seconds = "", 0.0
        """What there was to do when the run began, and how long it should take."""

    def expect(
        self, kind: str, seconds: Mapping[str, float], lanes: Mapping[str, str] = NONE, alone: Collection[str] = ()
    ) -> None:
        """Say which steps of a kind there are, by name, and how long each should take; replaces what was said before."""
        kept = {key: step for key, step in self._steps.items() if key[0] != kind}
        new = {(kind, name): Step(each, lanes.get(name, ""), name in alone) for name, each in seconds.items()}
        self._steps = {**kept, **new}

    def drop(self, kind: str, name: str) -> None:
        """Strike out a step that is not done, or whose time tells nothing of the others'."""
        self._steps.pop((kind, name), None)

    @contextmanager
    def during(self, kind: str, name: str) -> Iterator[None]:
        """Take the time of a step; one that nobody expected, was dropped or fails corrects nothing."""
        key = (kind, name)
        step = self._steps.get(key, Step(0.0))
        step.begun = self._clock()
        try:
            yield
            if key in self._steps and not step.alone:
                self._taken.setdefault(kind, []).append((step.watched(), self._clock() - step.begun))
        finally:
            self._steps.pop(key, None)

    def update(self, kind: str, done: float, total: float) -> None:
        """Take up how much of the step that is being done is done."""
        for step in [step for key, step in list(self._steps.items()) if key[0] == kind and step.begun is not None]:
            step.latest = (self._clock(), done / total)
            step.first = step.first or step.latest

    def left(self) -> float:
        """Estimate the seconds that are left; 0 where nothing is."""
        now = self._clock()
        ratios = {kind: self._ratio(kind, now) for kind in KINDS}
        lanes: dict[str, float] = {}
        for (kind, _), step in list(self._steps.items()):
            lanes[step.lane] = lanes.get(step.lane, 0.0) + step.left(ratios[kind], now)
        return lanes.pop("", 0.0) + max(lanes.values(), default=0.0)

    def _ratio(self, kind: str, now: float) -> float:
        """Compare what steps of a kind took with what was expected; a few quick ones do not promise as much of the others."""
        compared = list(self._taken.get(kind, ()))
        for (other, _), step in list(self._steps.items()):
            if other == kind and step.begun is not None and step.pace() is not None and step.expected:
                compared.append((step.watched(), now - step.begun + step.left(1.0, now)))
        if not compared:
            return 1.0
        expected, taken = (sum(values) for values in zip(*compared, strict=True))
        usual = expected / len(compared)
        return max(taken / expected, (taken + usual) / (expected + usual)) if expected else 1.0

    def summary(self) -> str:
        """Say what there is to do and how long it takes; empty where there is nothing."""
        counts = {kind: sum(key[0] == kind for key in self._steps) for kind in KINDS}
        named = [(count, *KINDS[kind]) for kind, count in counts.items() if count]
        parts = [f"{count} {thing}{'' if count == 1 else 's'} {verb}" for count, thing, verb in named]
        return f"{', '.join(parts)}; {about(self.left())}" if parts else ""

    def fix(self) -> bool:
        """Remember once what there is to do and how long it takes; returns whether that was now."""
        if self.ahead or not self._steps:
            return False
        self.ahead, self.ahead_seconds = self.summary(), self.left()
        return True

    def beside(self, progress: Progress) -> Progress:
        """Tell how long the whole takes beside what is being done; callbacks hear it in brackets behind that."""

        def shown(what: str, done: float, total: float, lane: str = "") -> None:
            if total:  # while a model is trained, it is the recipe that speaks
                self.update("train", done, total)
            progress(self._with_time_left(what) if total else what, done, total, lane)

        return shown

    def _with_time_left(self, what: str) -> str:
        if not self._steps:
            return what
        return _in_brackets(what, self.left())
