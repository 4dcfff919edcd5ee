"""A bundle compared with itself is called different in 5 % of the comparisons at most.

Its processes take turns window by window, as `edgebench compare` lets them. Beside it, from fewer comparisons made in between:
the same trial by trial, and the samples of those pooled and tested as if they were independent (Welch's t, Mann-Whitney), as
benchmarks without trials do. `--load`: beside a bursty load on each core.
"""

from __future__ import annotations

import sys

import numpy as np
from cells import FEWER, UNWARMED, arguments, bundle, by_trial, in_turn, pairs, progress, session, share, subject, workplace
from figures import state
from load import bursty
from scipy import stats as scipy_stats

from edgebench.analysis import stats
from edgebench.schema import Comparison, Trial

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
    "tests/benchmarks/load.py",
)
QUIET = True
"""Noise would decide it."""
DIFFERENT = ("faster", "slower")
EVERY = 5
"""One comparison trial by trial after so many in turn."""


def main() -> int:
    """Run the comparisons, print what they came to on the way, and the rates."""
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", type=int, default=60)
    parser.add_argument("--load", action="store_true", help="beside a bursty load of another process on each core")
    given = parser.parse_args()
    found: list[Comparison] = []
    apart: list[tuple[list[Trial], list[Trial]]] = []
    with workplace() as folder:
        opened = session(folder, FEWER)
        cell = subject(opened, bundle(folder), UNWARMED)
        print(f"{given.comparisons} A/A comparisons of {opened.turns}; load: {given.load}")
        with bursty(given.load):
            for number in range(1, given.comparisons + 1):
                found.append(in_turn(opened, cell, cell))
                if number % EVERY == 0:
                    apart += pairs(opened, cell, cell, 1)
                    say(found, [by_trial(pair) for pair in apart])
                progress(f"comparison {number} of {given.comparisons}")
    say(found, [by_trial(pair) for pair in apart])
    for name, test in (("Welch's t", welch), ("Mann-Whitney", rank)):
        wrong = sum(test(pool(one), pool(other)) < 0.05 for one, other in apart)
        print(f"pooled samples of trials, {name}: {wrong} of {len(apart)} called different")
    alarms = sum(each.word in DIFFERENT for each in found) / len(found)
    beside = "beside a load" if given.load else "alone"
    text = f"{beside}: {share(found, *DIFFERENT)} called different, {share(found, 'inconclusive')} inconclusive"
    return state(alarms <= 0.05, f"{text}; trial by trial {share([by_trial(pair) for pair in apart], *DIFFERENT)}", "5 % at most")


def say(found: list[Comparison], apart: list[Comparison]) -> None:
    """Print how it stands."""
    for name, each in (("windows in turn", found), ("trials in turn", apart)):
        shifts = [100 * abs(one.ratio.value - 1) for one in each] or [0.0]
        print(
            f"{name}: {share(each, *DIFFERENT)} called different, {share(each, 'inconclusive')} inconclusive; "
            f"shifts: median {np.median(shifts):.2f} %, 95 % under {np.quantile(shifts, 0.95, method='inverted_cdf'):.2f} %; "
            f"would have found {100 * float(np.median([one.detectable or 0 for one in each] or [0])):.1f} %",
            flush=True,
        )


def pool(trials: list[Trial]) -> np.ndarray:
    """Return all samples of all trials."""
    return np.concatenate([stats.samples_of(trial) for trial in trials])


def welch(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of Welch's t-test."""
    return float(scipy_stats.ttest_ind(one, other, equal_var=False).pvalue)


def rank(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of Mann and Whitney's test."""
    return float(scipy_stats.mannwhitneyu(one, other).pvalue)


if __name__ == "__main__":
    sys.exit(main())
