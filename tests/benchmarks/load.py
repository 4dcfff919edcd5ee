"""A bursty load beside a benchmark: on each core a process that computes for a while, rests for a while, and so on.

As a program: `load.py CORE` does that on one core until the process that started it is gone.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SHORTEST, LONGEST = 0.02, 1.5
"""Seconds that a burst or a rest takes; drawn so that short ones are as likely as long ones."""


@contextmanager
def bursty(wanted: bool) -> Iterator[None]:
    """Keep the load up for a while, where it is wanted; exactly the processes that were started are ended."""
    cores = sorted(os.sched_getaffinity(0)) if wanted else []
    started = [subprocess.Popen([sys.executable, __file__, str(core)]) for core in cores]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(core: int) -> None:
    """Alternate bursts and rests on one core; ends with the parent."""
    os.sched_setaffinity(0, {core})
    draw, parent = random.Random(core), os.getppid()
    while os.getppid() == parent:
        burst, rest = (SHORTEST * (LONGEST / SHORTEST) ** draw.random() for _ in range(2))
        end = time.monotonic() + burst
        while time.monotonic() < end:
            sum(range(1000))
        time.sleep(rest)


if __name__ == "__main__":
    run(int(sys.argv[1]))
