"""Raw samples → summary and comparison. Pure functions; the trial, not the sample, is the unit of inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.ties import LEAST_SHIFT
from edgebench.schema import (
    BatchPoint,
    Comparison,
    Interval,
    LatencySummary,
    Paired,
    Server,
    Sustained,
    Trial,
)

OUTLIER = 14.826
"""Median absolute deviations from the median beyond which a sample is flagged (hyperfine)."""
Samples = NDArray[np.float64]
QUANTILES = {"p90_ns": 0.9, "p95_ns": 0.95, "p99_ns": 0.99, "p999_ns": 0.999}


def quantile(samples: Samples, q: float) -> float:
    """Return the smallest sample that at least a share q of all samples does not exceed (nearest rank)."""
    rank = max(math.ceil(round(q * len(samples), 6)), 1)  # 0.07 × 100 is a little more than 7 in floating point
    return float(np.partition(samples, rank - 1)[rank - 1])


def eligible(count: int, q: float) -> bool:
    """Return whether so many samples can bound a quantile.

    At confidence 0.99 one sample beyond it must be unlikely luck: the
    binomial bound of MLPerf LoadGen's early stopping with one sample set
    aside, which asks for 64 samples for p90, 130 for p95, 662 for p99 and
    6 636 for p99.9.
    """
    from scipy.special import bdtr  # scipy.stats has it too, and takes most of a second to import

    return bool(bdtr(1, count, 1 - q) <= 0.01)


def share_interval(share: float, count: float) -> Interval:
    """Return a share of so many samples with its 95 % interval (E. B. Wilson 1927)."""
    z = _normal_quantile()
    middle, room = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return Interval(value=share, low=max(0.0, (middle - room) / whole), high=min(1.0, (middle + room) / whole))


@cache
def _normal_quantile() -> float:
    """Return how many standard deviations hold 95 % of a normal distribution, on both sides of its mean."""
    from scipy.special import ndtri

    return float(ndtri(0.975))


def interval(values: Sequence[float]) -> Interval:
    """Return the median of the trials' values with a 95 % confidence interval over trials.

    The hull of two intervals: Student's t, which few trials need, and that
    between order statistics, which holds for any distribution (from five trials
    the smallest and the largest cover the median in 93.8 %; David & Nagaraja,
    Order Statistics, 7.1).
    """
    from scipy.special import bdtr, stdtrit

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise ValueError("a trial's value is not finite")
    centre, count = float(np.median(ordered)), len(ordered)
    if count < 2:
        return Interval(value=centre, low=None, high=None)
    half = float(stdtrit(count - 1, 0.975)) * float(ordered.std(ddof=1)) / math.sqrt(count)
    rank = max(int((bdtr(np.arange(count + 1), count, 0.5) < 0.025).sum()) - 1, 0)
    middle = float(ordered.mean())
    low, high = float(ordered[rank]), float(ordered[count - 1 - rank])
    return Interval(value=centre, low=min(middle - half, low), high=max(middle + half, high))


def summarize(trials: Sequence[Trial]) -> LatencySummary:
    """Summarise trials of one batch size; nanoseconds.

    Medians and quantiles are taken within each trial, then the median over
    trials. Batched samples (several calls a value) have no tails.
    """
    arrays = [samples_of(trial) for trial in trials]
    medians = [float(np.median(array)) for array in arrays]
    deviations = [float(np.median(np.abs(array - centre))) for array, centre in zip(arrays, medians, strict=True)]
    smallest = min(len(array) for array in arrays)
    batched = any(trial.calls_per_sample > 1 for trial in trials)
    asked = [trial.precise for trial in trials if trial.precise is not None]
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
        batch=trials[0].batch,
        precise_trials=sum(asked) if asked else None,
        load_ns=float(np.median([trial.load_ns for trial in trials])),
        first_ns=float(np.median([trial.first_ns for trial in trials])),
        prepare_ns=float(np.median(np.concatenate([np.asarray(trial.prepare_ns) for trial in trials]))),
        scores_ns=float(np.median(np.concatenate([np.asarray(trial.scores_ns) for trial in trials]))),
        stages_ns={
            name: float(np.median([np.median(np.asarray(trial.stages[name])) for trial in trials])) for name in trials[0].stages
        },
        **tails,
    )


def samples_of(trial: Trial) -> Samples:
    """Return a trial's samples; ValueError where there are none, or any is not a positive, finite number."""
    array = np.asarray(trial.samples_ns, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all() or array.min() <= 0:
        raise ValueError(f"trial {trial.index} has no samples, or one that is not positive and finite")
    return array


def _outliers(samples: Samples, centre: float, deviation: float) -> int:
    return int((np.abs(samples - centre) > OUTLIER * deviation).sum()) if deviation else 0


# ---------------------------------------------------------------- scenarios


def medians(trials: Sequence[Trial]) -> list[float]:
    """Return each trial's median; nanoseconds."""
    return [float(np.median(samples_of(trial))) for trial in trials]


def by_batch(trials: Sequence[Trial]) -> dict[int, list[Trial]]:
    """Group trials by the inferences in one of their samples."""
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.batch, []).append(trial)
    return dict(sorted(found.items()))


