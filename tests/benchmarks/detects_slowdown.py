"""A runtime made 5 % slower is found in 90 % of the comparisons at least, one made 0 % slower in 5 % at most.

The slower runtime infers, then looks at the clock until the delay is over; the delay is
5 % of the median that a first run measured.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from cells import arguments, bundle, checked, pairs, session, subject, workplace
from figures import state

from edgebench.analysis import stats
from edgebench.device.job import Pass
from edgebench.run.session import run_job

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
    "tests/doubles/rt_delayed.py",
)
QUIET = True
"""Noise would decide it."""


def main() -> int:
    """Run the comparisons with and without the delay, and print both rates."""
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", type=int, default=30)
    given = parser.parse_args()
    rates = {}
    with workplace() as folder:
        opened = session(folder)
        made = bundle(folder)
        first, second = subject(opened, made), subject(opened, made, runtime="delayed")
        [calibration] = checked(run_job(opened, [first], [Pass("trial", index) for index in range(5)], lambda _: None))
        median_ns = float(np.median(stats.medians(calibration.trials)))
        spec = opened.spec
        print(f"{spec.trials} trials of {spec.min_seconds} s a side, A B B A; p50 {median_ns / 1e3:.0f} µs")
        for delay in (0.05, 0.0):
            os.environ["EDGEBENCH_DELAY_NS"] = str(int(delay * median_ns))
            found = pairs(opened, first, second, given.comparisons)
            compared = [stats.compare(stats.medians(one), stats.medians(other), paired=True, floor=None) for one, other in found]
            rates[delay] = sum(item.word == "slower" for item in compared) / len(compared)
            wrong = sum(item.word == "faster" for item in compared)
            ratios = [item.ratio.value for item in compared]
            print(
                f"\ndelay {100 * delay:.0f} %: found in {100 * rates[delay]:.1f} % of {len(found)} (called faster: {wrong}); "
                f"ratios {min(ratios):.3f} … {np.median(ratios):.3f} … {max(ratios):.3f}"
            )
            rates[delay] += wrong / len(compared) if delay == 0 else 0
    text = f"5 % slower found in {100 * rates[0.05]:.1f} %, 0 % called different in {100 * rates[0.0]:.1f} %"
    return state(rates[0.05] >= 0.9 and rates[0.0] <= 0.05, text, "90 % at least, 5 % at most")


if __name__ == "__main__":
    sys.exit(main())
