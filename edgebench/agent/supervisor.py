"""Runs a cell: every pass in a process of its own, conditions beside the trials.

It ends its worker and itself when the host hangs up (standard input closes).
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Union

from . import PROTOCOL, android, clock, facts
from .digest import sha256
from .events import Events
from .hangup import when_host_leaves
from .meters.meters import Sampler, pulses
from .passes import Pass
from .turns import Turns

PULSES = 5
SAMPLED = ("trial", "turns")
"""Passes whose samples are timed."""


def cell(job: Dict[str, Any], events: Events) -> int:
    """Run all passes of one cell.

    `root` in the job, where it is there: a folder that is looked at in place of the device.
    """
    root = job.get("root", "/")
    dark = _screen(job, root)
    events.emit(
        "hello",
        protocol=PROTOCOL,
        environment=dict(facts.environment(root), **({"screen": dark} if dark else {})),
        clock=clock.describe(),
        pid=os.getpid(),
    )
    workers: "List[subprocess.Popen[str]]" = []
    sampler = Sampler(job["meters"], events, root)
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


def _screen(job: Dict[str, Any], root: str) -> Optional[str]:
    """Keep a phone's screen on until nobody measures any more; returns why that cannot be."""
    if not android.here(root):
        return None
    from .tune import screen

    return screen.keep_on(root, screen.state_file(sys.argv[0]), job.get("screen_grace", screen.GRACE_SECONDS))


def _passes(
    job: Dict[str, Any], events: Events, workers: "List[subprocess.Popen[str]]", sampler: Sampler
) -> Optional[Dict[str, Any]]:
    """Run one pass after the other, idle and marked around the trials where meters want that; the first failure ends it."""
    trials = [index for index, wanted in enumerate(job["passes"]) if wanted["name"] in SAMPLED]
    for index, wanted in enumerate(job["passes"]):
        if trials and index == trials[0]:
            _around(job, events, sampler)
        current: "Union[Pass, Turns]"
        if wanted["name"] == "turns":
            current = Turns(job, wanted, events, workers)
        else:
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
