"""Power readings and sample windows → energy of one inference. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import Energy, MeterSpec, Power, PowerTrace, Window
from edgebench.stats import interval

EDGE_SECONDS = 2.0
"""Cut from each end of a trial and of an idle window: sensors average, and clocks take time to settle."""
UPDATES = 100
COVERAGE = 0.95
SHORT_SECONDS = 60.0
TOO_SHORT = "leaves no window within its edges, 2 s at each end; measure in --mode standard or strict"
NO_METER = "no power meter on this target; give its YAML file one under `meters`, or log an external one (command, csv)"

Floats = NDArray[np.float64]
Span = tuple[float, float]

# ---------------------------------------------------------------- one rail


@dataclass(frozen=True)
class _Series:
    """A trace as arrays: seconds that rise, values, and the times at which the value changed."""

    t: Floats
    values: Floats
    updates: Floats
    counter: bool

    def joules(self, begin: float, end: float) -> float:
        """Integrate power (trapezoidal rule, readings interpolated at the ends), or take the counter's difference."""
        if self.counter:
            first, last = np.interp([begin, end], self.t, self.values)
            return float(last - first)
        inner = self.t[(self.t > begin) & (self.t < end)]
        grid = np.concatenate([[begin], inner, [end]])
        watts = np.interp(grid, self.t, self.values)
        return float(((watts[1:] + watts[:-1]) / 2 * np.diff(grid)).sum())

    def spans(self, begin: float, end: float) -> bool:
        """Say whether there are readings on both sides of a stretch."""
        return len(self.t) > 1 and bool(self.t[0] <= begin and end <= self.t[-1])

    def updated(self, begin: float, end: float) -> Floats:
        """List the distinct updates inside a stretch."""
        return self.updates[(self.updates > begin) & (self.updates <= end)]

    def coverage(self, begin: float, end: float) -> float:
        """Share of a stretch that is no longer after a distinct update than is usual for this sensor.

        Usual is four mean distances between updates. A mean and not a median:
        a coarse sensor repeats a value now and then though it works, and of
        distances that vary at random only e^-4 (2 %) of the time lies beyond.
        A sensor that freezes or falls silent for longer leaves a hole.
        """
        updates = self.updated(begin, end)
        if not len(updates):
            return 0.0
        distances = np.diff(np.concatenate([[begin], updates, [end]]))
        return float(np.minimum(distances, 4 * distances.mean()).sum() / (end - begin))


@dataclass(frozen=True)
class _Stretch:
    """The part of a trial that counts: its windows' ends in seconds, and how many inferences they hold."""

    trial: int
    spans: tuple[Span, ...]
    inferences: tuple[int, ...]

    @property
    def begin(self) -> float:
        return self.spans[0][0]

    @property
    def end(self) -> float:
        return self.spans[-1][1]

    @property
    def seconds(self) -> float:
        return sum(end - begin for begin, end in self.spans)


def _series(trace: PowerTrace, zero_ns: int) -> _Series:
    """Sort the readings; of a counter keep those that moved, so that a slow one is interpolated between its updates."""
    times, values = np.asarray(trace.t_ns, dtype=np.int64), np.asarray(trace.values, dtype=np.float64)
    kept = np.isfinite(values)
    times, first = np.unique(times[kept], return_index=True)
    t, values = (times - zero_ns) / 1e9, values[kept][first]
    changed = np.concatenate([[False], np.diff(values) != 0]) if len(values) else np.zeros(0, bool)
    updates = t[changed]
    if trace.counter and len(values):
        changed[0] = True
        t, values = t[changed], values[changed]
    return _Series(t, values, updates, trace.counter)


def _trials(windows: Sequence[Window], zero_ns: int) -> dict[int, list[tuple[Span, int]]]:
    """Sort each trial's windows by time: ends in seconds, inferences."""
    ordered = sorted(windows, key=lambda window: (window.trial, window.begin_ns))
    return {
        trial: [(((w.begin_ns - zero_ns) / 1e9, (w.end_ns - zero_ns) / 1e9), w.inferences) for w in group]
        for trial, group in groupby(ordered, key=lambda window: window.trial)
    }


def _stretch(trial: int, windows: list[tuple[Span, int]]) -> _Stretch | None:
    """Choose the windows that lie wholly inside the trial less its edges."""
    begin, end = windows[0][0][0] + EDGE_SECONDS, windows[-1][0][1] - EDGE_SECONDS
    inside = [(span, count) for span, count in windows if span[0] >= begin and span[1] <= end]
    if not sum(count for _, count in inside):
        return None
    return _Stretch(trial, tuple(span for span, _ in inside), tuple(count for _, count in inside))


