"""One `edgebench run`: make what is missing, measure what is not done, write each result down at once."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import deploy, measure, records, store
from edgebench.build import Order, accepted, build_bundle, check_drop, exporter, order_key
from edgebench.bundle import read_bundle
from edgebench.errors import EdgebenchError, ExportError, InputError, MeasureError, StorageError
from edgebench.files import sha256_json, storage
from edgebench.models import load_model, read_model
from edgebench.plan import MODES, ModeSpec, Slot, cell_key, matches, parse_only, slots
from edgebench.profile import read_dataset
from edgebench.recipes import Job, make_model, model_folder
from edgebench.records import Subject
from edgebench.schema import (
    Bundle,
    Cell,
    Failure,
    Mode,
    ModelPlan,
    Profile,
    Progress,
    Record,
    Scenario,
    Target,
    Transport,
)
from edgebench.sources import Source, checkpoint_folder, import_checkpoint

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

    def fail(self, cell: Cell, role: Any, error: EdgebenchError) -> None:
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


# ---------------------------------------------------------------- a profile's cells


def run_profile(session: Session, profile: Profile, data: Dataset, targets: Sequence[Target], only: str | None) -> None:
    """Make whatever models and bundles are missing, then measure."""
    wanted = slots(profile, targets, only)
    for slot in wanted:
        exporter(slot.format, slot.precision)
    maker = Maker(profile, data, session)
    _measure_all(session, [subject for subject in _prepare(session, profile, maker, wanted) if subject is not None])


class Maker:
    """Makes a profile's models, each once and its teacher before it."""

    def __init__(self, profile: Profile, data: Dataset, session: Session) -> None:
        self.profile = profile
        self.data = data
        self.session = session
        self._folders: dict[str, Path] = {}
        self._failures: dict[str, ExportError] = {}

    def existing(self, name: str) -> Path | None:
        """Return the folder of a model that was made before; makes nothing."""
        plan, root = self._plan(name), self.session.work / "models"
        if plan.checkpoint is not None:
            folder = checkpoint_folder(self._source(plan), self.data, root)
        else:
            teacher = self.existing(plan.teacher) if plan.teacher else None
            if plan.teacher and teacher is None:
                return None
            folder = model_folder(str(plan.recipe), self._job(plan, teacher), root)
        return folder if (folder / "model.json").exists() else None

    def folder(self, name: str) -> Path:
        """Return a model's folder, and make the model first where it is missing."""
        if name in self._failures:
            raise self._failures[name]
        if name not in self._folders:
            try:
                self._folders[name] = self._make(self._plan(name))
            except EdgebenchError as error:
                if not isinstance(error, ExportError):
                    raise
                self._failures[name] = error
                raise
            except (RuntimeError, ValueError) as error:
                self._failures[name] = ExportError(f"{name}: could not be made: {error}")
                raise self._failures[name] from error
        return self._folders[name]

    def _plan(self, name: str) -> ModelPlan:
        return next(plan for plan in self.profile.models if plan.name == name)

    def _make(self, plan: ModelPlan) -> Path:
        root = self.session.work / "models"
        if plan.checkpoint is not None:
            return import_checkpoint(self._source(plan), self.data, root)
        teacher = self.folder(plan.teacher) if plan.teacher else None
        return make_model(str(plan.recipe), self._job(plan, teacher), root)

    def _source(self, plan: ModelPlan) -> Source:
        inputs = self.profile.input
        return Source(str(plan.checkpoint), plan.architecture, plan.name, None, inputs.size, inputs.channels, False, plan.role)

    def _job(self, plan: ModelPlan, teacher: Path | None) -> Job:
        inputs, progress = self.profile.input, self.session.progress
        return Job(plan.name, plan.architecture, plan.role, self.data, inputs, plan.options, teacher, progress)


