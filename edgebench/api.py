"""The verbs: train, export, run, leaderboard. The command line calls these and nothing else."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench import bundle as bundles
from edgebench import deploy, measure, metrics, stats, store
from edgebench.build import Order, build_bundle, check_drop, exporter, scores_of
from edgebench.errors import EdgebenchError, ExportError, InputError, MeasureError, StorageError, UnknownName
from edgebench.files import sha256_json, write_atomic
from edgebench.plan import MODES, ModeSpec, Slot, cell_key, matches, parse_only, slots
from edgebench.profile import read_dataset, read_profile, read_target
from edgebench.schema import (
    METHOD,
    RECORD_SCHEMA,
    Accepts,
    Accuracy,
    Bundle,
    Cell,
    DatasetRef,
    Failure,
    InputPlan,
    Limits,
    Measurement,
    Memory,
    Mode,
    Model,
    ModelPlan,
    Network,
    Predictions,
    Profile,
    Progress,
    Reason,
    Record,
    Role,
    Scenario,
    Target,
    Transport,
)

if TYPE_CHECKING:
    from edgebench.data import Dataset
    from edgebench.report.tables import Table

WORK = Path(".edgebench")
RESULTS = Path("results")


def no_progress(what: str, done: float, total: float) -> None:
    """Report nothing."""


# ---------------------------------------------------------------- train


def train(
    architecture: str,
    *,
    dataset: str = "digits",
    recipe: str = "train",
    name: str | None = None,
    role: Role | None = None,
    size: int | None = None,
    channels: int | None = None,
    teacher: Path | None = None,
    options: Mapping[str, Any] | None = None,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> Path:
    """Make a model with a recipe; returns its folder, or the one where it was made before."""
    from edgebench.data import open_dataset
    from edgebench.models import load_model

    plan = ModelPlan(
        name=name or architecture.replace(":", "-"),
        architecture=architecture,
        role=role or ("student" if teacher else "baseline"),
        recipe=recipe,
        options=dict(options or {}),
    )
    data = open_dataset(read_dataset(dataset))
    network = load_model(teacher) if teacher else None
    return _make(plan, data, _input_plan(data, size, channels), network, work, progress)


def _input_plan(data: Dataset, size: int | None, channels: int | None) -> InputPlan:
    """Fill in what the user left open from the images themselves; a network wants 16 pixels at least."""
    from edgebench.data import require_images

    require_images(data)
    height, width, depth = data.read("test").images.shape[1:]
    return InputPlan(size=size or max(height, width, 16), channels=channels or depth)


def _make(
    plan: ModelPlan, data: Dataset, inputs: InputPlan, teacher: Network | None, work: Path, progress: Progress
) -> Path:
    from edgebench.recipes import Job, make_model

    assert plan.recipe is not None
    job = Job(plan.name, plan.architecture, plan.role, data, inputs, plan.options, teacher, progress)
    return make_model(plan.recipe, job, work / "models")


# ---------------------------------------------------------------- export


@dataclass(frozen=True)
class ExportResult:
    """A bundle, where it lies, and whether it was there before."""

    folder: Path
    bundle: Bundle
    cached: bool


def export(
    source: str | Path,
    *,
    format: str,
    precision: str = "fp32",
    dataset: str | None = None,
    target: str = "cpu",
    out: Path = Path("bundles"),
    architecture: str | None = None,
    name: str | None = None,
    classes: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    pretrained: bool = False,
    calibration_samples: int = 256,
    max_drop: float | None = None,
    progress: Progress = no_progress,
) -> ExportResult:
    """Export a model folder, a checkpoint (with `architecture`), a `.pt2` program, or an architecture by name.

    An architecture by name has random weights unless `pretrained`: good for
    latency, useless for accuracy, and marked so in its lineage.
    """
    from edgebench.sources import Source, open_source

    exporter(format, precision)
    device = read_target(target)
    accepts = _accepts(device, format, precision)
    data = _dataset(read_dataset(dataset)) if dataset else None
    given = Source(str(source), architecture, name, classes, size, channels, pretrained)
    model, network = open_source(given, data)
    order = Order(model, network, format, precision, accepts, data, calibration_samples)
    folder = Path(out) / f"{model.name}.{format}.{precision}"
    bundle, cached = build_bundle(order, device, folder, progress)
    if max_drop is not None:
        check_drop(bundle, max_drop)
    return ExportResult(folder, bundle, cached)


def _dataset(ref: DatasetRef) -> Dataset:
    from edgebench.data import open_dataset, require_images

    data = open_dataset(ref)
    require_images(data)
    return data


def _accepts(target: Target, format: str, precision: str) -> Accepts:
    accepts = target.accepted(format, precision)
    if accepts is None:
        known = ", ".join(f"{a.format} {'/'.join(a.precisions)}" for a in target.accepts)
        raise ExportError(f"{target.name} does not run {format} {precision}; it runs {known}")
    return accepts


# ---------------------------------------------------------------- run


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


def run(
    profile: str | None = None,
    *,
    bundle: Sequence[Path] = (),
    target: Sequence[str] = (),
    mode: Mode = "quick",
    repeat: bool = False,
    only: str | None = None,
    dataset: str | None = None,
    threads: int | None = None,
    dry_run: bool = False,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> RunResult:
    """Measure a profile's cells, or those of bundles, that have no result yet.

    Every finished cell is on disk when the next one begins. A cell that fails
    is written down with its reason, and the others go on.
    """
    if (profile is None) == (not bundle):
        raise InputError("run: give a profile or one or more bundle folders, and not both")
    session = Session(mode, repeat, dry_run, Path(results), Path(work), progress, threads)
    if profile is not None:
        plan = read_profile(profile)
        devices = [read_target(name) for name in target or plan.targets]
        return _run_profile(session, plan, devices, only)
    return _run_bundles(session, bundle, [read_target(name) for name in target or ("cpu",)], only, dataset)


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

    def note(self, what: tuple[str, str, str, str], state: str, reason: str = "", seconds: float = 0.0) -> None:
        """Add one cell to the outcome."""
        self.result.cells.append(CellPlan(*what, state=state, reason=reason, seconds=seconds))


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
        from edgebench.files import storage

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
            remedy = f"install it on the device, for instance: python -m pip install {runtime_package(runtime)}"
            raise MeasureError("probe", f"{self.target.name} has no runtime {runtime}: {found['reason']}", remedy)
        return str(found["version"])


def runtime_package(runtime: str) -> str:
    """Name the package that brings a runtime."""
    return {"tflite": "ai-edge-litert"}.get(runtime, runtime)


def _run_profile(session: Session, profile: Profile, targets: Sequence[Target], only: str | None) -> RunResult:
    wanted = slots(profile, targets, only)
    for slot in wanted:
        exporter(slot.format, slot.precision)
    data = _dataset(profile.dataset)
    maker = Maker(profile, data, session)
    prepared = list(_prepare(session, profile, maker, wanted))
    todo = [work for work in prepared if work is not None]
    return _measure_all(session, todo)


@dataclass(frozen=True)
class Work:
    """A bundle that is ready to be measured on a device."""

    cell: Cell
    key: str
    folder: Path
    bundle: Bundle
    device: Device
    data: Dataset
    drop: float


class Maker:
    """Makes a profile's models, each once and its teacher before it."""

    def __init__(self, profile: Profile, data: Dataset, session: Session) -> None:
        self.profile = profile
        self.data = data
        self.session = session
        self._folders: dict[str, Path] = {}
        self._failures: dict[str, ExportError] = {}

    def folder(self, name: str) -> Path:
        """Return a model's folder, and make the model first where it is missing."""
        if name in self._failures:
            raise self._failures[name]
        if name not in self._folders:
            try:
                self._folders[name] = self._make(next(plan for plan in self.profile.models if plan.name == name))
            except InputError:
                raise
            except (RuntimeError, ValueError, ExportError) as error:
                self._failures[name] = ExportError(f"{name}: could not be made: {error}")
                raise self._failures[name] from error
        return self._folders[name]

    def _make(self, plan: ModelPlan) -> Path:
        from edgebench.models import load_model
        from edgebench.sources import Source, import_checkpoint

        if plan.checkpoint is not None:
            inputs = self.profile.input
            source = Source(plan.checkpoint, plan.architecture, plan.name, None, inputs.size, inputs.channels, False, plan.role)
            return import_checkpoint(source, self.data, self.session.work / "models")
        teacher = load_model(self.folder(plan.teacher)) if plan.teacher else None
        return _make(plan, self.data, self.profile.input, teacher, self.session.work, self.session.progress)


