"""A TFLite file as the Edge TPU's compiler sees it: operators, tensors, the layers that they come from, and their MACs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CUSTOM_OP = "edgetpu-custom-op"
"""What the compiler puts in the place of all that runs on the Edge TPU."""
COMPONENT = re.compile(r"(?:^|\.)_*[^_./]+_([^./]+)$")
"""How torch's layers stand in the names of tensors: `torch.nn.modules.conv.Conv2d_conv1`."""


@dataclass(frozen=True)
class Tensor:
    """One tensor; activations have no content."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_point: int
    constant: bool
    dynamic: bool


@dataclass(frozen=True)
class Operator:
    """One operator; inputs that are left out are None."""

    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any

    @property
    def layer(self) -> str:
        """Name the layer of the user's model that it comes from, as far as the file tells."""
        tensors = [*self.outputs, *(tensor for tensor in self.inputs if tensor is not None and tensor.constant)]
        return next(filter(None, (layer_of(tensor.name) for tensor in tensors)), self.outputs[0].name)

    @property
    def key(self) -> tuple[str, str]:
        """Tell it from the others in a file that was made of this one."""
        return self.name, self.outputs[0].name


@dataclass(frozen=True)
class Graph:
    """The first of a file's subgraphs, in the order of execution."""

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    subgraphs: int


def layer_of(name: str) -> str:
    """Turn a tensor's name into that of a torch layer: `features.0.1`; empty where there is none in it.

    Of tensors that were fused the last name counts: it is the layer that computes.
    """
    for part in reversed(name.split(";")):
        _, inside, path = part.partition("_wrapped/")
        names = [COMPONENT.search(step) for step in _steps(path)] if inside else []
        if names and all(names):
            return ".".join(found[1] for found in names if found)
    return ""


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step]


def read(content: bytes) -> Graph:
    """Read a flatbuffer; raises what the flatbuffers package raises where it is none."""
    from ai_edge_litert import schema_py_generated as schema

    return graph_of(schema.ModelT.InitFromPackedBuf(content, 0))


def graph_of(model: Any) -> Graph:
    """Describe the first subgraph of an unpacked model."""
    graph = model.subgraphs[0]
    tensors = [_tensor(tensor, model.buffers) for tensor in graph.tensors]
    codes = [(operator_name(code), code.version) for code in model.operatorCodes]
    return Graph(
        tuple(_operator(operator, codes, tensors) for operator in graph.operators),
        tuple(tensors[index] for index in graph.inputs),
        tuple(tensors[index] for index in graph.outputs),
        len(model.subgraphs),
    )


def operator_name(code: Any) -> str:
    """Name an operator code; a custom operator has a name of its own."""
    from ai_edge_litert import schema_py_generated as schema

    if code.customCode:
        return str(code.customCode.decode())
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    return str(names.get(number, f"operator {number}"))


def _operator(operator: Any, codes: Sequence[tuple[str, int]], tensors: Sequence[Tensor]) -> Operator:
    name, version = codes[operator.opcodeIndex]
    return Operator(
        name,
        version,
        tuple(tensors[index] if index >= 0 else None for index in operator.inputs),
        tuple(tensors[index] for index in operator.outputs),
        operator.builtinOptions,
    )


def _tensor(tensor: Any, buffers: Sequence[Any]) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    buffer, quantization = buffers[tensor.buffer], tensor.quantization
    scales = () if quantization is None or quantization.scale is None else tuple(float(scale) for scale in quantization.scale)
    points: Any = () if quantization is None or quantization.zeroPoint is None else quantization.zeroPoint
    shape: tuple[int, ...] = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    signature: tuple[int, ...] = () if tensor.shapeSignature is None else tuple(int(size) for size in tensor.shapeSignature)
    return Tensor(
        tensor.name.decode() if tensor.name else "",
        shape,
        types[tensor.type].lower(),
        scales,
        int(points[0]) if len(points) else 0,
        buffer.data is not None and len(buffer.data) > 0,
        -1 in (*shape, *signature),
    )


def outside(model: Any) -> Iterator[Any]:
    """Find buffers whose content lies behind the flatbuffer."""
    return (buffer for buffer in model.buffers if buffer.offset > 1 or buffer.size > 1)


def macs(operator: Operator) -> int:
    """Count the multiply-accumulates of an operator from its shapes; what multiplies no matrices has none.

    Weights are [out, h, w, in] for convolutions, [1, h, w, out] for depthwise ones, [out, in] for dense layers.
    """
    weights = operator.inputs[1].shape if len(operator.inputs) > 1 and operator.inputs[1] is not None else ()
    results = math.prod(operator.outputs[0].shape)
    if operator.name in ("CONV_2D", "FULLY_CONNECTED"):
        return results * math.prod(weights[1:])
    if operator.name == "DEPTHWISE_CONV_2D":
        return results * math.prod(weights[1:3])
    if operator.name == "TRANSPOSE_CONV" and operator.inputs[2] is not None:
        return math.prod(operator.inputs[2].shape) * math.prod(weights[:3])
    if operator.name == "BATCH_MATMUL" and operator.inputs[0] is not None:
        return results * operator.inputs[0].shape[-2 if operator.options.adjX else -1]
    return 0