def throughput(trials: Sequence[Trial]) -> tuple[BatchPoint, ...]:
    """Return inferences per second at each batch size (scenario offline)."""
    points = []
    for batch, members in by_batch(trials).items():
        middles = medians(members)
        rates = interval([1e9 * batch / middle for middle in middles])
        points.append(BatchPoint(batch=batch, per_second=rates, median_ns=float(np.median(middles))))
    return tuple(points)


def fastest_batch(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the batch size with the highest throughput."""
    best = max(throughput(trials), key=lambda point: point.per_second.value)
    return by_batch(trials)[best.batch]


def server(trials: Sequence[Trial], bound_ns: float) -> Server:
    """Return the highest rate that kept the bound; a trial in which none did counts as 0 per second."""
    rates = [trial.rate or 0.0 for trial in trials]
    return Server(bound_ns=bound_ns, per_second=interval(rates), held_trials=sum(rate > 0 for rate in rates))


MINUTE_NS = 60e9


def sustained(trial: Trial) -> Sustained:
    """Compare the first minute with the last, and find when the model became 5 % slower for good.

    The onset is the first window after which the running median of five
    windows never again lies below 1.05 × the burst's median.
    """
    samples, ends = samples_of(trial), np.cumsum(window_counts(trial))
    medians = np.array([float(np.median(part)) for part in np.split(samples, ends[:-1])])
    begins = np.array([window.begin_ns for window in trial.windows], dtype=np.float64)
    spent = begins - begins[0]
    burst = float(np.median(medians[spent < MINUTE_NS]))
    last = float(np.median(medians[spent >= spent[-1] - MINUTE_NS]))
    padded = np.pad(medians, 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    fast = np.flatnonzero(smooth < 1.05 * burst)
    start = int(fast[-1]) + 1 if len(fast) else 0
    onset = float(spent[start]) / 1e9 if start < len(spent) else None
    return Sustained(burst_ns=burst, sustained_ns=last, slowdown=last / burst - 1, onset_seconds=onset)


def window_counts(trial: Trial) -> list[int]:
    """Return how many samples each window holds."""
    return [window.inferences // (trial.batch * trial.calls_per_sample) for window in trial.windows]


# ---------------------------------------------------------------- comparison

RESAMPLES = 10_000
MANY = 10
"""More pairs than so many times those that there are decide nothing in practice."""
By = Literal["window", "trial", "record"]


def compare(
    first: Sequence[float], second: Sequence[float], *, paired: bool, floor: float | None, least: float = LEAST_SHIFT
) -> Comparison:
    """Compare two cells by their trials' medians; the ratio is second over first.

    Where trials were interleaved, `decided` on the pairs' ratios. Else the 95 %
    interval is a percentile bootstrap over trials (Efron 1979) of the ratio of
    the medians.
    """
    before, after = np.log(_positive(first)), np.log(_positive(second))
    if paired and len(before) != len(after):
        raise ValueError(f"interleaved trials come in pairs, these are {len(before)} and {len(after)}")
    threshold = floored(floor, least)
    if paired:
        return decided(list(after - before), threshold, floor, by="trial")
    count = min(len(before), len(after))
    centre = float(np.median(after) - np.median(before))
    low, high = np.quantile(_drawn_medians(after, 1) - _drawn_medians(before, 0), [0.025, 0.975]) if count > 1 else (None, None)
    return _said(centre, low, high, count, threshold, floor, "record")


def floored(floor: float | None, least: float = LEAST_SHIFT) -> float:
    """Return the largest shift that counts as none."""
    return max(least, floor or 0.0)


def decided(log_ratios: Sequence[float], threshold: float, floor: float | None, by: By) -> Comparison:
    """Say what pairs decide, by the logarithms of their ratios.

    *faster* or *slower*: the 95 % interval excludes 1, and the shift exceeds the
    threshold. *same*: the interval lies within the threshold. Else *inconclusive*.
    """
    centre, low, high = over_pairs(log_ratios)
    return _said(centre, low, high, len(log_ratios), threshold, floor, by)


def over_pairs(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the centre of differences within pairs, and its 95 % interval.

    From six pairs on that of the signed ranks, and the median of the means of
    each two (Wilcoxon 1945; Hodges & Lehmann 1963): where the two sides are the
    same, a pair's difference is as likely as its opposite, so it errs in 5 % of
    the cases at most under any noise that pairs do not share. Five pairs cannot
    say anything at 95 % that way: Student's t. One pair has no interval.
    """
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    one, other = np.triu_indices(count)
    means = np.sort((array[one] + array[other]) / 2)
    cut = _signed_ranks(count)
    if cut:
        return float(np.median(means)), float(means[cut - 1]), float(means[-cut])
    if count < 2:
        return float(array[0]), None, None
    half, middle = _student(count, 0.975) * float(array.std(ddof=1)) / math.sqrt(count), float(array.mean())
    return middle, middle - half, middle + half


@cache
def _signed_ranks(count: int) -> int:
    """Return which of the ordered means bounds the interval, counted from 1 and from either end; 0: none does."""
    ways = np.ones(1)
    for rank in range(1, count + 1):
        more = np.zeros(len(ways) + rank)
        more[: len(ways)] += ways
        more[rank:] += ways
        ways = more
    return int((np.cumsum(ways) / 2.0**count <= 0.025).sum())


def _student(count: int, probability: float) -> float:
    from scipy.stats import t

    return float(t.ppf(probability, count - 1))


def _said(
    centre: float, low: float | None, high: float | None, count: int, threshold: float, floor: float | None, by: By
) -> Comparison:
    """Find the word for an interval of the log ratio, and what it could have found."""
    value = math.exp(centre)
    ratio = Interval(value=value, low=None if low is None else math.exp(low), high=None if high is None else math.exp(high))
    said = Comparison(
        ratio=ratio, word="inconclusive", threshold=threshold, floor=floor, paired=by != "record", by=by, pairs=count
    )
    if low is None or high is None:
        return said.model_copy(update={"advice": "one pair alone decides nothing; take more"})
    half, least = (high - low) / 2, math.log1p(threshold)
    found = max(half, least) + _student(count, 0.9) * half / _student(count, 0.975)
    said = said.model_copy(update={"detectable": math.expm1(found)})
    if (low > 0 or high < 0) and abs(value - 1) > threshold:
        return said.model_copy(update={"word": "slower" if centre > 0 else "faster"})
    if math.expm1(low) >= -threshold and math.expm1(high) <= threshold:
        return said.model_copy(update={"word": "same"})
    needed = abs(abs(centre) - least) if abs(value - 1) <= threshold else abs(centre)
    times = (half / needed) ** 2 if needed else math.inf
    more = max(1, math.ceil(count * (times - 1))) if times <= MANY and by != "record" else None
    return said.model_copy(update={"more_pairs": more, "advice": _advice(more, half, least, threshold, by)})


def _advice(more: int | None, half: float, least: float, threshold: float, by: By) -> str:
    """Say what would decide an inconclusive comparison."""
    if by == "record":
        return "records of their own time cannot decide it; let `edgebench compare` run the two bundles in turn"
    if more is not None:
        return f"about {more} more pairs would decide it, or a quieter machine"
    if half > least:
        return f"a quieter machine would decide it; {MANY} times as many pairs would not"
    return f"it lies too near to {100 * threshold:.1f} %, under which shifts count as none, to fall on either side"


def _drawn_medians(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the medians of `RESAMPLES` draws with replacement; the values' order does not matter."""
    lower, upper = _middles(len(values), seed)
    ordered = np.sort(values)
    return np.asarray((ordered[lower] + ordered[upper]) / 2)


@cache
def _middles(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of so many ordered values are in the middle of each draw."""
    drawn = np.sort(np.random.default_rng(seed).integers(0, count, (RESAMPLES, count)), axis=1)
    return drawn[:, (count - 1) // 2].copy(), drawn[:, count // 2].copy()


def _positive(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all() or array.min() <= 0:
        raise ValueError("a comparison wants positive, finite medians of one trial at least")
    return array


def geometric_mean(ratios: Sequence[float]) -> float:
    """Summarise a suite's ratios (Fleming & Wallace 1986)."""
    return float(np.exp(np.mean(np.log(_positive(ratios)))))


def noise_floor(ratios: Sequence[float]) -> float:
    """Return the shift that 95 % of a target's A/A comparisons stay under."""
    return float(np.quantile(np.abs(_positive(ratios) - 1), 0.95, method="inverted_cdf"))


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Compare two models' hits on the same samples, second less first.

    A 95 % percentile bootstrap over samples for the difference of the shares, and
    McNemar's exact test on the samples that one alone decides rightly (McNemar 1947).
    """
    from scipy.stats import binomtest

    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    count = len(first)
    shares = [lost / count, (count - gained - lost) / count, gained / count]
    drawn = np.random.default_rng(0).multinomial(count, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / count, [0.025, 0.975])
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    difference = Interval(value=(gained - lost) / count, low=float(low), high=float(high))
    return Paired(samples=count, difference=difference, gained=gained, lost=lost, mcnemar_p=p_value)
