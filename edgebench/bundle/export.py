"""Model × format × precision → bundle: cached by content, and let through only by the parity gate."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench import plugins, tasks
from edgebench.agent.runtimes import preprocess
from edgebench.bundle import doubts
from edgebench.bundle.closeness import judge
from edgebench.bundle.manifest import list_files, read_bundle, write_manifest
from edgebench.bundle.parity import check_agreement, compare, compare_run, parity_samples, torch_outputs
from edgebench.bundle.predict import predictions
from edgebench.bundle.samples import Array, given
from edgebench.config import with_limits
from edgebench.data._mapped import digest, hashed, hashes, parts
from edgebench.data._warnings import of_data
from edgebench.errors import BundleError, ExportError, InputError, MissingExtra, UnknownName
from edgebench.files import new_folder, sha256_json
from edgebench.models import source_digest
from edgebench.models.tokens import FILE as TOKENIZER
from edgebench.schema import (
    BUNDLE_SCHEMA,
    PLACEMENT,
    Accepts,
    Bundle,
    Calibration,
    CalibrationPlan,
    Exported,
    Exporter,
    ExportRequest,
    Input,
    Limits,
    Model,
    Network,
    Parity,
    Progress,
    RuntimeModule,
    Target,
)
from edgebench.trust import is_own, programs, remember

if TYPE_CHECKING:
    from edgebench.data import Dataset


@dataclass(frozen=True)
class Order:
    """What to build, and from what."""

    model: Model
    network: Callable[[], Network]
    format: str
    precision: str
    accepts: Accepts
    dataset: Dataset | None
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)
    dynamic_batch: bool = False
    recipe: Mapping[str, Any] | None = None
    """Which nodes compute in which precision; see `schema.ExportRequest`."""
    parity: int | None = None
    """How many samples parity is judged on, each class in its share; as usual unless given."""


def exporter(format: str, precision: str) -> Exporter:
    """Find a format's exporter; the error names the nearest format, the precisions, or the extra to install."""
    plugin: Any = plugins.load("edgebench.exporters", format, "format")
    if precision not in plugin.PRECISIONS:
        raise UnknownName(f"precision for {format}", precision, plugin.PRECISIONS)
    for module, extra in plugin.REQUIRES:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"exporting {format}", extra, module)
    made: Exporter = plugin
    return made


def accepted(target: Target, format: str, precision: str) -> Accepts:
    """Find how a target runs a format in a precision; `ExportError` says what it runs instead.

    `ProfileError` where it has limits that the format has not.
    """
    accepts = target.accepted(format, precision)
    if accepts is None:
        reasons = [a.refuses[precision] for a in target.accepts if a.format == format and precision in a.refuses]
        if reasons:
            raise ExportError(f"{target.name} does not run {format} {precision}: {reasons[0]}")
        known = ", ".join(f"{a.format} {'/'.join(a.precisions)}" for a in target.accepts)
        raise ExportError(f"{target.name} does not run {format} {precision}; it runs {known}")
    return with_limits(accepts, target.name)


def limits_of(accepts: Accepts, precision: str) -> Limits:
    """Return a target's limits as the format's exporter declares them."""
    plugin: Any = exporter(accepts.format, precision)
    return plugins.declared(plugin, "Limits", Limits).model_validate(accepts.limits)


def _written_limits(order: Order) -> dict[str, Any]:
    return limits_of(order.accepts, order.precision).model_dump(mode="json")


def order_key(order: Order) -> str:
    """Hash all that decides what the bundle holds."""
    plugin = exporter(order.format, order.precision)
    dataset, source = order.dataset, source_digest(order.model.architecture)
    return sha256_json(
        {
            **({"source": source} if source else {}),
            **({"dynamic_batch": True} if order.dynamic_batch else {}),
            **({"recipe": order.recipe} if order.recipe else {}),
            **({"parity_samples": order.parity} if order.parity else {}),
            "schema": 1,  # as it was when bundles had one input: that they have several now makes no other file
            "model": order.model.keyed(),
            "format": order.format,
            "precision": order.precision,
            "limits": _written_limits(order),
            "calibration": [*_calibration_key(order), dataset.read("train").sha256] if _calibrates(order) and dataset else None,
            "parity": dataset.read("test").sha256 if dataset else None,
            "tools": plugin.tools(),
        }
    )


