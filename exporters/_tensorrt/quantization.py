"""INT8 as TensorRT wants it: Q/DQ nodes where they fuse, or a calibration cache."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgebench.exporters import onnx as shared
from edgebench.exporters._onnx import mixed
from edgebench.exporters._shared.calibration import Ranges
from edgebench.exporters.onnx import Limits
from edgebench.schema import ExportRequest

FUSES = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
"""Their inputs are quantized; max pooling lets Q/DQ through, and the rest is faster or better in FP16."""
INTEGER_WEIGHTS = (10,)


def add_pairs(request: ExportRequest[Limits], path: Path, version: tuple[int, ...]) -> None:
    """Put Q/DQ pairs before what runs in INT8: weights per channel, activations per tensor, biases left alone.

    Only inputs are quantized, so that what follows a convolution (ReLU, the
    residual's addition) still fuses with it; see TensorRT's guide to explicit
    quantization, Q/DQ placement. Parsers before 10 stop at int8 weights
    ("invalid weights type of Int8"): there the pair stands behind float32 ones.
    """
    import onnx

    options = {
        "QuantizeBias": False,  # int32 DequantizeLinear is not read
        "AddQDQPairToWeight": version < INTEGER_WEIGHTS,
        "OpTypesToExcludeOutputQuantization": list(request.limits.quantized),
    }
    shared.quantize_qdq(request, path, plain_additions(onnx.load(path)), **options)
    model = onnx.load(path)
    _free_branches(model)
    onnx.save(model, path)


def plain_additions(model: Any) -> list[str]:
    """List additions that are no residual's: none of their inputs comes straight from a convolution, or one is constant."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    constants = {value.name for value in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Add" and (constants & set(node.input) or not any(makers.get(name) == "Conv" for name in node.input))
    ]


def _free_branches(model: Any) -> None:
    """Take the pair out between the last convolution of a residual's branch and the addition: both are one kernel then."""
    makers = {name: node for node in model.graph.node for name in node.output}
    takers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    for addition in [node for node in model.graph.node if node.op_type == "Add"]:
        for index, name in enumerate(addition.input):
            pair = _pair_after_convolution(name, makers, takers)
            if pair:
                addition.input[index] = pair[0].input[0]
                for node in pair:
                    model.graph.node.remove(node)
                break
    used = {name for node in model.graph.node for name in node.input}
    kept = [value for value in model.graph.initializer if value.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _pair_after_convolution(name: str, makers: Mapping[str, Any], takers: Mapping[str, list[Any]]) -> list[Any]:
    """Find the Q and DQ nodes that lie between a convolution and `name`, where nothing else hangs on them."""
    back = makers.get(name)
    if back is None or back.op_type != "DequantizeLinear" or len(takers[name]) > 1:
        return []
    forth = makers.get(back.input[0])
    if forth is None or len(takers[back.input[0]]) > 1 or len(takers[forth.input[0]]) > 1:
        return []
    source = makers.get(forth.input[0])
    return [forth, back] if source is not None and source.op_type == "Conv" else []


def write_cache(request: ExportRequest[Limits], path: Path, cache: Path, version: tuple[int, ...]) -> Ranges:
    """Write the scale of each activation as TensorRT keeps it: a line of the tensor's name and float32 in hexadecimal.

    TensorRT takes a cache only where the first line has its own version
    number: a device with another one writes its own there. Returns the ranges.
    """
    number = version[0] * (1000 if version < (10,) else 10000) + version[1] * 100 + (*version, 0)[2]
    lines, ranges = [f"TRT-{number}-EntropyCalibration2"], mixed.activation_ranges(request, path)
    for name, (low, high) in sorted(ranges.items()):
        scale = max(abs(low), abs(high)) / 127
        lines.append(f"{name}: {struct.pack('>f', scale or 1.0).hex()}")
    cache.write_text("\n".join(lines) + "\n")
    return ranges


def simulation(request: ExportRequest[Limits], path: Path, ranges: Ranges) -> Callable[[Any], Any]:
    """Return what computes about as an engine with these ranges does: the file with Q/DQ pairs, on ONNX Runtime.

    Which layers the builder really takes INT8 for is its own choice; here it is all that it likes to.
    """

    def evaluate(inputs: Any) -> Any:
        import numpy as np
        import onnxruntime

        with shared.quiet():
            model = mixed.with_pairs(request, path, ranges, QuantizeBias=False, AddQDQPairToWeight=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )  # this processor's kernels may saturate
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        name = request.network.model.image.name
        return np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])

    return evaluate
