"""Whether numbers can be relied on, and what is said where they cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from factory import make_cell
from test_stats import steady, trial

from edgebench.analysis import stats, verdict
from edgebench.schema import Scenario, Trial, Verdict

SECOND = 10**9


def judge(
    trials: list[Trial], conditions: Any = (), least: int = 1024, agreement: float | None = 1.0, serving: Any = None, **cell: Any
) -> Verdict:
    return verdict.judge(make_cell(**cell), stats.summarize(trials), trials, conditions, least, agreement, serving)


def calm() -> list[Trial]:
    return [trial(steady(seed), seed) for seed in range(5)]


def test_steady_trials_are_valid() -> None:
    assert judge(calm()).word == "VALID"


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
    found = judge(trials)
    assert found.word == "UNSTABLE"
    assert any(reason in item.reason for item in found.reasons)
    assert all(item.recommendation for item in found.reasons)


def during(sampling: bool = True, **last: Any) -> list[dict[str, Any]]:
    """Two snapshots ten seconds apart; `last` changes the second."""
    first = {
        "trial": 0,
        "sampling": sampling,
        "t_ns": 0,
        "cpu_jiffies": 1000,
        "steal_jiffies": 0,
        "swapped_pages": 7,
        "idle_jiffies": 0,
        "worker_ns": 0,
        "worker_wait_ns": 0,
        "cpu_pressure_us": 0,
        "throttle_events": 3,
        "throttled": 0,
        "over_current_events": 8,
        "throttled_since_boot": 0b0101,
        "gpu_khz": 918_000,
        "gpu_khz_floor": 306_000,
        "gpu_khz_limit": 918_000,
        "gpu_load": 0.9,
        "khz_real": 1_500_000,
        "khz_limit": 6_000_000,
        "governor": "schedutil",
        "power_mode": "pmode:0000",
    }
    return [first, {**first, "t_ns": 10 * SECOND, "cpu_jiffies": 2000, "idle_jiffies": 1000, **last}]


@pytest.mark.parametrize(
    ("last", "word", "reason"),
    [
        ({}, "VALID", ""),
        ({"steal_jiffies": 71}, "UNSTABLE", "7.1 % of the samples' time was stolen by the hypervisor"),
        ({"worker_wait_ns": 3 * SECOND}, "UNSTABLE", "waited 30 % of the samples' time for a core"),
        ({"worker_wait_ns": SECOND // 10}, "VALID", ""),
        ({"cpu_pressure_us": 5_000_000, "worker_ns": 9 * SECOND}, "VALID", ""),  # the model's own threads
        (
            {"cpu_pressure_us": 5_000_000, "idle_jiffies": 0},
            "UNSTABLE",
            "other processes used 1.0 cores, and some process waited",
        ),
        ({"cpu_pressure_us": 500_000, "idle_jiffies": 0}, "VALID", ""),  # they had cores of their own
        ({"swapped_pages": 8}, "INVALID", "1 pages were swapped"),
        ({"throttle_events": 4}, "INVALID", "cut its clocks"),
        ({"throttled": 4}, "INVALID", "cut its clocks"),
        ({"khz_real": 1_300_000, "worker_ns": 9 * SECOND}, "INVALID", "the clock moved between 1300 and 1500 MHz"),
        ({"khz_real": 1_300_000, "worker_ns": None}, "INVALID", "the clock moved between 1300 and 1500 MHz"),
        ({"khz_real": 1_300_000, "governor": "performance"}, "INVALID", "the clock moved between 1300 and 1500 MHz"),
        (
            {"khz_real": 1_300_000, "worker_ns": 2 * SECOND},
            "VALID",
            "",
        ),  # the GPU computed, and the governor saw an idle processor
        ({"khz_real": 1_400_000, "worker_ns": 9 * SECOND}, "VALID", ""),
        ({"over_current_events": 45}, "INVALID", "while samples were taken (37 over-current or under-voltage events)"),
        ({"over_current_events": 8}, "VALID", ""),
        ({"throttled_since_boot": 0b0101}, "VALID", ""),  # as before
        ({"throttled_since_boot": 0b0111}, "INVALID", "cut its clocks"),
        ({"throttled_since_boot": 0}, "VALID", ""),  # another program took note of them
        ({"gpu_khz": 612_000, "gpu_load": 0.98}, "INVALID", "the GPU's clock moved between 612 and 918 MHz"),
        ({"gpu_khz": 306_000, "gpu_load": 0.31}, "VALID", ""),
        ({"gpu_khz": 306_000, "gpu_load": None}, "VALID", ""),
        ({"gpu_khz": 612_000, "gpu_load": None, "gpu_khz_floor": 918_000}, "INVALID", "the GPU's clock moved"),
        ({"gpu_khz": 850_000, "gpu_load": 0.98}, "VALID", ""),
        ({"gpu_khz_limit": 624_000}, "INVALID", "the upper limit of the GPU's clock changed"),
        ({"khz_limit": 4_000_000}, "INVALID", "upper limit changed"),
        ({"governor": "powersave"}, "INVALID", "the governor changed"),
        ({"power_mode": "pmode:0001"}, "INVALID", "the power mode changed"),
        ({"power_profile": "low-power"}, "INVALID", "saving power"),
        (dict.fromkeys(("steal_jiffies", "swapped_pages", "worker_wait_ns", "khz_real", "throttled")), "VALID", ""),
    ],
)
def test_conditions_during_the_samples_decide(last: dict[str, Any], word: str, reason: str) -> None:
    found = judge(calm(), during(**last))
    assert found.word == word
    assert reason in "; ".join(item.reason for item in found.reasons)


def test_what_happened_before_the_samples_does_not_count() -> None:
    assert judge(calm(), during(sampling=False, swapped_pages=99, steal_jiffies=500)).word == "VALID"


def test_counters_rise_within_trials_and_never_between_them() -> None:
    rows = [{"trial": index, "x": value} for index, value in [(0, 1), (0, 3), (1, 100), (1, None), (1, 101)]]
    assert verdict.rise(rows, "x") == 3


def test_events_that_are_set_back_between_readings_hide_no_others() -> None:
    """A core that goes takes its count along, and a program may clear a Raspberry Pi's flags."""

    def at(trial: int, **fields: Any) -> dict[str, Any]:
        return {"trial": trial, "sampling": True, **fields}

    events = [at(0, throttle_events=10), at(0, throttle_events=4), at(1, throttle_events=4), at(1, throttle_events=10)]
    flags = [
        at(0, throttled_since_boot=7),
        at(0, throttled_since_boot=0),
        at(1, throttled_since_boot=0),
        at(1, throttled_since_boot=7),
    ]
    for rows in (events, flags):
        assert judge(calm(), rows).word == "INVALID"
        assert judge(calm(), rows[:2]).word == "VALID"


