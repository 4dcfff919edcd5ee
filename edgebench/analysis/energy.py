"""Power readings and sample windows → energy of one inference. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from edgebench.analysis.power import Series, Span, aligned, noted, series_of
from edgebench.analysis.stats import interval
from edgebench.schema import Energy, MeterSpec, Power, PowerTrace, Window

EDGE_SECONDS = 2.0
"""Cut from each end of a trial and of an idle window: sensors average, and clocks take time to settle."""
COVERAGE = 0.95
SHORT_SECONDS = 60.0
TOO_SHORT = "leaves no window within its edges, 2 s at each end; measure in --mode standard or strict"
NO_METER = "no power meter on this target; give its YAML file one under `meters`, or log an external one (command, csv)"


# ---------------------------------------------------------------- one rail


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
    Null, with the reason, where a trial is too short, has fewer distinct
    sensor updates than the rail must have (100; 10 of a gauge that counts
    charge), or less than 95 % of its time covered by them.
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
    series = series_of(trace, zero_ns)
    known = known.model_copy(update=_quality(series, stretches))
    reason = _fault(known, series, stretches, trace.least_updates)
    if reason:
        return _without(known, noted(reason, trace))
    return _figures(known, series, stretches, _idle_watts(series, idle, zero_ns))


def _without(known: Energy, reason: str) -> Energy:
    return known.model_copy(update={"reason": f"{known.meter} {known.rail}: {reason}"})


def _quality(series: Series, stretches: Sequence[_Stretch]) -> dict[str, float]:
    """Describe the readings: updates and coverage of the worst trial, updates per second over all."""
    counts = [len(series.updated(stretch.begin, stretch.end)) for stretch in stretches]
    seconds = sum(stretch.end - stretch.begin for stretch in stretches)
    coverage = min(series.coverage(stretch.begin, stretch.end) for stretch in stretches)
    return {"updates": min(counts), "rate_hz": sum(counts) / seconds, "coverage": coverage}


def _fault(known: Energy, series: Series, stretches: Sequence[_Stretch], least_updates: int) -> str | None:
    """Say why the readings do not carry a figure."""
    remedy = "measure longer (--mode strict), or with a faster meter"
    if not any(((series.t >= stretch.begin) & (series.t <= stretch.end)).any() for stretch in stretches):
        moved = "its counter stood still" if known.counter and len(series.t) else "it gave no readings"
        return f"{moved} during the samples; see whether the sensor works"
    if known.updates == 0:
        return "it gave one and the same value throughout a trial; see whether the sensor works"
    if (known.updates or 0) < least_updates:
        return f"{known.updates} distinct updates in a trial, {least_updates} wanted; {remedy}"
    if (known.coverage or 0) < COVERAGE:
        return f"readings cover {100 * (known.coverage or 0):.0f} % of a trial, {100 * COVERAGE:.0f} % wanted; {remedy}"
    return None


def _figures(known: Energy, series: Series, stretches: Sequence[_Stretch], idle_watts: float | None) -> Energy:
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


def _idle_watts(series: Series, idle: Sequence[tuple[int, int]], zero_ns: int) -> float | None:
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
    """Measure the rail of a meter that counts: the one that the target names, else the meter's first.

    A meter may measure one rail in several ways, the best first: the first that gives joules counts.
    """
    traces = [trace for trace in power.traces if trace.meter == spec.name]
    trace = next((trace for trace in traces if spec.rail in (None, trace.rail)), None)
    if trace is not None:
        ways = [replace(each, provenance=spec.provenance or each.provenance) for each in traces if each.rail == trace.rail]
        found = [measured(power, each, windows, meter_cost) for each in ways]
        return next((each for each in found if each.joules is not None), found[0])
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