def _calibrates(order: Order) -> bool:
    return order.precision in exporter(order.format, order.precision).CALIBRATES


def _calibration_key(order: Order) -> list[Any]:
    """List what chooses the ranges; as before there was a choice of methods, where the usual one is taken."""
    plan = order.calibration
    return (
        [plan.samples] if calibration_method(order) == "min-max" else [plan.samples, calibration_method(order), plan.percentile]
    )


def calibration_method(order: Order) -> str:
    """Name the method that chooses INT8 ranges; `InputError` where the format does not have it."""
    methods = exporter(order.format, order.precision).CALIBRATES.get(order.precision, ())
    wanted = order.calibration.method
    if wanted is None or not methods:
        return methods[0] if methods else ""
    if wanted not in methods:
        raise InputError(f"{order.format} {order.precision}: calibration by {wanted} is not offered; by: {', '.join(methods)}")
    return wanted


def build_bundle(order: Order, target: Target, folder: Path, progress: Progress) -> tuple[Bundle, bool]:
    """Export into `folder`, or find that it holds just that; returns the bundle and whether it was there.

    A program that lies there and could be anybody's is exported again rather than asked about.
    Raises `ExportError` where the format cannot express the model or the file
    does not agree with it, `InputError` where int8 has no data to calibrate on.
    """
    if _calibrates(order) and order.dataset is None:
        other = ", or use int8-dynamic" if "int8-dynamic" in exporter(order.format, order.precision).PRECISIONS else ""
        raise InputError(f"{order.model.name}: {order.precision} needs samples to calibrate on; give --dataset{other}")
    key = order_key(order)
    there = find_bundle(order, key, folder)
    if there is not None:
        return there, True
    with new_folder(folder, "bundle.json") as staging:
        bundle = _build(order, key, target, staging, progress)
    for name in programs(folder, bundle, order.accepts.runtime):
        remember(bundle.files[name].sha256)
    return bundle, False


def find_bundle(order: Order, key: str, folder: Path) -> Bundle | None:
    """Read what an earlier export has left in a folder; None where it is another, damaged, or a program of unknown origin."""
    bundle = find_written(folder, key)
    return bundle if bundle is not None and is_own(folder, bundle, order.accepts.runtime) else None


def find_written(folder: Path, key: str) -> Bundle | None:
    """Read a bundle of this key; None where the folder holds another, a damaged one, or none."""
    if not (folder / "bundle.json").exists():
        return None
    try:
        bundle = read_bundle(folder)
    except BundleError:
        return None  # a damaged one is made anew
    return bundle if bundle.key == key else None


def _build(order: Order, key: str, target: Target, staging: Path, progress: Progress) -> Bundle:
    label = f"export {order.model.name}.{order.format}.{order.precision}"
    progress(label, 0, 4)
    plugin, network = exporter(order.format, order.precision), order.network()
    if order.dynamic_batch and not plugin.DYNAMIC_BATCH:
        raise ExportError(f"{order.model.name}: {order.format} files hold one batch size; leave --dynamic-batch out")
    request = request_of(order, network)
    plugin.preflight(request)
    inputs, calibration = calibration_of(order, network.folder)
    progress(label, 1, 4)
    made = plugin.export(dataclasses.replace(request, calibration=inputs), staging)
    progress(label, 2, 4)
    if order.model.fusion is not None:
        shutil.copyfile(network.folder / TOKENIZER, staging / TOKENIZER)
    bundle = _draft(order, key, network, made, plugin.tools())
    bundle = bundle.model_copy(update={"calibration": calibration, "files": list_files(staging)})
    found = judge_file(order, network, staging, bundle, made, target)
    progress(label, 3, 4)
    check_agreement(bundle.name, order.model, found.parity, order.precision)
    with (staging / "parity.npz").open("wb") as stream:
        indices = np.array(found.chosen, np.int64)
        np.savez(stream, indices=indices, reference=found.reference[0], outputs=found.outputs[0])
    warnings = doubts.of_file(found.parity, calibration)
    if order.dataset is not None and found.labels is not None:
        warnings += [*doubts.of_scores(order.model, found.labels, found.outputs[0]), *of_data(order.dataset)]
    update = {"parity": found.parity, "parity_samples": found.chosen, "warnings": tuple(warnings), "files": list_files(staging)}
    return write_manifest(staging, bundle.model_copy(update=update))


