"""What became of a run's cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebench.schema import Bundle, Cell, Record
from edgebench.schema.explanation import Explanation

Name = tuple[str, str, str, str]
"""Target, model, format, precision."""


@dataclass(frozen=True)
class CellOutcome:
    """One cell: in a dry run what there is to do, else what was done."""

    target: str
    model: str
    format: str
    precision: str
    state: str
    """done, cached, failed or to do."""
    reason: str = ""
    seconds: float = 0.0
    record: Record | None = None
    """What was measured or found; None in a dry run, and where it could not even begin."""
    key: str = ""
    stage: str = ""
    """Of the profile, where it has several."""

    @property
    def steps(self) -> tuple[str, ...]:
        """List what is to do: a model first, `export`, `measure`."""
        return tuple(self.reason.split(", ")) if self.state == "to do" else ()

    @property
    def name(self) -> Name:
        """Return what tells it from the others of a run."""
        return self.target, self.model, self.format, self.precision


@dataclass(frozen=True)
class ExplainOutcome:
    """One model's maps by one method, which a profile asked for."""

    model: str
    method: str
    state: str
    """done, cached, failed or to do."""
    reason: str = ""
    explanation: Explanation | None = None
    sheet: Path | None = None
    """PNG."""
    stage: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    cells: Sequence[CellOutcome]
    """In the order that they were asked for; those that could not even begin come first."""
    ahead: str = ""
    """What there was to do when it began, and about how long it takes."""
    seconds: float = 0.0
    """The same as a number."""
    explained: Sequence[ExplainOutcome] = ()

    @property
    def records(self) -> list[Record]:
        """List the records of this run's cells, measured or found."""
        return [cell.record for cell in self.cells if cell.record is not None]

    @property
    def failed(self) -> list[CellOutcome]:
        """List the cells that have no result."""
        return [cell for cell in self.cells if cell.state == "failed"]


def name_of(cell: Cell) -> Name:
    """Return what tells a cell from the others of a run."""
    return cell.target, cell.model, cell.format, cell.precision


@dataclass(frozen=True)
class ExportResult:
    """A bundle, where it lies, and whether it was there before."""

    folder: Path
    bundle: Bundle
    cached: bool
