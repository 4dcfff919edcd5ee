"""One `edgebench run`: its devices, its cells, and measuring those that are not done yet."""

from __future__ import annotations

import datetime
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgebench.analysis.processor import fitted
from edgebench.bundle.export import accepted
from edgebench.bundle.import_file import IMPORTED
from edgebench.bundle.import_file import accepted as accepted_file
from edgebench.config import read_values
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.device.device import Device
from edgebench.device.events import OnEvent
from edgebench.errors import DataError, EdgebenchError, MeasureError, TransportError, UntrustedFile, written
from edgebench.run import record as record_
from edgebench.run.forecast import Forecast
from edgebench.run.options import MeasureOptions, RunOptions
from edgebench.run.outcome import CellOutcome, Name, RunResult, name_of
from edgebench.run.plan import CellJob
from edgebench.run.runtime import chosen_runtime, few_samples, private
from edgebench.schema import (
    MODES,
    TURNS,
    Accepts,
    Bundle,
    Cell,
    DatasetRef,
    Failure,
    Link,
    Measurement,
    MeterSpec,
    ModeSpec,
    Progress,
    Record,
    Role,
    Scenario,
    Subset,
    Target,
    TurnSpec,
)
from edgebench.store import records as records_
from edgebench.store.key import cell_key
from edgebench.store.noise import meter_cost
from edgebench.trust import check_bundle, is_own

if TYPE_CHECKING:
    from edgebench.data import Dataset

T = TypeVar("T")


@dataclass
class Session:
    """What the cells of one run share."""

    measure: MeasureOptions
    options: RunOptions
    progress: Progress
    forecast: Forecast = field(default_factory=Forecast)
    devices: dict[str, Device] = field(default_factory=dict)
    interrupted: threading.Event = field(default_factory=threading.Event)
    subset: Subset | None = None
    """Of the test split, as the profile says."""
    _sampled: dict[tuple[int, int, int], tuple[Dataset, Dataset]] = field(default_factory=dict)
    """Data as it was read, kept for its identity, and some of it."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        """End the connections."""
        for device in self.devices.values():
            device.close()

    @property
    def spec(self) -> ModeSpec:
        """Return how long the mode measures."""
        return MODES[self.measure.mode]

    @property
    def turns(self) -> TurnSpec:
        """Return how long the mode compares what takes turns, with as many pairs as are asked for."""
        spec = TURNS.get(self.measure.mode, TURNS["strict"])
        return spec if self.measure.pairs is None else replace(spec, pairs=self.measure.pairs)

    def device(self, target: Target) -> Device:
        """Connect to a target once."""
        if target.name not in self.devices:
            root = self.options.work / "device" / target.name
            link = Link(root, self.options.accept_new_host_key, self.options.reconnect_seconds, self.interrupted)
            self.devices[target.name] = Device(target, link)
        return self.devices[target.name]

    def accepts(self, target: Target, format: str, precision: str) -> Accepts:
        """Find how a target runs a format in a precision, by the device's own processor where that decides."""
        found = accepted(target, format, precision)
        return fitted(found, self.device(target).facts["environment"]) if found.limits.get("weight_bits") == "auto" else found

    def connect(self, targets: Sequence[Target]) -> None:
        """Look at all devices at once; one that cannot be reached, or is another, fails its own cells.

        `InputError` where one has no address.
        """
        side_by_side(self, [self.device(target).look for target in targets if target.transport != "local"])

    def check(self, target: Target) -> None:
        """Raise what is wrong with a device that was looked at, before anything is made for it."""
        if target.name in self.devices:
            self.devices[target.name].check()

    def evaluated(self, data: Dataset | None) -> tuple[Dataset | None, Subset | None]:
        """Return the data with those samples of the test split that are judged, and which these are; None: all."""
        wanted = self.measure.subset or self.subset
        if data is None or wanted is None or wanted.samples >= len(data.read("test")):
            return data, None
        key = (id(data), wanted.samples, wanted.seed)
        if key not in self._sampled:
            self._sampled[key] = (data, data.sampled(wanted.samples, wanted.seed))
        return self._sampled[key][1], wanted

    def report(self, what: str, done: float, total: float, lane: str = "") -> None:
        """Show progress; the place where a lane notices that the run was interrupted."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        self.progress(what, done, total, lane)

    def announce(self, name: str = "") -> None:
        """Say once what there is to do and how long it takes, where there is something."""
        if self.forecast.fix() and not self.options.dry_run:
            ahead = self.forecast.ahead
            self.progress(f"{name}: {ahead}" if name else ahead, 0, 0)

    def notice(self, text: str) -> None:
        """Say one line."""
        self.progress(text, 0, 0)

    def scenario(self, base: Scenario) -> Scenario:
        """Change a profile's scenario as the options say."""
        return scenario_with(base, self.measure.scenario)

    def seconds(self, base: Scenario) -> float:
        """Estimate how long a cell takes."""
        return self.spec.seconds(self.scenario(base))

    def unmeasured(self, name: Name, ref: DatasetRef | None, data: Dataset | None, scenario: Scenario) -> Cell:
        """Describe a cell that could not even begin; `data` is None where it cannot be read."""
        target, model, format, precision = name
        data, subset = self.evaluated(data)
        return Cell(
            model=model,
            format=format,
            precision=precision,
            bundle_sha256="",
            dataset=data.ref if data else ref,
            evaluation_sha256=data.read("test").sha256 if data else None if ref is None else "",
            subset=subset,
            target=target,
            device="",
            runtime="",
            runtime_version="",
            scenario=self.scenario(scenario),
            mode=self.measure.mode,
        )

    def fail(self, cell: Cell, role: Role, error: EdgebenchError) -> CellOutcome:
        """Write down a cell that could not even begin."""
        if not self.options.dry_run:
            record = record_.skeleton(cell, cell_key(cell), role, now(), 0.0)
            records_.save(self.options.results, record_.failed(record, Failure(_stage(error), written(error))), None)
        return CellOutcome(*name_of(cell), state="failed", reason=written(error))


