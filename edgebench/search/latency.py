"""How long an inference takes on one device, predicted from what was measured there of other networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import RecordError
from edgebench.schema import METHOD, Record, Scenario
from edgebench.store import records
from edgebench.store.key import scenario_facts
from edgebench.store.layout import RECORDS

LEAST_POINTS = 4
"""Networks of different sizes that a prediction needs: one more than it has coefficients."""
LEAST_MARGIN = 0.25
"""A limit is clearly broken where the prediction is beyond it by more than this share, and by more than `SPREAD` errors."""
SPREAD = 2.0
FIGURES = {"max_p50": "median_ns", "max_p90": "p90_ns", "max_p99": "p99_ns"}
"""The figure of a record that a limit is about."""


@dataclass(frozen=True)
class Point:
    """One network that was measured."""

    macs: int
    parameters: int
    ns: float


@dataclass(frozen=True)
class Fit:
    """latency = a + b × multiply-accumulates + c × parameters, none of them below zero."""

    coefficients: tuple[float, float, float]
    points: int
    error: float
    """The largest share by which a network's latency is missed that the others alone predict."""

    def predict(self, macs: int, parameters: int) -> float:
        """Return nanoseconds."""
        a, b, c = self.coefficients
        return a + b * macs + c * parameters

    @property
    def margin(self) -> float:
        """Return the share by which a latency may well be shorter than predicted."""
        return max(LEAST_MARGIN, SPREAD * self.error)


def fit(points: Sequence[Point]) -> Fit | None:
    """Fit what was measured, by least squares of relative errors without negative coefficients; None: too few networks.

    C. Lawson, R. Hanson, "Solving least squares problems", 1974, ch. 23 (scipy's `nnls`).
    """
    merged = _merged(points)
    if len(merged) < LEAST_POINTS:
        return None
    rows = np.array([[1.0, each.macs, each.parameters] for each in merged])
    times = np.array([each.ns for each in merged])
    every = np.arange(len(merged))
    found = _solved(rows, times)
    left_out = [_solved(rows[every != index], times[every != index]) @ rows[index] for index in every]
    error = float(np.max(np.abs(np.array(left_out) / times - 1)))
    return Fit((float(found[0]), float(found[1]), float(found[2])), len(merged), error)


def _merged(points: Iterable[Point]) -> list[Point]:
    """Take the median of what was measured of networks of one size."""
    groups: dict[tuple[int, int], list[float]] = {}
    for each in points:
        groups.setdefault((each.macs, each.parameters), []).append(each.ns)
    return [Point(macs, parameters, float(np.median(times))) for (macs, parameters), times in sorted(groups.items())]


def _solved(rows: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.optimize import nnls

    relative = rows / times[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    found, _ = nnls(relative / scale, np.ones(len(times)))
    return np.asarray(found / scale, np.float64)


@dataclass
class Measured:
    """What one device has measured, by format and precision."""

    records: dict[str, Record] = field(default_factory=dict)
    """By their keys."""

    def add(self, record: Record) -> None:
        """Take up a record."""
        judged = record.status == "done" and record.verdict is not None and record.verdict.word != "INVALID"
        if judged and record.latency is not None and record.macs and record.parameters:
            self.records[record.key] = record

    def fits(self, format: str, precision: str, limits: Iterable[str]) -> Mapping[str, Fit]:
        """Fit each figure that is limited, where enough networks were measured by the runtime that measured last."""
        found: dict[str, Fit] = {}
        same = [each for each in self.records.values() if (each.cell.format, each.cell.precision) == (format, precision)]
        newest = max((each.started_at, each.cell.ran_by) for each in same)[1] if same else ""
        same = [each for each in same if each.cell.ran_by == newest]
        for name in limits:
            made = fit(list(_points(same, FIGURES[name]))) if name in FIGURES else None
            if made is not None:
                found[name] = made
        return found


def _points(same: Iterable[Record], figure: str) -> Iterable[Point]:
    for each in same:
        assert each.latency is not None and each.macs is not None and each.parameters is not None
        value = each.latency.median_ns.value if figure == "median_ns" else getattr(each.latency, figure)
        if value is not None:
            yield Point(each.macs, each.parameters, float(value))


def read_measured(results: Path, target: str, device: str, mode: str, scenario: Scenario) -> Measured:
    """Read what a device has measured in a mode and a scenario, as it is measured today; what cannot be read is passed over."""
    found = Measured()
    wanted = (device, mode, scenario_facts(scenario), METHOD)
    for path in sorted((results / RECORDS / target).glob("*.json")):
        try:
            record = records.read_record(path, whole=False)
        except RecordError:
            continue  # `edgebench verify` and the leaderboard name it
        cell = record.cell
        if (cell.device, cell.mode, scenario_facts(cell.scenario), cell.method) == wanted:
            found.add(record)
    return found
