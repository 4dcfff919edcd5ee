"""Small ONNX files of odd forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)


def weights(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    """Make an initializer with random numbers."""
    values = RANDOM.normal(size=shape) if np.dtype(dtype).kind == "f" else RANDOM.integers(-100, 100, shape)
    return numpy_helper.from_array(values.astype(dtype), name)


def write(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: list[Any] = [], **more: Any) -> Path:  # noqa: B006
    """Write a file; `more`: opset, ir, metadata, domains, functions."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", more.get("opset", 17)), *(helper.make_opsetid(each, 1) for each in more.get("domains", ()))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=more.get("ir", 8))
    helper.set_model_props(model, more.get("metadata", {}))
    onnx.save(model, path)
    return path


def value(name: str, *shape: Any, dtype: int = TensorProto.FLOAT) -> Any:
    """Describe an input or output."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def linear(path: Path, given: list[Any] | None = None, dtype: Any = np.float32, **more: Any) -> Path:
    """Write y = x W, x [batch, 4], y [batch, 3]."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "head")
    inputs = given or [value("x", "batch", 4)]
    return write(path, [node], inputs, [value("y", "batch", 3)], [weights("w", 4, 3, dtype=dtype)], **more)


def convolution(path: Path, shape: tuple[Any, ...] = (1, 3, 8, 8), classes: int = 10, **more: Any) -> Path:
    """Write a small classifier of images, channels first."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["scores"], "flat"),
    ]
    given = [weights("w", classes, int(shape[1]), 3, 3)]
    return write(path, nodes, [value("images", *shape)], [value("scores", shape[0], classes)], given, **more)
