"""One `edgebench run`: its devices, its cells, and measuring those that are not done yet."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import deploy, measure, records, store
from edgebench.build import accepted
from edgebench.errors import EdgebenchError, MeasureError
from edgebench.files import sha256_json, storage
from edgebench.plan import MODES, ModeSpec, cell_key
from edgebench.records import Subject
from edgebench.schema import (
    Bundle,
    Cell,
    Failure,
    Mode,
    Progress,
    Record,
    Role,
    Scenario,
    Target,
    Transport,
)

if TYPE_CHECKING:
    from edgebench.data import Dataset

Name = tuple[str, str, str, str]
"""Target, model, format, precision."""


@dataclass(frozen=True)
class CellPlan:
    """One line of a dry run, and of a run's outcome."""

    target: str
    model: str
    format: str
    precision: str
    state: str
    reason: str = ""
    seconds: float = 0.0


@dataclass
class RunResult:
    """What a run did; `records` holds this run's cells, measured or found."""

    records: list[Record] = field(default_factory=list)
    cells: list[CellPlan] = field(default_factory=list)

    @property
    def failed(self) -> list[CellPlan]:
        """List the cells that have no result."""
        return [cell for cell in self.cells if cell.state == "failed"]


@dataclass
class Session:
    """What the cells of one run share."""

    mode: Mode
    repeat: bool
    dry_run: bool
    results: Path
    work: Path
    progress: Progress
    threads: int | None
    result: RunResult = field(default_factory=RunResult)
    devices: dict[str, Device] = field(default_factory=dict)

    @property
    def spec(self) -> ModeSpec:
        """Return how long the mode measures."""
        return MODES[self.mode]

    def device(self, target: Target) -> Device:
        """Connect to a target once."""
        if target.name not in self.devices:
            self.devices[target.name] = Device(target, self.work / "device" / target.name)
        return self.devices[target.name]

    def scenario(self, base: Scenario) -> Scenario:
        """Apply the command line's wishes to a profile's scenario."""
        return base if self.threads is None else base.model_copy(update={"threads": self.threads})

    def note(self, name: Name, state: str, reason: str = "", seconds: float = 0.0) -> None:
        """Add one cell to the outcome."""
        self.result.cells.append(CellPlan(*name, state=state, reason=reason, seconds=seconds))

    def unmeasured(self, name: Name, data: Dataset, scenario: Scenario) -> Cell:
        """Describe a cell that could not even begin."""
        target, model, format, precision = name
        return Cell(
            model=model,
            format=format,
            precision=precision,
            bundle_sha256="",
            dataset=data.ref,
            evaluation_sha256=data.read("test").sha256,
            target=target,
            device="",
            runtime="",
            runtime_version="",
            scenario=self.scenario(scenario),
            mode=self.mode,
        )

    def fail(self, cell: Cell, role: Role, error: EdgebenchError) -> None:
        """Write down a cell that could not even begin."""
        self.note((cell.target, cell.model, cell.format, cell.precision), "failed", str(error))
        if self.dry_run:
            return
        stage = error.stage if isinstance(error, MeasureError) else "export"
        record = records.skeleton(cell, cell_key(cell), role, _now(), 0.0)
        store.save(self.results, records.failed(record, Failure(stage, str(error))), None)


@dataclass
class Device:
    """A connected target, and what it said of itself."""

    target: Target
    root: Path

    @cached_property
    def transport(self) -> Transport:
        """Open the connection."""
        return deploy.connect(self.target, self.root)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Probe the device once."""
        with storage(self.root):
            agent = deploy.deploy_agent(self.target, self.transport)
        return measure.probe(self.transport, agent)

    @property
    def identity(self) -> str:
        """Hash the facts that make two devices comparable."""
        names = ("board", "cpu", "machine", "cores", "system")
        return sha256_json({name: self.facts["environment"].get(name) for name in names})

    def runtime_version(self, runtime: str) -> str:
        """Return the runtime's version there; `MeasureError` where it is missing."""
        found = self.facts["runtimes"].get(runtime, {"version": None, "reason": "this agent has no such runtime"})
        if found["version"] is None:
            package = {"tflite": "ai-edge-litert"}.get(runtime, runtime)
            remedy = f"install it on the device, for instance: python -m pip install {package}"
            raise MeasureError("probe", f"{self.target.name} has no runtime {runtime}: {found['reason']}", remedy)
        return str(found["version"])


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def subject_of(session: Session, folder: Path, bundle: Bundle, target: Target, data: Dataset, scenario: Scenario) -> Subject:
    """Tie a bundle to a connected device; `MeasureError` where the device lacks its runtime."""
    device = session.device(target)
    runtime = accepted(target, bundle.format, bundle.precision).runtime
    cell = Cell(
        model=bundle.model.name,
        format=bundle.format,
        precision=bundle.precision,
        bundle_sha256=bundle.sha256,
        dataset=data.ref,
        evaluation_sha256=data.read("test").sha256,
        target=target.name,
        device=device.identity,
        runtime=runtime,
        runtime_version=device.runtime_version(runtime),
        scenario=session.scenario(scenario),
        mode=session.mode,
    )
    return Subject(cell, cell_key(cell), folder, bundle, data, target)


def measure_all(session: Session, subjects: Sequence[Subject]) -> RunResult:
    """Measure what is not done yet, one cell after the other; each result is on disk before the next begins."""
    todo = list({subject.key: subject for subject in subjects}.values())
    done = {} if session.repeat else {s.key: store.find_done(session.results, s.cell.target, s.key) for s in todo}
    missing = [subject.key for subject in todo if not done.get(subject.key)]
    started = time.monotonic()
    for subject in todo:
        cell, record = subject.cell, done.get(subject.key)
        name = (cell.target, cell.model, cell.format, cell.precision)
        if record is not None:
            session.note(name, "cached")
            session.result.records.append(record)
        elif session.dry_run:
            session.note(name, "to do", "measure", session.spec.seconds)
        else:
            position = missing.index(subject.key)
            each = (time.monotonic() - started) / position if position else session.spec.seconds
            record = _measure_one(session, subject, position * each, len(missing) * each)
            session.result.records.append(record)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            session.note(name, record.status, reason, record.seconds)
    return session.result


def _measure_one(session: Session, subject: Subject, before: float, total: float) -> Record:
    label = f"measure {subject.bundle.name} on {subject.cell.target}"
    images = subject.data.read("test").images
    started_at, begin = _now(), time.monotonic()
    session.progress(label, before, total)

    def heard(event: Mapping[str, Any]) -> None:
        session.progress(label, before + min(time.monotonic() - begin, session.spec.seconds), total)

    transport = session.device(subject.target).transport
    deployed = deploy.deploy(subject.target, transport, subject.folder, subject.bundle, images)
    passes = measure.all_passes(session.spec)
    job = measure.job(subject.bundle, subject.cell.runtime, deployed, images.shape, subject.cell.scenario, session.spec, passes)
    measurement = measure.measure(transport, deployed.agent, job, heard)
    seconds = time.monotonic() - begin
    record = records.make_record(subject, measurement, session.spec, started_at, seconds)
    return store.save(session.results, record, measurement)
