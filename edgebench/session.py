"""One `edgebench run`: its devices, its cells, and measuring those that are not done yet."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgebench import deploy, measure, records, store
from edgebench.build import accepted
from edgebench.errors import EdgebenchError, InputError, MeasureError
from edgebench.files import sha256_json, storage
from edgebench.plan import MODES, ModeSpec, cell_key
from edgebench.records import Subject
from edgebench.schema import (
    Bundle,
    Cell,
    Failure,
    Measurement,
    MeterSpec,
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
    wishes: Mapping[str, Any] = field(default_factory=dict)
    """What the command line asks of the scenario, over what a profile says."""
    meters: Sequence[MeterSpec] = ()
    """Power meters to use instead of the target's own."""
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
        return scenario_with(base, self.wishes)

    def seconds(self, base: Scenario) -> float:
        """Estimate how long a cell takes."""
        return self.spec.seconds(self.scenario(base))

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
        record = records.skeleton(cell, cell_key(cell), role, now(), 0.0)
        store.save(self.results, records.failed(record, Failure(stage, str(error))), None)


def scenario_with(base: Scenario, wishes: Mapping[str, Any]) -> Scenario:
    """Change a scenario; another kind forgets what belongs to the former. `InputError` where they do not fit together."""
    kept = base.model_dump()
    if wishes.get("kind", base.kind) != base.kind:
        kept |= {"bound_ms": None, "rate": None, "idle_ms": None}
    try:
        return Scenario.model_validate({**kept, **wishes})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"scenario: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}") from error


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


def now() -> str:
    """Return the time as records write it."""
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
    done = {} if session.repeat else {subject.key: _done(session, subject) for subject in todo}
    missing = [subject.key for subject in todo if not done.get(subject.key)]
    started = time.monotonic()
    for subject in todo:
        cell, record = subject.cell, done.get(subject.key)
        name = (cell.target, cell.model, cell.format, cell.precision)
        if record is not None:
            session.note(name, "cached")
            session.result.records.append(record)
        elif session.dry_run:
            session.note(name, "to do", "measure", session.spec.seconds(cell.scenario))
        else:
            position = missing.index(subject.key)
            each = (time.monotonic() - started) / position if position else session.spec.seconds(cell.scenario)
            record = _measure_one(session, subject, position * each, len(missing) * each)
            session.result.records.append(record)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            session.note(name, record.status, reason, record.seconds)
    return session.result


def _done(session: Session, subject: Subject) -> Record | None:
    """Find a cell's finished record; one without the meters that are asked for does not count."""
    record = store.find_done(session.results, subject.cell.target, subject.key)
    if record is not None and {spec.name for spec in session.meters} - {rail.meter for rail in (record.energy, *record.rails)}:
        return None
    return record


def _measure_one(session: Session, subject: Subject, before: float, total: float) -> Record:
    label = f"measure {subject.bundle.name} on {subject.cell.target}"
    scenario = subject.cell.scenario
    passes = measure.all_passes(session.spec, scenario, subject.bundle.dynamic_batch)
    started_at, begin = now(), time.monotonic()
    session.progress(label, before, total)

    def heard(event: Mapping[str, Any]) -> None:
        session.progress(label, before + min(time.monotonic() - begin, session.spec.seconds(scenario)), total)

    [measurement] = run_job(session, [subject], passes, heard)
    seconds = time.monotonic() - begin
    cost = store.meter_cost(session.results, subject.cell)
    meters = session.meters or subject.target.meters
    record = records.make_record(subject, measurement, session.spec, started_at, seconds, meters, cost)
    labels = subject.data.read("test").labels
    record = records.compared(record, measurement, labels, store.find_references(session.results, subject.cell))
    return store.save(session.results, record, measurement, labels)


def run_job(
    session: Session,
    subjects: Sequence[Subject],
    passes: Sequence[measure.Pass],
    heard: measure.Heard,
    meters: Sequence[MeterSpec] | None = None,
) -> list[Measurement]:
    """Deploy cells of one device and run their passes there, in the given order; a measurement for each."""
    first, cells = subjects[0], []
    transport = session.device(first.target).transport
    for subject in subjects:
        images = subject.data.read("test").images
        deployed = deploy.deploy(subject.target, transport, subject.folder, subject.bundle, images)
        scenario = subject.cell.scenario
        cells.append(measure.cell_job(subject.bundle, subject.cell.runtime, deployed, images.shape, scenario))
    chosen = (session.meters or first.target.meters) if meters is None else meters
    job = measure.job(cells, passes, session.spec, first.cell.scenario, chosen)
    return measure.measure(transport, deployed.agent, job, heard)
