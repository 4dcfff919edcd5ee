"""One `edgebench run`: its devices, its cells, and measuring those that are not done yet."""

from __future__ import annotations

import datetime
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.analysis.processor import fitted
from edgebench.bundle.export import accepted
from edgebench.config import read_values
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.device.device import Device
from edgebench.device.events import OnEvent
from edgebench.errors import EdgebenchError, MeasureError, TransportError, UntrustedFile
from edgebench.run import record as record_
from edgebench.run.forecast import Forecast
from edgebench.run.plan import CellJob, cell_key
from edgebench.schema import (
    MODES,
    Accepts,
    Bundle,
    Cell,
    Failure,
    Link,
    Measurement,
    MeterSpec,
    Mode,
    ModeSpec,
    Progress,
    Record,
    Role,
    Scenario,
    Target,
)
from edgebench.store import records as records_
from edgebench.store.noise import meter_cost
from edgebench.trust import check_bundle

if TYPE_CHECKING:
    from edgebench.data import Dataset

Name = tuple[str, str, str, str]
"""Target, model, format, precision."""


@dataclass(frozen=True)
class CellOutcome:
    """One line of a dry run, and of a run's outcome."""

    target: str
    model: str
    format: str
    precision: str
    state: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def steps(self) -> tuple[str, ...]:
        """List what is to do: a model first, `export`, `measure`."""
        return tuple(self.reason.split(", ")) if self.state == "to do" else ()


@dataclass
class RunResult:
    """What a run did; `records` holds this run's cells, measured or found."""

    records: list[Record] = field(default_factory=list)
    cells: list[CellOutcome] = field(default_factory=list)
    ahead: str = ""
    """What there was to do when it began, and about how long it takes."""
    seconds: float = 0.0
    """The same as a number."""

    @property
    def failed(self) -> list[CellOutcome]:
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
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What the command line asks of the scenario, over what a profile says."""
    meters: Sequence[MeterSpec] = ()
    """Power meters to use instead of the target's own."""
    accept_new_host_key: bool = False
    reconnect_seconds: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    """Runtime options over the target's."""
    trust: bool = False
    """Whether the user vouches for files that can run code."""
    resume: bool = False
    """Take up what devices went on measuring after the connection to them was lost."""
    result: RunResult = field(default_factory=RunResult)
    forecast: Forecast = field(default_factory=Forecast)
    devices: dict[str, Device] = field(default_factory=dict)
    interrupted: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        """End the connections."""
        for device in self.devices.values():
            device.close()

    @property
    def spec(self) -> ModeSpec:
        """Return how long the mode measures."""
        return MODES[self.mode]

    def device(self, target: Target) -> Device:
        """Connect to a target once."""
        if target.name not in self.devices:
            root = self.work / "device" / target.name
            link = Link(root, self.accept_new_host_key, self.reconnect_seconds, self.interrupted)
            self.devices[target.name] = Device(target, link)
        return self.devices[target.name]

    def accepts(self, target: Target, format: str, precision: str) -> Accepts:
        """Find how a target runs a format in a precision, by the device's own processor where that decides."""
        found = accepted(target, format, precision)
        return fitted(found, self.device(target).facts["environment"]) if found.limits.weight_bits == "auto" else found

    def connect(self, targets: Sequence[Target]) -> None:
        """Look at all devices at once; one that cannot be reached, or is another, fails its own cells.

        `InputError` where one has no address.
        """
        side_by_side(self, [self.device(target).look for target in targets if target.transport != "local"])

    def check(self, target: Target) -> None:
        """Raise what is wrong with a device that was looked at, before anything is made for it."""
        if target.name in self.devices:
            self.devices[target.name].check()

    def report(self, what: str, done: float, total: float, lane: str = "") -> None:
        """Show progress; the place where a lane notices that the run was interrupted."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        self.progress(what, done, total, lane)

    def announce(self, name: str = "") -> None:
        """Say once what there is to do and how long it takes, where there is something."""
        ahead = self.forecast.summary()
        if ahead and not self.result.ahead:
            self.result.ahead, self.result.seconds = ahead, self.forecast.left()
            if not self.dry_run:
                self.progress(f"{name}: {ahead}" if name else ahead, 0, 0)

    def scenario(self, base: Scenario) -> Scenario:
        """Apply the command line's wishes to a profile's scenario."""
        return scenario_with(base, self.overrides)

    def seconds(self, base: Scenario) -> float:
        """Estimate how long a cell takes."""
        return self.spec.seconds(self.scenario(base))

    def note(self, name: Name, state: str, reason: str = "", seconds: float = 0.0) -> None:
        """Add one cell to the outcome."""
        self.result.cells.append(CellOutcome(*name, state=state, reason=reason, seconds=seconds))

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
        self.note(_name(cell), "failed", str(error))
        if self.dry_run:
            return
        record = record_.skeleton(cell, cell_key(cell), role, now(), 0.0)
        records_.save(self.results, record_.failed(record, Failure(_stage(error), str(error))), None)


def _stage(error: EdgebenchError) -> str:
    """Name where a cell that could not even begin has failed."""
    if isinstance(error, MeasureError):
        return error.stage
    return "connect" if isinstance(error, TransportError) else "load" if isinstance(error, UntrustedFile) else "export"


def scenario_with(base: Scenario, overrides: Mapping[str, Any]) -> Scenario:
    """Change a scenario; another kind forgets what belongs to the former. `InputError` where they do not fit together."""
    kept = base.model_dump()
    if overrides.get("kind", base.kind) != base.kind:
        kept |= {"bound_ms": None, "rate": None, "idle_ms": None}
    return read_values(Scenario, {**kept, **overrides}, "scenario")


def now(ago: float = 0.0) -> str:
    """Return the time, or the time some seconds ago, as records write it."""
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=ago)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def subject_of(session: Session, folder: Path, bundle: Bundle, target: Target, data: Dataset, scenario: Scenario) -> CellJob:
    """Tie a bundle to a connected device; `MeasureError` where the device lacks its runtime.

    `UntrustedFile`, before anything of it goes there, where it could run code and nobody vouches for it.
    """
    accepts = accepted(target, bundle.format, bundle.precision)
    runtime = accepts.runtime
    check_bundle(folder, bundle, runtime, session.trust)
    device = session.device(target)
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
        options={**accepts.options, **session.options},
    )
    return CellJob(cell, cell_key(cell), folder, bundle, data, target)


def forget(session: Session, subject: CellJob) -> None:
    """Remove a bundle that is not measured again from this computer's cache; other devices make room by themselves."""
    if subject.target.transport == "local":
        device = session.work / "device" / subject.target.name
        shutil.rmtree(device / deploy.place(subject.bundle), ignore_errors=True)


