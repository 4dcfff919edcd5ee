"""Workers that are alive at once, of which one at a time works: they take turns, window by window."""

import os
import queue
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import cores
from .events import Events
from .passes import Pass

ENDED = "ended"


class Over(Exception):
    """A side ended that was still needed."""


def shared_cores(cells: Sequence[Dict[str, Any]], round: int) -> Optional[List[int]]:
    """Choose the cores that all sides use; other ones in each round of processes. None: as the system schedules them.

    A process that slept may wake on any core, and the cores of a shared machine differ in who else is there: two sides
    that compute now on the one and now on the other differ by that. Where the user chose cores, or a side needs all, they stay.
    """
    if not hasattr(os, "sched_setaffinity") or any(each["affinity"] is not None or not each["threads"] for each in cells):
        return None
    mine = sorted(os.sched_getaffinity(0))
    if any(each.get("big_cores") for each in cells):
        mine = cores.big() or mine
    count = max(each["threads"] for each in cells)
    first = round * count
    return None if count >= len(mine) else [mine[(first + index) % len(mine)] for index in range(count)]


class Turns(object):
    """A worker process for each side, and the token that says whose turn it is: first to last, then last to first.

    A B B A A B B A …; every other time the last begins. Each has loaded and warmed up alone before that.
    """

    def __init__(
        self, job: Dict[str, Any], wanted: Dict[str, Any], events: Events, workers: "List[subprocess.Popen[str]]"
    ) -> None:
        self._job = job
        self._wanted = wanted
        self._events = events
        self._workers = workers
        self._sides: List[Pass] = []
        self._threads: List[threading.Thread] = []
        self._heard: "queue.Queue[Tuple[int, str]]" = queue.Queue()
        self.failure: Optional[Dict[str, Any]] = None

    def run(self) -> bool:
        """Run until each side has had its turns; say whether all finished."""
        self._workers[:] = []
        try:
            self._start()
            for side in self._sides:
                side.beside = [other.process.pid for other in self._sides if other is not side]
                side.sample(begins=True)
            self._alternate()
            for side in self._sides:
                side.sample(begins=False)
            for number, side in enumerate(self._sides):
                side.waits = False
                side.tell("e")
                self._until(number, ENDED)
        except Over:
            return False
        finally:
            for side in self._sides:
                side.process.kill()
            for thread in self._threads:
                thread.join(10)
        return True

    def _start(self) -> None:
        """Start one side after the other, each once the one before waits: nothing is loaded beside what is timed."""
        cells = list(self._wanted["cells"])
        chosen = shared_cores([self._job["cells"][cell] for cell in cells], self._wanted["trial"])
        wanted = self._wanted if chosen is None else dict(self._wanted, affinity=chosen)
        for number, cell in enumerate(reversed(cells) if self._wanted["trial"] % 2 else cells):
            side = Pass(self._job, dict(wanted, cell=cell), self._events, self._ear(number))
            self._sides.append(side)
            self._workers.append(side.process)
            thread = threading.Thread(target=self._run, args=(number,))
            thread.daemon = True
            self._threads.append(thread)
            thread.start()
            self._until(number, "warm")

    def _ear(self, number: int) -> Any:
        return lambda event: self._heard.put((number, event))

    def _run(self, number: int) -> None:
        self._sides[number].run()
        self._heard.put((number, ENDED))

    def _alternate(self) -> None:
        """Pass the token on until every side has had its turns, or the cap is reached after a whole round."""
        asked, begin = self._wanted["turns"], time.monotonic()
        there = list(range(len(self._sides)))
        for _ in range(max(1, asked["turns"] // 2)):
            for number in there + there[::-1]:
                self._sides[number].work()
                self._until(number, "samples")
            if time.monotonic() - begin > asked["cap_seconds"]:
                break

    def _until(self, number: int, wanted: str) -> None:
        """Wait for an event of a side; `Over` where any side ends instead."""
        while True:
            who, event = self._heard.get()
            side = self._sides[who]
            if (who, event) == (number, wanted) and (event != ENDED or side.failure is None):
                side.waits = True
                return
            if event == ENDED and (side.failure is not None or wanted != ENDED):
                self.failure = side.failure or {"stage": "turns", "reason": "a side ended before its last turn"}
                raise Over()
