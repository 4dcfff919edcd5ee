"""Measure the noise of a device: how far a bundle differs from itself, and what meters cost."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from edgebench.analysis import stats
from edgebench.bundle.manifest import read_bundle
from edgebench.device.job import Pass
from edgebench.errors import InputError
from edgebench.run.interleave import Plan, interleaved, take_turns, whole
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, now, run_job
from edgebench.schema import Interval, Noise, Target
from edgebench.trust import is_own


def measure_noise(session: Session, subject: CellJob, comparisons: int) -> Noise:
    """Compare a bundle with itself many times, interleaved as `compare` does; and measure what meters cost.

    Interrupted after two comparisons or more, it returns the noise of those.
    """
    ratios: list[float] = []
    middles: list[float] = []
    names: tuple[str, ...] = ()
    cost: Interval | None = None
    try:
        for index in range(comparisons):
            label = f"measure the noise of {subject.cell.target}, comparison {index + 1} of {comparisons}"
            taken = take_turns(session, [subject, subject], Plan(session.turns, session.spec.trials), label)
            ratios.append(taken.compare(0, 1, None).ratio.value)
            middles.append(stats.interval(stats.medians(taken.measurements[0].trials)).value)
        names, cost = _meter_cost(session, subject)
    except KeyboardInterrupt:
        if len(ratios) < 2:
            raise
    apart = [after / before for before, after in pairwise(middles[: len(ratios)])]
    return Noise(
        schema_version=1,
        target=subject.cell.target,
        device=subject.cell.device,
        mode=session.measure.mode,
        bundle=subject.bundle.name,
        bundle_sha256=subject.bundle.sha256,
        scenario=subject.cell.scenario,
        started_at=now(),
        ratios=tuple(ratios),
        floor=stats.noise_floor(ratios),
        apart=tuple(apart),
        apart_floor=stats.noise_floor(apart),
        meters=names,
        meter_cost=cost,
    )


def _meter_cost(session: Session, subject: CellJob) -> tuple[tuple[str, ...], Interval | None]:
    """Measure trials with the meters off and on, in turn; the share by which they lengthen an inference."""
    off: list[float] = []
    on: list[float] = []
    names: set[str] = set()
    meters = session.measure.meters or subject.meters
    for turn in interleaved(2, session.spec.trials) if meters else ():
        if turn.trial and not names:
            break  # none of them can be read here
        label = f"measure the cost of metering, pair {turn.trial + 1} of {session.spec.trials}"
        session.progress(label, turn.trial, session.spec.trials)
        metered = turn.cell == 1
        [found] = whole(run_job(session, [subject], [Pass("trial", turn.trial)], lambda _: None, meters if metered else ()))
        (on if metered else off).extend(stats.medians(found.trials))
        names |= {trace.meter for trace in found.power.traces}
    if not names:
        return (), None
    ratio = stats.compare(off, on, paired=True, floor=None).ratio
    low, high = (None if value is None else value - 1 for value in (ratio.low, ratio.high))
    return tuple(sorted(names)), ratio.model_copy(update={"value": ratio.value - 1, "low": low, "high": high})


def any_bundle(target: Target, work: Path, trust: bool) -> Path:
    """Find a bundle that the target runs and that may be loaded, in the folders where exports and runs leave them."""
    for manifest in sorted([*Path("bundles").glob("*/bundle.json"), *(work / "bundles").glob("*/bundle.json")]):
        found = read_bundle(manifest.parent)
        accepts = target.accepted(found.format, found.precision)
        known = accepts is not None and (trust or is_own(manifest.parent, found, accepts.runtime))
        if known:
            return manifest.parent
    raise InputError(f"no bundle for {target.name} in bundles/ or {work}/bundles; name one, or make one with `edgebench export`")
