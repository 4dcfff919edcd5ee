"""One trial: a choice is made, exported and measured on the device, as a run of a profile with one cell does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgebench.bundle.export import Order
from edgebench.errors import (
    DataError,
    EdgebenchError,
    ExportError,
    InputError,
    StorageError,
    TransportError,
    UntrustedFile,
)
from edgebench.models import load_model, read_model
from edgebench.quantize.search import SearchOptions
from edgebench.quantize.search import search as mix
from edgebench.report.limits import KINDS
from edgebench.run.forecast import Forecast
from edgebench.run.outcome import CellOutcome
from edgebench.run.plan import CellJob
from edgebench.run.prepare import Maker, prepare_profile
from edgebench.run.session import Session, measure_all, subject_of
from edgebench.schema import Profile, Record, Target
from edgebench.search.latency import FIGURES, Measured
from edgebench.search.shapes import Shapes, predicted
from edgebench.search.space import Choice, Source
from edgebench.search.study import DONE, FAILED, SKIPPED

if TYPE_CHECKING:
    from edgebench.data import Dataset

UNREACHED = ("connect", "deploy", "start")
"""Stages whose failure tells of the device and not of the file: nothing more is tried then."""


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    values: Mapping[str, Any]
    """As plain JSON values; `state` and `reason` always."""
    record: Record | None = None
    """What was measured."""
    beyond: Mapping[str, float] | None = None
    """By how much it would break each limit, as a share of it, where it was not tried."""


@dataclass
class Trials:
    """Tries choices, one after the other."""

    session: Session
    source: Source
    data: Dataset
    target: Target
    shapes: Shapes
    measured: Measured
    limits: Mapping[str, float]
    """In the units of `report.limits.quantity`."""
    mixing: SearchOptions

    def run(self, choice: Choice, number: int, label: str) -> Result:
        """Try a choice, unless it would clearly break a limit; `TransportError` where the device is not there any more.

        What trains nothing and is a single recipe is measured whatever it is like: predictions are made of that.
        """
        try:
            expected, beyond = self._predict(choice)
        except (UntrustedFile, DataError, StorageError):
            raise
        except EdgebenchError as error:
            return Result({"state": FAILED, "reason": str(error)})
        if beyond and (choice.trains or not label):
            return Result({"state": SKIPPED, "reason": "; ".join(self._said(beyond)), "predicted": expected}, beyond=beyond)
        found = self._measured(choice, number)
        return Result({**found.values, "predicted": expected}, found.record)

    def _predict(self, choice: Choice) -> tuple[dict[str, Any], dict[str, float]]:
        """Count and predict; returns what is expected, and by how much each limit would clearly be broken."""
        counts, file = self.shapes.counts(choice), choice.file
        fits = self.measured.fits(file.format, file.precision, self.limits) if counts.macs else {}
        latency = {name: fit.predict(counts.macs or 0, counts.parameters) for name, fit in fits.items()}
        beyond = {
            name: value / self.limits[name] - 1
            for name, value in latency.items()
            if value / (1 + fits[name].margin) > self.limits[name]
        }
        size = None
        if "max_size" in self.limits:
            size = self.shapes.size(choice, self.session.accepts(self.target, file.format, file.precision))
            if size is not None and size > self.limits["max_size"]:
                beyond["max_size"] = size / self.limits["max_size"] - 1
        return predicted(counts, size, {FIGURES[name]: value for name, value in latency.items()}), beyond

    def _said(self, beyond: Mapping[str, float]) -> list[str]:
        """Say which limits it would break; sizes are counted, latencies are predicted."""
        said = []
        for name, share in beyond.items():
            kind, limit = KINDS[name], self.limits[name]
            if name == "max_size":
                said.append(f"not tried: size {limit * (1 + share):.0f} bytes counted, {limit:.0f} are the most")
            else:
                said.append(f"not tried: {kind.what} {kind.show(limit * (1 + share))} predicted, {kind.show(limit)} is the most")
        return said

    def _measured(self, choice: Choice, number: int) -> Result:
        """Make whatever is missing, and measure it unless there is a record of it."""
        profile = self.source.profile(choice, number)
        self.session.forecast = Forecast()
        try:
            prepared = self._prepared(profile, choice)
            [cell] = measure_all(self.session, prepared).cells
        except (UntrustedFile, DataError, StorageError, TransportError):
            raise
        except EdgebenchError as error:
            return Result({"state": FAILED, "reason": str(error)})
        return self._result(cell, prepared)

    def _prepared(self, profile: Profile, choice: Choice) -> Sequence[CellJob | CellOutcome]:
        name = profile.models[-1].name
        if choice.file.precision != "mixed":
            return prepare_profile(self.session, profile, self.data, [self.target], f"model={name}")
        return [self._mixture(profile, name, choice)]

    def _mixture(self, profile: Profile, name: str, choice: Choice) -> CellJob | CellOutcome:
        """Search which nodes of the network should compute in INT8, as `edgebench quantize --search` does."""
        session, target, file = self.session, self.target, choice.file
        place = (target.name, name, file.format, file.precision)
        try:
            maker = Maker(profile, self.data, session)
            for plan in profile.models:
                maker.check(plan)
            made = maker.folder(name)
            accepts = session.accepts(target, file.format, file.precision)
            order = Order(
                read_model(made),
                lambda: load_model(made, session.options.trust),
                file.format,
                file.precision,
                accepts,
                self.data,
                profile.calibration,
            )
            folder = session.options.work / "bundles" / f"{made.name}.{file.format}.{file.precision}"
            found = mix(session, order, target, self.mixing, folder)
        except (ExportError, InputError) as error:
            if isinstance(error, (UntrustedFile, DataError)):
                raise
            cell = session.unmeasured(place, profile.dataset, self.data, profile.scenario)
            return session.fail(cell, profile.models[-1].role, error)
        return subject_of(session, found.folder, found.bundle, target, self.data, profile.scenario)

    def _result(self, cell: CellOutcome, prepared: Sequence[CellJob | CellOutcome]) -> Result:
        record = cell.record
        if record is None:
            return Result({"state": FAILED, "reason": cell.reason})
        if record.failed_stage in UNREACHED:
            raise TransportError(f"{self.target.name}: {cell.reason}; look at the device, and the same command goes on")
        if record.failure is not None:
            return Result({"state": FAILED, "reason": cell.reason, "retry": True})
        self.measured.add(record)
        [job] = [each for each in prepared if isinstance(each, CellJob)]
        return Result({"state": DONE, "reason": "", "key": record.key, "bundle": str(job.folder)}, record)
