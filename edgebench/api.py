"""The verbs that make and measure: train, export, run and what compares them; `results` has those on records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import plugins
from edgebench.agent import facts
from edgebench.analysis.processor import fitted
from edgebench.bundle.export import Order, accepted, build_bundle, exporter
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset, read_profile, read_target, read_values
from edgebench.data import Dataset, open_images
from edgebench.errors import InputError
from edgebench.models.source import Source, open_source
from edgebench.recipes import Job, make_model
from edgebench.run.prepare import prepare_bundles, prepare_profile, tie_bundle
from edgebench.run.session import RunResult, Session, measure_all
from edgebench.schema import (
    Bundle,
    CalibrationPlan,
    Goals,
    InputPlan,
    MeterSpec,
    Mode,
    Noise,
    Progress,
    Role,
    Scenario,
    Target,
    no_progress,
)
from edgebench.store import records
from edgebench.store.layout import RESULTS
from edgebench.store.noise import save_noise
from edgebench.trust import is_own

if TYPE_CHECKING:
    from edgebench.diagnose.diagnose import Diagnosis
    from edgebench.quantize.search import Result as Quantized
    from edgebench.run.compare import Suite
    from edgebench.store.verify import Checked

WORK = Path(".edgebench")
ACCURACY_GOALS = ("threshold", "max_degradation", "percent_max_degradation")
NO_GOALS = dict.fromkeys(ACCURACY_GOALS)
"""An export by hand is judged by its accuracy only where that is asked for."""


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
    trust: bool = False,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> Path:
    """Make a model with a recipe; returns its folder, or the one where it was made before.

    `trust`, here and in the other verbs: you know who made the exported programs
    (`.pt2`, and bundles of the format torch) that are loaded. They can run code, and are
    refused with `UntrustedFile` unless edgebench wrote them on this computer.
    """
    data = open_images(read_dataset(dataset))
    job = Job(
        name=name or architecture.replace(":", "-"),
        architecture=architecture,
        role=role or ("student" if teacher else "baseline"),
        dataset=data,
        input=_input_plan(data, size, channels),
        options=dict(options or {}),
        teacher=teacher,
        progress=progress,
        trust=trust,
    )
    return make_model(recipe, job, Path(work) / "models")


def _input_plan(data: Dataset, size: int | None, channels: int | None) -> InputPlan:
    """Fill in what the user left open from the images themselves; a network wants 16 pixels at least."""
    height, width, depth = data.read("test").images.shape[1:]
    return InputPlan(size=size or max(height, width, 16), channels=channels or depth)


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
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    calibration: Mapping[str, Any] | None = None,
    dynamic_batch: bool = False,
    goals: Mapping[str, Any] | None = None,
    trust: bool = False,
    progress: Progress = no_progress,
) -> ExportResult:
    """Export a model folder, a checkpoint (with `architecture`), a `.pt2` program, or an architecture by name.

    An architecture by name has random weights unless `pretrained`: good for
    latency, useless for accuracy, and marked so in its lineage. `mean` and `std`
    (per channel, of values 0…1) are what a checkpoint was trained with; without
    them the training split's own are taken. `calibration` has the fields of
    `schema.CalibrationPlan`, `goals` those of `schema.Goals`.
    """
    exporter(format, precision)
    plan = read_values(CalibrationPlan, calibration or {}, "calibration")
    wanted = read_values(Goals, {**NO_GOALS, **(goals or {})}, "goals")
    device = read_target(target)
    here = facts.environment() if device.transport == "local" else None
    accepts = fitted(accepted(device, format, precision), here)
    data = open_images(read_dataset(dataset)) if dataset else None
    asked = [name for name in ACCURACY_GOALS if getattr(wanted, name) is not None]
    if asked and data is None:
        raise InputError(f"export: {asked[0]} is judged on a data set; give --dataset, or leave it out")
    given = Source(
        str(source), architecture, name, classes, size, channels, pretrained, mean=_tuple(mean), std=_tuple(std), trust=trust
    )
    model, network = open_source(given, data)
    order = Order(model, network, format, precision, accepts, data, plan, dynamic_batch)
    folder = Path(out) / f"{model.name}.{format}.{precision}"
    bundle, cached = build_bundle(order, device, folder, progress)
    check_goals(bundle, wanted)
    return ExportResult(folder, bundle, cached)


def _tuple(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return tuple(values) if values else None


def quantize(
    source: str | Path,
    *,
    format: str = "onnx",
    dataset: str,
    target: str | Target = "cpu",
    search: bool = False,
    by: str = "block",
    max_degradation: float | None = None,
    minutes: float = 10.0,
    samples: int = 256,
    out: Path = Path("bundles"),
    architecture: str | None = None,
    name: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    calibration: Mapping[str, Any] | None = None,
    mode: Mode = "quick",
    scenario: Mapping[str, Any] | None = None,
    accept_new_host_key: bool = False,
    trust: bool = False,
    work: Path = WORK,
    results: Path = RESULTS,
    progress: Progress = no_progress,
) -> Quantized:
    """Export in INT8 and measure it beside float32 on the target; `search` finds the mixture of both that is fastest there.

    The search judges accuracy on `samples` held-out images, none of the test
    split, and keeps to `max_degradation` (0.005 unless given); it starts
    nothing new after `minutes`. The rest is as in `export`.
    """
    from edgebench.quantize import search as search_

    precision = "mixed" if search else "int8"
    if search and not hasattr(plugins.load("edgebench.exporters", format, "format"), "mixer"):
        raise InputError(f"quantize --search mixes precisions within onnx files, not within {format}; give --format onnx")
    exporter(format, precision)
    if by not in ("block", "node"):
        raise InputError(f"quantize searches by block or by node, not by {by}")
    plan = read_values(CalibrationPlan, calibration or {}, "calibration")
    [device] = read_devices([target])
    accepts = accepted(device, format, precision)
    data = open_images(read_dataset(dataset))
    given = Source(
        str(source), architecture, name, None, size, channels, pretrained, mean=_tuple(mean), std=_tuple(std), trust=trust
    )
    model, network = open_source(given, data)
    order = Order(model, network, format, precision, accepts, data, plan)
    folder = Path(out) / f"{model.name}.{format}.{precision}"
    overrides = dict(scenario or {})
    with Session(
        mode, True, False, Path(results), Path(work), progress, overrides, accept_new_host_key=accept_new_host_key, trust=trust
    ) as session:
        if not search:
            return search_.compare_plain(session, order, device, folder)
        allowed = search_.SearchOptions.max_degradation if max_degradation is None else max_degradation
        return search_.search(session, order, device, search_.SearchOptions(by, allowed, minutes, samples), folder)


# ---------------------------------------------------------------- run


def run(
    profile: str | None = None,
    *,
    bundle: Sequence[Path] = (),
    target: Sequence[str | Target] = (),
    mode: Mode = "quick",
    repeat: bool = False,
    resume: bool = False,
    only: str | None = None,
    dataset: str | None = None,
    scenario: Mapping[str, Any] | None = None,
    meters: Sequence[MeterSpec] = (),
    options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    accept_new_host_key: bool = False,
    trust: bool = False,
    reconnect_seconds: float = 60.0,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> RunResult:
    """Measure a profile's cells, or those of bundles, that have no result yet.

    Every finished cell is on disk when the next one begins. A cell that fails
    is written down with its reason, and the others go on. `scenario` changes
    fields of the profile's (see `schema.Scenario`), `meters` replaces the target's,
    `options` changes single runtime options of the targets'.
    """
    if (profile is None) == (not bundle):
        raise InputError("run: give a profile or one or more bundle folders, and not both")
    session = Session(
        mode,
        repeat,
        dry_run,
        Path(results),
        Path(work),
        progress,
        dict(scenario or {}),
        meters,
        options=dict(options or {}),
        accept_new_host_key=accept_new_host_key,
        trust=trust,
        reconnect_seconds=reconnect_seconds,
        resume=resume,
    )
    session.progress = session.forecast.beside(progress)
    session.scenario(Scenario())  # refuse what does not fit together before anything long begins
    plan = None if profile is None else read_profile(profile)
    devices = read_devices(target or (("cpu",) if plan is None else plan.targets))
    with session:
        session.connect(devices)
        if plan is not None:
            subjects = prepare_profile(session, plan, open_images(plan.dataset), devices, only)
        else:
            subjects = prepare_bundles(session, [Path(folder) for folder in bundle], devices, only, dataset)
        return measure_all(session, subjects)


def read_devices(given: Sequence[str | Target]) -> list[Target]:
    """Read targets by name or path; each device needs a name of its own."""
    found = [read_target(item) if isinstance(item, str) else item for item in given]
    doubled = [name for name, count in Counter(target.name for target in found).items() if count > 1]
    if doubled:
        raise InputError(f"two devices are called {doubled[0]}; give each a `name:` in a target file, or in the fleet file")
    return found


# ---------------------------------------------------------------- compare, noise, verify


def compare(
    first: Path,
    second: Path,
    *,
    target: str | Target = "cpu",
    mode: Mode = "standard",
    dataset: str | None = None,
    scenario: Mapping[str, Any] | None = None,
    accept_new_host_key: bool = False,
    trust: bool = False,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> Suite:
    """Compare two bundles by running them in turn, or two records or folders of records as they are; second over first."""
    from edgebench.run import compare as compare_

    sides = [Path(side) for side in (first, second)]
    bundles = [(side / "bundle.json").exists() for side in sides]
    if any(bundles):
        if not all(bundles):
            raise InputError(f"{sides[bundles.index(False)]}: no bundle; compare two bundles, or two records")
        [device] = read_devices([target])
        overrides = dict(scenario or {})
        with Session(
            mode,
            True,
            False,
            Path(results),
            Path(work),
            progress,
            overrides,
            accept_new_host_key=accept_new_host_key,
            trust=trust,
        ) as session:
            one, other = (tie_bundle(session, side, device, dataset) for side in sides)
            return compare_.run_pair(session, one, other)
    return compare_.compare_records(*(records.record_paths(side) for side in sides))


def noise(
    bundle: Path | None = None,
    *,
    target: str | Target = "cpu",
    mode: Mode = "standard",
    comparisons: int = 20,
    dataset: str | None = None,
    scenario: Mapping[str, Any] | None = None,
    meters: Sequence[MeterSpec] = (),
    accept_new_host_key: bool = False,
    trust: bool = False,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> tuple[Path, Noise]:
    """Measure a target's own noise by comparing a bundle with itself; `compare` and the leaderboard use it from then on.

    Without a bundle it takes one of those that were exported or made by a run.
    """
    from edgebench.run import noise as noise_

    [device] = read_devices([target])
    folder = Path(bundle) if bundle else _any_bundle(device, Path(work), trust)
    overrides = dict(scenario or {})
    with Session(
        mode,
        True,
        False,
        Path(results),
        Path(work),
        progress,
        overrides,
        meters,
        accept_new_host_key=accept_new_host_key,
        trust=trust,
    ) as session:
        found = noise_.measure_noise(session, tie_bundle(session, folder, device, dataset), comparisons)
        return save_noise(session.results, found), found


def _any_bundle(target: Target, work: Path, trust: bool) -> Path:
    """Find a bundle that the target runs and that may be loaded, in the folders where exports and runs leave them."""
    for manifest in sorted([*Path("bundles").glob("*/bundle.json"), *(work / "bundles").glob("*/bundle.json")]):
        found = read_bundle(manifest.parent)
        accepts = target.accepted(found.format, found.precision)
        known = accepts is not None and (trust or is_own(manifest.parent, found, accepts.runtime))
        if known and found.model.lineage.dataset is not None:
            return manifest.parent
    raise InputError(f"no bundle for {target.name} in bundles/ or {work}/bundles; name one, or make one with `edgebench export`")


def diagnose(
    bundle: Path,
    *,
    target: str | Target = "cpu",
    against: Path | None = None,
    mode: Mode = "quick",
    dataset: str | None = None,
    scenario: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    accept_new_host_key: bool = False,
    trust: bool = False,
    results: Path = RESULTS,
    work: Path = WORK,
    progress: Progress = no_progress,
) -> Diagnosis:
    """Find out where a bundle's operators run on a target, where the time goes, and why it is slow.

    `against` is the same model in FP32; a bundle of that kind beside this one is
    found by itself. Nothing is written into either folder. Where the target does
    not run a bundle whose compiler placed its operators, that placement is told.
    """
    from edgebench.diagnose import diagnose as diagnose_

    [device] = read_devices([target])
    read = read_bundle(Path(bundle))
    if "placement" in read.details and device.accepted(read.format, read.precision) is None:
        return diagnose_.unrun(Path(bundle), read, device.name)
    overrides, given = dict(scenario or {}), dict(options or {})
    with Session(
        mode,
        True,
        False,
        Path(results),
        Path(work),
        progress,
        overrides,
        options=given,
        accept_new_host_key=accept_new_host_key,
        trust=trust,
    ) as session:
        subject = tie_bundle(session, Path(bundle), device, dataset)
        return diagnose_.diagnose(session, subject, diagnose_.reference(session, subject, against))


def verify(results: Path = RESULTS, *, progress: Progress = no_progress) -> list[Checked]:
    """Compute every number of every record again from its raw samples."""
    from edgebench.store import verify as checking

    return list(checking.verify(Path(results), progress))
