"""Profiles and bundle folders → subjects that are ready to be measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgebench.bundle.export import Order, build_bundle, exporter, find_bundle, order_key
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.preflight import BEGIN_SECONDS, Pace, check_slot, pace, training_seconds, untrained
from edgebench.config import read_dataset
from edgebench.data import Dataset, open_images
from edgebench.errors import (
    DataError,
    EdgebenchError,
    ExportError,
    InputError,
    MeasureError,
    MissingExtra,
    StorageError,
    TransportError,
    UntrustedFile,
)
from edgebench.models import checkpoint_path, load_model, read_model
from edgebench.models.normalization import check_kind
from edgebench.models.source import SourceOptions, checkpoint_folder, import_checkpoint
from edgebench.recipes import Job, check_recipe, make_model, model_folder, work_of
from edgebench.run.forecast import IMPORT_SECONDS, Forecast, export_seconds
from edgebench.run.outcome import CellOutcome
from edgebench.run.plan import CellJob, matches, parse_only, slots
from edgebench.run.session import Session, measure_all, subject_of
from edgebench.run.timing import NetworkTimer
from edgebench.schema import Bundle, DatasetRef, ModelPlan, Network, PlannedCell, Profile, Scenario, Target, no_progress
from edgebench.trust import check_program


def prepare_profile(
    session: Session, profile: Profile, data: Dataset, targets: Sequence[Target], only: str | None
) -> list[CellJob | CellOutcome]:
    """Make whatever models and bundles are missing; what cannot be made is a failed cell.

    Everything that can be checked beforehand is: `InputError` before the first long work.
    """
    session.subset = profile.evaluation
    wanted = slots(profile, targets, only)
    maker = Maker(profile, data, session, targets)
    for slot in wanted:
        with contextlib.suppress(MissingExtra):  # its cells fail with that reason, the others go on
            exporter(slot.format, slot.precision)
        maker.check(slot.model)
    possible, failed, paces = _possible(session, profile, maker, wanted)
    _announce(session, profile, maker, possible, paces)
    return [*failed, *_prepare(session, profile, maker, possible)]


class Maker:
    """Makes a profile's models, each once, and what it is made from before it."""

    def __init__(self, profile: Profile, data: Dataset, session: Session, targets: Sequence[Target] = ()) -> None:
        self.profile = profile
        self.data = data
        self.session = session
        self._timer = NetworkTimer(session, data, targets, profile.calibration)
        self._folders: dict[str, Path] = {}
        self._failures: dict[str, ExportError | DataError] = {}

    def check(self, plan: ModelPlan) -> None:
        """Refuse a plan that could never be carried out, and those of its teacher and parent."""
        if plan.checkpoint is not None:
            folder = checkpoint_folder(self._source(plan), self.data, self.session.options.work)
            given = Path(plan.checkpoint)
            check_program(checkpoint_path(given, read_model(given)) if folder == given else given, self.session.options.trust)
        else:
            check_recipe(str(plan.recipe), plan.name, plan.options, plan.others)
        for other in plan.others.values():
            self.check(self.plan(other))

    def existing(self, name: str) -> Path | None:
        """Return the folder of a model that was made before; makes nothing."""
        plan, root = self.plan(name), self.session.options.work / "models"
        if plan.checkpoint is not None:
            folder = checkpoint_folder(self._source(plan), self.data, root)
        else:
            others = {kind: self.existing(other) for kind, other in plan.others.items()}
            if None in others.values():
                return None
            folder = model_folder(str(plan.recipe), self._job(plan, **others), root)
        return folder if (folder / "model.json").exists() else None

    def missing(self, names: Iterable[str]) -> dict[str, ModelPlan]:
        """List the models that have to be made for these, each after those that it is made from."""
        found: dict[str, ModelPlan] = {}
        for plan in (self.plan(name) for name in dict.fromkeys(names)):
            if self.existing(plan.name) is None:
                found |= {**self.missing(plan.others.values()), plan.name: plan}
        return found

    def training_seconds(self, plan: ModelPlan, paces: Mapping[str, Pace | None]) -> float:
        """Estimate how long a recipe takes; a teacher that was not tried is taken for as slow as its student."""
        try:
            own, work = paces.get(plan.name), work_of(str(plan.recipe), self._job(plan))
        except DataError:  # its cells will fail with that reason
            return BEGIN_SECONDS
        teacher = paces.get(plan.teacher) if plan.teacher else None
        return training_seconds(work, own, teacher) if own and work else BEGIN_SECONDS

    def folder(self, name: str) -> Path:
        """Return a model's folder, and make the model first where it is missing."""
        if name in self._failures:
            raise self._failures[name]
        if name not in self._folders:
            try:
                self._folders[name] = self._make(self.plan(name))
            except DataError as error:
                self._failures[name] = error
                raise
            except (RuntimeError, ValueError) as error:
                self._failures[name] = ExportError(f"{name}: could not be made: {error}")
                raise self._failures[name] from error
        return self._folders[name]

    def plan(self, name: str) -> ModelPlan:
        """Find a model of the profile."""
        return next(plan for plan in self.profile.models if plan.name == name)

    def _make(self, plan: ModelPlan) -> Path:
        root = self.session.options.work / "models"
        if plan.checkpoint is not None:
            with self.session.forecast.during("import", plan.name):
                return import_checkpoint(self._source(plan), self.data, root)
        job = self._job(plan, **{kind: self.folder(other) for kind, other in plan.others.items()})
        with self.session.forecast.during("train", plan.name):
            return make_model(str(plan.recipe), job, root)

    def _source(self, plan: ModelPlan) -> SourceOptions:
        inputs = self.profile.input
        return SourceOptions(
            str(plan.checkpoint),
            architecture=plan.architecture,
            name=plan.name,
            size=inputs.size,
            channels=inputs.channels,
            role=plan.role,
            mean=inputs.mean,
            std=inputs.std,
            weights=plan.weights,
            head=plan.head,
            scale=inputs.scale,
            trust=self.session.options.trust,
        )

    def _job(self, plan: ModelPlan, teacher: Path | None = None, parent: Path | None = None) -> Job:
        inputs, session = self.profile.input, self.session
        given = (plan.architecture, plan.role, self.data, inputs, plan.options, teacher)
        return Job(plan.name, *given, session.progress, session.options.trust, parent, self._timer)


