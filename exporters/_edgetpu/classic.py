"""TFLite files as TensorFlow 2.5 wrote them, and what the Edge TPU's compiler would refuse in one."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any

from edgebench.errors import ExportError
from edgebench.exporters._edgetpu.graph import Graph, Operator, Tensor, graph_of
from edgebench.exporters._edgetpu.versions import HIGHEST, grouped, lowest

LAST_SHORT_CODE = 126
"""Operators with higher codes stand in `builtin_code` alone, which files before TensorFlow 2.4 do not have."""
PER_CHANNEL = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1}
"""Operators that read a scale for each output channel, and which of their inputs has them."""
NEWER = {"quantizedBiasType": 0, "quantSpec": None, "asymmetricQuantizeInputs": False}
"""Options that came later, or say nothing here, and their neutral values."""
INSTEAD = {
    "GELU": "train it with ReLU or ReLU6 in its place",
    "HARD_SWISH": "train it with ReLU6 in its place, as the minimalistic MobileNetV3 has it",
    "LEAKY_RELU": "train it with ReLU in its place",
    "RELU6": "train it with ReLU in its place, or right behind a convolution",
    "SQUARED_DIFFERENCE": "train it with BatchNorm2d in place of LayerNorm",
    "BROADCAST_TO": "train it with BatchNorm2d in place of GroupNorm",
    "EXP": "train it with ReLU or ReLU6 in its place",
}
UNGROUPED = "train it with one group, or as many groups as channels"


def classic(content: bytes) -> bytes:
    """Drop what is newer than TensorFlow 2.5, and give every operator the lowest version that fits; weights stay inside."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.signatureDefs = model.metadata = model.metadataBuffer = None
    model.externalBufferGroups = model.externalBuffers = None
    model.description = b"edgebench"
    for graph in model.subgraphs:
        graph.debugMetadataIndex = -1
        for tensor in graph.tensors:
            tensor.hasRank, tensor.variantTensors, tensor.externalBuffer = False, None, 0
        for operator in graph.operators:
            _neutral(operator, graph.tensors)
    _renumber(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _neutral(operator: Any, tensors: list[Any]) -> None:
    """Leave newer options out; a dense layer of two dimensions need not keep their number."""
    operator.debugMetadataIndex, operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize = -1, 0, 0
    options = operator.builtinOptions
    for name, value in NEWER.items():
        if hasattr(options, name):
            setattr(options, name, value)
    if getattr(options, "keepNumDims", False):
        options.keepNumDims = any(len(tensors[index].shape) != 2 for index in (operator.inputs[0], operator.outputs[0]))
    if type(options).__name__ == "TransposeConvOptionsT" and _clips(tensors[operator.outputs[0]], options):
        options.fusedActivationFunction = 0  # TensorFlow 2.5 has none here, and this one needs none


def _clips(tensor: Any, options: Any) -> bool:
    """Return whether the range of an int8 tensor alone makes all of the activation in an operator's options."""
    from ai_edge_litert import schema_py_generated as schema

    names = schema.ActivationFunctionType
    low, high = {names.RELU: (0.0, math.inf), names.RELU6: (0.0, 6.0)}.get(options.fusedActivationFunction, (math.inf, 0.0))
    if tensor.type != schema.TensorType.INT8:
        return False
    scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    return scale * (-128 - zero) >= low and scale * (127 - zero) <= high + scale / 2


def _renumber(model: Any) -> None:
    """Write each operator code with the highest version that one of its operators needs, and the code where 2.3 has it."""
    names = [operator.opcodeIndex for operator in model.subgraphs[0].operators]
    needed: dict[int, int] = {}
    for index, operator in zip(names, graph_of(model).operators, strict=True):
        needed[index] = max(needed.get(index, 1), lowest(operator))
    for index, code in enumerate(model.operatorCodes):
        code.version = needed.get(index, 1)
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, LAST_SHORT_CODE + 1)


# ---------------------------------------------------------------- what would be refused


def check(model: str, graph: Graph, limits: Mapping[str, int]) -> None:
    """Raise `ExportError` for the first thing that the compiler would refuse, with the operator, its version and layer.

    `limits`: highest version of each operator, `*` for any end of a name; empty: those of edgetpu_compiler 16.0.
    """
    if graph.subgraphs != 1:
        raise ExportError(f"{model}: the file has {graph.subgraphs} subgraphs, the Edge TPU takes one: leave control flow out")
    for what, tensor in (("input", graph.inputs[0]), ("output", graph.outputs[0])):
        if tensor.dtype not in ("int8", "uint8") or len(tensor.scales) != 1:
            raise ExportError(f"{model}: its {what} is {tensor.dtype}, the Edge TPU takes int8 alone")
        if tensor.shape[:1] != (1,):
            raise ExportError(f"{model}: its {what} has shape {list(tensor.shape)}, the Edge TPU takes batch 1 alone")
    found = [(operator, wrong) for operator in graph.operators if (wrong := _wrong(operator, limits))]
    found.sort(key=lambda pair: pair[0].name in ("QUANTIZE", "DEQUANTIZE"))  # they merely stand around what is wrong
    if found:
        operator, wrong = found[0]
        names = list(dict.fromkeys(f"{other.name} at {other.layer}" for other, _ in found))[1:]
        more = f"; {len(names)} more, the next {names[0]}" if names else ""
        raise ExportError(f"{model}: {operator.layer}: {operator.name} version {operator.version} {wrong}{more}")


def _wrong(operator: Operator, limits: Mapping[str, int]) -> str:
    """Say what is wrong with one operator, and what to do; empty: nothing."""
    highest = known(operator.name, limits)
    instead = UNGROUPED if grouped(operator) else INSTEAD.get(operator.name, "choose another architecture")
    if highest == 0:
        return f"is no operator that the Edge TPU's compiler knows; {instead}"
    if operator.version > highest:
        return f"is beyond the Edge TPU's compiler, which knows version {highest} at most; {instead}"
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    if any(tensor.dynamic for tensor in tensors):
        return "has a size that is not fixed; the Edge TPU takes static shapes alone"
    if any(tensor.dtype.startswith("float") for tensor in tensors):
        return f"computes in floating point, the quantizer has no int8 form of it; {instead}"
    if any(_many_scales(operator)):
        return "has a scale for each channel, which TensorFlow 2.5 reads for convolutions alone"
    return ""


def _many_scales(operator: Operator) -> Iterator[Tensor]:
    """Find tensors that are quantized per channel where one scale is read; biases are int32 and never read."""
    for place, tensor in enumerate(operator.inputs):
        if tensor is not None and len(tensor.scales) > 1 and tensor.dtype == "int8" and PER_CHANNEL.get(operator.name) != place:
            yield tensor


def known(name: str, limits: Mapping[str, int]) -> int:
    """Return the highest version of an operator that the compiler knows, 0 for none."""
    if not limits:
        return HIGHEST.get(name, 0)
    patterns = [pattern for pattern in limits if fnmatch.fnmatchcase(name, pattern)]
    return limits[max(patterns, key=len)] if patterns else 0