def _prepare(session: Session, profile: Profile, maker: Maker, wanted: Sequence[Slot]) -> Iterator[Work | None]:
    """Train and export whatever is missing; cells that cannot be made are written down as failed."""
    for index, slot in enumerate(wanted):
        session.progress("prepare bundles", index, len(wanted))
        name = (slot.target.name, slot.model.name, slot.format, slot.precision)
        try:
            yield _prepare_slot(session, profile, maker, slot)
        except (InputError, StorageError):
            raise
        except EdgebenchError as error:
            _fail_unmade(session, profile, maker.data, slot, error)
            session.note(name, "failed", str(error))
            yield None
    session.progress("prepare bundles", len(wanted), len(wanted))


def _prepare_slot(session: Session, profile: Profile, maker: Maker, slot: Slot) -> Work | None:
    from edgebench.models import load_model, read_model

    name = (slot.target.name, slot.model.name, slot.format, slot.precision)
    accepts = _accepts(slot.target, slot.format, slot.precision)
    if session.dry_run and not _made(session, maker, slot.model):
        session.note(name, "to do", "train, export and measure", session.spec.seconds)
        return None
    model_folder = maker.folder(slot.model.name)
    model = read_model(model_folder)
    order = Order(
        model, lambda: load_model(model_folder), slot.format, slot.precision, accepts, maker.data, profile.calibration_samples
    )
    from edgebench.build import order_key

    folder = session.work / "bundles" / f"{model.name}.{slot.format}.{slot.precision}-{order_key(order)[:12]}"
    if session.dry_run and not (folder / "bundle.json").exists():
        session.note(name, "to do", "export and measure", session.spec.seconds)
        return None
    bundle, _ = build_bundle(order, slot.target, folder, session.progress)
    check_drop(bundle, profile.goals.max_drop)
    return _work(session, folder, bundle, slot.target, maker.data, profile.scenario, profile.goals.max_drop)


