"""One pass of a job: a worker process, its events forwarded, and conditions beside it."""

import collections
import json
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Deque, Dict, List, Optional

from . import android
from .events import Events
from .probe import conditions

STALL_SECONDS = 300.0
"""A worker that is silent for so long is ended."""
PHONE_LOOKS = 60
"""Once in so many seconds a phone's programs are asked within the samples too: they cost a thousandth of a core then."""
LAST_WORDS = "edgebench:"
"""How a runtime's line begins that says what it was about to do; an empty one takes it back."""


class Pass(object):
    """One worker process, watched."""

    def __init__(
        self,
        job: Dict[str, Any],
        wanted: Dict[str, Any],
        events: Events,
        heard: Optional[Callable[[str], None]] = None,
    ) -> None:
        """Start the process; `heard` is told the kind of each of its events, once that was forwarded."""
        self.name = wanted["name"]
        self.trial = wanted["trial"]
        self._events = events
        self._heard = heard
        self._job = dict(job["cells"][wanted["cell"]], mode=job["mode"], **wanted)
        self._job["pass"] = self.name
        self._root = job.get("root", "/")
        self._phone = android.here(self._root)
        self._asked: Dict[str, Any] = {}
        self._place = {"name": self.name, "trial": self.trial, "cell": wanted["cell"]}
        self._sampling = False
        self._timed: Optional[int] = None
        self._errors: Deque[str] = collections.deque(maxlen=40)
        self._last = time.monotonic()
        self._stalled = False
        self.waits = False
        """It has nothing to say: others work, and it is asked later."""
        self.beside: List[int] = []
        """Processes that take turns with it: none of them disturbs it."""
        self.failure: Optional[Dict[str, Any]] = None
        self._over = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )

    def run(self) -> bool:
        """Forward the worker's events until it ends; say whether the pass finished."""
        watchers = [threading.Thread(target=self._drain), threading.Thread(target=self._watch)]
        self._events.emit("started", **self._place)
        for thread in watchers:
            thread.daemon = True
            thread.start()
        finished = self._forward()
        code = self.process.wait()
        self._over.set()
        for thread in watchers:
            thread.join(5)
        if not finished and self.failure is None:
            self.failure = self._death(code)
        return finished

    def _forward(self) -> bool:
        finished = False
        assert self.process.stdout is not None
        self.tell(json.dumps(self._job) + "\n")
        for line in self.process.stdout:
            self._last = time.monotonic()
            try:
                event = json.loads(line)
            except ValueError:
                self._errors.append(line)
                continue
            if event["event"] == "failed":
                self.failure = {"stage": self._stage(event["stage"]), "reason": event["reason"]}
                continue
            finished = finished or event["event"] == "finished"
            self._events.forward(json.dumps(dict(event, **self._place)) + "\n")
            if event["event"] == "loaded" and self.name == "trial" and self._phone:
                self._asked = self._look(programs=True)  # a fifth of a second of a core: not within the samples
            if event["event"] == "timing":  # a program that the worker started takes the samples
                self._timed = event["pid"]
            if event["event"] in ("timing", "warm", "finished") and self.name == "trial":  # exactly around the samples
                self.sample(begins=not finished)
            if self._heard is not None:
                self._heard(event["event"])
        return finished

    def tell(self, text: str) -> None:
        """Write to the worker's standard input, which is left open: the worker ends when this process does."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except OSError:
            pass

    def work(self) -> None:
        """Let a worker that waits do its next turn."""
        self._last = time.monotonic()
        self.waits = False
        self.tell("t")

    def sample(self, begins: bool) -> None:
        """Mark where the samples begin or end, with a snapshot there."""
        self._sampling = True
        self._look(programs=not self._asked, known=self._asked)
        self._sampling, self._asked = begins, {}

    def _stage(self, stage: str) -> str:
        if self.name == "turns":
            return "turns %d of cell %d, %s" % (self.trial, self._place["cell"], stage)
        return "trial %d, %s" % (self.trial, stage) if self.name == "trial" else stage

    def _death(self, code: int) -> Dict[str, Any]:
        """Say how a worker ended that did not finish."""
        if self._stalled:
            reason = "no sign of life for %d s" % STALL_SECONDS
        elif code < 0:
            names = {item.value: item.name for item in signal.Signals}
            reason = "the process was killed by %s" % names.get(-code, "signal %d" % -code)
            if -code == signal.SIGKILL:
                reason += " (by hand, or because memory ran out)"
        else:
            reason = "the process ended with exit code %d" % code
        last = "".join(self._errors).strip().splitlines()
        words = [line[len(LAST_WORDS) :].strip() for line in last if line.startswith(LAST_WORDS)]
        last = words[-1:] if words and words[-1] else [line for line in last if not line.startswith(LAST_WORDS)]
        return {"stage": self._stage("run"), "reason": reason + (": " + last[-1][:300] if last else "")}

    def _drain(self) -> None:
        """Keep the end of what the worker writes to its standard error."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line[:2000])

    def _look(self, programs: bool = False, known: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Send one snapshot, marked where it lies within the samples; what it does not tell is what was `known` just before."""
        found = conditions.snapshot(self._root, self._timed or self.process.pid, programs)
        found = dict(known or {}, **{name: value for name, value in found.items() if value is not None or not known})
        if found["worker_ns"] is not None:
            found["worker_ns"] += sum(conditions.worker(self._root, pid)["worker_ns"] or 0 for pid in self.beside)
        self._events.emit("conditions", sampling=self._sampling, **dict(found, **self._place))
        return found

    def _watch(self) -> None:
        """Read conditions once a second, and end a worker that stalls."""
        looks = 0
        while True:
            looks += 1
            self._look(programs=self._phone and looks % PHONE_LOOKS == 0)
            if not self.waits and time.monotonic() - self._last > STALL_SECONDS:
                self._stalled = True
                self.process.kill()
            if self._over.wait(1.0):
                return
