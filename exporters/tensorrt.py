"""`tensorrt`: ONNX that a version of TensorRT reads, and the engine step for the device: fp32, fp16, int8."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from edgebench.errors import ExportError
from edgebench.exporters import onnx as shared
from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared import volumes
from edgebench.exporters._shared.calibration import Ranges
from edgebench.exporters._tensorrt import operators, plan, quantization
from edgebench.schema import Exported, ExportRequest, Finish
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATES = {"int8": shared.CALIBRATES["int8"]}
DYNAMIC_BATCH = False
REQUIRES = shared.REQUIRES
widen = shared.widen
FLAGS = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}
TYPED = (11,)
"""From here on networks are strongly typed: no flags, and the file says what runs in which precision."""
CACHE = "calibration.cache"
WORKSPACE_MEBIBYTES = 1024


class Limits(shared.Limits):
    """Those of ONNX, of which a version of TensorRT has its own; activations are int8 and symmetric whatever is given."""

    version: str | None = Field(None, description="of TensorRT that must build the engine at least, for instance 8.2; needed")
    explicit: bool = Field(True, description="INT8 as Q/DQ nodes; false: a calibration cache beside the file")


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a file is an engine, by its content."""
    return plan.recognizes(head)


def read(path: Path) -> FileDescription:
    """Describe a file that somebody brought."""
    return plan.read(path)


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return shared.tools()


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` for a target that does not say its TensorRT, or asks what that version has not."""
    version = _version(request)
    volumes.check(request, "choose onnx or tflite, fp32", "TensorRT", ())
    if version >= TYPED and not request.limits.explicit:
        raise ExportError(
            f"{request.network.model.name}: TensorRT {request.limits.version} has no calibration caches; "
            "leave explicit: false out of the target's limits"
        )
    shared.allow_attention()
    preflight_.check_onnx(request, _opset(request, version))


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.onnx`, batch 1, images channels first, and for a calibrated INT8 `calibration.cache`."""
    import onnx

    path, version = folder / "model.onnx", _version(request)
    request = _as_tensorrt_quantizes(request)
    with shared.quiet():
        _write_float(request, path, version)
        ranges = _convert(request, path, version)
    model = shared.tidy(onnx.load(path))
    shared.check_limits(model, request)
    _check(model, request, version)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True), path)
    return dataclasses.replace(_describe(request, model, version), **_standing_in(request, path, ranges))


def _version(request: ExportRequest[Limits]) -> operators.Version:
    """Read the target's version of TensorRT; `ExportError` where there is none, or an older one than is known."""
    name, stated = request.network.model.name, request.limits.version
    if stated is None:
        raise ExportError(
            f'{name}: tensorrt depends on its version; name it in the target file: accepts: limits: {{version: "8.2"}}'
        )
    try:
        version = operators.parse(stated)
    except ValueError as error:
        raise ExportError(f"{name}: the target's limits: version: {error}") from error
    if version < operators.OLDEST:
        raise ExportError(f"{name}: TensorRT {stated} is older than 8.2, the oldest whose operators are known here")
    return version


def _opset(request: ExportRequest[Limits], version: operators.Version) -> int:
    highest = min(operators.highest_opset(version), shared.NEWEST_OPSET)
    return min(request.limits.opset or shared.DEFAULT_OPSET, highest)


def _as_tensorrt_quantizes(request: ExportRequest[Limits]) -> ExportRequest[Limits]:
    """Fix what TensorRT leaves no choice in: signed, symmetric activations, and the operators that fuse."""
    fixed = {"activations": "int8", "symmetric": True, "quantized": request.limits.quantized or quantization.FUSES}
    return dataclasses.replace(request, limits=request.limits.model_copy(update=fixed))


def _write_float(request: ExportRequest[Limits], path: Path, version: operators.Version) -> None:
    """Write the float32 network with all folded that can be, and see that TensorRT reads it."""
    import onnx

    shared.trace(request, path, _opset(request, version))
    onnx.save(shared.without_lone_concats(onnx.load(path)), path)
    shared.prepare(path).replace(path)
    model = shared.tidy(onnx.load(path))
    _check(model, request, version)
    onnx.save(model, path)


def _check(model: Any, request: ExportRequest[Limits], version: operators.Version) -> None:
    layers = [name for name, _ in request.network.module.named_modules() if name]
    operators.check(model, version, request.network.model.name, layers)


def _convert(request: ExportRequest[Limits], path: Path, version: operators.Version) -> Ranges:
    """Put the precision into the file, as far as it is not the engine's builder that chooses it; returns a cache's ranges."""
    if _cached(request):
        return quantization.write_cache(request, path, path.with_name(CACHE), version)
    if request.precision == "int8":
        quantization.add_pairs(request, path, version)
    elif request.precision == "fp16" and version >= TYPED:
        shared.half(request, path)
    return {}


def _standing_in(request: ExportRequest[Limits], path: Path, ranges: Ranges) -> dict[str, Any]:
    """Say what computes the file on this computer: the file itself, which does not show what a cache makes of it."""
    if not ranges:
        return {"host": ("onnxruntime", path.name)}
    return {"evaluate": quantization.simulation(request, path, ranges), "evaluator": "onnxruntime, the cache as Q/DQ pairs"}


def _cached(request: ExportRequest[Limits]) -> bool:
    return request.precision == "int8" and not request.limits.explicit


def _describe(request: ExportRequest[Limits], model: Any, version: operators.Version) -> Exported:
    """Say what the file is, and what the device makes of it."""
    kinds = Counter(node.op_type for node in model.graph.node)
    made = shared.describe(request, model)
    options = {
        "precision": request.precision,
        "flags": [] if version >= TYPED else FLAGS[request.precision],
        "strongly_typed": version >= TYPED,
        "calibration_cache": CACHE if _cached(request) else None,
        "workspace_mebibytes": WORKSPACE_MEBIBYTES,
        "version": request.limits.version,
    }
    details = {**made.details, "tensorrt": request.limits.version, "quantize_nodes": kinds["QuantizeLinear"]}
    return dataclasses.replace(made, runtime="tensorrt", details=details, finish=Finish(options=options))
