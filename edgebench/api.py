"""The verbs that make and measure: train, export, run and what compares them; `report.leaderboard` has those on records."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgebench.agent import facts
from edgebench.analysis.processor import fitted
from edgebench.bundle.claimed import claimed
from edgebench.bundle.export import Order, accepted, build_bundle, exporter
from edgebench.bundle.goals import check_goals
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.manifest import read_bundle
from edgebench.config import code_in, read_dataset, read_devices, read_stages, read_target, read_values
from edgebench.data import Requirements, open_dataset, open_images, requirements, synthesize
from edgebench.device.deploy import connected
from edgebench.errors import InputError
from edgebench.explain import _gate as gate
from edgebench.explain import _stage
from edgebench.models.source import SourceOptions, open_source
from edgebench.recipes import Job, input_plan, make_model, role_of, starts_from
from edgebench.run.bring import bring_file, is_runnable, prepare_brought, tie, tie_all
from edgebench.run.forecast import with_time_left
from edgebench.run.forms import Form as Form
from edgebench.run.options import WORK, ExplainOptions, ExportOptions, MeasureOptions, QuantizeOptions, RunOptions
from edgebench.run.options import CompressOptions as CompressOptions
from edgebench.run.outcome import ExportResult, RunResult
from edgebench.run.prepare import tie_bundle
from edgebench.run.session import Session, measure_all
from edgebench.run.stages import chosen, devices_of, run_stages
from edgebench.run.timing import NetworkTimer
from edgebench.schema import (
    CalibrationPlan,
    DatasetRef,
    Goals,
    Link,
    Noise,
    Progress,
    Scenario,
    Target,
    no_progress,
)
from edgebench.search.verbs import compress as compress
from edgebench.search.verbs import sweep as sweep
from edgebench.store import noise as noise_
from edgebench.store import records
from edgebench.store.layout import RESULTS
from edgebench.trust import allow

if TYPE_CHECKING:
    from edgebench.data._convert import Converted
    from edgebench.data._survey import Survey
    from edgebench.device.inspect import Probed
    from edgebench.device.setup import Outcome, Plan
    from edgebench.diagnose.diagnose import Diagnosis
    from edgebench.explain._work import Result as Explained
    from edgebench.quantize.search import Result as Quantized
    from edgebench.run.catalogue import Wanted
    from edgebench.run.compare import Suite
    from edgebench.store.verify import Checked
    from edgebench.validate.options import ValidateOptions
    from edgebench.validate.validate import Validation

ACCURACY_GOALS = ("threshold", "max_degradation", "percent_max_degradation")
NO_GOALS = dict.fromkeys(ACCURACY_GOALS)
"""An export by hand is judged by its accuracy only where that is asked for."""
STANDARD = MeasureOptions(mode="standard")


# ---------------------------------------------------------------- data, train


def inspect_data(dataset: str, *, sheet: Path | None = None) -> Survey:
    """Look at a data set: counts, sizes, what was left out, duplicates, warnings; `sheet` gets pictures as PNG."""
    from edgebench.data import _survey

    data = open_dataset(read_dataset(dataset))
    if sheet is not None:
        _survey.write_sheet(data, Path(sheet))
    return _survey.survey(data)


def data_requirements(dataset: str) -> Requirements:
    """Say what a public data set requires: how to get it, how large it is, its samples by split and class as published."""
    ref = read_dataset(dataset)
    return requirements(ref.name, ref.options)


def synthesize_data(dataset: str, into: Path, *, full: bool = False, seed: int = 0) -> DatasetRef:
    """Write synthetic data in the exact form of a public data set into a folder, tens of samples or, `full`, as many as it has.

    Returns what opens them, marked as synthetic; `str` of it is what `dataset` is elsewhere.
    """
    ref = read_dataset(dataset)
    return synthesize(ref.name, Path(into), tiny=not full, seed=seed, options=ref.options)


def convert_data(dataset: str, into: Path) -> Converted:
    """Write a data set's images as PNG into a folder, by split and class, as `image-folder` reads them back."""
    from edgebench.data import _convert

    return _convert.convert(open_images(read_dataset(dataset)), Path(into))