def _stage(error: EdgebenchError) -> str:
    """Name where a cell that could not even begin has failed."""
    if isinstance(error, MeasureError):
        return error.stage
    if isinstance(error, DataError):
        return "data"
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


def subject_of(
    session: Session, folder: Path, bundle: Bundle, target: Target, data: Dataset | None, scenario: Scenario
) -> CellJob:
    """Tie a bundle to a connected device; `MeasureError` where the device lacks its runtime.

    `UntrustedFile`, before anything of it goes there, where it could run code and nobody vouches for it.
    """
    brought = bundle.model.lineage.recipe == IMPORTED
    accepts = (accepted_file if brought else accepted)(target, bundle.format, bundle.precision)
    options = {**accepts.options, **session.measure.runtime}
    runtime = chosen_runtime(accepts.runtime, options)
    hidden = private(runtime, options)
    check_bundle(folder, bundle, runtime, session.options.trust)
    device = session.device(target)
    data, subset = session.evaluated(data)
    cell = Cell(
        model=bundle.model.name,
        format=bundle.format,
        precision=bundle.precision,
        bundle_sha256=bundle.sha256,
        dataset=data.ref if data else None,
        evaluation_sha256=data.read("test").sha256 if data else None,
        subset=subset,
        target=target.name,
        device=device.identity,
        runtime=runtime,
        runtime_version=device.runtime_version(runtime, options),
        scenario=session.scenario(scenario),
        mode=session.measure.mode,
        options={name: value for name, value in options.items() if name not in hidden},
    )
    return CellJob(cell, cell_key(cell), folder, bundle, data, target, hidden, *few_samples(runtime, options, bundle, data))


def forget(session: Session, subject: CellJob) -> None:
    """Remove a bundle that is not measured again from this computer's cache; other devices make room by themselves."""
    if subject.target.transport == "local":
        device = session.options.work / "device" / subject.target.name
        shutil.rmtree(device / deploy.place(subject.bundle), ignore_errors=True)


def forget_samples(session: Session, subject: CellJob) -> None:
    """Remove samples that are not inferred again from this computer's cache, as `forget` does with bundles."""
    if subject.target.transport == "local":
        device = session.options.work / "device" / subject.target.name
        for each in subject.samples():
            (device / deploy.set_place(each)[0]).unlink(missing_ok=True)


def measure_all(session: Session, prepared: Sequence[CellJob | CellOutcome]) -> RunResult:
    """Measure what is not done yet: remote devices side by side, then this computer's, each cell after the other.

    Each result is on disk before the device's next cell begins. What could not be prepared is part of the result.
    """
    todo = list({job.key: job for job in prepared if isinstance(job, CellJob)}.values())
    results = session.options.results
    found = {} if session.options.repeat else {job.key: record for job in todo if (record := _done(session, results, job))}
    missing = [job for job in todo if job.key not in found]
    each = {job.key: session.spec.seconds(job.cell.scenario) for job in missing}
    beside = {job.key: job.cell.target for job in missing if job.target.transport != "local"}
    session.forecast.expect("measure", each, beside)
    session.announce()
    lanes: dict[str, list[CellJob]] = {}
    for job in todo:
        lanes.setdefault(job.cell.target, []).append(job)
    remote = [lane for lane in lanes.values() if lane[0].target.transport != "local"]
    here = [lane for lane in lanes.values() if lane[0].target.transport == "local"]
    measured = side_by_side(session, [partial(_measure_lane, session, lane, found) for lane in remote])
    measured += [_measure_lane(session, lane, found) for lane in here]  # with nothing else at work on this computer
    order = {job.key: index for index, job in enumerate(todo)}
    cells = sorted((cell for lane in measured for cell in lane), key=lambda cell: order[cell.key])
    before = [cell for cell in prepared if isinstance(cell, CellOutcome)]
    return RunResult([*before, *cells], session.forecast.ahead, session.forecast.ahead_seconds)


