"""Raw samples → summary and verdict. Pure functions; the trial, not the sample, is the unit of inference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from edgebench.schema import Interval, LatencySummary, Reason, Trial, Verdict, VerdictWord

OUTLIER = 14.826
"""Median absolute deviations from the median beyond which a sample is flagged (hyperfine)."""
QUANTILES = {"p90_ns": 0.9, "p95_ns": 0.95, "p99_ns": 0.99, "p999_ns": 0.999}


def quantile(samples: NDArray[np.int64], q: float) -> float:
    """Return the smallest sample that at least a share q of all samples does not exceed (nearest rank)."""
    return float(np.quantile(samples, q, method="inverted_cdf"))


def eligible(count: int, q: float) -> bool:
    """Say whether so many samples can bound a quantile.

    At confidence 0.99 one sample beyond it must be unlikely luck: the
    binomial bound of MLPerf LoadGen's early stopping with one sample set
    aside, which asks for 64 samples for p90, 130 for p95, 662 for p99 and
    6 636 for p99.9.
    """
    return bool(scipy_stats.binom.cdf(1, count, 1 - q) <= 0.01)


def interval(values: Sequence[float]) -> Interval:
    """Return the median of the trials' values with a 95 % confidence interval over trials (Student's t)."""
    centre = float(np.median(values))
    if len(values) < 2:
        return Interval(value=centre, low=None, high=None)
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * spread
    middle = float(np.mean(values))
    return Interval(value=centre, low=min(middle - half, centre), high=max(middle + half, centre))


def summarize(trials: Sequence[Trial]) -> LatencySummary:
    """Summarise the complete trials' samples; nanoseconds.

    Medians and quantiles are taken within each trial, then the median over
    trials. Batched samples (several calls a value) have no tails.
    """
    arrays = [_samples(trial) for trial in trials]
    medians = [float(np.median(array)) for array in arrays]
    deviations = [float(np.median(np.abs(array - centre))) for array, centre in zip(arrays, medians, strict=True)]
    smallest = min(len(array) for array in arrays)
    batched = any(trial.calls_per_sample > 1 for trial in trials)
    tails = {
        name: float(np.median([quantile(array, q) for array in arrays]))
        for name, q in QUANTILES.items()
        if eligible(smallest, q) and not batched
    }
    return LatencySummary(
        trials=len(trials),
        samples=sum(len(array) for array in arrays),
        median_ns=interval(medians),
        mean_ns=float(np.mean([array.mean() for array in arrays])),
        stdev_ns=float(np.sqrt(np.mean([array.var(ddof=1) if len(array) > 1 else 0.0 for array in arrays]))),
        mad_ns=float(np.median(deviations)),
        min_ns=float(min(array.min() for array in arrays)),
        max_ns=float(max(array.max() for array in arrays)),
        outliers=sum(map(_outliers, arrays, medians, deviations)),
        trial_medians_ns=tuple(medians),
        load_ns=float(np.median([trial.load_ns for trial in trials])),
        first_ns=float(np.median([trial.first_ns for trial in trials])),
        prepare_ns=float(np.median(np.concatenate([np.asarray(trial.prepare_ns) for trial in trials]))),
        scores_ns=float(np.median(np.concatenate([np.asarray(trial.scores_ns) for trial in trials]))),
        **tails,
    )


def _samples(trial: Trial) -> NDArray[np.int64]:
    array = np.asarray(trial.samples_ns, dtype=np.int64)
    if not len(array) or array.min() <= 0:
        raise ValueError(f"trial {trial.index} has no samples, or one that is not positive")
    return array


def _outliers(samples: NDArray[np.int64], centre: float, deviation: float) -> int:
    return int((np.abs(samples - centre) > OUTLIER * deviation).sum()) if deviation else 0


# ---------------------------------------------------------------- verdict


def verdict(
    summary: LatencySummary,
    trials: Sequence[Trial],
    conditions: Sequence[Mapping[str, Any]],
    min_samples: int,
    host_agreement: float | None,
) -> Verdict:
    """Say whether the numbers can be relied on, why not, and what to do.

    Dispersion is judged on windows (a tenth of a trial), not on single
    samples: one preempted inference among thousands moves no median.
    """
    invalid = _invalid(conditions, host_agreement)
    unstable = _spread(summary, trials, min_samples) + _disturbed(conditions)
    word: VerdictWord = "INVALID" if invalid else "UNSTABLE" if unstable else "VALID"
    return Verdict(word=word, reasons=tuple(invalid + unstable))


def _invalid(conditions: Sequence[Mapping[str, Any]], host_agreement: float | None) -> list[Reason]:
    found = []
    if host_agreement is not None and host_agreement < 0.99:
        found.append(
            Reason(
                reason=f"{100 * (1 - host_agreement):.1f} % of the parity samples are decided otherwise than on the host",
                recommendation="compare the runtime's version with the host's, and export for this target again",
            )
        )
    swapped = sum(_increases(conditions, "swapped_pages"))
    if swapped > 0:
        found.append(
            Reason(
                reason=f"{swapped:.0f} pages were swapped while samples were taken",
                recommendation="free some memory on the device and measure again",
            )
        )
    return found


def _spread(summary: LatencySummary, trials: Sequence[Trial], min_samples: int) -> list[Reason]:
    found = []
    medians = np.array(summary.trial_medians_ns)
    apart = float(medians.max() / medians.min() - 1)
    if apart > 0.05:
        found.append(
            Reason(
                reason=f"the trials' medians are {100 * apart:.1f} % apart",
                recommendation="run on an idle device with fixed clocks",
            )
        )
    windows = np.concatenate([_windows(_samples(trial)) for trial in trials])
    mean = float(windows.mean())
    if len(windows) > 1 and float(windows.std(ddof=1)) >= 0.1 * mean:
        found.append(
            Reason(
                reason=f"the windows' medians scatter by {100 * float(windows.std(ddof=1)) / mean:.0f} % of their mean",
                recommendation="stop other programs on the device and measure again",
            )
        )
    elif float(np.abs(windows - mean).max()) >= 0.5 * mean:
        found.append(
            Reason(
                reason=f"a window's median lies {100 * float(np.abs(windows - mean).max()) / mean:.0f} % from the mean",
                recommendation="stop other programs on the device and measure again",
            )
        )
    if not all(trial.settled for trial in trials):
        unsettled = sum(not trial.settled for trial in trials)
        found.append(
            Reason(
                reason=f"the warm-up of {unsettled} of {len(trials)} trials never settled",
                recommendation="run on an idle device with fixed clocks",
            )
        )
    fewest = min(len(trial.samples_ns) * trial.calls_per_sample for trial in trials)
    if fewest < min_samples:
        found.append(
            Reason(
                reason=f"a trial has {fewest} samples, the mode asks for {min_samples}",
                recommendation="the model is slow for this mode: read its tails with care",
            )
        )
    return found


def _windows(samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the medians of ten equal parts of a trial."""
    return np.array([float(np.median(part)) for part in np.array_split(samples, min(10, len(samples)))])


def _disturbed(conditions: Sequence[Mapping[str, Any]]) -> list[Reason]:
    found = []
    total = sum(_increases(conditions, "cpu_jiffies"))
    stolen = sum(_increases(conditions, "steal_jiffies"))
    if total and stolen / total > 0.02:
        found.append(
            Reason(
                reason=f"{100 * stolen / total:.1f} % of the CPU time was stolen by the hypervisor",
                recommendation="run on an idle host",
            )
        )
    return found


def _increases(conditions: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    """Return how much a counter rose within each trial; trials where it is null are left out."""
    rises = []
    for trial in {condition["trial"] for condition in conditions}:
        values = [condition[field] for condition in conditions if condition["trial"] == trial]
        if None not in values:
            rises += [float(after - before) for before, after in pairwise(values)]
    return rises
