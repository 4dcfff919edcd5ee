"""Samples → summary and verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebench import stats
from edgebench.schema import Trial


def trial(samples: Any, index: int = 0, settled: bool = True, calls: int = 1) -> Trial:
    return Trial(
        index=index,
        load_ns=1000,
        first_ns=2000,
        warmup_ns=[1],
        settled=settled,
        calls_per_sample=calls,
        samples_ns=[int(value) for value in samples],
        prepare_ns=[10],
        scores_ns=[5],
        complete=True,
    )


def steady(seed: int, centre: float = 1e6, count: int = 2000) -> Any:
    return np.random.default_rng(seed).normal(centre, centre * 0.01, count)


@pytest.mark.parametrize(("q", "least"), [(0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_a_quantile_needs_enough_samples_to_bound_it(q: float, least: int) -> None:
    assert stats.eligible(least, q)
    assert not stats.eligible(least - 1, q)


def test_a_quantile_is_a_sample_by_nearest_rank() -> None:
    samples = np.arange(1, 101)
    assert stats.quantile(samples, 0.9) == 90
    assert stats.quantile(samples, 0.99) == 99


def test_the_headline_is_the_median_of_trial_medians_not_of_pooled_samples() -> None:
    long, short = [100] * 10_000, [200] * 100
    summary = stats.summarize([trial(long, 0), trial(short, 1), trial(short, 2)])
    assert summary.median_ns.value == 200
    assert summary.mean_ns == pytest.approx((100 + 200 + 200) / 3)


def test_short_series_leave_their_tails_blank() -> None:
    summary = stats.summarize([trial(steady(seed, count=100), seed) for seed in range(3)])
    assert summary.p90_ns is not None
    assert summary.p95_ns is None
    assert summary.p99_ns is None


def test_batched_samples_have_no_tails() -> None:
    summary = stats.summarize([trial(steady(seed), seed, calls=100) for seed in range(3)])
    assert summary.p90_ns is None


def test_outliers_are_counted_and_kept() -> None:
    samples = [*steady(0), 9e9]
    summary = stats.summarize([trial(samples)])
    assert summary.outliers >= 1
    assert summary.max_ns == 9e9
    assert summary.median_ns.low is None


def test_scaling_every_sample_scales_every_time() -> None:
    one = stats.summarize([trial(steady(seed), seed) for seed in range(3)])
    two = stats.summarize([trial([3 * int(v) for v in steady(seed)], seed) for seed in range(3)])
    for name in ("mean_ns", "stdev_ns", "mad_ns", "min_ns", "max_ns", "p99_ns"):
        assert getattr(two, name) == pytest.approx(3 * getattr(one, name))
    assert two.median_ns.high == pytest.approx(3 * (one.median_ns.high or 0))


@pytest.mark.parametrize("samples", [[], [5, 0, 5], [5, -1]])
def test_empty_or_impossible_series_are_refused(samples: list[int]) -> None:
    with pytest.raises(ValueError, match="trial 0"):
        stats.summarize([trial(samples)])


def judge(trials: list[Trial], conditions: Any = (), least: int = 1024, agreement: float | None = 1.0) -> Any:
    return stats.verdict(stats.summarize(trials), trials, conditions, least, agreement)


def test_steady_trials_are_valid() -> None:
    assert judge([trial(steady(seed), seed) for seed in range(5)]).word == "VALID"


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([trial(steady(0)), trial(steady(1, 1.2e6), 1)], "apart"),
        ([trial(steady(0)), trial(steady(1), 1, settled=False)], "never settled"),
        ([trial(steady(0, count=500)), trial(steady(1), 1)], "500 samples"),
        ([trial([*steady(0, 1e6), *steady(0, 1.5e6)])], "scatter"),
        ([trial([*steady(0, count=1900), *[1.6e6] * 100]) for _ in range(9)] + [trial([1.6e6] * 2000)], "apart"),
    ],
)
def test_what_makes_a_result_unstable_is_said(trials: list[Trial], reason: str) -> None:
    verdict = judge(trials)
    assert verdict.word == "UNSTABLE"
    assert any(reason in item.reason for item in verdict.reasons)
    assert all(item.recommendation for item in verdict.reasons)


def conditions(**last: Any) -> list[dict[str, Any]]:
    first = {"trial": 0, "cpu_jiffies": 1000, "steal_jiffies": 0, "swapped_pages": 7}
    return [first, {**first, "cpu_jiffies": 2000, **last}]


def test_stolen_time_is_unstable_and_swapping_is_invalid() -> None:
    trials = [trial(steady(seed), seed) for seed in range(5)]
    stolen = judge(trials, conditions(steal_jiffies=71))
    assert (stolen.word, stolen.reasons[0].reason) == ("UNSTABLE", "7.1 % of the CPU time was stolen by the hypervisor")
    assert judge(trials, conditions(swapped_pages=8)).word == "INVALID"
    assert judge(trials, conditions(steal_jiffies=None, swapped_pages=None)).word == "VALID"


def test_other_decisions_than_on_the_host_are_invalid() -> None:
    trials = [trial(steady(seed), seed) for seed in range(5)]
    assert judge(trials, agreement=0.9).word == "INVALID"
