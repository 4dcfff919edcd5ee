"""Compare bundles that run in turn on one device, or two sets of records: which is faster, and is that more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgebench.analysis import pairs, stats
from edgebench.analysis.metrics import Labels, Scores, hits, scores_of
from edgebench.analysis.verdict import with_wakeful
from edgebench.device.job import Pass, batches
from edgebench.errors import InputError, MeasureError
from edgebench.run import record as record_
from edgebench.run.interleave import Plan, take_turns
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, now
from edgebench.schema import Comparison, LatencySummary, Measurement, ModeSpec, Paired, Record, Verdict
from edgebench.store import records
from edgebench.store.layout import results_of
from edgebench.store.noise import noise_floor


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    latency: LatencySummary
    verdict: Verdict
    size_bytes: int | None


@dataclass(frozen=True)
class Compared:
    """One pair: the second against the first."""

    first: Side
    second: Side
    latency: Comparison
    accuracy: Paired | None

    def values(self) -> dict[str, Any]:
        """Return the pair as plain JSON values."""
        sides = {
            key: {
                "name": side.name,
                "median_ns": side.latency.median_ns.model_dump(),
                "verdict": side.verdict.word,
                "size_bytes": side.size_bytes,
            }
            for key, side in (("first", self.first), ("second", self.second))
        }
        accuracy = None if self.accuracy is None else self.accuracy.model_dump()
        return {**sides, "latency": self.latency.model_dump(), "accuracy": accuracy}


@dataclass(frozen=True)
class Suite:
    """Every pair that both sides have, and what only one of them has."""

    pairs: tuple[Compared, ...]
    alone: tuple[str, ...] = ()

    @property
    def geometric_mean(self) -> float:
        """Summarise the pairs' ratios, second over first."""
        return stats.geometric_mean([pair.latency.ratio.value for pair in self.pairs])

    def slower(self, share: float) -> list[Compared]:
        """List the pairs whose second is slower by more than a share, beyond noise."""
        return [pair for pair in self.pairs if pair.latency.word == "slower" and pair.latency.ratio.value > 1 + share]

    def undecided(self, share: float) -> list[Compared]:
        """List the inconclusive pairs whose second may be slower by more than a share: their interval reaches beyond it."""
        found = [pair for pair in self.pairs if pair.latency.word == "inconclusive"]
        return [pair for pair in found if pair.latency.ratio.high is None or pair.latency.ratio.high > 1 + share]


# ---------------------------------------------------------------- by running


def run_turns(session: Session, cells: Sequence[CellJob]) -> Suite:
    """Measure bundles in turn on one device, and compare each with the first. `MeasureError` where one fails."""
    first, others = cells[0], cells[1:]
    scenario = first.cell.scenario
    if scenario.kind in ("offline", "server"):
        raise InputError(f"compare runs single-stream, multi-stream and paced; compare records of the scenario {scenario.kind}")
    [batch] = batches(scenario, first.bundle.dynamic_batch)
    once = [Pass("accuracy", cell=cell) for cell, subject in enumerate(cells) if subject.judged]
    label = f"compare {first.bundle.name} with {', '.join(each.bundle.name for each in others)} on {first.cell.target}"
    plan = Plan(session.turns, session.spec.trials, batch)
    taken = take_turns(session, cells, plan, label, once)
    spec = session.spec if taken.why_by_trial else replace(session.spec, min_samples=session.turns.turns)
    sides = [_measured(cell, found, spec, session) for cell, found in zip(cells, taken.measurements, strict=True)]
    floor = noise_floor(session.options.results, first.cell)

    def compared(index: int) -> Compared:
        accuracy = _accuracy(first, taken.measurements[0], cells[index], taken.measurements[index])
        return Compared(sides[0], sides[index], taken.compare(0, index, floor), accuracy)

    return Suite(tuple(map(compared, range(1, len(cells)))))


