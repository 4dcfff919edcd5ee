"""Which ONNX operators TensorRT's parser reads, by its version, and with which restrictions.

Facts from onnx-tensorrt's docs/operators.md as it stood for 8.4 (opset 13), 8.5 (opset 17) and 10.15 (opset 24), and
from its docs/Changelog.md for the versions between them: 8.2 is 8.4 less what the changelog adds there, and 11 reads
at least what 10.15 does. A version that the tables leave out counts as the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgebench.errors import ExportError

Version = tuple[int, ...]
OLDEST: Version = (8, 2)
OPSETS: Mapping[Version, int] = {(8, 2): 13, (8, 5): 16, (8, 6): 17, (9, 0): 19, (10, 0): 20}
"""Highest opset to export; 8.5 reads 17, but not LayerNormalization, which torch writes from 17 on."""
READ_SINCE: Mapping[Version, str] = {
    (8, 2): """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
        Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
        Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
        GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity If ImageScaler InstanceNormalization IsNaN LRN LSTM LeakyRelu
        Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean Min Mul Neg NonMaxSuppression Not Or
        PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN RandomUniform RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
        Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
        Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
        """,
    (8, 4): "Shrink Xor",
    (8, 5): """
        GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike Reciprocal RoiAlign Trilu
        """,
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (9, 2): "Hardmax",
    (10, 1): "DeformConv",
    (10, 4): "BlackmanWindow HammingWindow HannWindow",
    (10, 5): "STFT",
    (10, 15): "Attention CastLike Gelu Mish RMSNormalization RotaryEmbedding TensorScatter",
}
NEVER: Version = (1000,)
RESIZE: Mapping[str, tuple[Any, ...]] = {
    "mode": (b"nearest", b"linear"),
    "coordinate_transformation_mode": (
        b"half_pixel",
        b"pytorch_half_pixel",
        b"tf_half_pixel_for_nn",
        b"asymmetric",
        b"align_corners",
    ),
    "antialias": (0,),
}
TYPES = {"FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT32", "INT64", "BOOL"}
NEWER_TYPES = {"BFLOAT16", "UINT8", "INT4", "FLOAT8E4M3FN"}


@dataclass(frozen=True)
class Use:
    """One node, and what is known of its inputs."""

    node: Any
    attributes: Mapping[str, Any]
    constants: Mapping[str, Any]
    """Names of constant tensors, and their initializers where they have one."""
    ranks: Mapping[str, int]

    def constant(self, *indices: int) -> bool:
        """Tell whether these inputs, where there are any, are known when the engine is built."""
        names = [self.node.input[index] for index in indices if index < len(self.node.input)]
        return all(not name or name in self.constants for name in names)

    def rank(self, *ranks: int) -> bool:
        """Tell whether the first input has one of these ranks; an unknown one passes."""
        return self.ranks.get(self.node.input[0], ranks[0]) in ranks

    def outputs(self) -> int:
        """Count the outputs that are used."""
        return sum(bool(name) for name in self.node.output)


@dataclass(frozen=True)
class Rule:
    """What must hold of an operator's uses, from one version on and before another."""

    operators: str
    holds: Callable[[Use], bool]
    what: str
    since: Version = OLDEST
    before: Version = NEVER


def _resize(use: Use) -> bool:
    return all(use.attributes.get(name, known[0]) in known for name, known in RESIZE.items())