def _made(session: Session, maker: Maker, plan: ModelPlan) -> bool:
    """Say whether a model's folder may exist; a dry run trains nothing."""
    return any((session.work / "models").glob(f"{plan.name}-*/model.json"))


def _work(
    session: Session, folder: Path, bundle: Bundle, target: Target, data: Dataset, scenario: Scenario, drop: float
) -> Work:
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
        runtime=bundle.runtime,
        runtime_version=device.runtime_version(bundle.runtime),
        scenario=session.scenario(scenario),
        mode=session.mode,
        method=METHOD,
    )
    return Work(cell, cell_key(cell), folder, bundle, device, data, drop)


def _run_bundles(
    session: Session, folders: Sequence[Path], targets: Sequence[Target], only: str | None, dataset: str | None
) -> RunResult:
    wanted = parse_only(only)
    todo: list[Work] = []
    for folder in folders:
        bundle = bundles.read_bundle(Path(folder))
        ref = read_dataset(dataset) if dataset else bundle.model.lineage.dataset
        if ref is None:
            raise InputError(f"{folder}: was exported without a data set, so there is nothing to measure accuracy on; give --dataset")
        data = _dataset(ref)
        if data.classes != bundle.model.classes:
            raise InputError(
                f"{folder}: knows {len(bundle.model.classes)} classes, {ref} has {len(data.classes)}: not the data it was made for"
            )
        for target in targets:
            if not matches(wanted, bundle.model.name, bundle.format, bundle.precision, target.name):
                continue
            name = (target.name, bundle.model.name, bundle.format, bundle.precision)
            try:
                _accepts(target, bundle.format, bundle.precision)
                todo.append(_work(session, Path(folder), bundle, target, data, Scenario(), 1.0))  # type: ignore[call-arg]
            except (ExportError, MeasureError) as error:
                session.note(name, "failed", str(error))
    return _measure_all(session, todo)


