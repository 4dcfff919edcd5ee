"""`onnx`: fp32, fp16, int8 (static, QDQ) and int8-dynamic, within a target's opset and IR version."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebench.errors import ExportError
from edgebench.schema import Exported, ExportRequest, Limits, TensorSpec

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic")
CALIBRATES = {"int8": ("min-max", "entropy", "percentile")}
DYNAMIC_BATCH = True
REQUIRES = (("torch", "torch"), ("onnx", "torch"), ("onnxruntime", "torch"))
DEFAULT_OPSET, NEWEST_OPSET = 17, 20


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")}


def preflight(request: ExportRequest) -> None:
    """Raise `ExportError` with the layer's name for what this format cannot express."""


def export(request: ExportRequest, folder: Path) -> Exported:
    """Write `model.onnx`: batch 1 or any, channels first, float32 in and out in every precision."""
    import onnx

    path = folder / "model.onnx"
    opset = min(request.limits.opset or DEFAULT_OPSET, NEWEST_OPSET)
    with quiet():
        _trace(request, path, opset)
        onnx.save(without_lone_concats(onnx.load(path)), path)
        CONVERT[request.precision](request, path)
    model = _tidy(onnx.load(path))
    check_limits(model, request)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return _describe(request, model)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' advice to their own developers off the user's screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root, level = logging.getLogger(), logging.getLogger().level
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)


def _trace(request: ExportRequest, path: Path, opset: int) -> None:
    """Trace with torch's TorchScript exporter: the other one returns opset 18 whatever it is asked for."""
    import torch

    spec = request.network.model.preprocessing
    example = torch.zeros(1, spec.channels, spec.height, spec.width)
    try:
        torch.onnx.export(
            request.network.module,
            (example,),
            str(path),
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}} if request.dynamic_batch else None,
            dynamo=False,
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{request.network.model.name}: not expressible in ONNX opset {opset}: {reason}") from error


def without_lone_concats(model: Any) -> Any:
    """Remove concatenations of one tensor, as DenseNet has them: ONNX Runtime 1.10 refuses their quantized form."""
    outputs = {value.name for value in model.graph.output}
    for node in list(model.graph.node):
        if node.op_type == "Concat" and len(node.input) == 1 and node.output[0] not in outputs:
            for other in model.graph.node:
                for index, name in enumerate(other.input):
                    if name == node.output[0]:
                        other.input[index] = node.input[0]
            model.graph.node.remove(node)
    return model


def _as_is(request: ExportRequest, path: Path) -> None:
    """Leave the traced model in float32."""


def _half(request: ExportRequest, path: Path) -> None:
    """Store and compute in float16, with float32 inputs and outputs."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = ONNXModel(convert_float_to_float16(onnx.load(path), keep_io_types=True))
    model.topological_sort()  # the conversion appends the casts of its inputs at the end
    onnx.save(model.model, path)


def _prepare(path: Path) -> Path:
    """Infer shapes and fold what can be folded, as both quantizers want it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(path), str(prepared))
    return prepared


def _static(request: ExportRequest, path: Path) -> None:
    """Quantize weights and activations with ranges from calibration samples, as Q/DQ pairs."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(request.calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.samples, None)
            return None if image is None else {"input": image[None]}

    methods = {
        "min-max": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    extra: dict[str, Any] = {"ActivationSymmetric": request.limits.symmetric}
    if request.percentile is not None:
        extra["CalibPercentile"] = request.percentile
    prepared = _prepare(path)
    signed = request.limits.activations == "int8"
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=request.limits.per_channel,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=methods[request.calibration_method],
        op_types_to_quantize=list(request.limits.quantized) or None,
        extra_options=extra,
    )
    prepared.unlink()


def _dynamic(request: ExportRequest, path: Path) -> None:
    """Quantize weights; activations at run time. ConvInteger kernels want unsigned weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = _prepare(path)
    quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QUInt8)
    prepared.unlink()


CONVERT = {"fp32": _as_is, "fp16": _half, "int8": _static, "int8-dynamic": _dynamic}


def _tidy(model: Any) -> Any:
    """Keep only the operator-set domains that nodes use: ONNX Runtime 1.10 refuses to load the others."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def check_limits(model: Any, request: ExportRequest) -> None:
    """Assert that the opset and IR version are what the target reads; exporters have got both wrong before."""
    limits: Limits = request.limits
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    name = request.network.model.name
    if opset > (limits.opset or opset):
        raise ExportError(f"{name}: the target reads ONNX opset {limits.opset} at most, this file came out as {opset}")
    if model.ir_version > (limits.ir or model.ir_version):
        raise ExportError(f"{name}: the target reads ONNX IR {limits.ir} at most, this file came out as {model.ir_version}")


def _describe(request: ExportRequest, model: Any) -> Exported:
    spec, classes = request.network.model.preprocessing, request.network.model.classes
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    shape = (1, spec.channels, spec.height, spec.width)
    return Exported(
        entry="model.onnx",
        runtime="onnxruntime",
        input=TensorSpec(name="input", shape=shape, dtype="float32", scale=None, zero_point=None),
        output=TensorSpec(name="output", shape=(1, len(classes)), dtype="float32", scale=None, zero_point=None),
        layout="nchw",
        details={"opset": opset, "ir": model.ir_version, "nodes": len(model.graph.node)},
    )