def measure_all(session: Session, subjects: Sequence[CellJob]) -> RunResult:
    """Measure what is not done yet: remote devices side by side, then this computer's, each cell after the other.

    Each result is on disk before the device's next cell begins.
    """
    todo = list({subject.key: subject for subject in subjects}.values())
    done = {} if session.repeat else {subject.key: record for subject in todo if (record := _done(session, subject))}
    missing = [subject for subject in todo if subject.key not in done]
    each = {subject.key: session.spec.seconds(subject.cell.scenario) for subject in missing}
    beside = {subject.key: subject.cell.target for subject in missing if subject.target.transport != "local"}
    session.forecast.expect("measure", each, beside)
    session.announce()
    lanes: dict[str, list[CellJob]] = {}
    for subject in todo:
        lanes.setdefault(subject.cell.target, []).append(subject)
    remote = [lane for lane in lanes.values() if lane[0].target.transport != "local"]
    here = [lane for lane in lanes.values() if lane[0].target.transport == "local"]
    side_by_side(session, [partial(_measure_lane, session, lane, done) for lane in remote])
    for lane in here:  # with nothing else at work on this computer
        _measure_lane(session, lane, done)
    _sort(session.result, todo)
    return session.result


def _sort(result: RunResult, subjects: Sequence[CellJob]) -> None:
    """Order what lanes have done at the same time as it was asked for; what was noted before them stays first."""
    order = {subject.key: index for index, subject in enumerate(subjects)}
    result.records.sort(key=lambda record: order[record.key])
    places = {_name(subject.cell): order[subject.key] for subject in subjects}
    result.cells.sort(key=lambda cell: places.get(_name(cell), -1))


def _name(cell: Cell | CellOutcome) -> Name:
    return cell.target, cell.model, cell.format, cell.precision


def side_by_side(session: Session, lanes: Sequence[Callable[[], None]]) -> None:
    """Do several things at once; an interruption reaches each of them, and is waited for."""
    if len(lanes) < 2:
        for lane in lanes:
            lane()
        return
    with ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(lane) for lane in lanes]
        try:
            wait(futures)
        except KeyboardInterrupt:
            session.interrupted.set()
            raise
    for future in futures:
        future.result()


