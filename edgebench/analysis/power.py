"""What one rail of a meter said: as arrays, and put on the device's clock where the meter has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgebench.schema import PowerTrace

Floats = NDArray[np.float64]
Span = tuple[float, float]


@dataclass(frozen=True)
class Series:
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
        """Return whether there are readings on both sides of a stretch."""
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


def series_of(trace: PowerTrace, zero_ns: int) -> Series:
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
    return Series(t, values, updates, trace.counter)


def noted(reason: str, trace: PowerTrace) -> str:
    """Add what the meter itself noted, why it broke above all."""
    return f"{reason} ({trace.note})" if trace.note else reason


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
        raise ValueError(f"{name}: {noted(few, trace)}")
    zero_ns, other_ns = marks[0][0], trace.t_ns[0]
    series = series_of(trace, other_ns)
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