def _measure_all(session: Session, todo: Sequence[Work]) -> RunResult:
    """Measure what is not done yet, one cell after the other."""
    found = {work.key: None if session.repeat else store.find_done(session.results, work.cell.target, work.key) for work in todo}
    missing = [work for work in todo if found[work.key] is None]
    started = time.monotonic()
    for work in todo:
        name = (work.cell.target, work.cell.model, work.cell.format, work.cell.precision)
        record = found[work.key]
        if record is not None:
            session.note(name, "cached")
            session.result.records.append(record)
        elif session.dry_run:
            session.note(name, "to do", "measure", session.spec.seconds)
        else:
            position = missing.index(work)
            elapsed = time.monotonic() - started
            each = elapsed / position if position else session.spec.seconds
            record = _measure_one(session, work, position * each, len(missing) * each)
            session.result.records.append(record)
            reason = f"{record.failed_stage}: {record.failure.reason}" if record.failure else ""
            session.note(name, record.status, reason, record.seconds)
    return session.result


def _measure_one(session: Session, work: Work, before: float, total: float) -> Record:
    label = f"measure {work.bundle.name} on {work.cell.target}"
    images = work.data.read("test").images
    started, begin = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    session.progress(label, before, total)

    def heard(event: Mapping[str, Any]) -> None:
        session.progress(label, before + min(time.monotonic() - begin, session.spec.seconds), total)

    transport = work.device.transport
    deployed = deploy.deploy(work.device.target, transport, work.folder, work.bundle, images)
    job = measure.job(
        work.bundle, deployed, images.shape, work.cell.scenario, session.spec, measure.all_passes(session.spec)
    )
    measurement = measure.measure(transport, deployed.agent, job, heard)
    record = make_record(work, measurement, session.spec, started.strftime("%Y-%m-%dT%H:%M:%SZ"), time.monotonic() - begin)
    return store.save(session.results, record, measurement)


# ---------------------------------------------------------------- records


def make_record(work: Work, measurement: Measurement, spec: ModeSpec, started_at: str, seconds: float) -> Record:
    """Turn raw readings into a record: summary, accuracy, verdict, or the reason why there are none."""
    bundle = work.bundle
    record = _skeleton(work.cell, work.key, bundle.model.role, started_at, seconds).model_copy(
        update={
            "model": bundle.model,
            "size_bytes": bundle.size_bytes,
            "parameters": bundle.model.parameters,
            "macs": bundle.macs,
            "calibration": bundle.calibration,
            "parity": bundle.parity,
            "bundle_details": bundle.details,
            "tools": bundle.tools,
            "environment": dict(measurement.environment),
            "clock": dict(measurement.clock),
        }
    )
    failure = measurement.failure
    accuracy: Accuracy | None = None
    if failure is None:
        try:
            accuracy = judge(work, measurement.predictions)
        except ValueError as error:
            failure = Failure("predictions", str(error), "look at the model on the device; export it again")
    if failure is not None or accuracy is None:
        return _failed(record, failure or Failure("predictions", "none arrived"))
    summary = stats.summarize(measurement.trials)
    word = stats.verdict(
        summary, measurement.trials, measurement.conditions, spec.min_samples, accuracy.host_agreement
    )
    update = {
        "status": "done",
        "latency": summary,
        "memory": Memory.model_validate(dict(measurement.memory)),
        "accuracy": accuracy,
        "verdict": word,
    }
    return record.model_copy(update=update)