def _prepare(session: Session, profile: Profile, maker: Maker, wanted: Sequence[Slot]) -> Iterator[Subject | None]:
    """Train and export whatever is missing; cells that cannot be made are written down as failed."""
    for index, slot in enumerate(wanted):
        session.progress("prepare bundles", index, len(wanted))
        try:
            yield _prepare_slot(session, profile, maker, slot)
        except (InputError, StorageError):
            raise
        except EdgebenchError as error:
            place = (slot.target.name, slot.model.name, slot.format, slot.precision)
            session.fail(session.unmeasured(place, maker.data, profile.scenario), slot.model.role, error)


def _prepare_slot(session: Session, profile: Profile, maker: Maker, slot: Slot) -> Subject | None:
    name = (slot.target.name, slot.model.name, slot.format, slot.precision)
    accepts = accepted(slot.target, slot.format, slot.precision)
    made = maker.existing(slot.model.name) if session.dry_run else maker.folder(slot.model.name)
    if made is None:
        session.note(name, "to do", f"{slot.model.recipe or 'import'}, export, measure", session.spec.seconds)
        return None
    order = Order(
        model=read_model(made),
        network=lambda: load_model(made),
        format=slot.format,
        precision=slot.precision,
        accepts=accepts,
        dataset=maker.data,
        calibration_samples=profile.calibration_samples,
    )
    folder = session.work / "bundles" / f"{slot.model.name}.{slot.format}.{slot.precision}-{order_key(order)[:12]}"
    if session.dry_run and not (folder / "bundle.json").exists():
        session.note(name, "to do", "export, measure", session.spec.seconds)
        return None
    bundle, _ = build_bundle(order, slot.target, folder, session.progress)
    check_drop(bundle, profile.goals.max_drop)
    return _subject(session, folder, bundle, slot.target, maker.data, profile.scenario)


# ---------------------------------------------------------------- given bundles


def run_bundles(
    session: Session, folders: Sequence[Path], targets: Sequence[Target], only: str | None, dataset: str | None
) -> None:
    """Measure bundles on the data that they were exported with, or on other data of the same classes."""
    from edgebench.data import open_images

    wanted = parse_only(only)
    todo: list[Subject] = []
    for folder in folders:
        bundle = read_bundle(folder)
        ref = read_dataset(dataset) if dataset else bundle.model.lineage.dataset
        if ref is None:
            raise InputError(f"{folder}: was exported without a data set, so its accuracy is unknown; give --dataset")
        data = open_images(ref)
        if data.classes != bundle.model.classes:
            count = len(bundle.model.classes)
            raise InputError(f"{folder}: knows {count} classes, {ref} has {len(data.classes)}; choose its own data set")
        for target in targets:
            if not matches(wanted, bundle.model.name, bundle.format, bundle.precision, target.name):
                continue
            try:
                todo.append(_subject(session, folder, bundle, target, data, Scenario()))
            except (ExportError, MeasureError) as error:
                name = (target.name, bundle.model.name, bundle.format, bundle.precision)
                session.fail(session.unmeasured(name, data, Scenario()), bundle.model.role, error)
    _measure_all(session, todo)


# ---------------------------------------------------------------- measuring


def _subject(session: Session, folder: Path, bundle: Bundle, target: Target, data: Dataset, scenario: Scenario) -> Subject:
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


def _measure_all(session: Session, todo: Sequence[Subject]) -> None:
    """Measure what is not done yet, one cell after the other."""
    found = {
        subject.key: None if session.repeat else store.find_done(session.results, subject.cell.target, subject.key)
        for subject in todo
    }
    missing = [subject for subject in todo if found[subject.key] is None]
    started = time.monotonic()
    for subject in todo:
        cell, record = subject.cell, found[subject.key]
        name = (cell.target, cell.model, cell.format, cell.precision)
        if record is not None:
            session.note(name, "cached")
            session.result.records.append(record)
        elif session.dry_run:
            session.note(name, "to do", "measure", session.spec.seconds)
        else:
            position = missing.index(subject)
            each = (time.monotonic() - started) / position if position else session.spec.seconds
            record = _measure_one(session, subject, position * each, len(missing) * each)
            session.result.records.append(record)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            session.note(name, record.status, reason, record.seconds)


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