def _possible(
    session: Session, profile: Profile, maker: Maker, wanted: Sequence[PlannedCell]
) -> tuple[list[PlannedCell], list[CellOutcome], dict[str, Pace | None]]:
    """Return the cells that may become something, as failed those that would fail once trained, and how fast models train."""
    failed: dict[int, CellOutcome] = {}
    paces: dict[str, Pace | None] = {}
    missing = maker.missing(slot.model.name for slot in wanted)
    for plan in [plan for plan in missing.values() if plan.recipe is not None]:
        session.progress(f"check what {plan.name} can become", 0, 1)
        network = untrained(plan, maker.data, profile.input)
        for index, slot in enumerate(wanted):
            if network and slot.model.name == plan.name:
                outcome = _refused(session, profile, maker, slot, network)
                failed |= {} if outcome is None else {index: outcome}
        paces[plan.name] = pace(network) if network else None
        if plan.teacher and plan.teacher not in missing:
            with contextlib.suppress(InputError):  # an exported program need not name what it was
                teacher = untrained(maker.plan(plan.teacher), maker.data, profile.input)
                paces[plan.teacher] = pace(teacher) if teacher else None
    return [slot for index, slot in enumerate(wanted) if index not in failed], list(failed.values()), paces


def _announce(
    session: Session, profile: Profile, maker: Maker, wanted: Sequence[PlannedCell], paces: Mapping[str, Pace | None]
) -> None:
    """Say what there is to do and how long it takes, as a dry run finds it."""
    rehearsal = replace(session, options=replace(session.options, dry_run=True), progress=no_progress, forecast=Forecast())
    cells = measure_all(rehearsal, list(_prepare(rehearsal, profile, maker, wanted))).cells
    todo = {cell.name: cell for cell in cells if cell.steps}
    models = maker.missing(name for _, name, _, _ in todo).values()
    expect = session.forecast.expect
    expect("import", {plan.name: IMPORT_SECONDS for plan in models if plan.recipe is None})
    expect("train", {plan.name: maker.training_seconds(plan, paces) for plan in models if plan.recipe is not None})
    exported = [name for name, cell in todo.items() if "export" in cell.steps]
    loading = {format: (target, model, format, precision) for target, model, format, precision in reversed(exported)}.values()
    each = {" ".join(name): _export_seconds(*name[2:], name in loading) for name in exported}
    expect("export", each, alone={" ".join(name) for name in loading})
    remote = {slot.target.name for slot in wanted if slot.target.transport != "local"}
    measured = {" ".join(name): cell.seconds for name, cell in todo.items()}
    expect("measure", measured, {" ".join(name): name[0] for name in todo if name[0] in remote})
    session.announce(profile.name)


