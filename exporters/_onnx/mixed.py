"""ONNX files of mixed precision: which nodes compute in INT8, and small weights for those that do not.

A DequantizeLinear of a constant stays a node of its own in ONNX Runtime, and
its convolution then runs without the fast layouts: four times slower for
MobileNetV3. Cast and Mul of a constant are folded when the file is loaded:
as small, and as fast as float weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench.errors import ExportError
from edgebench.exporters._shared import calibration, learned
from edgebench.schema import Block, ExportRequest

if TYPE_CHECKING:
    from edgebench.exporters.onnx import Limits

WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": -1}
"""Operators with weights, and the axis of their output channels."""
MAX_BLOCKS = 24
SMALLEST = 256
"""Weights of fewer elements stay float32: nodes that unpack them would be larger."""


def name_nodes(model: Any) -> Any:
    """Give nodes without a name, as folding and inlining leave them, one of what they make, or what that goes into."""
    readers = {name: node for node in model.graph.node for name in node.input}
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if not node.name:
            made = node.output[0]
            while not made.startswith("/") and made in readers:
                made = readers[made].output[0]
            name = f"{made}/{node.op_type}"
            node.name = name if name not in taken else f"{node.output[0]}/{node.op_type}"
            taken.add(node.name)
    return model


def activation_ranges(request: ExportRequest[Limits], prepared: Path, kinds: Sequence[str] = ()) -> calibration.Ranges:
    """Choose the range of every float tensor around nodes of these types (empty: of all) from the calibration samples."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    augmented = prepared.with_name("calibrating.onnx")
    tool = create_calibrator(str(prepared), list(kinds) or None, str(augmented), CalibrationMethod.Percentile)
    names = sorted(tool.tensors_to_calibrate)

    inputs, samples = request.network.model.inputs, request.calibration or ()

    def run(index: int) -> dict[str, Any]:
        feed = {each.name: calibration.one(array, index, len(each.shape)) for each, array in zip(inputs, samples, strict=True)}
        return dict(zip(names, tool.infer_session.run(names, feed), strict=True))

    try:
        return calibration.choose(
            request.calibration_method,
            request.percentile,
            lambda: map(run, range(calibration.count(samples))),
            learned.points(request),
        )
    finally:
        augmented.unlink()


def with_pairs(
    request: ExportRequest[Limits],
    prepared: Path,
    ranges: calibration.Ranges,
    nodes: Sequence[str] | None = None,
    excluded: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Put Q/DQ pairs around nodes (None: all that are not excluded), in the style that the target's kernels want."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    limits = request.limits
    known = {name: tuple(np.array(value, np.float32) for value in limit) for name, limit in ranges.items()}
    tool = QDQQuantizer(
        name_nodes(load_model_with_shape_infer(prepared)),
        limits.per_channel,
        limits.weight_bits == 7,
        QuantType.QInt8,
        QuantType.QInt8 if limits.activations == "int8" else QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, known),
        nodes,
        list(excluded),
        quantized_types(request),
        {"ActivationSymmetric": limits.symmetric, **options},
    )
    tool.quantize_model()
    tool.model.topological_sort()
    return tool.model.model


def quantized_types(request: ExportRequest[Limits]) -> list[str]:
    """List the operators that INT8 quantizes: the target's choice, or all that the quantizer knows.

    `ExportError` where the target names one that ONNX does not have.
    """
    from onnx import defs
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    chosen = request.limits.quantized
    unknown = [name for name in chosen if not defs.has(name)]
    if unknown:
        what = f"the target's limits quantize {unknown[0]}, which is no ONNX operator"
        raise ExportError(f"{request.network.model.name}: {what}; names are as in Conv, MatMul, GlobalAveragePool")
    return list(chosen) or sorted({*QDQRegistry, *QLinearOpsRegistry})


