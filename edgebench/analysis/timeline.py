"""Raw readings → short lists for drawing: how samples are distributed, what changed over time, power."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import stats
from edgebench.analysis.power import Series, aligned, series_of
from edgebench.schema import Measurement, Power, PowerTrace, Record, Trial

Lines = list[dict[str, Any]]
Floats = NDArray[np.float64]
SHARES = (*(0.0, 0.001, 0.005, 0.01, 0.02, 0.03), *np.linspace(0.05, 0.95, 46), 0.96, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995)
TAIL = (0.9975, 0.999, 0.9995, 0.9999, 1.0)
DENSITY_POINTS, MOST_WINDOWS, MOST_CONDITIONS = 40, 120, 100
POWER_POINTS, LEAST_POWER_POINTS, MOST_RAILS = 300, 60, 6


class Missing(ValueError):
    """A part that was not measured, and why."""


def counted(record: Record, measurement: Measurement) -> Sequence[Trial]:
    """Return the trials that the latency is about: offline, those of the fastest batch size."""
    offline = record.cell.scenario.kind == "offline"
    return stats.fastest_batch(measurement.trials) if offline else measurement.trials


def start_ns(measurement: Measurement) -> int:
    """Return when the first sample was taken; where nobody knows, when conditions were first read."""
    begins = [window.begin_ns for trial in measurement.trials for window in trial.windows]
    return min(begins or [int(condition["t_ns"]) for condition in measurement.conditions if condition.get("t_ns")] or [0])


def _whole(values: NDArray[Any]) -> list[int]:
    """Round to five significant digits, and to whole numbers."""
    size = 10.0 ** np.maximum(np.floor(np.log10(np.maximum(np.abs(values), 1))) - 4, 0)
    return [int(value) for value in np.round(values / size) * size]


# ---------------------------------------------------------------- latency


def trials(measured: Sequence[Trial]) -> Lines:
    """Describe how each trial's samples are distributed."""
    if not measured:
        raise Missing("no samples were kept")
    ordered = [np.sort(stats.samples_of(trial)) for trial in measured]
    low = min(float(np.quantile(samples, 0.005)) for samples in ordered)
    high = max(float(np.quantile(samples, 0.99)) for samples in ordered)
    return [_trial(trial, samples, low, high) for trial, samples in zip(measured, ordered, strict=True)]


def _trial(trial: Trial, ordered: Floats, low: float, high: float) -> dict[str, Any]:
    ranks = np.unique(np.maximum(np.ceil(np.round(np.array(SHARES + TAIL) * len(ordered), 6)), 1)).astype(int)
    at, dense = density(ordered, low, high)
    return {
        "trial": trial.index + 1,
        "batch": int(trial.batch),
        "load_ns": int(trial.load_ns),
        "first_ns": int(trial.first_ns),
        "samples": len(ordered),
        "settled": bool(trial.settled),
        "ns": _whole(ordered[ranks - 1]),
        "share": np.round(ranks / len(ordered), 4).tolist(),
        "at_ns": _whole(at),
        "density": np.round(dense, 2).tolist(),
    }