def _export_seconds(format: str, precision: str, loads: bool) -> float:
    try:
        calibrates = precision in exporter(format, precision).CALIBRATES
    except MissingExtra:  # the cell will fail with that reason
        return 0.0
    return export_seconds(format, calibrates, loads)


def _refused(session: Session, profile: Profile, maker: Maker, slot: PlannedCell, network: Network) -> CellOutcome | None:
    """Return a cell as failed where its device or its format refuses it; None where it may become something."""
    try:
        session.check(slot.target)
        check_slot(network, slot, _dynamic_batch(session.scenario(profile.scenario), slot))
    except (InputError, StorageError):
        raise
    except EdgebenchError as error:
        return _failed(session, profile, maker, slot, error)
    return None


def _prepare(session: Session, profile: Profile, maker: Maker, wanted: Sequence[PlannedCell]) -> Iterator[CellJob | CellOutcome]:
    """Train and export whatever is missing; cells that cannot be made are written down as failed.

    `DataError` where none can be made, because of a split that cannot be read.
    """
    unreadable: list[tuple[PlannedCell, DataError]] = []
    for index, slot in enumerate(wanted):
        session.progress("prepare bundles", index, len(wanted))
        try:
            yield _prepare_slot(session, profile, maker, slot)
        except DataError as error:
            unreadable.append((slot, error))
        except (InputError, StorageError):
            raise
        except EdgebenchError as error:
            yield _failed(session, profile, maker, slot, error)
    if unreadable and len(unreadable) == len(wanted):
        raise unreadable[0][1]
    for slot, reason in unreadable:
        yield _failed(session, profile, maker, slot, reason)


def _failed(session: Session, profile: Profile, maker: Maker, slot: PlannedCell, error: EdgebenchError) -> CellOutcome:
    place = (slot.target.name, slot.model.name, slot.format, slot.precision)
    for kind in ("export", "measure"):
        session.forecast.drop(kind, " ".join(place))
    return session.fail(session.unmeasured(place, profile.dataset, maker.data, profile.scenario), slot.model.role, error)


def _prepare_slot(session: Session, profile: Profile, maker: Maker, slot: PlannedCell) -> CellJob | CellOutcome:
    name = (slot.target.name, slot.model.name, slot.format, slot.precision)
    seconds = session.seconds(profile.scenario)
    session.check(slot.target)
    accepts = session.accepts(slot.target, slot.format, slot.precision)
    made = maker.existing(slot.model.name) if session.options.dry_run else maker.folder(slot.model.name)
    if made is None:
        return CellOutcome(*name, "to do", f"{slot.model.recipe or 'import'}, export, measure", seconds)
    order = Order(
        model=read_model(made),
        network=lambda: load_model(made, session.options.trust),
        format=slot.format,
        precision=slot.precision,
        accepts=accepts,
        dataset=maker.data,
        calibration=profile.calibration,
        dynamic_batch=_dynamic_batch(session.scenario(profile.scenario), slot),
    )
    key = order_key(order)
    folder = session.options.work / "bundles" / f"{slot.model.name}.{slot.format}.{slot.precision}-{key[:12]}"
    if session.options.dry_run and find_bundle(order, key, folder) is None:
        return CellOutcome(*name, "to do", "export, measure", seconds)
    with session.forecast.during("export", " ".join(name)):
        bundle, cached = build_bundle(order, slot.target, folder, session.progress)
        if cached:
            session.forecast.drop("export", " ".join(name))
    check_goals(bundle, profile.goals)
    return subject_of(session, folder, bundle, slot.target, maker.data, profile.scenario)