def energy_of(
    trace: PowerTrace, windows: Sequence[Window], idle: Sequence[tuple[int, int]], meter_cost: float | None = None
) -> Energy:
    """Return one rail's energy per inference, in joules: median of the trials, with an interval over them.

    Of each trial the windows count that lie wholly inside it less two seconds
    at each edge; their energy is divided by the inferences in them. Net of
    idle: less the idle windows' mean power times the seconds per inference.
    Null, with the reason, where a trial is too short, has fewer than 100
    distinct sensor updates, or less than 95 % of its time covered by them.
    """
    known = Energy(provenance=trace.provenance, meter=trace.meter, rail=trace.rail, counter=trace.counter, meter_cost=meter_cost)
    if not windows:
        return _without(known, "no windows of samples were kept")
    zero_ns = min(window.begin_ns for window in windows)
    trials = _trials(windows, zero_ns)
    shortest = min(group[-1][0][1] - group[0][0][0] for group in trials.values())
    known = known.model_copy(update={"window_seconds": shortest, "short": shortest < SHORT_SECONDS})
    if trace.own_clock:
        return _without(known, "its clock was not aligned with the device's")
    stretches = [stretch for trial, group in trials.items() if (stretch := _stretch(trial, group))]
    if len(stretches) < len(trials):
        return _without(known, f"a trial of {shortest:.1f} s {TOO_SHORT}")
    series = _series(trace, zero_ns)
    known = known.model_copy(update=_quality(series, stretches))
    reason = _fault(known, series, stretches)
    if reason:
        return _without(known, _noted(reason, trace))
    return _figures(known, series, stretches, _idle_watts(series, idle, zero_ns))


def _without(known: Energy, reason: str) -> Energy:
    return known.model_copy(update={"reason": f"{known.meter} {known.rail}: {reason}"})


def _noted(reason: str, trace: PowerTrace) -> str:
    """Add what the meter itself noted, why it broke above all."""
    return f"{reason} ({trace.note})" if trace.note else reason


def _quality(series: _Series, stretches: Sequence[_Stretch]) -> dict[str, float]:
    """Describe the readings: updates and coverage of the worst trial, updates per second over all."""
    counts = [len(series.updated(stretch.begin, stretch.end)) for stretch in stretches]
    seconds = sum(stretch.end - stretch.begin for stretch in stretches)
    coverage = min(series.coverage(stretch.begin, stretch.end) for stretch in stretches)
    return {"updates": min(counts), "rate_hz": sum(counts) / seconds, "coverage": coverage}


def _fault(known: Energy, series: _Series, stretches: Sequence[_Stretch]) -> str | None:
    """Say why the readings do not carry a figure."""
    remedy = "measure longer (--mode strict), or with a faster meter"
    if not any(((series.t >= stretch.begin) & (series.t <= stretch.end)).any() for stretch in stretches):
        moved = "its counter stood still" if known.counter and len(series.t) else "it gave no readings"
        return f"{moved} during the samples; see whether the sensor works"
    if known.updates == 0:
        return "it gave one and the same value throughout a trial; see whether the sensor works"
    if (known.updates or 0) < UPDATES:
        return f"{known.updates} distinct updates in a trial, {UPDATES} wanted; {remedy}"
    if (known.coverage or 0) < COVERAGE:
        return f"readings cover {100 * (known.coverage or 0):.0f} % of a trial, {100 * COVERAGE:.0f} % wanted; {remedy}"
    return None


def _figures(known: Energy, series: _Series, stretches: Sequence[_Stretch], idle_watts: float | None) -> Energy:
    """Divide energy by inferences, trial by trial; windows beyond the readings count for neither."""
    joules, seconds, counts = [], [], []
    for stretch in stretches:
        metered = [(span, n) for span, n in zip(stretch.spans, stretch.inferences, strict=True) if series.spans(*span)]
        joules.append(sum(series.joules(*span) for span, _ in metered))
        seconds.append(sum(end - begin for (begin, end), _ in metered))
        counts.append(sum(n for _, n in metered))
    if not all(counts):
        return _without(known, "it gave no readings around a whole window of samples; measure longer (--mode strict)")
    gross = [energy / count for energy, count in zip(joules, counts, strict=True)]
    net = None
    if idle_watts is not None:
        net = interval([one - idle_watts * s / n for one, s, n in zip(gross, seconds, counts, strict=True)])
    return known.model_copy(
        update={"joules": interval(gross), "net_joules": net, "watts": sum(joules) / sum(seconds), "idle_watts": idle_watts}
    )