def density(ordered: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Estimate how densely samples lie between two bounds, 1 at the highest.

    Gaussian kernels on 1 000 order statistics; width by the rule of thumb that outliers
    do not stretch, 0.9 × min(deviation, interquartile range / 1.34) × n^-0.2 (Silverman 1986).
    """
    inner = ordered[(ordered >= low) & (ordered <= high)]
    some = inner[np.linspace(0, len(inner) - 1, min(len(inner), 1000)).round().astype(int)] if len(inner) else inner
    spread = float(some.std(ddof=1)) if len(some) > 1 else 0.0
    if spread <= 0 or high <= low:
        return np.array([float(np.median(ordered))]), np.ones(1)
    from scipy.stats import gaussian_kde

    quarter, most = np.quantile(some, [0.25, 0.75])
    width = 0.9 * min(spread, float(most - quarter) / 1.34 or spread) * len(some) ** -0.2
    at = np.unique(np.concatenate([np.linspace(low, high, 12), np.quantile(some, np.linspace(0, 1, DENSITY_POINTS - 12))]))
    found = gaussian_kde(some, width / spread)(at)  # scipy multiplies the factor by the deviation
    return at, found / found.max()


def series(trials: Sequence[Trial], zero_ns: int) -> Lines:
    """Take medians over time: of each window, or of several where there are many."""
    count = sum(len(trial.windows) for trial in trials)
    if not count:
        raise Missing("no times were kept with the samples: measured by an earlier version")
    each = -(-count // MOST_WINDOWS)
    return [_medians(trial, each, zero_ns) for trial in trials if trial.windows]


def _medians(trial: Trial, each: int, zero_ns: int) -> dict[str, Any]:
    """Take the medians of so many windows at a time."""
    taken = np.cumsum([window.inferences // (trial.batch * trial.calls_per_sample) for window in trial.windows])
    parts = np.split(stats.samples_of(trial), taken[each - 1 : -1 : each])
    groups = [trial.windows[first : first + each] for first in range(0, len(trial.windows), each)]
    seconds = np.array([(group[0].begin_ns + group[-1].end_ns) / 2 - zero_ns for group in groups]) / 1e9
    kept = [index for index, part in enumerate(parts) if len(part)]
    medians = np.array([float(np.median(parts[index])) for index in kept])
    return {"trial": trial.index + 1, "t_s": np.round(seconds[kept], 2).tolist(), "median_ns": _whole(medians)}


def conditions(conditions: Sequence[Mapping[str, Any]], zero_ns: int) -> Lines:
    """Take temperature and clock over time: of several readings the highest temperature, the lowest clock."""
    clock = "khz_real" if any(condition.get("khz_real") is not None for condition in conditions) else "khz"
    found = [
        _readings("temperature, °C", conditions, "celsius", 1.0, np.max, zero_ns),
        _readings("clock, MHz", conditions, clock, 1e-3, np.min, zero_ns),
    ]
    if not any(found):
        raise Missing("the device told neither temperature nor clock")
    return [line for line in found if line]


def _readings(
    what: str, conditions: Sequence[Mapping[str, Any]], key: str, scale: float, extreme: Callable[..., Any], zero_ns: int
) -> dict[str, Any] | None:
    read = [(float(one["t_ns"]), float(one[key])) for one in conditions if one.get(key) is not None and one.get("t_ns")]
    read = sorted(pair for pair in read if np.isfinite(pair).all())
    if not read:
        return None
    t, values = np.array(read).T
    parts = np.array_split(np.arange(len(t)), min(len(t), MOST_CONDITIONS))
    return {
        "what": what,
        "t_s": [round(float(t[part].mean() - zero_ns) / 1e9, 1) for part in parts],
        "value": [round(float(extreme(values[part])) * scale, 1) for part in parts],
    }


def onset(record: Record) -> Lines:
    """Say when the model became slower for good under sustained load."""
    if record.sustained is None:
        raise Missing("only mode sustained finds when a model becomes slower")
    if record.sustained.onset_seconds is None:
        raise Missing("no window became 5 % slower than the first minute for good")
    return [{"t_s": round(record.sustained.onset_seconds, 1), "slowdown": round(record.sustained.slowdown, 4)}]


# ---------------------------------------------------------------- power


def power(record: Record, power: Power, zero_ns: int) -> Lines:
    """Take each rail's power over time, the one that counts first."""
    headline = (record.energy.meter, record.energy.rail)
    ordered = sorted(power.traces, key=lambda trace: (trace.meter, trace.rail) != headline)
    if any((trace.meter, trace.rail, trace.counter) == (*headline, record.energy.counter) for trace in ordered):
        ordered = [t for t in ordered if (t.meter, t.rail) != headline or t.counter == record.energy.counter]
    traces = ordered[:MOST_RAILS]
    found, wrong = [], [record.energy.reason or "no power was read"]
    for trace in traces:
        try:
            found.append(_rail(trace, power, zero_ns, max(POWER_POINTS // len(traces), LEAST_POWER_POINTS)))
        except ValueError as error:
            wrong = [str(error)]
    if not found:
        raise Missing(wrong[-1])
    return found


def _rail(trace: PowerTrace, power: Power, zero_ns: int, most: int) -> dict[str, Any]:
    t, watts = _watts(series_of(aligned(trace, power.marks), zero_ns))
    if not len(t):
        raise ValueError(f"{trace.meter} {trace.rail}: no readings")
    kept = extremes(watts, most)
    return {
        "source": f"{trace.meter} {trace.rail}",
        "provenance": trace.provenance,
        "t_s": np.round(t[kept], 2).tolist(),
        "watts": [float(f"{value:.4g}") for value in watts[kept]],
    }


def _watts(series: Series) -> tuple[Floats, Floats]:
    """Return seconds and watts; of a counter, the mean power between its updates, halfway."""
    if not series.counter:
        return series.t, series.values
    return (series.t[1:] + series.t[:-1]) / 2, np.diff(series.values) / np.diff(series.t)


def extremes(values: Floats, most: int) -> NDArray[np.int64]:
    """Choose about so many values that show every peak: the lowest and the highest of equal parts, in order."""
    if len(values) <= most:
        return np.arange(len(values))
    parts = np.array_split(np.arange(len(values)), most // 2)
    return np.unique([part[pick(values[part])] for part in parts for pick in (np.argmin, np.argmax)])


def stretches(measurement: Measurement, zero_ns: int) -> Lines:
    """List when the device was left alone, and when each trial took samples."""
    if not measurement.power.traces:
        raise Missing("no power was read")
    idle = [("idle", "idle", begin, end) for begin, end in measurement.power.idle]
    samples = [
        ("samples", f"trial {trial.index + 1}", trial.windows[0].begin_ns, trial.windows[-1].end_ns)
        for trial in measurement.trials
        if trial.windows
    ]
    return [
        {"what": what, "label": label, "begin_s": round((begin - zero_ns) / 1e9, 2), "end_s": round((end - zero_ns) / 1e9, 2)}
        for what, label, begin, end in (*idle, *samples)
    ]
