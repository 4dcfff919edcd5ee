"""A copy in static INT8 of an ONNX file that somebody brought, measured beside the file itself."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench import plugins
from edgebench.bundle import arrays
from edgebench.bundle import import_file as import_
from edgebench.bundle.export import as_the_network_takes, drawn_samples, exporter, limits_of
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.samples import samples
from edgebench.config import read_dataset, read_values
from edgebench.data import open_images
from edgebench.errors import ExportError, InputError
from edgebench.quantize.bench import candidates
from edgebench.quantize.search import ROUNDS, Result
from edgebench.run.bring import bring
from edgebench.run.options import QuantizeOptions
from edgebench.run.outcome import ExportResult
from edgebench.run.session import Session, subject_of
from edgebench.schema import CalibrationPlan, Exporter, ExportRequest, Network, Scenario, Target

if TYPE_CHECKING:
    from edgebench.data import Dataset


def brought_of(source: object) -> FileOptions | None:
    """Return what is said of an ONNX file that is quantized as it is; None for what edgebench exports itself."""
    if isinstance(source, FileOptions):
        return source
    return FileOptions(Path(str(source))) if isinstance(source, str | Path) and str(source).endswith(".onnx") else None


def quantize_brought(
    session: Session, given: FileOptions, target: Target, dataset: str | None, options: QuantizeOptions
) -> Result:
    """Read the data, and quantize the file; `InputError` for a search, which needs the torch network."""
    if options.search:
        raise InputError(f"{given.path}: --search mixes precisions of networks that edgebench exports; leave it out")
    data = open_images(read_dataset(dataset)) if dataset else None
    return quantize_file(session, given, target, data, options)


def quantize_file(
    session: Session, options: FileOptions, target: Target, data: Dataset | None, wanted: QuantizeOptions
) -> Result:
    """Write the copy's bundle, and measure both in turn.

    Ranges are chosen from a `.npz` by the inputs' names, or from the training split.
    """
    calibration, plan = wanted.calibration_file, read_values(CalibrationPlan, wanted.calibration, "calibration")
    brought = import_.read(options, target, data, session.options.trust)
    if data is not None and data.volume is not None:
        raise InputError(f"{options.path}: {data.ref} holds volumes, of which no INT8 file is written (docs/data.md); keep fp32")
    name = brought.described.format
    write = plugins.declared(plugins.load("edgebench.exporters", name, "format"), "quantize_file", Exporter.quantize_file)
    if write is None:
        raise InputError(f"{options.path}: {name} files are not quantized as they are; give an ONNX file")
    if brought.described.precision not in ("fp32", "fp16-weights"):
        raise InputError(f"{options.path}: is {brought.described.precision} already; give one in float32")
    if calibration is None and data is None:
        raise InputError(f"{options.path}: INT8 needs samples to calibrate on; give --dataset, or --calibration-file with a .npz")
    whole = bring(brought, session.options.work / "bundles", target, session.progress)
    exporter(name, "int8")
    limits = limits_of(session.accepts(target, name, "int8"), "int8")
    given = _samples(whole, data, calibration, plan.samples)
    percentile = plan.percentile if plan.method == "percentile" else None
    how: dict[str, Any] = {"calibration_method": plan.method or "min-max", "percentile": percentile}
    request = ExportRequest(Network(whole.bundle.model, None, None), "int8", limits, given, **how)
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
        try:
            made = write(request, whole.folder / whole.bundle.entry, Path(folder))
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ExportError(f"{options.path}: ONNX Runtime's quantizer cannot make INT8 of it: {reason}") from error
        copy = dataclasses.replace(options, path=made, name=brought.name)
        small = bring(
            import_.read(copy, target, data, session.options.trust), Path(wanted.out), target, session.progress, alone=True
        )
    subjects = {
        label: subject_of(session, each.folder, each.bundle, target, data, Scenario())
        for label, each in ((whole.bundle.precision, whole), ("int8", small))
    }
    found = candidates(session, subjects, ROUNDS)
    return Result(small.folder, small.bundle, small.cached, tuple(each.values() for each in found.values()))


def _samples(whole: ExportResult, data: Dataset | None, calibration: Path | None, count: int) -> list[Any]:
    """Return calibration samples for each input, as the file takes them: those that were given, or the training split's."""
    found = arrays.load(calibration) if calibration is not None else {}
    bundle, others = whole.bundle, samples(whole.bundle.inputs, whole.folder, None)
    made: list[Any] = []
    for each, other in zip(bundle.inputs, others, strict=True):
        if each.name in found or (found and len(bundle.inputs) == 1):
            array = arrays.one_of(Path(str(calibration)), found, each.name)
            made.append(arrays.samples(f"--calibration-file {each.name}", array, each.shape, each.dtype))
        elif each.preprocessing is not None and data is not None:
            train = data.read("train")
            chosen = np.sort(drawn_samples(len(train), count))
            made.append(as_the_network_takes(each, train.some(chosen).images)[:, None])
        else:
            made.append(other)
    return made