def _idle_watts(series: _Series, idle: Sequence[tuple[int, int]], zero_ns: int) -> float | None:
    """Return the mean power of the idle windows less their edges; None where none is left, or not read throughout."""
    cut = [((begin - zero_ns) / 1e9 + EDGE_SECONDS, (end - zero_ns) / 1e9 - EDGE_SECONDS) for begin, end in idle]
    read = [(begin, end) for begin, end in cut if end > begin and series.spans(begin, end)]
    seconds = sum(end - begin for begin, end in read)
    return sum(series.joules(begin, end) for begin, end in read) / seconds if read else None


# ---------------------------------------------------------------- all rails


def energies(
    power: Power, windows: Sequence[Window], specs: Sequence[MeterSpec], meter_cost: float | None = None
) -> tuple[Energy, tuple[Energy, ...]]:
    """Return the headline's energy and every other rail's.

    The headline is the first meter, in the target's order, whose rail that
    counts gives joules; else the first meter, with its reason.
    """
    wanted = [_wanted(power, windows, spec, meter_cost) for spec in specs]
    if not wanted:
        return Energy(reason=NO_METER), ()
    headline = next((item for item in wanted if item.joules is not None), wanted[0])
    counted = {(item.meter, item.rail) for item in wanted}
    rest = [trace for trace in power.traces if (trace.meter, trace.rail) not in counted]
    others = [item for item in wanted if item is not headline]
    return headline, (*others, *(measured(power, trace, windows, meter_cost) for trace in rest))


def _wanted(power: Power, windows: Sequence[Window], spec: MeterSpec, meter_cost: float | None) -> Energy:
    """Measure the rail of a meter that counts: the one that the target names, else the meter's first."""
    traces = [trace for trace in power.traces if trace.meter == spec.name]
    trace = next((trace for trace in traces if spec.rail in (None, trace.rail)), None)
    if trace is not None:
        return measured(power, replace(trace, provenance=spec.provenance or trace.provenance), windows, meter_cost)
    reason = power.absent.get(spec.name, "it sent nothing")
    if traces:
        reason = f"no rail {spec.rail}; it has {', '.join(trace.rail for trace in traces)}: name one in the target's `meters`"
    return Energy(meter=spec.name, rail=spec.rail, provenance=spec.provenance, reason=f"{spec.name}: {reason}")


def measured(power: Power, trace: PowerTrace, windows: Sequence[Window], meter_cost: float | None = None) -> Energy:
    """Measure one rail as `energy_of` does, its clock aligned first."""
    try:
        trace = aligned(trace, power.marks)
    except ValueError as error:
        return Energy(meter=trace.meter, rail=trace.rail, provenance=trace.provenance, counter=trace.counter, reason=str(error))
    return energy_of(trace, windows, power.idle, meter_cost)


# ---------------------------------------------------------------- a meter with a clock of its own

STEP_SECONDS = 0.02
FINE_SECONDS = 0.001
AROUND_SECONDS = 1.0
"""So much rest before and after each group of pulses belongs to the pattern."""
GROUP_SECONDS = 5.0
"""Pulses that are further apart are groups of their own: the device may have become warmer between."""
CLEAR = 0.7
APART = 0.1


@dataclass(frozen=True)
class _Pattern:
    """The pulses as a meter should see them: seconds, and load less its group's mean, group by group."""

    t: Floats
    load: Floats
    groups: tuple[slice, ...]

    def likeness(self, t: Floats, watts: Floats, offset: float) -> float:
        """Correlate a trace with the pulses (Pearson's r, each group about its own mean)."""
        seen = np.interp(self.t + offset, t, watts)
        for group in self.groups:
            seen[group] -= seen[group].mean()
        size = np.sqrt(float(seen @ seen) * float(self.load @ self.load))
        return float(seen @ self.load) / size if size > 0 else 0.0