def test_against_too_much_current_cooling_is_not_recommended() -> None:
    [hot] = judge(calm(), during(throttled=4)).reasons
    [hungry] = judge(calm(), during(over_current_events=9)).reasons
    assert hot.recommendation.startswith("cool it, check its power supply, or ")
    assert hungry.recommendation.startswith("choose a lower power mode, check its power supply, or ")


def test_a_flag_that_was_set_between_the_trials_is_no_throttling_in_them() -> None:
    rows = [{"trial": trial, "sampling": True, "throttled": 0, "throttled_since_boot": 15 * trial} for trial in (0, 0, 1, 1)]
    assert judge(calm(), rows).word == "VALID"


def test_readings_are_compared_in_the_order_in_which_they_were_taken() -> None:
    rows = [
        {"trial": 0, "sampling": True, "t_ns": t_ns, "throttled_since_boot": flags} for t_ns, flags in ((0, 0), (3, 0), (1, 4))
    ]
    assert judge(calm(), rows[:2]).word == "VALID"
    assert judge(calm(), rows).word == "INVALID"
    late = [
        {"trial": 0, "sampling": True, "t_ns": t_ns, "over_current_events": count} for t_ns, count in ((0, 5), (2, 5), (1, 5))
    ]
    assert judge(calm(), late).word == "VALID"


@pytest.mark.parametrize(("governor", "word"), [("schedutil", "VALID"), ("performance", "INVALID")])
def test_a_governor_may_lower_the_clock_of_an_application_that_pauses(governor: str, word: str) -> None:
    rows = during(khz_real=600_000, worker_ns=9 * SECOND, governor=governor)
    rows[0]["governor"] = governor
    assert judge(calm(), rows, scenario=Scenario(kind="paced", rate=10)).word == word


def test_other_decisions_than_on_the_host_are_invalid() -> None:
    assert judge(calm(), agreement=0.9).word == "INVALID"


def test_heat_is_what_sustained_measures() -> None:
    slower = [trial([*steady(0), *steady(1, 1.6e6)])]
    assert judge(slower, during(throttled=1, khz_real=900_000), mode="sustained").word == "VALID"
    assert judge(slower, during(swapped_pages=8), mode="sustained").word == "INVALID"
    assert judge(slower, during(throttled=3, khz_limit=4_000_000, gpu_khz_limit=624_000), mode="sustained").word == "VALID"
    assert judge(slower, during(khz_limit=4_000_000), mode="sustained").word == "INVALID"  # somebody set it


@pytest.mark.parametrize(
    ("rates", "word", "reason"),
    [
        ([100.0, 101.0, 102.0], "VALID", ""),
        ([None, None, None], "UNSTABLE", "no rate kept"),
        ([50.0, 100.0, 150.0], "UNSTABLE", "±"),
    ],
)
def test_a_server_is_judged_by_its_rates(rates: list[float | None], word: str, reason: str) -> None:
    trials = [dataclasses.replace(trial(steady(0, 1e6 * (1 + i)), i), rate=rate) for i, rate in enumerate(rates)]
    found = judge(trials, serving=stats.server(trials, 1e7), scenario=Scenario(kind="server", bound_ms=10))
    assert found.word == word
    assert reason in "; ".join(item.reason for item in found.reasons)