def _zero_point(use: Use) -> bool:
    """Tell whether a Q/DQ node is signed, 8 bits wide, and symmetric."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if len(use.node.input) < 3:
        return False  # without a zero point the type is uint8
    found = use.constants.get(use.node.input[2])
    return found is not None and found.data_type == TensorProto.INT8 and not np.any(numpy_helper.to_array(found))


RULES = (
    Rule("Conv ConvTranspose", lambda use: use.constant(1), "needs weights that are constant", before=(8, 5)),
    Rule("Conv ConvTranspose", lambda use: use.rank(4, 5), "needs 2 or 3 spatial dimensions", before=(8, 5)),
    Rule("AveragePool MaxPool", lambda use: use.rank(4, 5), "needs 2 or 3 spatial dimensions"),
    Rule("MaxPool", lambda use: use.outputs() == 1, "has no output of indices"),
    Rule(
        "AveragePool LpPool MaxPool",
        lambda use: set(use.attributes.get("dilations", [1])) == {1},
        "needs dilations of 1",
        since=(10, 0),
    ),
    Rule("LayerNormalization", lambda use: use.outputs() == 1, "has no output but the first"),
    Rule("InstanceNormalization", lambda use: use.constant(1, 2), "needs constant scales and biases", before=(10, 0)),
    Rule("InstanceNormalization", lambda use: use.rank(3, 4, 5), "needs 3 to 5 dimensions", before=(10, 0)),
    Rule("Slice", lambda use: use.constant(3), "needs constant axes", before=(10, 3)),
    Rule("Squeeze Unsqueeze CumSum", lambda use: use.constant(1), "needs constant axes"),
    Rule(
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare",
        lambda use: use.constant(1),
        "needs constant axes",
    ),
    Rule("TopK", lambda use: use.constant(1), "needs a constant K", before=(8, 6)),
    Rule("OneHot", lambda use: use.constant(1), "needs a constant depth"),
    Rule("Einsum", lambda use: b"..." not in use.attributes.get("equation", b""), "has no ellipsis", before=(10, 0)),
    Rule("Resize", _resize, "has modes nearest and linear, without antialiasing, and not every coordinate transformation"),
    Rule("QuantizeLinear DequantizeLinear", _zero_point, "needs int8 with zero point 0"),
)


def parse(version: str) -> Version:
    """Read `8.2` or `10.3.0`; raises `ValueError`."""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){1,3}", version):
        raise ValueError(f"{version!r} is not a version of TensorRT, for instance 8.2")
    return tuple(int(part) for part in version.split("."))


def highest_opset(version: Version) -> int:
    """Find the opset to export for a version."""
    return OPSETS[max(known for known in OPSETS if known <= version)]


def read_by(version: Version) -> frozenset[str]:
    """Find the operators that a version reads."""
    return frozenset(name for since, names in READ_SINCE.items() if since <= version for name in names.split())


def check(model: Any, version: Version, name: str, layers: Collection[str] = ()) -> None:
    """Raise `ExportError` for the first node that this version of TensorRT does not read, with its layer's name.

    `model`: ONNX, shapes inferred; `name`: the model's; `layers`: names of the torch network's modules.
    """
    spoken = ".".join(map(str, version))
    for node, reason, advice in _refused(model, version):
        layer = layer_of(node.name or node.output[0], layers)
        where = f"node {node.name or node.output[0]}" + (f", layer {layer}" if layer else "")
        raise ExportError(f"{name}: TensorRT {spoken} {reason} ({where}); {advice}")


def _refused(model: Any, version: Version) -> Iterator[tuple[Any, str, str]]:
    """Yield each node that is not read, why, and what to do."""
    known, instead = read_by(version), "replace that layer, or choose another format"
    for use in uses(model):
        kind = use.node.op_type
        if use.node.domain not in ("", "ai.onnx") or kind not in known:
            since = next((since for since, names in READ_SINCE.items() if kind in names.split() and not use.node.domain), None)
            newer = f", or a target with TensorRT {'.'.join(map(str, since))} or later" if since else ""
            yield use.node, f"does not read the ONNX operator {kind}", instead + newer
        for rule in RULES:
            if kind in rule.operators.split() and rule.since <= version < rule.before and not rule.holds(use):
                newer = f", or a target with TensorRT {'.'.join(map(str, rule.before))} or later" if rule.before < NEVER else ""
                yield use.node, f"reads the ONNX operator {kind} with a restriction: it {rule.what}", instead + newer
        if wrong := _strange_type(use, version):
            yield use.node, f"has no type {wrong}, to which {kind} leads", instead


def _strange_type(use: Use, version: Version) -> str:
    """Name the type that a cast or an initializer has and TensorRT has not."""
    from onnx import TensorProto

    known = TYPES | NEWER_TYPES if version >= (10, 0) else TYPES
    found = [value.data_type for name in use.node.input if (value := use.constants.get(name)) is not None]
    if use.node.op_type == "Cast":
        found.append(use.attributes["to"])
    return next((word for word in map(TensorProto.DataType.Name, found) if word not in known), "")


def uses(model: Any) -> Iterator[Use]:
    """Walk through a model's nodes, in order; what is made of constants alone is a constant."""
    from onnx import helper

    graph = model.graph
    constants: dict[str, Any] = {value.name: value for value in graph.initializer}
    typed = [*graph.input, *graph.value_info, *graph.output]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in typed if value.type.tensor_type.HasField("shape")}
    for node in graph.node:
        yield Use(node, {item.name: helper.get_attribute_value(item) for item in node.attribute}, constants, ranks)
        if all(not name or name in constants for name in node.input):
            constants.update(dict.fromkeys(node.output))


def layer_of(node: str, layers: Collection[str]) -> str:
    """Find a node's layer by its name: torch writes `/features/features.0/features.0.1/Conv` for `features.0.1`."""
    path: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    if path and ".".join(path) not in layers:
        path[-1] = re.sub(r"_\d+$", "", path[-1])  # a module that is called several times
    while path and ".".join(path) not in layers:
        path.pop()
    return ".".join(path)