def _measure_lane(session: Session, todo: Sequence[CellJob], done: Mapping[str, Record]) -> None:
    """Measure the cells of one device that are not done."""
    missing = [subject.key for subject in todo if subject.key not in done]
    started = time.monotonic()
    for subject in todo:
        cell, record = subject.cell, done.get(subject.key)
        name = _name(cell)
        if record is not None:
            session.note(name, "cached")
            session.result.records.append(record)
        elif session.dry_run:
            session.note(name, "to do", "measure", session.spec.seconds(cell.scenario))
        else:
            position = missing.index(subject.key)
            each = (time.monotonic() - started) / position if position else session.spec.seconds(cell.scenario)
            with session.forecast.during("measure", subject.key):
                record = _measure_one(session, subject, position * each, len(missing) * each)
                if record.failure:
                    session.forecast.drop("measure", subject.key)
            session.result.records.append(record)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            session.note(name, record.status, reason, record.seconds)


def _done(session: Session, subject: CellJob) -> Record | None:
    """Find a cell's finished record; one without the meters that are asked for does not count."""
    record = records_.find_done(session.results, subject.cell.target, subject.key)
    if record is not None and {spec.name for spec in session.meters} - {rail.meter for rail in (record.energy, *record.rails)}:
        return None
    return record


def _measure_one(session: Session, subject: CellJob, before: float, total: float) -> Record:
    label = f"measure {subject.bundle.name} on {subject.cell.target}"
    scenario = subject.cell.scenario
    passes = job_.all_passes(session.spec, scenario, subject.bundle.dynamic_batch)
    lane, begin, idle = subject.cell.target, time.monotonic(), 0.0
    session.report(label, before, total, lane)

    def on_event(event: Mapping[str, Any]) -> None:
        nonlocal begin, idle
        if event["event"] == "progress":  # what the device does once is not part of the estimate
            session.report(f"{label}: {event['what']} ({event['seconds']:.0f} s)", before, total, lane)
            return
        if event["event"] == "resumed":  # by the device's own reckoning: its clock may be set to any time
            begin, idle = time.monotonic() - float(event["age_seconds"]), float(event["idle_seconds"])
        session.report(label, before + min(time.monotonic() - begin, session.spec.seconds(scenario)), total, lane)

    [measurement] = run_job(session, [subject], passes, on_event)
    age = time.monotonic() - begin
    seconds, started_at = age - idle, now(age)
    cost = meter_cost(session.results, subject.cell)
    meters = session.meters or subject.meters
    record = record_.make_record(subject, measurement, session.spec, started_at, seconds, meters, cost)
    labels = subject.data.read("test").labels
    record = record_.compared(record, measurement, labels, records_.find_references(session.results, subject.cell))
    return records_.save(session.results, record, measurement, labels)


def run_job(
    session: Session,
    subjects: Sequence[CellJob],
    passes: Sequence[job_.Pass],
    on_event: OnEvent,
    meters: Sequence[MeterSpec] | None = None,
    spec: ModeSpec | None = None,
) -> list[Measurement]:
    """Deploy cells of one device and run their passes there, in the given order; a measurement for each.

    `spec` says how long, where that is not as long as the session's mode.
    """
    first, cells = subjects[0], []
    transport = session.device(first.target).transport
    sent = (
        deploy.no_upload_progress if first.target.transport == "local" else deploy.upload_progress(session.report, first.target)
    )
    for subject in subjects:
        images = subject.data.read("test").images
        try:
            deployed = deploy.deploy(subject.target, transport, subject.folder, subject.bundle, images, sent)
        except TransportError as error:
            lost = Failure("deploy", str(error), "look at the device and run again: what has arrived there is not sent again")
            return [measure.failed(lost) for _ in subjects]
        scenario = subject.cell.scenario
        cell = subject.cell
        cells.append(job_.cell_job(subject.bundle, cell.runtime, deployed, images.shape, scenario, cell.options))
    if meters is None:
        each = session.meters or [spec for subject in subjects for spec in subject.meters]
        meters = list({(spec.name, str(spec.options)): spec for spec in each}.values())
    first_of_all = [each for index, subject in enumerate(subjects) for each in job_.first_passes(subject.bundle, index)]
    job = job_.job(cells, [*first_of_all, *passes], spec or session.spec, first.cell.scenario, meters)
    return measure.measure(transport, deployed.agent, job, on_event, session.resume)
