"""Samples → summary and comparison; properties hold for whatever hypothesis thinks of."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebench.analysis import stats
from edgebench.schema import Trial, Window


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
    samples = np.arange(1, 101, dtype=np.float64)
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


@pytest.mark.parametrize("samples", [[], [5, 0, 5], [5, -1], [5, math.nan], [math.inf, 5], [-math.inf]])
def test_empty_or_impossible_series_are_refused(samples: Any) -> None:
    with pytest.raises(ValueError, match="trial 0"):
        stats.summarize([dataclasses.replace(trial([1]), samples_ns=samples)])


# ---------------------------------------------------------------- properties

TIMES = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@settings(max_examples=500, deadline=None)
@given(TIMES, st.integers(1, 1000))
def test_a_quantile_is_the_smallest_sample_that_covers_its_share(samples: list[int], thousandths: int) -> None:
    share = Fraction(thousandths, 1000)
    covering = [x for x in sorted(samples) if Fraction(sum(y <= x for y in samples), len(samples)) >= share]
    assert stats.quantile(np.array(samples, np.float64), thousandths / 1000) == covering[0]


@given(TIMES)
def test_the_median_is_exact(samples: list[int]) -> None:
    ordered, half = sorted(samples), len(samples) // 2
    exact = Fraction(ordered[half]) if len(samples) % 2 else Fraction(ordered[half - 1] + ordered[half], 2)
    assert Fraction(stats.summarize([trial(samples)]).median_ns.value) == exact


@settings(deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=5), st.integers(2, 50))
def test_scaling_every_sample_scales_every_statistic(series: list[list[int]], factor: int) -> None:
    one = stats.summarize([trial(samples, index) for index, samples in enumerate(series)])
    scaled = [trial([factor * value for value in samples], index) for index, samples in enumerate(series)]
    two = stats.summarize(scaled)
    for name in ("mean_ns", "stdev_ns", "mad_ns", "min_ns", "max_ns"):
        assert getattr(two, name) == pytest.approx(factor * getattr(one, name), rel=1e-9)
    for name in ("value", "low", "high"):
        before, after = getattr(one.median_ns, name), getattr(two.median_ns, name)
        assert (before is None) == (after is None)
        assert before is None or after == pytest.approx(factor * before, rel=1e-9, abs=1e-3)
    assert two.variation == pytest.approx(one.variation, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=5), st.integers(1, 10**9))
def test_shifting_every_sample_moves_places_and_no_spreads(series: list[list[int]], shift: int) -> None:
    one = stats.summarize([trial(samples, index) for index, samples in enumerate(series)])
    two = stats.summarize([trial([value + shift for value in samples], index) for index, samples in enumerate(series)])
    for name in ("mean_ns", "min_ns", "max_ns"):
        assert getattr(two, name) == pytest.approx(getattr(one, name) + shift, rel=1e-9)
    assert two.median_ns.value == pytest.approx(one.median_ns.value + shift, rel=1e-12)
    assert two.mad_ns == pytest.approx(one.mad_ns, rel=1e-9, abs=1e-3)
    assert two.stdev_ns == pytest.approx(one.stdev_ns, rel=1e-6, abs=10)


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=12))
def test_the_interval_holds_its_median(values: list[int]) -> None:
    found = stats.interval(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


@given(TIMES, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 300))
def test_a_sample_that_is_no_number_is_refused_wherever_it_stands(samples: list[int], bad: float, place: int) -> None:
    spoilt: Any = [*samples[:place], bad, *samples[place:]]
    with pytest.raises(ValueError, match="finite"):
        stats.summarize([dataclasses.replace(trial([1]), samples_ns=spoilt)])
    with pytest.raises(ValueError, match="finite"):
        stats.compare(spoilt, [1.0], paired=False, floor=None)
    with pytest.raises(ValueError, match="finite"):
        stats.interval(spoilt)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=6), st.floats(0.01, 100))
def test_comparing_ignores_the_unit_and_turns_round(values: list[float], unit: float) -> None:
    others = [value * 1.5 for value in values]
    one = stats.compare(values, others, paired=True, floor=None)
    assert one.ratio.value == pytest.approx(1.5)
    scaled = stats.compare([unit * v for v in values], [unit * v for v in others], paired=True, floor=None)
    assert scaled.ratio.value == pytest.approx(one.ratio.value)
    back = stats.compare(others, values, paired=True, floor=None)
    assert back.ratio.value == pytest.approx(1 / one.ratio.value)


# ---------------------------------------------------------------- comparison


def test_a_clear_difference_has_its_direction() -> None:
    base = [100.0, 101.0, 99.0, 100.5, 99.5]
    slower = [value * 1.05 for value in base]
    assert stats.compare(base, slower, paired=True, floor=None).word == "slower"
    assert stats.compare(slower, base, paired=True, floor=None).word == "faster"
    assert stats.compare(base, slower, paired=False, floor=None).word == "slower"


def test_a_shift_under_the_floor_is_none() -> None:
    base = [100.0, 100.1, 99.9, 100.0, 100.0]
    slower = [value * 1.05 for value in base]
    found = stats.compare(base, slower, paired=True, floor=0.06)
    assert (found.word, found.threshold) == ("same", 0.06)
    assert stats.compare(base, [value * 1.015 for value in base], paired=True, floor=0.001).word == "same"


def test_pairs_cancel_a_drift_that_hits_both_alike() -> None:
    drift = [100.0, 110.0, 122.0, 135.0, 150.0]
    slower = [value * 1.05 for value in drift]
    assert stats.compare(drift, slower, paired=True, floor=None).word == "slower"
    assert stats.compare(drift, slower, paired=False, floor=None).word == "inconclusive"


def test_one_trial_is_never_enough_to_decide_anything() -> None:
    for paired in (False, True):
        found = stats.compare([100.0], [200.0], paired=paired, floor=None)
        assert (found.word, found.ratio.low, found.detectable) == ("inconclusive", None, None)
        assert found.ratio.value == pytest.approx(2)


def test_interleaved_trials_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="5 and 4"):
        stats.compare([1.0] * 5, [1.0] * 4, paired=True, floor=None)


def test_suites_are_summarised_by_the_geometric_mean() -> None:
    assert stats.geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert stats.geometric_mean([2.0, 8.0]) == pytest.approx(4)


def test_the_noise_floor_is_what_95_percent_stay_under() -> None:
    assert stats.noise_floor([1 + 0.001 * step for step in range(1, 101)]) == pytest.approx(0.095)


def test_paired_accuracy_counts_what_one_alone_decides_rightly() -> None:
    first = np.array([True] * 90 + [False] * 10)
    second = np.array([True] * 80 + [False] * 10 + [True] * 2 + [False] * 8)
    found = stats.paired_difference(first, second)
    assert (found.gained, found.lost, found.samples) == (2, 10, 100)
    assert found.difference.value == pytest.approx(-0.08)
    assert (found.difference.low or 0) < -0.08 < (found.difference.high or 0) < 0
    assert found.mcnemar_p == pytest.approx(2 * sum(math.comb(12, k) for k in range(3)) / 2**12)
    assert stats.paired_difference(first, first).mcnemar_p == 1


# ---------------------------------------------------------------- scenarios


def test_throughput_is_batch_over_median_and_the_fastest_batch_counts() -> None:
    trials = [
        dataclasses.replace(trial([1000 * (1 + batch // 2)] * 20, index), batch=batch)
        for index, batch in enumerate([1, 4, 16] * 3)
    ]
    rates = {point.batch: point.per_second.value for point in stats.throughput(trials)}
    assert rates == pytest.approx({1: 1e6, 4: 4e6 / 3, 16: 16e6 / 9})
    best = stats.summarize(stats.fastest_batch(trials))
    assert (best.batch, best.trials) == (16, 3)
    assert best.per_second == pytest.approx(16e6 / 9)


def test_a_server_trial_in_which_no_rate_held_counts_as_none() -> None:
    trials = [dataclasses.replace(trial([5], index), rate=rate) for index, rate in enumerate([100.0, None, 120.0])]
    found = stats.server(trials, 1e6)
    assert (found.per_second.value, found.held_trials) == (100.0, 2)


def windowed(medians: list[float]) -> Trial:
    """Make a trial of one-second windows with given medians."""
    windows = [Window(0, int(index * 1e9), int((index + 1) * 1e9), 3) for index in range(len(medians))]
    return dataclasses.replace(trial([value for median in medians for value in (median,) * 3]), windows=windows)


def test_throttling_has_its_onset() -> None:
    found = stats.sustained(windowed([1000.0] * 200 + [1300.0] * 400))
    assert (found.burst_ns, found.sustained_ns) == (1000, 1300)
    assert found.slowdown == pytest.approx(0.3)
    assert found.onset_seconds == pytest.approx(200, abs=3)


def test_one_slow_window_is_no_throttling() -> None:
    found = stats.sustained(windowed([1000.0] * 300 + [2000.0] + [1000.0] * 300))
    assert found.onset_seconds is None
    assert found.slowdown == pytest.approx(0)
