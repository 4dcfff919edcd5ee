"""Runs a cell: every pass in a process of its own, conditions beside the trials.

It ends its worker and itself when the host hangs up (standard input closes).
"""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Deque, Dict, List, Optional

from . import PROTOCOL, clock, facts, plugins
from .cell.worker import main as worker_main
from .digest import sha256
from .events import Events
from .hangup import when_host_leaves
from .meters.meters import Sampler, pulses
from .probe import conditions, inventory
from .setup import environments
from .tune import tuning

STALL_SECONDS = 300.0
"""A worker that is silent for so long is ended."""
PULSES = 5
LAST_WORDS = "edgebench:"
"""How a runtime's line begins that says what it was about to do; an empty one takes it back."""


class Pass(object):
    """One worker process, watched."""

    def __init__(self, job: Dict[str, Any], wanted: Dict[str, Any], events: Events) -> None:
        self.name = wanted["name"]
        self.trial = wanted["trial"]
        self._events = events
        self._job = dict(job["cells"][wanted["cell"]], mode=job["mode"], **wanted)
        self._job["pass"] = self.name
        self._place = {"name": self.name, "trial": self.trial, "cell": wanted["cell"]}
        self._sampling = False
        self._timed: Optional[int] = None
        self._errors: Deque[str] = collections.deque(maxlen=40)
        self._last = time.monotonic()
        self._stalled = False
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
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(self._job) + "\n")
            self.process.stdin.flush()  # left open: the worker ends when this process does
        except OSError:
            pass
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
            if event["event"] == "timing":  # a program that the worker started takes the samples
                self._timed = event["pid"]
            if event["event"] in ("timing", "warm", "finished") and self.name == "trial":  # exactly around the samples
                self._sampling = True
                self._look(programs=True)
                self._sampling = not finished
        return finished

    def _stage(self, stage: str) -> str:
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

    def _look(self, programs: bool = False) -> None:
        """Send one snapshot, marked where it lies within the samples."""
        found = conditions.snapshot(pid=self._timed or self.process.pid, programs=programs)
        self._events.emit("conditions", sampling=self._sampling, **dict(found, **self._place))

    def _watch(self) -> None:
        """Read conditions once a second, and end a worker that stalls."""
        while True:
            self._look()
            if time.monotonic() - self._last > STALL_SECONDS:
                self._stalled = True
                self.process.kill()
            if self._over.wait(1.0):
                return


def cell(job: Dict[str, Any], events: Events) -> int:
    """Run all passes of one cell."""
    events.emit(
        "hello",
        protocol=PROTOCOL,
        environment=facts.environment(),
        clock=clock.describe(),
        pid=os.getpid(),
    )
    workers: "List[subprocess.Popen[str]]" = []
    sampler = Sampler(job["meters"], events)
    when_host_leaves(lambda: _leave(workers, sampler))
    signal.signal(signal.SIGTERM, lambda *_: _leave(workers, sampler))
    for each in job["cells"]:
        changed = [path for path, expected in each["files"] if sha256(path) != expected]
        if changed:
            os.unlink(changed[0])
            events.emit("failed", stage="deploy", reason=changed[0] + " was changed on the device; it was removed")
            return 1
    sampler.start()
    try:
        failure = _passes(job, events, workers, sampler)
    finally:
        sampler.stop()
    if failure is not None:
        events.emit("failed", **failure)
        return 1
    events.emit("done")
    return 0


def _passes(
    job: Dict[str, Any], events: Events, workers: "List[subprocess.Popen[str]]", sampler: Sampler
) -> Optional[Dict[str, Any]]:
    """Run one pass after the other, idle and marked around the trials where meters want that; the first failure ends it."""
    trials = [index for index, wanted in enumerate(job["passes"]) if wanted["name"] == "trial"]
    for index, wanted in enumerate(job["passes"]):
        if trials and index == trials[0]:
            _around(job, events, sampler)
        current = Pass(job, wanted, events)
        workers[:] = [current.process]
        if not current.run():
            return current.failure or {"stage": wanted["name"], "reason": "ended without a reason"}
        if trials and index == trials[-1]:
            _around(job, events, sampler)
    return None


def _around(job: Dict[str, Any], events: Events, sampler: Sampler) -> None:
    """Before and after the trials: marks for meters with a clock of their own, and an idle window."""
    if sampler.own_clock:
        pulses(PULSES, 1.0, lambda begin, end: events.emit("mark", begin_ns=begin, end_ns=end))
    if sampler.working and job["mode"]["idle_seconds"]:
        begin = clock.now_ns()
        time.sleep(job["mode"]["idle_seconds"])
        events.emit("idle", begin_ns=begin, end_ns=clock.now_ns())


def _leave(workers: "List[subprocess.Popen[str]]", sampler: Sampler) -> None:
    """End the worker, the programs of meters, and this process."""
    for process in workers:
        process.kill()
    sampler.abandon()
    os._exit(3)


def main() -> int:
    """Do what the first argument says: `cell`, `inspect`, `probe`, `setup`, `tune` or `worker`."""
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command == "worker":
        return worker_main()
    if command == "setup":
        return environments.main(plugins.names("runtimes"))
    events = Events()
    if command in ("inspect", "probe"):
        options = json.loads(sys.stdin.readline()) if command == "probe" and len(sys.argv) > 2 else {}
        more = {"device": inventory.inspect(json.loads(sys.stdin.readline()))} if command == "inspect" else {}
        events.emit(
            "hello",
            protocol=PROTOCOL,
            environment=facts.environment(),
            identity=inventory.identity(),
            runtimes=facts.runtimes(plugins.names("runtimes"), options),
            clock=clock.describe(),
            wall_s=time.time(),
            **more,
        )
        return 0
    if command == "tune":
        return tuning.tune(json.loads(sys.stdin.readline()), events)
    if command != "cell":
        sys.stderr.write("usage: python agent.pyz cell|inspect|probe|setup|tune < job.json\n")
        return 2
    return cell(json.loads(sys.stdin.readline()), events)