def train(
    architecture: str | SourceOptions,
    *,
    dataset: str = "digits",
    recipe: str = "train",
    teacher: Path | None = None,
    parent: Path | None = None,
    options: Mapping[str, Any] | None = None,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> Path:
    """Make a model with a recipe; returns its folder, or the one where it was made before.

    `SourceOptions` instead of a name say how the model is called, what it takes, and
    whether exported programs of others (a teacher) are trusted; `options` are the recipe's.
    `teacher`, `parent`: model folders, for the recipes that want one; `transfer` takes a checkpoint file as a parent too.
    """
    given = _source(architecture)
    parent, options = starts_from(recipe, parent, options or {})
    data = open_images(read_dataset(dataset))
    with Session(MeasureOptions(), RunOptions(work=Path(work), trust=given.trust), progress) as session:
        job = Job(
            name=given.name or given.text.replace(":", "-"),
            architecture=given.text,
            role=given.role or role_of(recipe),
            dataset=data,
            input=input_plan(data, given.size, given.channels, parent),
            options=options,
            teacher=teacher,
            progress=with_time_left(progress),
            trust=given.trust,
            parent=parent,
            timer=NetworkTimer(session, data),
        )
        return make_model(recipe, job, Path(work) / "models")


def _source(given: str | Path | SourceOptions) -> SourceOptions:
    return given if isinstance(given, SourceOptions) else SourceOptions(str(given))


# ---------------------------------------------------------------- export


def export(
    source: str | Path | SourceOptions,
    *,
    format: str,
    precision: str = "fp32",
    dataset: str | None = None,
    target: str = "cpu",
    options: ExportOptions = ExportOptions(),
    progress: Progress = no_progress,
) -> ExportResult:
    """Export a model folder, a checkpoint, a `.pt2` program, or an architecture by name.

    `SourceOptions` instead of a name or a path say what a checkpoint does not say of
    itself. An architecture by name has random weights unless `pretrained`: good for
    latency, useless for accuracy, and marked so in its lineage.
    """
    exporter(format, precision)
    plan = read_values(CalibrationPlan, options.calibration, "calibration")
    wanted = read_values(Goals, {**NO_GOALS, **options.goals}, "goals")
    if wanted.explanation_correlation is not None:
        raise InputError("export: explanation_correlation is judged beside fp32 on a device; name it in a profile")
    device = read_target(target, trust=_source(source).trust)
    here = facts.environment() if device.transport == "local" else None
    accepts = fitted(accepted(device, format, precision), here)
    data = open_images(read_dataset(dataset)) if dataset else None
    asked = [name for name in ACCURACY_GOALS if getattr(wanted, name) is not None]
    if asked and data is None:
        raise InputError(f"export: {asked[0]} is judged on a data set; give --dataset, or leave it out")
    model, network = open_source(_source(source), data)
    network = claimed(network, data, _source(source).expect_accuracy)
    order = Order(model, network, format, precision, accepts, data, plan, options.dynamic_batch, parity=options.samples)
    folder = Path(options.out) / f"{model.name}.{format}.{precision}"
    bundle, cached = build_bundle(order, device, folder, progress)
    check_goals(bundle, wanted)
    return ExportResult(folder, bundle, cached)


def import_file(
    source: str | Path | FileOptions,
    *,
    out: Path = Path("bundles"),
    target: str | Target = "cpu",
    dataset: str | None = None,
    trust: bool = False,
    progress: Progress = no_progress,
) -> ExportResult:
    """Make a bundle of a model file as it is; where it can run on this computer, it is tried.

    `FileOptions` instead of a path say what the file does not. Without a data set no accuracy is measured.
    """
    [device] = read_devices([target], trust)
    return bring_file(source, Path(out), device, dataset, trust, progress)


def quantize(
    source: str | Path | SourceOptions | FileOptions,
    *,
    dataset: str | None = None,
    format: str = "onnx",
    target: str | Target = "cpu",
    options: QuantizeOptions = QuantizeOptions(),
    measure: MeasureOptions = MeasureOptions(),
    run: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Quantized:
    """Export in INT8 and measure it beside float32 on the target; or search the mixture of both that is fastest there.

    `GoalMissed`, with the result, where the file loses more than `options.max_degradation`.
    """
    from edgebench.quantize.file import brought_of, quantize_brought
    from edgebench.quantize.network import quantize_network

    brought = brought_of(source)
    if brought is not None:
        [device] = read_devices([target], run.trust)
        with Session(measure, run, progress) as session:
            return quantize_brought(session, brought, device, dataset, options)
    assert not isinstance(source, FileOptions)
    return quantize_network(_source(source), dataset, format, target, options, measure, run, progress)


# ---------------------------------------------------------------- run


def run(
    profile: str | None = None,
    *,
    bundle: Sequence[Path | FileOptions] = (),
    target: Sequence[str | Target] = (),
    only: str | None = None,
    dataset: str | None = None,
    measure: MeasureOptions = MeasureOptions(),
    options: RunOptions = RunOptions(),
    form: Form = Form(),
    progress: Progress = no_progress,
) -> RunResult:
    """Measure a profile's cells, or those of bundles and model files, that have no result yet.

    Stages of a profile are done one after the other, and explained where they ask for it. `form`: on synthetic data, or tiny.

    `FileOptions` instead of a file's path say what the file does not.

    Every finished cell is on disk when the next one begins. A cell that fails
    is written down with its reason, and the others go on.
    """
    if (profile is None) == (not bundle):
        raise InputError("run: give a profile, or bundle folders and model files, and not both")
    session = Session(measure, options, progress)
    session.progress = session.forecast.beside(progress)
    session.scenario(Scenario())  # refuse what does not fit together before anything long begins
    if profile is None:
        if form:
            raise InputError("run: synthetic and tiny are forms of a profile; leave them out with bundles and model files")
        devices = read_devices(target or ("cpu",), options.trust)
        with session:
            session.connect(devices)
            return measure_all(session, prepare_brought(session, bundle, devices, only, dataset))
    stages = read_stages(profile, options.trust)
    for stage in stages:
        gate.check(stage)
        _stage.check(stage)
    each = devices_of(stages, target, options.trust)
    if form:
        wanted = {stage.stage for stage, _, _ in chosen([(stage, each[stage.stage], only) for stage in stages])}
        stages = tuple(form.of(stage, options.work, session.notice) for stage in stages if stage.stage in wanted)
    with session:
        session.connect(list({device.name: device for devices in each.values() for device in devices}.values()))
        return run_stages(session, stages, each, only, gate.held, _stage.look)


def profiles(names: Sequence[str] = (), *, trust: bool = False) -> list[Wanted]:
    """Describe profiles by name or path, all that there are unless some are given: stages, data, and about how long they take."""
    from edgebench.run.catalogue import catalogue

    return catalogue(names, trust)


# ---------------------------------------------------------------- compare, noise, verify


def compare(
    first: Path,
    second: Path,
    *more: Path,
    target: str | Target = "cpu",
    dataset: str | None = None,
    measure: MeasureOptions = STANDARD,
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Suite:
    """Compare bundles or model files with the first by running them in turn, or two records or folders of them as they are.

    Ratios are over the first.
    """
    from edgebench.run import compare as compare_

    sides = [Path(side) for side in (first, second, *more)]
    run = [is_runnable(side) for side in sides]
    if any(run):
        if not all(run):
            raise InputError(f"{sides[run.index(False)]}: no bundle; compare two bundles or more, or two records")
        [device] = read_devices([target], options.trust)
        with Session(measure, options, progress) as session:
            return compare_.run_turns(session, tie_all(session, sides, device, dataset))
    if more:
        raise InputError(f"{sides[2]}: records are compared two at a time; compare each with the first")
    return compare_.compare_records(*(records.record_paths(side) for side in sides))


def noise(
    bundle: Path | None = None,
    *,
    target: str | Target = "cpu",
    comparisons: int = 20,
    dataset: str | None = None,
    measure: MeasureOptions = STANDARD,
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> tuple[Path, Noise]:
    """Measure a target's own noise by comparing a bundle or model file with itself; `compare` and leaderboards use it then.

    Without a bundle it takes one of those that were exported or made by a run.
    """
    from edgebench.run.noise import any_bundle, measure_noise

    [device] = read_devices([target], options.trust)
    folder = Path(bundle) if bundle else any_bundle(device, options.work, options.trust)
    with Session(measure, options, progress) as session:
        found = measure_noise(session, tie(session, folder, device, dataset), comparisons)
        return noise_.save_noise(options.results, found), found


def diagnose(
    bundle: Path,
    *,
    target: str | Target = "cpu",
    against: Path | None = None,
    dataset: str | None = None,
    measure: MeasureOptions = MeasureOptions(),
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Diagnosis:
    """Find out where a bundle's operators run on a target, where the time goes, and why it is slow.

    `against` is the same model in FP32; a bundle of that kind beside this one is
    found by itself. Nothing is written into either folder. Where the target does
    not run a bundle whose compiler placed its operators, that placement is returned.
    """
    from edgebench.diagnose import diagnose as diagnose_

    [device] = read_devices([target], options.trust)
    read = read_bundle(Path(bundle))
    if read.placement is not None and device.accepted(read.format, read.precision) is None:
        return diagnose_.unrun(Path(bundle), read, device.name)
    with Session(measure, options, progress) as session:
        subject = tie_bundle(session, Path(bundle), device, dataset)
        return diagnose_.diagnose(session, subject, diagnose_.reference(session, subject, against))


def explain(
    sources: Sequence[str | Path | SourceOptions],
    *,
    dataset: str | None = None,
    target: str | Target = "cpu",
    options: ExplainOptions = ExplainOptions(),
    measure: MeasureOptions = MeasureOptions(),
    run: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> Explained:
    """Show what files look at, how far that can be relied on, and how far it is from where the first one looks.

    Bundles and model files run on the target; model folders, checkpoints and architectures, which have gradients, here.
    Maps that lie below `run.results` are not made again unless `run.repeat`. `GoalMissed`, with the result, where a
    file's correlate less with the first one's than `options.min_correlation`.
    """
    from edgebench.explain._work import explain_sources

    [device] = read_devices([target], run.trust)
    with Session(measure, run, progress) as session:
        return explain_sources(session, sources, device, dataset, options)


def validate(
    sources: Sequence[str | Path],
    *,
    dataset: str | None = None,
    options: ValidateOptions | None = None,
    progress: Progress = no_progress,
) -> Validation:
    """Judge bundles and records as a clinic would: operating points, calibration, groups of patients, readers with and without.

    Thresholds and temperatures are chosen on validation data, figures are of test data; the first is what others are compared
    with. `Validation.values()` has every number, `Validation.write` makes the page.
    """
    from edgebench.validate.options import ValidateOptions
    from edgebench.validate.validate import validate

    return validate(sources, dataset, options or ValidateOptions(), progress)


def verify(results: Path = RESULTS, *, progress: Progress = no_progress) -> list[Checked]:
    """Compute every number of every record again from its raw samples."""
    from edgebench.store import verify as checking

    return list(checking.verify(Path(results), progress))


# ---------------------------------------------------------------- devices


def probe(target: str | Target, *, options: RunOptions = RunOptions()) -> Probed:
    """Look at a device: what it is and has, and where it differs from its target."""
    from edgebench.device import inspect

    [device] = read_devices([target], options.trust)
    with connected(device, _link(device, options)) as (transport, agent):
        return inspect.probed(transport, agent, device)


def setup(
    target: str | Target,
    *,
    requirements: Sequence[str] = (),
    dry_run: bool = False,
    planned: Callable[[Plan], None] | None = None,
    userland: Path | None = None,
    options: RunOptions = RunOptions(),
    progress: Progress = no_progress,
) -> tuple[Plan, Outcome | None]:
    """Bring a target's runtimes to a device, also to one without internet; the outcome is None in a dry run.

    requirements: what to bring beside or instead of the target's own, as pip reads it;
    `planned` gets the plan before anything is done; `userland` holds the packages of a phone's Python, else fetched.
    """
    from edgebench.device import setup as setup_

    [device] = read_devices([target], options.trust)
    with connected(device, replace(_link(device, options), userland=userland)) as (transport, agent):
        plan = setup_.plan(transport, agent, device, list(requirements), options.work / "wheelhouse", progress)
        if planned is not None:
            planned(plan)
        return plan, None if dry_run else setup_.install(transport, agent, plan, progress)


def remove_setup(target: str | Target, *, options: RunOptions = RunOptions()) -> int:
    """Remove from a device what `setup` brought there; returns the bytes that are free again."""
    from edgebench.device import setup as setup_

    [device] = read_devices([target], options.trust)
    with connected(device, _link(device, options)) as (transport, agent):
        return setup_.remove(transport, agent, device)


def tune(
    action: Literal["show", "apply", "restore"] = "show",
    *,
    target: str | Target = "cpu",
    state: str | None = None,
    remedy: str = "do it as root",
    accept_new_host_key: bool = False,
) -> list[dict[str, Any]]:
    """Set a device's clocks and interrupts for steady timing, or put them back; a row for each knob.

    state: where the device keeps what was before; remedy: what a knob that wants root advises.
    """
    from edgebench.device.tune import STATE, tune

    [device] = read_devices([target])
    path = str(Path(state).absolute()) if state and device.transport == "local" else state or STATE
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:  # as root, leave nothing of root's in the user's folder
        options = RunOptions(work=Path(folder), accept_new_host_key=accept_new_host_key)
        with connected(device, _link(device, options)) as (transport, agent):
            return tune(transport, agent, action, path, device.tuning, remedy)


def trust_file(path: Path) -> dict[Path, tuple[str, ...]]:
    """Let a profile, target, fleet or model folder run the code that it names, as it is now; returns what that is, by file."""
    found = code_in(Path(path))
    for file, (_, beside) in found.items():
        allow(file, beside)
    return {file: names for file, (names, _) in found.items()}


def _link(device: Target, options: RunOptions) -> Link:
    return Link(options.work / "device" / device.name, options.accept_new_host_key)