class Mixer:
    """A prepared network and its ranges; see `schema.Mixer`."""

    def __init__(self, request: ExportRequest[Limits], prepared: Path) -> None:
        import onnx

        self._request, self._prepared = request, prepared
        self._graph = name_nodes(onnx.load(prepared)).graph
        self._ranges: calibration.Ranges | None = None

    def blocks(self, by: str) -> list[Block]:
        """Divide the graph; every node is in one block."""
        constants = {value.name for value in self._graph.initializer}
        types = set(quantized_types(self._request))
        nodes = [node for node in self._graph.node if node.op_type != "Constant"]
        anchors = {n.name for n in nodes if n.op_type in WEIGHTED and n.op_type in types and constants & set(n.input)}
        groups = _node_groups(nodes, anchors) if by == "node" else _module_groups(nodes, anchors)
        return [
            Block(name, Counter(node.op_type for node in members), tuple(n.name for n in members)) for name, members in groups
        ]

    def write(self, choices: Mapping[str, str], path: Path) -> None:
        """Write the file; ranges are measured when they are first needed."""
        import onnx

        quantized = [name for name, choice in choices.items() if choice == "int8"]
        plain = [name for name, choice in choices.items() if choice == "fp32"]
        if quantized:
            if self._ranges is None:
                self._ranges = activation_ranges(self._request, self._prepared, quantized_types(self._request))
            model = with_pairs(self._request, self._prepared, self._ranges, quantized)
        else:
            model = name_nodes(onnx.load(self._prepared))
        onnx.save(with_small_weights(model, plain), path)


def _node_groups(nodes: Sequence[Any], anchors: Set[str]) -> list[tuple[str, list[Any]]]:
    """Let each node with weights begin a block."""
    groups: list[tuple[str, list[Any]]] = []
    for node in nodes:
        if not groups or (node.name in anchors and anchors & {member.name for member in groups[-1][1]}):
            groups.append((node.name, []))
        if node.name in anchors:
            groups[-1] = (node.name, groups[-1][1])
        groups[-1][1].append(node)
    return groups


def _module_groups(nodes: Sequence[Any], anchors: Set[str]) -> list[tuple[str, list[Any]]]:
    """Group by torch modules, as deep as there are no more than `MAX_BLOCKS`; without modules, in even runs."""
    best = _groups_at(nodes, anchors, 1)
    for depth in range(2, 12):
        deeper = _groups_at(nodes, anchors, depth)
        if len(deeper) > MAX_BLOCKS:
            break
        best = deeper
    if 1 < len(best) <= MAX_BLOCKS or len(anchors) < 2:
        return best
    single = _node_groups(nodes, anchors)
    each = -(-len(single) // MAX_BLOCKS)
    runs = [single[start : start + each] for start in range(0, len(single), each)]
    return [(run[0][0], [node for _, members in run for node in members]) for run in runs]


def _groups_at(nodes: Sequence[Any], anchors: Set[str], depth: int) -> list[tuple[str, list[Any]]]:
    """Group by the first parts of the nodes' names; what holds no weights joins the block before it."""
    members: dict[str, list[Any]] = {}
    for node in nodes:
        members.setdefault("/".join(node.name.strip("/").split("/")[:-1][:depth]), []).append(node)
    groups: list[tuple[str, list[Any]]] = []
    for name, found in members.items():
        if groups and not any(node.name in anchors for node in found):
            groups[-1][1].extend(found)
        elif groups and not any(node.name in anchors for node in groups[-1][1]):
            groups[-1] = (name, [*groups[-1][1], *found])
        else:
            groups.append((name, found))
    return groups


def with_small_weights(model: Any, plain: Collection[str]) -> Any:
    """Store the weights of float nodes as int8 with a scale a channel; nodes named in `plain` keep theirs."""
    graph, kept = model.graph, set(plain)
    takers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    unpacked: list[Any] = []
    for weight in list(graph.initializer):
        users = takers.get(weight.name, [])
        axes = {WEIGHTED[n.op_type] for n in users if n.op_type in WEIGHTED and list(n.input).index(weight.name) == 1}
        if len(axes) == 1 and all(n.op_type in WEIGHTED and n.name not in kept for n in users) and _is_large(weight):
            unpacked += _packed(graph, weight, _channel_axis(users[0], axes.pop()))
    nodes = [*unpacked, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _is_large(weight: Any) -> bool:
    import onnx

    return bool(weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1 and np.prod(weight.dims) >= SMALLEST)


def _channel_axis(node: Any, axis: int) -> int:
    """Return the axis of the output channels; Gemm may take its weights the other way round."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 1 if node.op_type == "Gemm" and not transposed else axis


def _packed(graph: Any, weight: Any, axis: int) -> list[Any]:
    """Replace float weights by int8 ones and their scales; returns the nodes that unpack them."""
    from onnx import TensorProto, helper, numpy_helper

    values = numpy_helper.to_array(weight)
    others = tuple(index for index in range(values.ndim) if index != axis % values.ndim)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.float32(1e-30))
    whole = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
    name = weight.name
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(whole, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
    return [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], f"{name}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name], f"{name}/Mul"),
    ]
