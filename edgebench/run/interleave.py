"""Run cells of one device in turn, so that whatever goes on there hits all of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.agent.cell.turns import CANNOT
from edgebench.analysis import pairs, stats
from edgebench.device.job import Pass
from edgebench.errors import MeasureError
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, run_job
from edgebench.schema import Comparison, Measurement, MeterSpec, ModeSpec, TurnSpec


@dataclass(frozen=True)
class Part:
    """What a job is of something longer that is reported as one: from `begun` on, `size` of `total`."""

    begun: float
    size: float
    total: float


def interleaved(cells: int, rounds: int, batch: int = 1) -> list[Pass]:
    """Order trials of several cells: first to last, then last to first (A B B A A B B A …)."""
    orders = [range(cells) if index % 2 == 0 else range(cells - 1, -1, -1) for index in range(rounds)]
    return [Pass("trial", index, batch, cell) for index, order in enumerate(orders) for cell in order]


def in_turns(cells: Sequence[int], spec: TurnSpec, batch: int = 1) -> list[Pass]:
    """Let a process of each cell take turns with those of the others, window by window; fresh ones so often as `spec` says."""
    return [Pass("turns", index, batch, cells[0], tuple(cells), spec) for index in range(spec.pairs)]


@dataclass(frozen=True)
class Taken:
    """What cells measured in turn; `why_by_trial` says why trials alternated and not windows, empty where windows did."""

    measurements: list[Measurement]
    why_by_trial: str = ""

    def compare(self, one: int, other: int, floor: float | None) -> Comparison:
        """Compare two of the cells; the ratio is the latter's over the former's."""
        first, second = (self.measurements[index].trials for index in (one, other))
        if not self.why_by_trial:
            return pairs.compare(first, second, floor=floor)
        found = stats.compare(stats.medians(first), stats.medians(second), paired=True, floor=floor)
        return found.model_copy(update={"why_by_trial": self.why_by_trial})


@dataclass(frozen=True)
class Plan:
    """How cells take turns."""

    spec: TurnSpec
    trials: int
    """How often each runs where their runtime cannot take turns window by window."""
    batch: int = 1
    live: int = 3
    """How many processes are alive at once: the first cell's, and those of others."""

    def passes(self, cells: int) -> list[Pass]:
        """List the passes: the first cell takes turns with all others, some at a time."""
        others = range(1, cells)
        groups = [others[start : start + self.live - 1] for start in range(0, cells - 1, self.live - 1)]
        return [each for group in groups for each in in_turns((0, *group), self.spec, self.batch)]


def take_turns(
    session: Session,
    subjects: Sequence[CellJob],
    plan: Plan,
    label: str,
    also: Sequence[Pass] = (),
    spec: ModeSpec | None = None,
    part: Part | None = None,
) -> Taken:
    """Let cells take turns window by window, or trial by trial where a runtime cannot; then run what else is asked for.

    No meter runs beside: what is drawn while two take turns is no one's.
    """
    try:
        return Taken(run_passes(session, subjects, [*plan.passes(len(subjects)), *also], label, (), spec, part))
    except MeasureError as error:
        if CANNOT not in error.reason:
            raise
        reason = error.reason.removeprefix("ValueError: ")
    again = [*interleaved(len(subjects), plan.trials, plan.batch), *also]
    return Taken(run_passes(session, subjects, again, label, (), spec, part), reason)


def run_passes(
    session: Session,
    subjects: Sequence[CellJob],
    passes: Sequence[Pass],
    label: str,
    meters: Sequence[MeterSpec] | None = None,
    spec: ModeSpec | None = None,
    part: Part | None = None,
) -> list[Measurement]:
    """Run a job and report each pass that is finished; a measurement for each subject, `MeasureError` where it fails.

    `meters` and `spec` are as in `run_job`.
    """
    part = part or Part(0, len(passes), len(passes))
    done, step = part.begun, part.size / len(passes)
    sides = {(each.name, each.trial): len(each.cells) for each in passes if each.cells}
    session.report(label, done, part.total)

    def on_event(event: Mapping[str, Any]) -> None:
        nonlocal done
        done += step * (event["event"] == "finished") / sides.get((event.get("name", ""), event.get("trial", 0)), 1)
        session.report(label, done, part.total)

    return whole(run_job(session, subjects, passes, on_event, meters, spec))


def whole(found: list[Measurement]) -> list[Measurement]:
    """Return a job's measurements; `MeasureError` where it failed."""
    for each in found:
        if each.failure is not None:
            raise MeasureError(each.failure.stage, each.failure.reason, each.failure.remedy)
    return found
