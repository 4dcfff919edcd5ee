"""How much of a search's time is used up, by all the processes that worked on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgebench.files import write_json
from edgebench.run.forecast import about
from edgebench.schema import Progress

FILE = "clock.json"
EVERY = 2.0
"""Seconds after which the time that was spent is written again."""


@dataclass
class Clock:
    """Counts the seconds of a search; what it writes is what a process that is killed has spent until its last sign of life."""

    path: Path
    budget: float
    """Seconds."""
    clock: Callable[[], float] = time.monotonic
    began: float | None = None
    """When this process began, by that clock; now unless given."""
    before: float = field(init=False)
    """What earlier processes have spent."""
    _began: float = field(init=False)
    _written: float = field(init=False)

    def __post_init__(self) -> None:
        """Take up what was spent before; a file that is none counts as nothing spent."""
        self._written = self.clock()
        self._began = self._written if self.began is None else self.began
        try:
            self.before = max(float(json.loads(self.path.read_text())["spent_seconds"]), 0.0)
        except (OSError, ValueError, TypeError, KeyError):
            self.before = 0.0

    @property
    def spent(self) -> float:
        """Return the seconds that are spent."""
        return self.before + self.clock() - self._began

    @property
    def left(self) -> float:
        """Return the seconds that are left; 0 where none are."""
        return max(self.budget - self.spent, 0.0)

    def tick(self, now: bool = False) -> None:
        """Write down what is spent, now and then."""
        if now or self.clock() - self._written >= EVERY:
            self._written = self.clock()
            write_json(self.path, {"spent_seconds": round(self.spent, 3)})

    def beside(self, progress: Progress) -> Progress:
        """Tell what is left of the time beside what is being done, and keep the time.

        Nothing is written while a device measures, which may be this computer: what is measured there has a lane.
        """

        def shown(what: str, done: float, total: float, lane: str = "") -> None:
            if not lane:
                self.tick()
            progress(self._with_time_left(what) if total else what, done, total, lane)

        return shown

    def _with_time_left(self, what: str) -> str:
        head, _, rest = what.partition(" (")
        changing = f"{rest.removesuffix(')')}; " if rest else ""
        return f"{head} ({changing}{about(self.left)} left)"