def exported_size(order: Order) -> int:
    """Export into a folder that goes again, and return the bytes of what the runtime would load; nothing is judged."""
    plugin, network = exporter(order.format, order.precision), order.network()
    request = request_of(order, network)
    plugin.preflight(request)
    inputs, _ = calibration_of(order, network.folder)
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
        made = plugin.export(dataclasses.replace(request, calibration=inputs), Path(folder))
        draft = _draft(order, "", network, made, plugin.tools())
        return draft.model_copy(update={"files": list_files(Path(folder))}).size_bytes


@dataclass(frozen=True)
class Judged:
    """A file beside the torch network, on the same samples."""

    parity: Parity
    reference: list[Array]
    outputs: list[Array]
    """Of each output [n, …], as of the reference."""
    chosen: tuple[int, ...]
    """Which samples of the test split."""
    labels: Array | None
    """Theirs."""


def judge_file(order: Order, network: Network, folder: Path, bundle: Bundle, made: Exported, target: Target) -> Judged:
    """Run a fresh bundle on this computer, and compare it with the torch network; `ExportError` where it does not run."""
    samples, labels, chosen, source = parity_samples(order.model, order.dataset, order.parity, network.folder)
    samples = tuple(map(_as_the_file_takes, samples, made.inputs))
    outputs, as_run, runtime = _host_outputs(folder, bundle, made, samples, target)
    reference = list(torch_outputs(network, samples).values())
    parity = compare(order.model, reference, outputs, labels, source)
    plugin: Any = plugins.load("edgebench.exporters", order.format, "format")
    between = plugins.declared(plugin, "ROUNDS_BETWEEN", Exporter.ROUNDS_BETWEEN)
    close = judge(network, order.precision, samples, reference, outputs, between)
    widen = plugins.declared(plugin, "widen", Exporter.widen) if order.precision == "fp16" else None
    if widen is not None and close.unexplained_error > close.allowed_error:
        close = judge(network, order.precision, samples, reference, outputs, rounds_between=True)
        with tempfile.TemporaryDirectory() as wide:
            widen(folder / bundle.entry, Path(wide) / bundle.entry)
            computed, _, _ = _host_outputs(Path(wide), bundle, made, samples, target)
        weights = judge(network, order.precision, samples, reference, computed)
        if close.unexplained_error <= close.allowed_error:
            close = dataclasses.replace(weights, relative_error=close.relative_error, correlation=close.correlation)
    parity = parity.model_copy(update={"runtime": runtime, **dataclasses.asdict(close)})
    if as_run is not None:
        parity = parity.model_copy(update={"as_run": compare_run(order.model, reference, outputs, as_run, labels)})
    return Judged(parity, reference, outputs, chosen, labels)


def request_of(order: Order, network: Network) -> ExportRequest[Limits]:
    """Put together what an exporter may know before there are calibration samples."""
    method, percentile = calibration_method(order), order.calibration.percentile
    return ExportRequest(
        network,
        order.precision,
        limits_of(order.accepts, order.precision),
        None,
        order.dynamic_batch,
        calibration_method=method,
        percentile=percentile if method == "percentile" else None,
        recipe=order.recipe,
        probabilities=tasks.part(order.model.task, "PROBABILITIES") or "",
    )