def side_by_side(session: Session, lanes: Sequence[Callable[[], T]]) -> list[T]:
    """Do several things at once, and return what each returned; an interruption reaches each of them, and is waited for."""
    if len(lanes) < 2:
        return [lane() for lane in lanes]
    with ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(lane) for lane in lanes]
        try:
            wait(futures)
        except KeyboardInterrupt:
            session.interrupted.set()
            raise
    return [future.result() for future in futures]


def _measure_lane(session: Session, todo: Sequence[CellJob], found: Mapping[str, Record]) -> list[CellOutcome]:
    """Measure the cells of one device that are not done."""
    missing = [job.key for job in todo if job.key not in found]
    started, outcomes = time.monotonic(), []
    for job in todo:
        outcome = partial(CellOutcome, *name_of(job.cell), key=job.key)
        if job.key in found:
            outcomes.append(outcome(state="cached", record=found[job.key]))
        elif session.options.dry_run:
            outcomes.append(outcome(state="to do", reason="measure", seconds=session.spec.seconds(job.cell.scenario)))
        else:
            position = missing.index(job.key)
            each = (time.monotonic() - started) / position if position else session.spec.seconds(job.cell.scenario)
            with session.forecast.during("measure", job.key):
                record = _measure_one(session, job, position * each, len(missing) * each)
                if record.failure:
                    session.forecast.drop("measure", job.key)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            outcomes.append(outcome(state=record.status, reason=reason, seconds=record.seconds, record=record))
    return outcomes


def _done(session: Session, results: Path, job: CellJob) -> Record | None:
    """Find a cell's finished record; one without the meters that are asked for does not count."""
    record = records_.find_done(results, job.cell, job.key)
    wanted = {spec.name for spec in session.measure.meters}
    if record is not None and wanted - {rail.meter for rail in (record.energy, *record.rails)}:
        return None
    return record


def _measure_one(session: Session, subject: CellJob, before: float, total: float) -> Record:
    label = f"measure {subject.bundle.name} on {subject.cell.target}"
    scenario = subject.cell.scenario
    passes = job_.all_passes(
        session.spec, scenario, subject.bundle.dynamic_batch, subject.predicts, subject.bundle.golden is not None
    )
    control = subject.control
    if control is not None:
        passes.insert([each.name for each in passes].index("accuracy") + 1, job_.Pass("accuracy", cell=1))
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

    measurement, *others = run_job(session, [subject, *([control] if control else [])], passes, on_event)
    age = time.monotonic() - begin
    seconds, started_at = age - idle, now(age)
    cost = meter_cost(session.options.results, subject.cell)
    meters = session.measure.meters or subject.meters
    record = record_.make_record(subject, measurement, session.spec, started_at, seconds, meters, cost)
    record = record_.controlled(record, control, others)
    labels = subject.data.read("test").labels if subject.data is not None and subject.judged else None
    record = record_.compared(record, measurement, labels, records_.find_references(session.options.results, subject.cell))
    return records_.save(session.options.results, record, measurement, labels, subject.bundle)


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
        samples = subject.samples()
        try:
            deployed = deploy.deploy(subject.target, transport, subject.folder, subject.bundle, samples, sent)
        except TransportError as error:
            lost = Failure("deploy", str(error), "look at the device and run again: what has arrived there is not sent again")
            return [measure.failed(lost) for _ in subjects]
        scenario = subject.cell.scenario
        cell = subject.cell
        given = (subject.bundle, cell.runtime, deployed, samples, scenario, {**cell.options, **subject.private})
        known = session.options.trust or is_own(subject.folder, subject.bundle, cell.runtime)
        cells.append(
            {
                **job_.cell_job(*given, known=known),
                "big_cores": subject.target.cores == "big",
                "chosen": list(subject.chosen),
            }
        )
    if meters is None:
        each = session.measure.meters or [spec for subject in subjects for spec in subject.meters]
        meters = list({(spec.name, str(spec.options)): spec for spec in each}.values())
    first_of_all = [each for index, subject in enumerate(subjects) for each in job_.first_passes(subject.bundle, index)]
    job = job_.job(cells, [*first_of_all, *passes], spec or session.spec, first.cell.scenario, meters)
    return measure.measure(transport, deployed.agent, job, on_event, session.options.resume)
