"""`edgetpu`: int8, for Google Coral's Edge TPU, compiled by edgetpu_compiler from a TFLite file as TensorFlow 2.5 wrote them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from pydantic import Field

from edgebench.errors import ExportError, MissingTool
from edgebench.exporters import tflite
from edgebench.exporters._edgetpu import compiler
from edgebench.exporters._edgetpu.classic import INSTEAD, UNGROUPED, check, classic, known
from edgebench.exporters._edgetpu.graph import CUSTOM_OP, Graph, Tensor, read
from edgebench.exporters._edgetpu.placement import placement
from edgebench.exporters._shared import ends, volumes
from edgebench.exporters._shared.tracing import Cached, Call, exported, exported_calls, refusal
from edgebench.schema import Exported, ExportRequest, TensorSpec

PRECISIONS = ("int8",)
CALIBRATES = {"int8": tflite.CALIBRATES["int8"]}
DYNAMIC_BATCH = False
REQUIRES = tflite.REQUIRES
RUNTIME = "14"
"""Version of the Edge TPU's runtime that libedgetpu 16.0 has."""
BECOMES = {
    **tflite.BECOMES,
    "aten::gelu": "GELU",
    "aten::layer_norm": "SQUARED_DIFFERENCE",
    "aten::group_norm": "BROADCAST_TO",
    "aten::softsign": "ABS",
    "aten::where": "SELECT",
    "aten::amax": "REDUCE_MAX",
    "aten::flip": "REVERSE_V2",
    **{f"aten::{name}": name.upper() for name in ("abs", "exp", "log", "sin", "cos", "sqrt", "sign", "cumsum")},
    **{f"aten::{name}": name.upper() for name in ("floor", "ceil", "round")},
    **dict.fromkeys(("aten::elu", "aten::selu", "aten::celu", "aten::mish", "aten::softplus", "aten::log_softmax"), "EXP"),
}
"""Operators of torch that litert-torch writes with one that the compiler does not know (tried with litert-torch 0.10)."""
GROUPED_VERSION = 6
FLOATING = {"aten::leaky_relu": "LEAKY_RELU"}
"""Those that ai-edge-quantizer leaves in floating point (tried with 0.10)."""


class Limits(tflite.Limits):
    """What the compiler knows of TFLite's operators, and the runtime on the device."""

    version: str | None = Field(None, description="of the Edge TPU's runtime that must run the file, for instance 14")


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like; the compiler's only where there is one."""
    try:
        return {**tflite.tools(), compiler.NAME: compiler.version(compiler.find())}
    except MissingTool:
        return tflite.tools()


def missing() -> str:
    """Say what is missing here besides Python modules; empty: nothing."""
    try:
        found = compiler.find()
        if not found.image:  # a container may have to be fetched first
            compiler.version(found)
    except MissingTool as error:
        return str(error)
    return ""


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` with the layer's name for what the compiler would refuse, `MissingTool` where it is not there."""
    name, runtime = request.network.model.name, request.limits.version
    if runtime is not None and not runtime.isdecimal():
        raise ExportError(f"{name}: limits.version of the target is {runtime!r}; an Edge TPU runtime's is a number like 14")
    volumes.check(request, "choose tflite fp32, on the processor", "the Edge TPU's compiler", ())
    tflite.preflight(request)
    for call, node in exported_calls(exported(Cached(request.network))):
        operator = BECOMES.get(call.operator, "")
        if operator and known(operator, request.limits.operators) == 0:
            what = f"{call.operator} becomes {operator}, which is no operator that the Edge TPU's compiler knows"
            raise refusal(request, call.place, what, INSTEAD.get(operator, "replace the layer"))
        if _in_groups(call, node) and known("CONV_2D", request.limits.operators) < GROUPED_VERSION:
            what = f"{call.operator} in groups becomes CONV_2D version {GROUPED_VERSION}, beyond the Edge TPU's compiler"
            raise refusal(request, call.place, what, UNGROUPED)
        if call.operator in FLOATING:
            what = f"{call.operator}: the quantizer has no int8 form of {FLOATING[call.operator]}, the Edge TPU takes no other"
            raise refusal(request, call.place, what, INSTEAD[FLOATING[call.operator]])
    compiler.version(compiler.find())


def _in_groups(call: Call, node: Any) -> bool:
    """Return whether a layer is a convolution in groups of several channels; weights are [out, in, h, w]."""
    if call.operator != "aten::conv2d":
        return False
    given, weights = (argument.meta["val"].shape for argument in node.args[:2])
    return bool(1 < weights[1] < given[1])


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.tflite` (int8, batch 1, all weights inside) and `model_edgetpu.tflite`, compiled from it."""
    name, runtime = request.network.model.name, request.limits.version or RUNTIME
    content = classic(tflite.converted(request, dense_per_channel=False))
    graph = read(content)
    check(name, graph, request.limits.operators)
    path = folder / "model.tflite"
    path.write_bytes(content)
    written, log, searched = compiler.compile_file(path, runtime, name, graph)
    compiled = _compiled(name, written, graph)
    found = placement(graph, compiled, log)
    if not found.mapped or all(operator.name != CUSTOM_OP for operator in compiled.operators):
        rows = "; ".join(f"{row.operator} at {row.layer}: {row.status}" for row in found.cpu[:3])
        raise ExportError(f"{name}: edgetpu_compiler maps no operator to the Edge TPU ({rows or 'it does not say why'})")
    taken = [_spec(tensor) for tensor in graph.inputs]
    inputs = [taken[place] for place in tflite.arguments([each.name for each in taken])]
    return Exported(
        entry=written.name,
        runtime="edgetpu",
        inputs=ends.as_written(request.network.model.inputs, inputs),
        outputs=tuple(map(_spec, graph.outputs)),
        details={
            "operators": sorted({f"{operator.name} v{operator.version}" for operator in graph.operators}),
            "nodes": len(graph.operators),
            "compiler": log.version,
            "edgetpu_runtime": runtime,
            **({"search": True} if searched else {}),
        },
        placement=found,
        host=("tflite", path.name),
    )


def _compiled(name: str, path: Path, source: Graph) -> Graph:
    """Read the compiled file back; its input and output must be the source's."""
    try:
        graph = read(path.read_bytes())
    except (struct.error, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ExportError(f"{name}: edgetpu_compiler wrote no TFLite file; compile again") from error
    for before, after in ((source.inputs, graph.inputs), (source.outputs, graph.outputs)):
        ends = [(tensor.shape, tensor.dtype, tensor.scales, tensor.zero_point) for tensor in (*before, *after)]
        if len(set(ends)) != 1:
            raise ExportError(f"{name}: edgetpu_compiler changed the file's input or output; edgebench cannot feed such a file")
    return graph


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(
        name=tensor.name, shape=tensor.shape, dtype=tensor.dtype, scale=tensor.scales[0], zero_point=tensor.zero_point
    )