def _host_outputs(
    staging: Path, bundle: Bundle, made: Exported, samples: Sequence[Array], target: Target
) -> tuple[list[Array], list[Array] | None, str]:
    """Run a fresh bundle on this computer; float32 [n, …] of each output, and what stood in for its runtime.

    The first are what the file says, operator by operator; the second are
    what the runtime makes of it, where it may compute otherwise and is the target's own.
    """
    if made.evaluate is not None:
        inputs = preprocess.apply(samples[0], bundle.model.preprocessing.model_dump())
        return [np.asarray(made.evaluate(inputs), np.float32)], None, made.evaluator
    standing_in = "" if made.host is None else made.host[0]
    if made.host is not None:
        bundle = bundle.model_copy(update={"runtime": made.host[0], "entry": made.host[1]})
    written = as_written(bundle, bundle.runtime)
    if written is None:
        [outputs] = predictions(staging, bundle, samples, target, [{}])
        return outputs, None, standing_in
    ways: list[Mapping[str, Any]] = [written]
    accepts = target.accepted(bundle.format, bundle.precision)
    if target.transport == "local" and accepts is not None and accepts.runtime == bundle.runtime:
        ways.append(accepts.options)
    outputs, *others = predictions(staging, bundle, samples, target, ways)
    return outputs, others[0] if others else None, standing_in


def as_written(bundle: Bundle, runtime: str) -> Mapping[str, Any] | None:
    """Return the options by which a runtime computes a quantized file as it is written; None where it has no such."""
    if bundle.precision not in exporter(bundle.format, bundle.precision).CALIBRATES:
        return None
    if runtime not in plugins.on_device("runtimes"):
        return None  # a user's own
    return plugins.declared(plugins.load_device("runtimes", runtime), "AS_WRITTEN", RuntimeModule.AS_WRITTEN)


def calibration_of(order: Order, folder: Path = Path()) -> tuple[tuple[Array, ...] | None, Calibration | None]:
    """Choose calibration samples from the training split, with a fixed seed, none of which is in the test split too.

    `folder` holds the tokenizer of a network that reads text.
    """
    if not _calibrates(order) or order.dataset is None:
        return None, None
    train, plan = order.dataset.read("train"), order.calibration
    drawn = drawn_samples(len(train), plan.samples)
    known = set(hashes(order.dataset.read("test").images))
    chosen = np.sort([index for index in drawn if hashed(train.images[index]) not in known])
    if not len(chosen):
        raise InputError(f"{order.dataset.ref}: every calibration sample is in the test split too; the splits must differ")
    shown = train.some(chosen)
    method = calibration_method(order)
    calibration = Calibration(
        samples=len(chosen),
        sha256=digest(shown.images),
        method=method,
        percentile=plan.percentile if method == "percentile" else None,
        dataset=str(order.dataset.ref),
        excluded=len(drawn) - len(chosen),
    )
    samples = given(order.model.inputs, folder, shown, str(order.dataset.ref))
    return tuple(map(as_the_network_takes, order.model.inputs, samples)), calibration


def drawn_samples(count: int, wanted: int) -> Array:
    """Draw the indices of calibration samples; a part of them is left out where the test split holds it too."""
    return np.random.default_rng(0).choice(count, min(wanted, count), replace=False)


def _draft(order: Order, key: str, network: Network, made: Exported, tools: dict[str, str]) -> Bundle:
    return Bundle(
        schema_version=BUNDLE_SCHEMA,
        model=order.model,
        format=order.format,
        precision=order.precision,
        runtime=made.runtime,
        entry=made.entry,
        files={},
        inputs=made.inputs,
        outputs=made.outputs,
        scored=made.outputs[0].name if tasks.load(order.model.task).HEADLINE else None,
        macs=network.macs,
        limits=_written_limits(order),
        dynamic_batch=order.dynamic_batch,
        finish=made.finish,
        details=_details(made),
        tools=tools,
        key=key,
    )


def _as_the_file_takes(samples: Array, each: Input) -> Array:
    """Resize images to the whole pixels that a file wants which normalises them itself."""
    if each.preprocessing is None or not each.takes_pixels:
        return samples
    return np.concatenate([preprocess.whole(part, each.preprocessing.model_dump()) for part in parts(samples)])


def as_the_network_takes(each: Input, samples: Array) -> Array:
    """Preprocess images; other tensors are what they are."""
    if each.preprocessing is None:
        return samples
    return np.concatenate([preprocess.apply(part, each.preprocessing.model_dump()) for part in parts(samples)])


def _details(made: Exported) -> dict[str, Any]:
    """Put together what an exporter says of a file."""
    placed = made.placement
    return {**made.details, **({} if placed is None else {PLACEMENT: placed.model_dump(mode="json", exclude_unset=True)})}