def _measured(subject: CellJob, measurement: Measurement, spec: ModeSpec, session: Session) -> Side:
    record = record_.make_record(subject, measurement, spec, now(), 0.0)
    if record.failure is not None:
        raise MeasureError(record.failed_stage or "record", record.failure.reason, record.failure.recommendation)
    assert record.latency is not None and record.verdict is not None
    verdict = with_wakeful(record.verdict, pairs.wakeful(measurement.trials))
    return Side(subject.bundle.name, record.latency, verdict, subject.bundle.size_bytes)


def _accuracy(first: CellJob, one: Measurement, second: CellJob, other: Measurement) -> Paired | None:
    if first.data is None or not first.judged:
        return None
    task, labels = first.bundle.model.task, first.data.read("test").labels
    if one.predictions is None or other.predictions is None:
        return None
    if first.cell.evaluation_sha256 != second.cell.evaluation_sha256:
        return None
    before, after = (scores_of(found.values, found.columns) for found in (one.predictions, other.predictions))
    return _paired(task, (labels, before), (labels, after))


def _paired(task: str, first: tuple[Labels, Scores], second: tuple[Labels, Scores]) -> Paired | None:
    """Compare decisions sample by sample, where the task says which are right."""
    before, after = hits(task, *first), hits(task, *second)
    return None if before is None or after is None else stats.paired_difference(before, after)


# ---------------------------------------------------------------- from records


def compare_records(first: Sequence[Path], second: Sequence[Path]) -> Suite:
    """Compare records that stand for the same cell; one record on each side is a pair whatever it is of.

    Results folders give their target's noise floor where `edgebench noise` was run.
    """
    before, after = ([(path, record) for path, record in _finished(paths)] for paths in (first, second))
    if len(before) == len(after) == 1:
        return Suite((_pair(before[0], after[0]),))
    one, other = ({_match(record): (path, record) for path, record in side} for side in (before, after))
    alone = sorted(" ".join(key[:4]) for key in one.keys() ^ other.keys())
    common = tuple(_pair(one[key], other[key]) for key in sorted(one.keys() & other.keys()))
    if not common:
        raise InputError("the two sides have no cell in common (model, format, precision, target, mode and scenario)")
    return Suite(common, tuple(alone))


def _finished(paths: Sequence[Path]) -> list[tuple[Path, Record]]:
    found = [(path, records.read_record(path)) for path in paths]
    done = [(path, record) for path, record in found if record.status == "done"]
    if not done:
        raise InputError(f"{paths[0] if paths else 'nothing'}: no finished record; run `edgebench run` first")
    return done


def _match(record: Record) -> tuple[str, ...]:
    cell = record.cell
    circumstances = (cell.mode, cell.scenario.model_dump_json(), str(sorted(cell.options.items())))
    return (cell.model, cell.format, cell.precision, cell.target, *circumstances)


def _pair(first: tuple[Path, Record], second: tuple[Path, Record]) -> Compared:
    floors = [noise_floor(results_of(path), record.cell, apart=True) for path, record in (first, second)]
    known = [floor for floor in floors if floor is not None]
    sides = [_side(record) for _, record in (first, second)]
    medians = [[value / side.latency.batch for value in side.latency.trial_medians_ns] for side in sides]
    latency = stats.compare(medians[0], medians[1], paired=False, floor=max(known) if known else None)
    return Compared(sides[0], sides[1], latency, _recorded_accuracy(first, second))


def _side(record: Record) -> Side:
    assert record.latency is not None and record.verdict is not None
    cell = record.cell
    name = f"{cell.model}.{cell.format}.{cell.precision} on {cell.target}"
    return Side(name, record.latency, record.verdict, record.size_bytes)


def _recorded_accuracy(first: tuple[Path, Record], second: tuple[Path, Record]) -> Paired | None:
    record, other = first[1], second[1]
    if record.model is None or record.samples is None or other.samples is None:
        return None
    if record.cell.evaluation_sha256 != other.cell.evaluation_sha256:
        return None
    found = [records.read_samples(place, each) for place, each in (first, second)]
    if not all("labels" in arrays and "predictions" in arrays for arrays in found):
        return None
    one, two = ((arrays["labels"], arrays["predictions"]) for arrays in found)
    return _paired(record.model.task, one, two)
