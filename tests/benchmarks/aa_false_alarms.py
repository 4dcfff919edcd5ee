"""A bundle compared with itself is called different in 5 % of the comparisons at most.

Beside it: the same samples pooled and tested as if they were independent (Welch's t,
Mann-Whitney), which is what a benchmark without trials amounts to.
"""

from __future__ import annotations

import sys

import numpy as np
from cells import arguments, bundle, pairs, session, subject, workplace
from figures import state
from scipy import stats as scipy_stats

from edgebench.analysis import stats
from edgebench.schema import Trial

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
)
QUIET = True
"""Noise would decide it."""


def main() -> int:
    """Run the comparisons and print both rates."""
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", type=int, default=40)
    given = parser.parse_args()
    with workplace() as folder:
        opened = session(folder)
        cell = subject(opened, bundle(folder))
        spec = opened.spec
        print(f"{given.comparisons} A/A comparisons; {spec.trials} trials of {spec.min_seconds} s for each side, A B B A")
        found = pairs(opened, cell, cell, given.comparisons)
    compared = [stats.compare(stats.medians(one), stats.medians(other), paired=True, floor=None) for one, other in found]
    alarms = sum(item.word != "same" for item in compared)
    shifts = sorted(abs(item.ratio.value - 1) for item in compared)
    print(
        f"\nshifts: median {100 * np.median(shifts):.2f} %, 95 % under {100 * stats.noise_floor([1 + s for s in shifts]):.2f} %"
    )
    for name, test in (("Welch's t", welch), ("Mann-Whitney", rank)):
        wrong = sum(test(pool(one), pool(other)) < 0.05 for one, other in found)
        print(f"pooled samples, {name}: {wrong} of {len(found)} called different ({100 * wrong / len(found):.0f} %)")
    share = alarms / len(found)
    return state(share <= 0.05, f"by trials {alarms} of {len(found)} called different ({100 * share:.1f} %)", "5 % at most")


def pool(trials: list[Trial]) -> np.ndarray:
    """Return all samples of all trials."""
    return np.concatenate([np.asarray(trial.samples_ns, dtype=np.float64) for trial in trials])


def welch(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of Welch's t-test."""
    return float(scipy_stats.ttest_ind(one, other, equal_var=False).pvalue)


def rank(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of Mann and Whitney's test."""
    return float(scipy_stats.mannwhitneyu(one, other).pvalue)


if __name__ == "__main__":
    sys.exit(main())
