"""Run cells of one device in turn, so that whatever drifts there hits all of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench.device.job import Pass
from edgebench.errors import MeasureError
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, run_job
from edgebench.schema import Measurement, MeterSpec, ModeSpec


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
    session.report(label, done, part.total)

    def on_event(event: Mapping[str, Any]) -> None:
        nonlocal done
        done += step * (event["event"] == "finished")
        session.report(label, done, part.total)

    return whole(run_job(session, subjects, passes, on_event, meters, spec))


def whole(found: list[Measurement]) -> list[Measurement]:
    """Return a job's measurements; `MeasureError` where it failed."""
    for each in found:
        if each.failure is not None:
            raise MeasureError(each.failure.stage, each.failure.reason, each.failure.remedy)
    return found
