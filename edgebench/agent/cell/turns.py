"""One side of a comparison: it waits for its turn, takes a window of samples, and waits again."""

import gc
import os
import queue
import time
from typing import Any

from ..clock import now_ns
from .loop import Loop

CANNOT = "cannot take turns"
"""Stands in the reason where a runtime cannot be alive twice; the host compares trial by trial then."""
AWAKE_SECONDS = 0.01
"""Before its samples, inferences of about so long bring a side's data back into the caches; one at least."""
LOOK_SECONDS = 0.002
QUIET = 0.2
"""A process that uses less of a core than this is asleep: looking takes some of it."""
LOOKS = 200


def check(worker: Any) -> None:
    """Raise where the runtime cannot be alive beside another of its kind, or takes the samples by itself."""
    if "take" in worker.offers:
        raise ValueError("%s %s: a program takes its samples" % (worker.job["runtime"], CANNOT))
    if getattr(worker.module, "SINGLE", False):
        raise ValueError("%s %s: one process at a time can use its device" % (worker.job["runtime"], CANNOT))


def rest() -> None:
    """Return once this process sleeps: threads of a runtime look for more work for a while after each inference, and spin."""
    for _ in range(LOOKS):
        before, begin = time.process_time(), time.monotonic()
        time.sleep(LOOK_SECONDS)
        if not awake() and time.process_time() - before < QUIET * (time.monotonic() - begin):
            return


def awake(tasks: str = "/proc/self/task") -> int:
    """Count the threads beside the first that run or wait for a core, which a busy system may keep from them; 0 off Linux."""
    found = 0
    for thread in os.listdir(tasks) if os.path.isdir(tasks) else ():
        if thread != str(os.getpid()):
            try:
                with open(os.path.join(tasks, thread, "stat")) as stream:
                    found += stream.read().rpartition(")")[2].split()[0] == "R"
            except (OSError, IndexError):  # it has ended
                pass
    return found


def take(worker: Any, loop: Loop, share: int) -> None:
    """Take a window of samples each time that the token comes; `share` inferences are one sample.

    Beside each stands what the process itself used of the processor while it waited.
    """
    seconds, tokens = worker.job["turns"]["seconds"], worker.tokens
    gc.collect()
    gc.disable()
    used, since = time.process_time(), now_ns()
    while _is_my_turn(tokens):
        waited, used = now_ns() - since, time.process_time() - used
        loop.window(AWAKE_SECONDS)
        begin = now_ns()
        window = loop.window(seconds)
        end = now_ns()
        rest()
        worker.events.emit(
            "samples",
            ns=list(window),
            begin_ns=begin,
            end_ns=end,
            inferences=len(window) * share,
            waited_ns=waited,
            waited_cpu_ns=int(1e9 * used),
        )
        used, since = time.process_time(), now_ns()


def _is_my_turn(tokens: "queue.Queue[bytes]") -> bool:
    """Sleep until a word comes; say whether it is the token."""
    return tokens.get() == b"t"