def _skeleton(cell: Cell, key: str, role: Role, started_at: str, seconds: float) -> Record:
    return Record(
        schema=RECORD_SCHEMA,
        key=key,
        status="failed",
        cell=cell,
        model=None,
        role=role,
        started_at=started_at,
        seconds=round(seconds, 3),
        energy={"reason": "no power meter"},
    )


def _failed(record: Record, failure: Failure) -> Record:
    reason = Reason(reason=failure.reason, recommendation=failure.remedy)
    return record.model_copy(update={"status": "failed", "failure": reason, "failed_stage": failure.stage})


def judge(work: Work, predictions: Predictions | None) -> Accuracy:
    """Compute the task's metrics from the device's own outputs; ValueError where those are not whole."""
    test, model = work.data.read("test"), work.bundle.model
    if predictions is None or predictions.rows != len(test) or predictions.columns != len(model.classes):
        got = "nothing" if predictions is None else f"{predictions.rows} × {predictions.columns} scores"
        raise ValueError(f"{got} arrived, {len(test)} × {len(model.classes)} are wanted")
    scores = scores_of(predictions.values, predictions.columns)
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    return Accuracy(
        samples=len(test),
        headline=metrics.HEADLINE[model.task],
        metrics={name: round(value, 6) for name, value in metrics.evaluate(model.task, test.labels, scores).items()},
        host_agreement=_host_agreement(work, scores),
    )


def _host_agreement(work: Work, scores: np.ndarray[Any, Any]) -> float | None:
    """Compare the device's decisions with what the same file decided on the exporting host."""
    chosen = list(work.bundle.parity_samples)
    if not chosen or "parity.npz" not in work.bundle.files:
        return None
    if work.data.ref != work.bundle.model.lineage.dataset:
        return None
    with np.load(work.folder / "parity.npz", allow_pickle=False) as saved:
        return metrics.agreement(work.bundle.model.task, saved["outputs"], scores[chosen])


def _fail_unmade(session: Session, profile: Profile, data: Dataset, slot: Slot, error: EdgebenchError) -> None:
    """Write down a cell whose bundle could not be made."""
    if session.dry_run:
        return
    cell = Cell(
        model=slot.model.name,
        format=slot.format,
        precision=slot.precision,
        bundle_sha256="",
        dataset=data.ref,
        evaluation_sha256=data.read("test").sha256,
        target=slot.target.name,
        device="",
        runtime="",
        runtime_version="",
        scenario=session.scenario(profile.scenario),
        mode=session.mode,
        method=METHOD,
    )
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = _skeleton(cell, cell_key(cell), slot.model.role, now, 0.0)
    stage = error.stage if isinstance(error, MeasureError) else "export"
    store.save(session.results, _failed(record, Failure(stage, str(error))), None)


# ---------------------------------------------------------------- leaderboard


def tables(results: Path = RESULTS, *, sort: str = "latency", by: Sequence[str] = ("dataset", "target")) -> list[Table]:
    """Make the leaderboard's tables from every record below a folder; each is checked against its hash."""
    from edgebench.report import tables

    records = [(path.relative_to(results), record) for path, record in store.read_all(Path(results))]
    return tables.make(records, sort, by)


def leaderboard(
    results: Path = RESULTS, *, out: Path | None = None, sort: str = "latency", by: Sequence[str] = ("dataset", "target")
) -> str:
    """Make the leaderboard of a folder of records as markdown; the same records give the same bytes."""
    from edgebench.report import markdown

    text = markdown.render(tables(results, sort=sort, by=by))
    if out is not None:
        write_atomic(out, text.encode())
    return text
