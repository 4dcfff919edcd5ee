"""How much metering lengthens an inference is known: samples with the meters on and off, in turn.

The meter is `rapl` where this computer has it, else a program that prints watts twenty times
a second.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from cells import arguments, bundle, checked, progress, session, subject, workplace
from figures import state

from edgebench.analysis import stats
from edgebench.device.job import Pass
from edgebench.run.session import run_job
from edgebench.schema import MeterSpec

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
)
QUIET = True
"""Noise would decide it."""

PRINTS = "import time\nwhile True:\n    print(5.0, flush=True)\n    time.sleep(0.05)"
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def main() -> int:
    """Print the ratio of on to off, with its interval."""
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    given = parser.parse_args()
    own = os.access(RAPL, os.R_OK)
    options = {} if own else {"arguments": [sys.executable, "-c", PRINTS]}
    spec = MeterSpec(name="rapl" if own else "command", rail=None, provenance=None, options=options)
    off: list[float] = []
    on: list[float] = []
    with workplace() as folder:
        opened = session(folder)
        cell = subject(opened, bundle(folder))
        readings = 0
        for index in range(given.pairs):
            for metered in (False, True) if index % 2 == 0 else (True, False):
                meters = [spec] if metered else []
                [found] = checked(run_job(opened, [cell], [Pass("trial")], lambda _: None, meters))
                (on if metered else off).append(float(np.median(found.trials[0].samples_ns)))
                readings += sum(len(trace.values) for trace in found.power.traces)
            progress(f"pair {index + 1} of {given.pairs}")
    ratio = stats.compare(off, on, paired=True, floor=None).ratio
    low, high = (100 * ((value or 1) - 1) for value in (ratio.low, ratio.high))
    text = (
        f"{spec.name}, {readings} readings: metering lengthens an inference by "
        f"{100 * (ratio.value - 1):+.2f} % [{low:+.2f}, {high:+.2f}]"
    )
    return state(readings > 0, text, "none, but that the meter is read")


if __name__ == "__main__":
    sys.exit(main())
