"""`onnx`: fp32, fp16, int8 (static, QDQ), int8-dynamic and mixed, within a target's opset and IR version."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgebench.errors import ExportError
from edgebench.exporters._onnx import mixed, reader, testdata
from edgebench.exporters._shared import calibration, ends, volumes
from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared.limits import SharedLimits
from edgebench.schema import Exported, ExportRequest, Mixer
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "mixed")
CALIBRATES = {"int8": calibration.METHODS, "mixed": calibration.METHODS}
DYNAMIC_BATCH = True
REQUIRES = (("torch", "torch"), ("onnx", "torch"), ("onnxruntime", "torch"))
DEFAULT_OPSET, NEWEST_OPSET = 17, 20


class Limits(SharedLimits):
    """What a runtime reads of ONNX, and which INT8 its kernels want."""

    opset: int | None = Field(None, description="highest operator set")
    ir: int | None = Field(None, description="highest IR version")
    activations: Literal["uint8", "int8"] = Field("int8", description="signedness of INT8 activations")
    per_channel: bool = Field(True, description="one weight scale per output channel")
    weight_bits: Literal[7, 8, "auto"] = Field(
        8, description="of INT8 weights; auto: 7 on x86 without VNNI, whose kernels saturate with 8; else 8"
    )
    symmetric: bool = Field(False, description="INT8 activations have zero point 0")
    quantized: tuple[str, ...] = Field((), description="operators that INT8 quantizes; empty: all that the quantizer knows")


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a file is ONNX, by its content."""
    return path.is_file() and reader.recognizes(path)


def read(path: Path) -> FileDescription:
    """Describe a file that somebody brought."""
    return reader.read(path)


