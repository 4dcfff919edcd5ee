"""Energy per inference from readings whose integral is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebench.analysis.energy import energies, energy_of
from edgebench.analysis.power import aligned
from edgebench.schema import Energy, MeterSpec, Power, PowerTrace, Window

Array = NDArray[np.float64]
ZERO_NS = 5_000_000_000_000
MARKS = ((1.203, 2.204), (3.017, 3.618), (4.131, 5.633))
"""Seconds of the pulses that `meters.pulses` makes."""


def ns(seconds: float) -> int:
    return ZERO_NS + round(seconds * 1e9)


def trial(index: int, begin: float, seconds: int, inferences: int = 100) -> list[Window]:
    return [Window(index, ns(begin + n), ns(begin + n + 1), inferences) for n in range(seconds)]


def watts(t: Array) -> Array:
    return np.asarray(5 + 3 * np.sin(t))


def joules(t: Array) -> Array:
    return np.asarray(5 * t + 3 * (1 - np.cos(t)))


def trace(
    curve: Callable[[Array], Array] = watts,
    counter: bool = False,
    period: float = 0.02,
    begin: float = 0.0,
    end: float = 40.0,
    **changes: Any,
) -> PowerTrace:
    t = np.arange(begin, end, period)
    facts: dict[str, Any] = {"meter": "ina3221", "rail": "VDD_IN", "provenance": "module", "own_clock": False, **changes}
    return PowerTrace(counter=counter, t_ns=[ns(x) for x in t], values=curve(t).tolist(), **facts)


def value(found: Energy) -> float:
    assert found.joules is not None, found.reason
    return found.joules.value


@pytest.mark.parametrize(("curve", "counter"), [(watts, False), (joules, True)])
def test_energy_is_the_integral_over_the_windows_inside_the_edges(curve: Callable[[Array], Array], counter: bool) -> None:
    found = energy_of(trace(curve, counter), trial(0, 10, 12), ())
    exact = (joules(np.array(20.0)) - joules(np.array(12.0))) / 800
    assert value(found) == pytest.approx(float(exact), rel=1e-4)
    assert found.watts == pytest.approx(float(exact) * 100, rel=1e-4)
    assert (found.counter, found.provenance, found.meter, found.rail) == (counter, "module", "ina3221", "VDD_IN")
    assert (found.window_seconds, found.short) == (12.0, True)
    assert found.updates == pytest.approx(400, abs=1)
    assert found.rate_hz == pytest.approx(50, rel=0.01)
    assert found.coverage == pytest.approx(1.0, abs=0.01)
    assert found.net_joules is None
    assert found.idle_watts is None


def test_readings_are_interpolated_at_the_windows_ends() -> None:
    def ramp(t: Array) -> Array:
        return t

    windows = [Window(0, ns(10 + 0.97 * n), ns(10 + 0.97 * (n + 1)), 7) for n in range(20)]
    found = energy_of(trace(ramp, period=0.13), windows, ())
    begin, end = 10 + 0.97 * 3, 10 + 0.97 * 17
    assert value(found) == pytest.approx((end**2 - begin**2) / 2 / (14 * 7), rel=1e-9)


def test_time_between_windows_costs_nothing() -> None:
    windows = [window for window in trial(0, 0, 30) if (window.begin_ns - ZERO_NS) // 10**9 % 5 != 4]

    def busy(t: Array) -> Array:
        return np.where((t % 5 < 4.1) | (t % 5 > 4.9), 2.0, 50.0) + 0.001 * np.sin(31 * t)

    assert value(energy_of(trace(busy), windows, ())) == pytest.approx(0.02, rel=0.03)


def test_the_median_of_trials_has_an_interval_and_net_leaves_out_idle() -> None:
    def steps(t: Array) -> Array:
        return np.select([t < 20, t < 40, t < 60, t < 80], [2.0, 4.0, 6.0, 5.0], 2.0) + 0.001 * np.sin(31 * t)

    windows = [*trial(0, 20, 20), *trial(1, 40, 20), *trial(2, 60, 20)]
    idle = [(ns(2), ns(18)), (ns(82), ns(98))]
    found = energy_of(trace(steps, end=100), windows, idle, meter_cost=0.004)
    assert found.joules is not None
    assert found.net_joules is not None
    assert found.joules.value == pytest.approx(0.05, rel=1e-3)
    assert found.joules.low is not None and found.joules.high is not None
    assert found.joules.low < 0.04 < 0.06 < found.joules.high
    assert found.idle_watts == pytest.approx(2.0, rel=1e-3)
    assert found.net_joules.value == pytest.approx(0.03, rel=2e-3)
    assert found.watts == pytest.approx(5.0, rel=1e-3)
    assert found.meter_cost == 0.004


def test_idle_loses_two_seconds_at_each_edge_and_is_null_where_nothing_is_left() -> None:
    def curve(t: Array) -> Array:
        return np.where((t > 4) & (t < 5), 1.0, 9.0) + 0.001 * np.sin(31 * t)

    windows = trial(0, 10, 20)
    assert energy_of(trace(curve), windows, [(ns(2), ns(7))]).idle_watts == pytest.approx(1.0, abs=0.2)
    assert energy_of(trace(curve), windows, [(ns(2), ns(6))]).idle_watts is None
    assert energy_of(trace(curve, begin=8), windows, [(ns(1), ns(7))]).idle_watts is None


def test_sixty_seconds_are_not_short() -> None:
    assert energy_of(trace(end=90), trial(0, 10, 60), ()).short is False
    assert energy_of(trace(end=90), trial(0, 10, 59), ()).short is True


def test_a_slow_counter_is_interpolated_between_its_updates() -> None:
    def staircase(t: Array) -> Array:
        return 7.0 * np.floor(t / 0.08 + 1e-9) * 0.08

    found = energy_of(trace(staircase, True), trial(0, 10, 13), ())
    assert value(found) == pytest.approx(0.07, rel=1e-3)
    assert found.updates == pytest.approx(9 / 0.08, abs=2)


# ---------------------------------------------------------------- no figure, and why


def refused(found: Energy, *words: str) -> Energy:
    assert found.joules is None
    assert found.net_joules is None
    assert found.watts is None
    for word in words:
        assert word in str(found.reason)
    return found


def test_too_few_updates_say_how_many_and_what_to_do() -> None:
    found = refused(energy_of(trace(period=0.25), trial(0, 10, 12), ()), "32 distinct updates", "100 wanted", "strict")
    assert found.updates == 32


def test_the_trial_with_fewest_updates_decides() -> None:
    t = np.concatenate([np.arange(0, 25, 0.02), np.arange(25, 50, 0.2)])
    power = PowerTrace("hwmon", "a", "soc", False, False, [ns(x) for x in t], watts(t).tolist())
    assert energy_of(power, trial(0, 5, 15), ()).joules is not None
    refused(energy_of(power, [*trial(0, 5, 15), *trial(1, 28, 15)], ()), "55 distinct updates")


@pytest.mark.parametrize("counter", [False, True])
def test_a_frozen_sensor_gives_no_energy(counter: bool) -> None:
    def frozen(t: Array) -> Array:
        return np.full_like(t, 7.0)

    found = refused(energy_of(trace(frozen, counter), trial(0, 10, 20), ()), "see whether the sensor works")
    assert found.updates == 0
    assert found.coverage == 0


def test_a_sensor_that_freezes_midway_does_not_cover_the_trial() -> None:
    def frozen(t: Array) -> Array:
        return watts(np.minimum(t, 27.0))

    found = refused(energy_of(trace(frozen), trial(0, 10, 20), ()), "cover 9", "95 % wanted")
    assert found.coverage == pytest.approx(15 / 16, abs=0.01)
    assert energy_of(trace(frozen), trial(0, 8, 20), ()).joules is not None


def test_silence_midway_is_a_hole() -> None:
    whole = trace()
    kept = [index for index, t_ns in enumerate(whole.t_ns) if not ns(17) < t_ns < ns(19)]
    holed = trace(note="USB cable lost")
    holed = PowerTrace(
        "csv", "csv", "wall", False, False, [holed.t_ns[i] for i in kept], [holed.values[i] for i in kept], holed.note
    )
    refused(energy_of(holed, trial(0, 10, 20), ()), "cover 88 %", "(USB cable lost)")


def test_a_coarse_sensor_that_repeats_values_still_covers() -> None:
    noise = np.random.default_rng(1)

    def coarse(t: Array) -> Array:
        return np.round((5 + 0.03 * noise.standard_normal(len(t))) / 0.04) * 0.04

    found = energy_of(trace(coarse), trial(0, 10, 20), ())
    assert found.updates is not None
    assert found.updates < 0.7 * 16 * 50
    assert value(found) == pytest.approx(0.05, rel=0.01)


def test_a_meter_that_was_not_there_gives_no_readings() -> None:
    windows = trial(0, 10, 20)
    refused(energy_of(trace(end=8), windows, ()), "no readings during the samples")
    refused(energy_of(trace(begin=30), windows, ()), "no readings during the samples")
    refused(energy_of(PowerTrace("rapl", "x", "soc", True, False, [], []), windows, ()), "no readings")


def test_what_is_beyond_the_readings_counts_for_neither_energy_nor_inferences() -> None:
    found = energy_of(trace(end=37.6, counter=True, curve=lambda t: 7 * t), trial(0, 10, 30), ())
    assert value(found) == pytest.approx(0.07, rel=1e-6)


def test_short_trials_say_that_a_longer_mode_is_needed() -> None:
    found = refused(energy_of(trace(), trial(0, 10, 4), ()), "a trial of 4.0 s", "--mode standard")
    assert found.window_seconds == 4.0
    refused(energy_of(trace(), [*trial(0, 10, 12), *trial(1, 30, 2)], ()), "a trial of 2.0 s")
    refused(energy_of(trace(), (), ()), "no windows")
    refused(energy_of(trace(), trial(0, 10, 12, inferences=0), ()), "no window")
    refused(energy_of(trace(own_clock=True), trial(0, 10, 12), ()), "not aligned")


# ---------------------------------------------------------------- all rails


def rail(meter: str, name: str, **changes: Any) -> PowerTrace:
    return trace(meter=meter, rail=name, **changes)


def test_the_first_meter_that_gives_joules_is_the_headline() -> None:
    traces = [rail("hwmon", "a", period=0.5), rail("ina3221", "VDD_GPU"), rail("ina3221", "VDD_IN"), rail("rapl", "package-0")]
    power = Power(traces, absent={"csv": "no such file"})
    specs = [
        MeterSpec(name="csv"),
        MeterSpec(name="hwmon"),
        MeterSpec(name="ina3221", rail="VDD_IN", provenance="board"),
        MeterSpec(name="rapl"),
    ]
    headline, rails = energies(power, trial(0, 10, 12), specs, 0.01)
    assert (headline.meter, headline.rail, headline.provenance) == ("ina3221", "VDD_IN", "board")
    assert (headline.reason, headline.meter_cost) == (None, 0.01)
    assert [(one.meter, one.rail) for one in rails] == [
        ("csv", None),
        ("hwmon", "a"),
        ("rapl", "package-0"),
        ("ina3221", "VDD_GPU"),
    ]
    assert rails[0].reason == "csv: no such file"
    assert "updates" in str(rails[1].reason)
    assert rails[3].provenance == "module"  # the target spoke of VDD_IN alone


def test_a_rail_of_another_name_is_not_taken_for_the_one_wanted() -> None:
    power = Power([rail("ina3221", "VDD_GPU_SOC"), rail("ina3221", "VDD_CPU_CV")])
    headline, rails = energies(power, trial(0, 10, 12), [MeterSpec(name="ina3221", rail="VDD_IN")])
    refused(headline, "no rail VDD_IN", "VDD_GPU_SOC, VDD_CPU_CV")
    assert [one.joules is not None for one in rails] == [True, True]


def test_no_meter_is_a_reason_and_so_is_an_absent_one() -> None:
    headline, rails = energies(Power(), trial(0, 10, 12), ())
    refused(headline, "no power meter on this target")
    assert rails == ()
    headline, rails = energies(Power(absent={"rapl": "root only"}), (), [MeterSpec(name="rapl"), MeterSpec(name="nvml")])
    assert headline.reason == "rapl: root only"
    assert [one.reason for one in rails] == ["nvml: it sent nothing"]


# ---------------------------------------------------------------- a meter with a clock of its own


def pulsed(marks: Sequence[tuple[float, float]], seed: int = 0, noise: float = 0.1) -> Callable[[Array], Array]:
    """Draw 3 W at rest, 2 W more in a pulse, and 5 to 9 W in the trial from 12 to 32 s."""
    random = np.random.default_rng(seed)

    def curve(t: Array) -> Array:
        loaded = np.zeros_like(t)
        for begin, end in marks:
            loaded += 2.0 * ((t >= begin) & (t < end))
        return 3 + loaded + np.where((t > 12) & (t < 32), 4 + 2 * np.sin(3 * t), 0) + noise * random.standard_normal(len(t))

    return curve


def on_another_clock(power: PowerTrace, offset_ns: int) -> PowerTrace:
    return PowerTrace("csv", "csv", "wall", False, True, [t_ns + offset_ns for t_ns in power.t_ns], power.values)


BOTH = (*MARKS, *((begin + 34.0137, end + 34.0137) for begin, end in MARKS))


@pytest.mark.parametrize(("period", "within"), [(0.01, 0.005), (0.05, 0.025), (0.2, 0.1)])
@pytest.mark.parametrize("offset_ns", [1_700_000_000_123_456_789, -ZERO_NS])
def test_a_foreign_clock_is_found_by_the_pulses(period: float, within: float, offset_ns: int) -> None:
    true = trace(pulsed(BOTH), period=period, begin=-3.0, end=45.0)
    moved = aligned(on_another_clock(true, offset_ns), [(ns(a), ns(b)) for a, b in BOTH])
    assert not moved.own_clock
    assert "aligned by 6 pulses" in moved.note
    off = (np.array(moved.t_ns) - np.array(true.t_ns)) / 1e9
    assert np.ptp(off) == 0
    assert abs(off[0]) < within
    assert moved.values == true.values


def test_a_trace_on_the_devices_clock_is_left_as_it_is() -> None:
    power = trace()
    assert aligned(power, ()) is power


@pytest.mark.parametrize(
    "curve",
    [
        lambda t: np.random.default_rng(3).standard_normal(len(t)) + 5,
        lambda t: np.full_like(t, 5.0),
        lambda t: 5 + np.sign(np.sin(2 * np.pi * t / 1.9)),
        pulsed([(begin + 20, end + 20.5) for begin, end in MARKS[:1]]),
        pulsed(BOTH, noise=3.0),
    ],
)
def test_pulses_that_are_not_clear_are_refused(curve: Callable[[Array], Array]) -> None:
    power = on_another_clock(trace(curve, begin=-3.0, end=45.0, period=0.05), 10**18)
    with pytest.raises(ValueError, match="not clear"):
        aligned(power, [(ns(a), ns(b)) for a, b in BOTH])


def test_pulses_that_repeat_elsewhere_are_refused() -> None:
    twice = pulsed([*MARKS, *((begin + 5.2, end + 5.2) for begin, end in MARKS)])
    power = on_another_clock(trace(twice, begin=-3.0, end=13.0, period=0.05), 10**18)
    with pytest.raises(ValueError, match="elsewhere"):
        aligned(power, [(ns(a), ns(b)) for a, b in MARKS])


def test_a_log_that_ends_within_the_last_pulse_is_refused() -> None:
    marks = [(ns(a), ns(b)) for a, b in MARKS]
    for end, clear in ((5.5, False), (5.7, True)):
        power = on_another_clock(trace(pulsed(MARKS), begin=-3.0, end=end), 10**18)
        if clear:
            assert not aligned(power, marks).own_clock
        else:
            with pytest.raises(ValueError, match="not clear"):
                aligned(power, marks)


def test_readings_that_miss_the_pulses_are_refused() -> None:
    marks = [(ns(a), ns(b)) for a, b in BOTH]
    with pytest.raises(ValueError, match="span"):
        aligned(on_another_clock(trace(pulsed(BOTH), begin=-1.0, end=20.0), 0), marks)
    with pytest.raises(ValueError, match="no pulses of load were marked"):
        aligned(on_another_clock(trace(), 0), ())
    with pytest.raises(ValueError, match="log grows"):
        aligned(on_another_clock(trace(end=0.02), 0), marks)


def test_energies_align_a_foreign_clock_first() -> None:
    true = trace(pulsed(BOTH, noise=0.02), begin=-3.0, end=45.0)
    marks = [(ns(a), ns(b)) for a, b in BOTH]
    windows = trial(0, 12, 20)
    right = value(energy_of(true, windows, ()))
    headline, _ = energies(Power([on_another_clock(true, 10**18)], marks=marks), windows, [MeterSpec(name="csv")])
    assert value(headline) == pytest.approx(right, rel=0.003)
    headline, _ = energies(Power([on_another_clock(true, 10**18)]), windows, [MeterSpec(name="csv")])
    refused(headline, "no pulses")