def aligned(trace: PowerTrace, marks: Sequence[tuple[int, int]]) -> PowerTrace:
    """Put a trace of another clock onto the device's, by the pulses of load that both saw.

    The pulses (1 while the device was loaded, 0 in the rests between) are
    shifted over the trace in steps of 20 ms, then of 1 ms about the best
    place; the shift with the highest Pearson correlation is the clocks'
    offset. 1 ms is the search's resolution; a meter that reads every p
    seconds is placed to within p / 2, and a delay of its own is taken out.
    One offset serves the whole trace: clocks that drift by 100 ppm are 0.1 s
    apart after a quarter of an hour.

    Raises ValueError where the best correlation is under 0.7, or where
    another place, half a pulse or more away, is as good to within 0.1.
    """
    if not trace.own_clock:
        return trace
    name = f"{trace.meter} {trace.rail}"
    if not marks:
        raise ValueError(f"{name}: it has a clock of its own, and no pulses of load were marked to align it by")
    if len(trace.t_ns) < 2:
        few = f"{len(trace.t_ns)} readings cannot be aligned; see whether its log grows during the run"
        raise ValueError(f"{name}: {_noted(few, trace)}")
    zero_ns, other_ns = marks[0][0], trace.t_ns[0]
    series = _series(trace, other_ns)
    watts = np.gradient(series.values, series.t) if trace.counter else series.values
    coarse = _coarse_offset(_pattern(marks, zero_ns, STEP_SECONDS), series.t, watts, name, _half_a_pulse(marks))
    fine = _pattern(marks, zero_ns, FINE_SECONDS)
    offsets = coarse + np.arange(-2 * STEP_SECONDS, 2 * STEP_SECONDS, FINE_SECONDS)
    likeness, offset = max((fine.likeness(series.t, watts, float(offset)), float(offset)) for offset in offsets)
    shift_ns = zero_ns - other_ns - round(offset * 1e9)
    note = "; ".join(part for part in (trace.note, f"aligned by {len(marks)} pulses, r = {likeness:.2f}") if part)
    return replace(trace, own_clock=False, t_ns=[int(t) + shift_ns for t in trace.t_ns], note=note)


def _half_a_pulse(marks: Sequence[tuple[int, int]]) -> float:
    return min(end - begin for begin, end in marks) / 2e9


def _pattern(marks: Sequence[tuple[int, int]], zero_ns: int, step: float) -> _Pattern:
    """Sample the pulses, in groups with a second of rest on both sides."""
    pulses = [((begin - zero_ns) / 1e9, (end - zero_ns) / 1e9) for begin, end in sorted(marks)]
    groups: list[list[Span]] = [[pulses[0]]]
    for pulse in pulses[1:]:
        if pulse[0] - groups[-1][-1][1] > GROUP_SECONDS:
            groups.append([])
        groups[-1].append(pulse)
    grids = [np.arange(group[0][0] - AROUND_SECONDS, group[-1][1] + AROUND_SECONDS, step) for group in groups]
    loads = [
        sum(((grid >= begin) & (grid < end)).astype(float) for begin, end in group)
        for grid, group in zip(grids, groups, strict=True)
    ]
    ends = np.cumsum([0, *map(len, grids)])
    return _Pattern(
        np.concatenate(grids),
        np.concatenate([load - np.mean(load) for load in loads]),
        tuple(slice(int(begin), int(end)) for begin, end in pairwise(ends)),
    )


def _coarse_offset(pattern: _Pattern, t: Floats, watts: Floats, name: str, half_a_pulse: float) -> float:
    """Find the offset that must be added to the pattern's times; ValueError where it is not clear."""
    first = float(t[0] - pattern.t[0]) - AROUND_SECONDS
    last = float(t[-1] - pattern.t[-1]) + AROUND_SECONDS  # the rest around the pulses may be missing, no pulse
    if last < first:
        raise ValueError(f"{name}: its readings span {t[-1] - t[0]:.1f} s, the pulses {pattern.t[-1] - pattern.t[0]:.1f} s")
    offsets = np.arange(first, last + STEP_SECONDS, STEP_SECONDS)
    likeness = np.array([pattern.likeness(t, watts, float(offset)) for offset in offsets])
    best = float(offsets[likeness.argmax()])
    elsewhere = likeness[np.abs(offsets - best) >= half_a_pulse]
    second = float(elsewhere.max()) if len(elsewhere) else -1.0
    at_an_end = likeness.argmax() in (0, len(likeness) - 1)
    if likeness.max() < CLEAR or likeness.max() - second < APART or at_an_end:
        raise ValueError(
            f"{name}: the pulses of load are not clear in it (r = {likeness.max():.2f}, {CLEAR} wanted; elsewhere {second:.2f}); "
            "log faster, through the whole run, and with nothing else drawing power"
        )
    return best
