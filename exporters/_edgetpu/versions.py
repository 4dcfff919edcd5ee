"""Versions of TFLite's operators: what the Edge TPU's compiler knows, and the lowest that an int8 operator needs.

The rules are those of TensorFlow (lite/tools/versioning/op_version.cc), as far as they concern int8 data; what came after
2.5 gets a version that the compiler does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgebench.exporters._edgetpu.graph import Operator, Tensor

BY_VERSION = {
    1: "HARD_SWISH PRELU RESHAPE EXPAND_DIMS",
    2: "DIV SUM LEAKY_RELU QUANTIZE SQUEEZE RSQRT",
    3: "ADD MEAN PAD PADV2 MAX_POOL_2D AVERAGE_POOL_2D SOFTMAX LOGISTIC TANH RELU RELU6 CONCATENATION TRANSPOSE_CONV PACK FILL",
    4: "MUL SPLIT RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR DEQUANTIZE UNPACK BATCH_MATMUL MAXIMUM MINIMUM",
    5: "CONV_2D SUB SLICE STRIDED_SLICE TRANSPOSE",
    6: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
}
HIGHEST = {name: version for version, names in BY_VERSION.items() for name in names.split()}
"""What edgetpu_compiler 16.0 reads; it knows no other operator."""

INT8_IS_2 = {
    *("ADD", "SUM", "MEAN", "MAX_POOL_2D", "AVERAGE_POOL_2D", "SOFTMAX", "LOGISTIC", "TANH", "RELU", "RELU6", "RSQRT"),
    *("CONCATENATION", "PACK", "UNPACK", "BATCH_MATMUL", "DEQUANTIZE", "SPLIT", "SLICE", "STRIDED_SLICE", "TRANSPOSE"),
    *("PAD", "PADV2", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE_CONV", "MAXIMUM", "MINIMUM", "SUB"),
}
ALWAYS_1 = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "HARD_SWISH", "LEAKY_RELU", "PRELU", "QUANTIZE"}
DATA = {"SPLIT": 1, "TRANSPOSE_CONV": 1, "FILL": 1}
"""Operators whose data is not their first input."""


def lowest(operator: Operator) -> int:
    """Return the lowest version that an operator can have; one that the compiler does not know keeps its own."""
    special = RULES.get(operator.name)
    needed = special(operator) if special is not None else 0
    if needed:
        return needed
    if operator.name in INT8_IS_2:
        return 2 if _data(operator).dtype == "int8" else 1
    return 1 if operator.name in {*ALWAYS_1, *RULES} else operator.version


def _data(operator: Operator) -> Tensor:
    tensor = operator.inputs[DATA.get(operator.name, 0)]
    assert tensor is not None
    return tensor


def _rank(operator: Operator) -> int:
    return max(len(tensor.shape) for tensor in operator.inputs if tensor is not None)


def _convolution(operator: Operator) -> int:
    if grouped(operator):
        return 6
    return 3 if _data(operator).dtype == "int8" else 0


def grouped(operator: Operator) -> bool:
    """Return whether a convolution's filters see a part of the channels; weights are [out, h, w, in]."""
    weights = operator.inputs[1] if operator.name == "CONV_2D" else None
    return weights is not None and weights.shape[-1] != _data(operator).shape[-1]


def _depthwise(operator: Operator) -> int:
    dilated = (operator.options.dilationWFactor, operator.options.dilationHFactor) != (1, 1)
    return 3 if _data(operator).dtype == "int8" else 2 if dilated else 1


def _dense(operator: Operator) -> int:
    if len(operator.inputs) == 2:
        return 6
    if operator.options.keepNumDims:
        return 5
    return 4 if _data(operator).dtype == "int8" else 1


def _multiply(operator: Operator) -> int:
    if _data(operator).dtype == "int64":
        return 5
    scales = [tensor.scales for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    if len(scales) == 3 and all(scales) and scales[0][0] * scales[1][0] / scales[2][0] >= 1:
        return 3
    return 2 if _data(operator).dtype == "int8" else 1


def _broadcast(later: int) -> Callable[[Operator], int]:
    """Make the rule of operators that broadcast more than four dimensions in a later version."""

    def rule(operator: Operator) -> int:
        shapes = {tensor.shape for tensor in operator.inputs if tensor is not None}
        return later if len(shapes) > 1 and _rank(operator) > 4 else 0

    return rule


def _rank_over_4(later: int) -> Callable[[Operator], int]:
    return lambda operator: later if len(_data(operator).shape) > 4 else 0


def _transpose(operator: Operator) -> int:
    return 6 if len(_data(operator).shape) > 5 else _rank_over_4(4)(operator)


def _strided(operator: Operator) -> int:
    options = operator.options
    if options.offset:
        return 8
    if options.ellipsisMask or options.newAxisMask:
        return 6
    return 4 if len(_data(operator).shape) > 4 else 0


def _resized(*names: str) -> Callable[[Operator], int]:
    return lambda operator: 3 if any(getattr(operator.options, name, False) for name in names) else 0


def _transposed_convolution(operator: Operator) -> int:
    if operator.options.fusedActivationFunction:
        return 4
    return 3 if len(operator.inputs) == 4 and operator.inputs[3] is not None else 0


def _typed(**versions: int) -> Callable[[Operator], int]:
    """Make the rule of operators whose version is a matter of type alone."""
    return lambda operator: versions.get(_data(operator).dtype, 0)


RULES: dict[str, Callable[[Operator], Any]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MUL": _multiply,
    "ADD": _typed(int64=4),
    "SUB": lambda operator: _typed(int64=4)(operator) or _broadcast(3)(operator),
    "DIV": _broadcast(2),
    "MAXIMUM": _broadcast(3),
    "MINIMUM": _broadcast(3),
    "TRANSPOSE": _transpose,
    "SLICE": _rank_over_4(5),
    "PAD": _rank_over_4(4),
    "PADV2": _rank_over_4(4),
    "STRIDED_SLICE": _strided,
    "RESIZE_BILINEAR": _resized("halfPixelCenters"),
    "RESIZE_NEAREST_NEIGHBOR": _resized("halfPixelCenters", "alignCorners"),
    "TRANSPOSE_CONV": _transposed_convolution,
    "SPLIT": _typed(int32=3),
    "UNPACK": _typed(bool=3, uint8=2),
    "RELU": _typed(uint8=2),
    "FILL": _typed(int8=3, bool=2),
}