def read_test_data(folder: Path) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Read a folder `test_data_set_0`: inputs and outputs in order, with the names that their files give."""
    return testdata.read(folder)


def beyond(described: FileDescription, limits: Mapping[str, Any]) -> list[str]:
    """List what of a file is newer than a target says that it reads."""
    known = ((key, limits.get(key), described.details.get(key, 0)) for key in ("opset", "ir"))
    words = {"opset": "opset", "ir": "IR version"}
    return [f"has {words[key]} {value}, the target reads {most}" for key, most, value in known if most and value > most]


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")}


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` with the layer's name for what this format cannot express."""
    allow_attention()
    volumes.check(request, "choose fp32")
    if request.precision in ("int8", "mixed"):
        mixed.quantized_types(request)
    preflight_.check_onnx(request, min(request.limits.opset or DEFAULT_OPSET, NEWEST_OPSET))


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.onnx`: batch 1 or any, channels first, real numbers in float32 in and out in every precision."""
    import onnx

    path = folder / "model.onnx"
    opset = min(request.limits.opset or DEFAULT_OPSET, NEWEST_OPSET)
    with quiet():
        trace(request, path, opset)
        onnx.save(without_lone_concats(onnx.load(path)), path)
        CONVERT[request.precision](request, path)
    model = tidy(onnx.load(path))
    check_limits(model, request)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return describe(request, model)


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


def allow_attention() -> None:
    """Let torch write attention in opset 13 as it does from 14 on: TensorRT 8.2 reads all that it consists of."""
    from torch.onnx import symbolic_opset14, utils

    name = "scaled_dot_product_attention"
    utils.register_custom_op_symbolic(f"aten::{name}", getattr(symbolic_opset14, name), 13)


def trace(request: ExportRequest[Limits], path: Path, opset: int) -> None:
    """Trace with torch's TorchScript exporter: the other one returns opset 18 whatever it is asked for."""
    import torch

    allow_attention()
    network = request.network
    inputs, outputs = ends.names(network)
    try:
        torch.onnx.export(
            network.module,
            network.example(),
            str(path),
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=ends.first_axes([*network.model.inputs, *ends.outputs(network)], "batch")
            if request.dynamic_batch
            else None,
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


def _as_is(request: ExportRequest[Limits], path: Path) -> None:
    """Leave the traced model in float32."""


def half(request: ExportRequest[Limits], path: Path) -> None:
    """Store and compute in float16, with float32 inputs and outputs."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = ONNXModel(convert_float_to_float16(onnx.load(path), keep_io_types=True))
    model.topological_sort()  # the conversion appends the casts of its inputs at the end
    onnx.save(model.model, path)


def widen(path: Path, copy: Path) -> None:
    """Write a copy of a float16 file that computes in float32, with the weights as they are rounded."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

    def wide(tensor: Any) -> None:
        if tensor.data_type == half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    def visit(graph: Any) -> None:
        del graph.value_info[:]
        for tensor in graph.initializer:
            wide(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                    attribute.i = single
                if attribute.HasField("t"):
                    wide(attribute.t)
                if attribute.HasField("g"):
                    visit(attribute.g)

    model = onnx.load(path)
    visit(model.graph)
    onnx.save(model, copy)


def prepare(path: Path) -> Path:
    """Infer shapes and fold what can be folded, as both quantizers want it.

    ONNX Runtime's symbolic inference stays out: it stops at vision transformers, whose shapes fold all the same.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    return prepared


def quantize_qdq(request: ExportRequest[Limits], path: Path, excluded: Sequence[str] = (), **options: Any) -> None:
    """Quantize weights and activations with ranges from calibration samples, as Q/DQ pairs.

    Nodes named in `excluded` stay as they are; `options` are the quantizer's own extra options.
    """
    import onnx

    prepared = prepare(path)
    ranges = mixed.activation_ranges(request, prepared, mixed.quantized_types(request))
    onnx.save(mixed.with_pairs(request, prepared, ranges, excluded=excluded, **options), path)
    prepared.unlink()


def quantize_file(request: ExportRequest[Limits], source: Path, folder: Path) -> Path:
    """Write `model.onnx`, a file that somebody brought in static INT8; `request` has its inputs and calibration samples."""
    import onnx

    path = folder / "model.onnx"
    onnx.save(onnx.load(source), path)
    with quiet():
        quantize_qdq(request, path)
        onnx.save(tidy(onnx.load(path)), path)
    return path


def _mix(request: ExportRequest[Limits], path: Path) -> None:
    """Mix precisions as the recipe says; without one every node computes in float32, with int8 weights."""
    mixer = mixed.Mixer(request, prepare(path))
    blocks = (request.recipe or {}).get("blocks", ())
    mixer.write({node: block["choice"] for block in blocks for node in block["nodes"]}, path)
    path.with_name("prepared.onnx").unlink()


def mixer(request: ExportRequest[Limits], folder: Path) -> Mixer:
    """Prepare a network to be written in many mixtures of precision; `folder` holds what they share."""
    import onnx

    path = folder / "model.onnx"
    with quiet():
        trace(request, path, min(request.limits.opset or DEFAULT_OPSET, NEWEST_OPSET))
        onnx.save(without_lone_concats(onnx.load(path)), path)
        return _Tidy(request, prepare(path))


class _Tidy(mixed.Mixer):
    """A mixer whose files end up as exported ones do."""

    def write(self, choices: Mapping[str, str], path: Path) -> None:
        """Write the file, and keep the quantizer quiet."""
        import onnx

        with quiet():
            super().write(choices, path)
            onnx.save(tidy(onnx.load(path)), path)


def _dynamic(request: ExportRequest[Limits], path: Path) -> None:
    """Quantize weights; activations at run time. ConvInteger kernels want unsigned weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = prepare(path)
    quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QUInt8)
    prepared.unlink()


CONVERT = {"fp32": _as_is, "fp16": half, "int8": quantize_qdq, "int8-dynamic": _dynamic, "mixed": _mix}


def tidy(model: Any) -> Any:
    """Keep only the operator-set domains that nodes use: ONNX Runtime 1.10 refuses to load the others."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def check_limits(model: Any, request: ExportRequest[Limits]) -> None:
    """Assert that the opset and IR version are what the target reads; exporters have got both wrong before."""
    limits = request.limits
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    name = request.network.model.name
    if opset > (limits.opset or opset):
        raise ExportError(f"{name}: the target reads ONNX opset {limits.opset} at most, this file came out as {opset}")
    if model.ir_version > (limits.ir or model.ir_version):
        raise ExportError(f"{name}: the target reads ONNX IR {limits.ir} at most, this file came out as {model.ir_version}")


def describe(request: ExportRequest[Limits], model: Any) -> Exported:
    """Say what the file takes and gives."""
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    details: dict[str, Any] = {"opset": opset, "ir": model.ir_version, "nodes": len(model.graph.node)}
    if request.precision in CALIBRATES:
        details["weight_bits"] = request.limits.weight_bits
    return Exported(
        entry="model.onnx",
        runtime="onnxruntime",
        inputs=request.network.model.inputs,
        outputs=ends.outputs(request.network),
        details={**details, "recipe": dict(request.recipe)} if request.recipe else details,
    )
