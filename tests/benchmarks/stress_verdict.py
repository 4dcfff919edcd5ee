"""Beside a load on every core the verdict is UNSTABLE and says why; alone it is VALID in 9 of 10 runs.

The network is small enough for a core's own cache: on a shared machine a larger one feels
its neighbours' memory traffic, and is then rightly called UNSTABLE though we are alone.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cells import REDUCED, TINY, arguments, bundle, checked, progress, session, subject, workplace
from figures import state

from edgebench.analysis import stats
from edgebench.analysis import verdict as judging
from edgebench.device.job import Pass
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, run_job
from edgebench.schema import Verdict

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
)
QUIET = True
"""Noise would decide it."""

REASON = "other processes used"
SECONDS = 2.0
"""Of a trial; between 0.7 s and the 10 s of the mode standard."""


def burn() -> None:
    """Compute for ever."""
    while True:
        pass


@contextmanager
def stressed() -> Iterator[None]:
    """Load every core, as `stress --cpu N` does."""
    fork = multiprocessing.get_context("spawn")
    loads = [fork.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for load in loads:
        load.start()
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.join()


def judged(opened: Session, cell: CellJob) -> Verdict:
    """Measure once and judge."""
    passes = [Pass("trial", index) for index in range(opened.spec.trials)]
    [found] = checked(run_job(opened, [cell], passes, lambda _: None))
    summary = stats.summarize(found.trials)
    return judging.judge(cell.cell, summary, found.trials, found.conditions, opened.spec.min_samples, None)


def main() -> int:
    """Judge runs alone and beside the load."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    with workplace() as folder:
        opened = session(folder, dataclasses.replace(REDUCED, min_seconds=SECONDS))
        cell = subject(opened, bundle(folder, TINY, 128))
        alone = []
        for index in range(given.runs):
            alone.append(judged(opened, cell))
            progress(f"alone {index + 1} of {given.runs}")
        with stressed():
            beside = []
            for index in range(3):
                beside.append(judged(opened, cell))
                progress(f"beside the load {index + 1} of 3")
    print()
    for name, found in (("alone", alone), ("beside the load", beside)):
        for each in found:
            print(f"{name}: {each.word} {'; '.join(reason.reason for reason in each.reasons)}")
    valid = sum(each.word == "VALID" for each in alone)
    right = sum(each.word == "UNSTABLE" and any(REASON in reason.reason for reason in each.reasons) for each in beside)
    text = (
        f"alone VALID in {valid} of {len(alone)} runs; beside the load UNSTABLE for the right reason in {right} of {len(beside)}"
    )
    return state(valid >= 0.9 * len(alone) and right == len(beside), text, "9 of 10, and all beside the load")


if __name__ == "__main__":
    sys.exit(main())