def _dynamic_batch(scenario: Scenario, slot: PlannedCell) -> bool:
    """Return whether the scenario asks for several images at once, and the format can take them."""
    return scenario.kind in ("offline", "multi-stream") and exporter(slot.format, slot.precision).DYNAMIC_BATCH


def prepare_bundles(
    session: Session, folders: Sequence[Path], targets: Sequence[Target], only: str | None, dataset: str | None
) -> list[CellJob | CellOutcome]:
    """Read and verify bundles, to be measured on the data that they were exported with, or on other data of the same classes.

    What has neither is measured without accuracy.
    `UntrustedFile` where the only one could run code and nobody vouches for it, `DataError` where the data of each cannot be
    read; of several, its cells fail.
    """
    wanted = parse_only(only)
    fatal = UntrustedFile if len(folders) == 1 else ()
    prepared: list[CellJob | CellOutcome] = []
    opened = {folder: _bundle_and_data(folder, dataset) for folder in folders}
    unreadable = [data for _, data in opened.values() if isinstance(data, DataError)]
    if unreadable and len(unreadable) == len(opened):
        raise unreadable[0]
    for folder in folders:
        bundle, data = opened[folder]
        for target in targets:
            if not matches(wanted, bundle.model.name, bundle.format, bundle.precision, target.name):
                continue
            try:
                if isinstance(data, DataError):
                    raise data
                prepared.append(subject_of(session, folder, bundle, target, data, Scenario()))
            except fatal:
                raise
            except (DataError, ExportError, MeasureError, TransportError, UntrustedFile) as error:
                name = (target.name, bundle.model.name, bundle.format, bundle.precision)
                ref, known = _dataset_of(bundle, dataset), data if isinstance(data, Dataset) else None
                prepared.append(session.fail(session.unmeasured(name, ref, known, Scenario()), bundle.model.role, error))
    return prepared


def _bundle_and_data(folder: Path, dataset: str | None) -> tuple[Bundle, Dataset | DataError | None]:
    try:
        return read_bundle_and_data(folder, dataset)
    except DataError as error:
        return read_bundle(folder), error


def tie_bundle(session: Session, folder: Path, target: Target, dataset: str | None) -> CellJob:
    """Read and verify one bundle and tie it to a device; raises where it cannot run there."""
    bundle, data = read_bundle_and_data(folder, dataset)
    return subject_of(session, folder, bundle, target, data, Scenario())


def read_bundle_and_data(folder: Path, dataset: str | None) -> tuple[Bundle, Dataset | None]:
    """Read a bundle and the data that it is judged on, if any; `InputError` where those have other classes."""
    bundle = read_bundle(folder)
    ref = _dataset_of(bundle, dataset)
    if ref is None:
        return bundle, None
    if bundle.scored is None:
        raise InputError(f"{folder}: nothing of it is judged (task {bundle.model.task}); leave --dataset out")
    data = open_images(ref)
    if data.classes != bundle.model.classes:
        count = len(bundle.model.classes)
        raise InputError(f"{folder}: knows {count} classes, {ref} has {len(data.classes)}; choose its own data set")
    for each in bundle.model.inputs:
        if each.preprocessing is not None:
            check_kind(str(folder), each.preprocessing, data)
    return bundle, data


def _dataset_of(bundle: Bundle, dataset: str | None) -> DatasetRef | None:
    """Name the data that a bundle is judged on; None: it was made without."""
    return read_dataset(dataset) if dataset else bundle.model.lineage.dataset
