"""The 95 % interval over trials covers the true median in 93 % of the cases at least.

Synthetic series with a known median: independent, correlated, drifting, and bimodal
samples, with trials that differ as processes do. Recorded series: long trials of a real
bundle are the truth, and five of them drawn by chance the measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from cells import arguments, bundle, checked, session, subject, workplace
from figures import state
from scipy import signal

from edgebench.analysis import stats
from edgebench.device.job import Pass
from edgebench.run.session import run_job

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/stats.py",
    "tests/benchmarks/cells.py",
)

Draw = Callable[[np.random.Generator], np.ndarray]
TRIALS, SAMPLES, CENTRE = 5, 400, 1e6


def independent(draw: np.random.Generator) -> np.ndarray:
    """Draw samples with a heavy right tail around a median of exp(0)."""
    return CENTRE * np.exp(0.05 * draw.standard_normal(SAMPLES) + 0.01 * draw.standard_normal())


def correlated(draw: np.random.Generator) -> np.ndarray:
    """Draw an AR(1) series (0.98): neighbours are alike, as samples of one process are."""
    noise = signal.lfilter([np.sqrt(1 - 0.98**2)], [1, -0.98], draw.standard_normal(SAMPLES + 300))[300:]
    return np.asarray(CENTRE * np.exp(0.05 * noise + 0.01 * draw.standard_normal()))


def drifting(draw: np.random.Generator) -> np.ndarray:
    """Draw series that climb or fall by up to 6 %, around a centre that trials share."""
    slope = np.linspace(-1, 1, SAMPLES) * draw.uniform(-0.03, 0.03)
    return CENTRE * np.exp(slope + 0.02 * draw.standard_normal(SAMPLES) + 0.01 * draw.standard_normal())


def bimodal(draw: np.random.Generator) -> np.ndarray:
    """Draw from two states, the second 30 % slower: a trial spends 0 to 90 % of its samples there, 45 % on average.

    The trials' medians fall on both sides; half of all trials' medians lie below the
    point that `truth` finds.
    """
    share = draw.uniform(0, 0.9)
    slow = draw.random(SAMPLES) < share
    return CENTRE * np.exp(0.02 * draw.standard_normal(SAMPLES)) * np.where(slow, 1.3, 1.0)


def truth(series: Draw, draw: np.random.Generator) -> float:
    """Return the median of very many trials' medians."""
    return float(np.median([np.median(series(draw)) for _ in range(20_000)]))


def share_covered(medians: Callable[[], np.ndarray], true: float, repeats: int) -> float:
    """Return how often the interval of one measurement covers the truth."""
    found = [stats.interval(medians().tolist()) for _ in range(repeats)]
    return float(np.mean([(item.low or 0) <= true <= (item.high or 0) for item in found]))


def recorded(trials: int) -> np.ndarray:
    """Measure so many short trials of a real bundle; nanoseconds, the trials' medians."""
    with workplace() as folder:
        opened = session(folder)
        passes = [Pass("trial", index) for index in range(trials)]
        [found] = checked(run_job(opened, [subject(opened, bundle(folder))], passes, lambda _: None))
        return np.array([float(np.median(trial.samples_ns)) for trial in found.trials])


def main() -> int:
    """Print the coverage of each kind of series."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--recorded", type=int, default=40, help="real trials to draw from; 0 leaves them out")
    given = parser.parse_args()
    draw, covered = np.random.default_rng(0), {}
    for series in (independent, correlated, drifting, bimodal):
        true = truth(series, draw)

        def synthetic(series: Draw = series) -> np.ndarray:
            return np.array([np.median(series(draw)) for _ in range(TRIALS)])

        covered[series.__name__] = share_covered(synthetic, true, given.repeats)
    if given.recorded:
        pool = recorded(given.recorded)
        drawn = share_covered(lambda: draw.choice(pool, TRIALS, replace=False), float(np.median(pool)), given.repeats)
        covered[f"recorded ({given.recorded} trials)"] = drawn
    worst = min(covered.values())
    text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in covered.items())
    return state(worst >= 0.93, text, "93 % at least")


if __name__ == "__main__":
    sys.exit(main())
