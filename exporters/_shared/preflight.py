"""What a format cannot express, found before the long work: each refusal names the layer in the user's model.

A format's converter is asked what it knows, operator by operator, on a trace of
the network; nothing is converted but to ONNX, where that takes a second or two.
"""

from __future__ import annotations

import io
import linecache
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgebench.errors import ExportError
from edgebench.exporters._shared import ends
from edgebench.exporters._shared.batch import check_batch
from edgebench.exporters._shared.forward import check_forward, check_numbers
from edgebench.exporters._shared.tracing import (
    Cached,
    Call,
    Place,
    exported,
    exported_calls,
    place_of,
    reason,
    refusal,
    silent,
    spec_text,
    traced_calls,
)
from edgebench.schema import ExportRequest, Limits

if TYPE_CHECKING:
    from edgebench.exporters.onnx import Limits as OnnxLimits

Known = Callable[[str], str | None]
"""Operator (`aten::hardswish`) → None, or why a converter cannot take it."""
LOWEST_OPSET, NEWEST_OPSET = 7, 20
"""What torch's TorchScript exporter writes."""
QDQ_OPSET, PER_CHANNEL_OPSET, DYNAMIC_OPSET = 10, 13, 11
"""Where ONNX got QuantizeLinear, its `axis`, and DynamicQuantizeLinear."""
FLOAT_ONLY = {
    *("aten::_convolution", "aten::conv2d", "aten::avg_pool2d", "aten::adaptive_avg_pool2d", "aten::instance_norm"),
    *("aten::group_norm", "aten::gelu", "aten::hardsigmoid", "aten::hardswish"),
    *("aten::upsample_nearest2d", "aten::upsample_bilinear2d", "aten::upsample_bicubic2d"),
}
"""Operators that ONNX Runtime has no float64 kernels for on processors (tried with 1.31)."""


def check(request: ExportRequest[Limits], known: Known, tracer: str = "export") -> None:
    """Refuse the first operator that a converter does not know.

    `tracer` is what the converter itself reads: `export` (torch.export) or `jit`
    (torch.jit.trace). Raises `ExportError` too where the network cannot be traced.
    """
    check_runs(request)
    for call in _calls(request, tracer):
        wrong = known(call.operator)
        if wrong is not None:
            raise refusal(request, call.place, f"{call.operator} {wrong}")


def _calls(request: ExportRequest[Limits], tracer: str) -> Iterator[Call]:
    if tracer == "export":
        return (call for call, _ in exported_calls(_exported(request)))
    return (call for call, _ in traced_calls(request.network))


@lru_cache(maxsize=1)
def _first_run(cached: Cached) -> Exception | None:
    import torch

    try:
        with silent(), torch.no_grad():
            cached.network.module(*cached.network.example())
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError) as error:
        return error
    return None


def check_runs(request: ExportRequest[Limits]) -> None:
    """Refuse an input that the network cannot take, for instance one too small for its pooling, and what no file can hold."""
    error = _first_run(Cached(request.network))
    if error is not None:
        what = f"an input of {spec_text(request)} does not fit it: {reason(error)}"
        raise refusal(request, place_of(error, request.network), what, "choose another input size, or mend the layer") from error
    check_forward(request)


# ---------------------------------------------------------------- torch


def check_torch(request: ExportRequest[Limits]) -> None:
    """Refuse what `torch.export` cannot follow."""
    check_runs(request)
    if request.dynamic_batch:
        check_batch(request)
    _exported(request, request.dynamic_batch)


def _exported(request: ExportRequest[Limits], dynamic_batch: bool = False) -> Any:
    import torch
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    network = request.network
    try:
        return exported(Cached(network), dynamic_batch)
    except GuardOnDataDependentSymNode as error:
        place = place_of(error, network)
        what = f"what it does next depends on the data{_code(error, place)}, and a file follows one way alone"
        raise refusal(request, place, what, "compute both ways and choose with torch.where") from error
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, torch._dynamo.exc.UserError) as error:
        what = f"torch.export cannot follow it: {reason(error)}"
        raise refusal(request, place_of(error, network), what, "rewrite the layer without what is named") from error


def _code(error: BaseException, place: Place) -> str:
    """Quote the user's line that an error came through."""
    import traceback

    name, _, number = place.line.rpartition(":")
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    text = next((linecache.getline(file, int(number)).strip() for file in files if name and file.endswith(name)), "")
    return f" (`{text}`)" if text else ""


# ---------------------------------------------------------------- ONNX


def check_onnx(request: ExportRequest[OnnxLimits], opset: int) -> None:
    """Refuse what torch's TorchScript exporter has no ONNX for, in this opset."""
    check_opset(request, opset)
    check_runs(request)
    check_numbers(request)
    if request.dynamic_batch:
        check_batch(request)
    error, doubles = _convert(Cached(request.network), opset, request.dynamic_batch)
    if error is None:
        return _check_doubles(request) if doubles else None
    place, operator = _blamed(request, error, opset)
    known_from = _known_from(operator, opset)
    if known_from:
        what = f"{operator} is known from opset {known_from} on, {_whose(request, opset)}"
        raise refusal(request, place, what, f"replace the layer, or choose a target that reads opset {known_from}") from error
    name = operator or "it"
    what = f"{name} has no ONNX form in opset {opset}" if _is_unknown(operator, opset) else f"{name}: {reason(error)}"
    raise refusal(request, place, what) from error


def _check_doubles(request: ExportRequest[Limits]) -> None:
    """Refuse float64 where ONNX Runtime computes with float32 alone."""
    for call, node in traced_calls(request.network):
        if call.operator in FLOAT_ONLY and next(node.inputs()).type().scalarType() == "Double":
            what = f"{call.operator} on float64, which ONNX Runtime does not compute"
            raise refusal(request, call.place, what, "keep the layer and its input in float32")


def check_opset(request: ExportRequest[OnnxLimits], opset: int) -> None:
    """Refuse an opset that is lower than the exporter writes, or than the precision needs."""
    name, limits = request.network.model.name, request.limits
    reads = f"the target reads ONNX opset {opset}"
    if opset < LOWEST_OPSET:
        raise ExportError(f"{name}: {reads}, torch writes {LOWEST_OPSET} to {NEWEST_OPSET}; choose a target with a newer runtime")
    pairs = PER_CHANNEL_OPSET if limits.per_channel else QDQ_OPSET
    wanted = {"int8": pairs, "mixed": pairs, "int8-dynamic": DYNAMIC_OPSET}
    lowest = wanted.get(request.precision, 0)
    if opset < lowest:
        channels = " (per channel)" if lowest == PER_CHANNEL_OPSET else ""
        raise ExportError(
            f"{name}: {reads}, {request.precision}{channels} needs {lowest}; choose fp32, or a target with a newer runtime"
        )


@lru_cache(maxsize=2)
def _convert(cached: Cached, opset: int, dynamic_batch: bool) -> tuple[Exception | None, bool]:
    """Convert the graph without its weights, which takes a second or two; returns what went wrong, and if float64 is in it."""
    import torch

    network, buffer = cached.network, io.BytesIO()
    inputs, outputs = ends.names(network)
    both = [*network.model.inputs, *ends.outputs(network)]
    convert: Any = torch.onnx.export  # its types know no buffers
    try:
        with silent():
            convert(
                network.module,
                network.example(),
                buffer,
                opset_version=opset,
                dynamic_axes=ends.first_axes(both, "batch") if dynamic_batch else None,
                input_names=inputs,
                output_names=outputs,
                export_params=False,
                do_constant_folding=False,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError, IndexError) as error:
        return error, False
    return None, _has_doubles(buffer.getvalue())


def _has_doubles(content: bytes) -> bool:
    """Return whether a graph has float64 inputs (weights are among them) or converts to float64."""
    import onnx

    graph = onnx.load_from_string(content).graph
    double = onnx.TensorProto.DOUBLE
    given = any(value.type.tensor_type.elem_type == double for value in graph.input)
    return given or any(node.op_type == "Cast" and node.attribute[0].i == double for node in graph.node)


def _blamed(request: ExportRequest[Limits], error: Exception, opset: int) -> tuple[Place, str]:
    """Find the layer and the operator that the exporter stopped at."""
    named = re.search(r"operator '?(?:aten::)?(\w+)", str(error)) or re.search(r"= aten::(\w+)\(", str(error))
    operator = f"aten::{named[1]}" if named else ""
    calls = [call for call, _ in traced_calls(request.network)]
    for call in calls:
        if call.operator == operator or (not operator and _is_unknown(call.operator, opset)):
            return call.place, call.operator
    return place_of(error, request.network), operator


def _is_unknown(operator: str, opset: int) -> bool:
    from torch.onnx._internal.torchscript_exporter import registration

    return not registration.registry.is_registered_op(operator, opset)


def _known_from(operator: str, opset: int) -> int | None:
    """Return the opset that first has an operator, if it is a later one."""
    later = (number for number in range(opset + 1, NEWEST_OPSET + 1) if not _is_unknown(operator, number))
    return next(later, None) if _is_unknown(operator, opset) else None


def _whose(request: ExportRequest[OnnxLimits], opset: int) -> str:
    return f"the target reads {opset}" if request.limits.opset else f"the file is to be {opset}"


# ---------------------------------------------------------------- TFLite


def check_tflite(request: ExportRequest[Limits]) -> None:
    """Refuse what litert-torch has no lowering for, after its own decompositions."""
    check_runs(request)
    written = _by_line(_exported(request))
    program = _decomposed(Cached(request.network))
    lowered = _by_line(program)
    from litert_torch.backend import lowerings

    for call, node in exported_calls(program):
        line = node.meta.get("stack_trace") or ""
        gone = [operator for operator in written.get(line, ()) if operator not in lowered[line]]
        operator = call.operator if call.operator in written.get(line, ()) or not gone else gone[0]
        if _is_dynamic(node):
            what = f"what {operator} returns depends on the data in its shape, or is a number outside tensors"
            raise refusal(
                request, call.place, what, "TFLite files have fixed shapes: choose with torch.where, or replace the layer"
            )
        if lowerings.lookup(node.target) is None:
            raise refusal(request, call.place, f"{operator} has no TFLite form{_as(operator, call)}")
        if _is_complex(node):
            raise refusal(request, call.place, f"{operator} gives complex numbers, of which TFLite has none but inside one rfft")


def _by_line(program: Any) -> dict[str, list[str]]:
    """List the operators of each place in the user's source."""
    found: dict[str, list[str]] = {}
    for call, node in exported_calls(program):
        found.setdefault(node.meta.get("stack_trace") or "", []).append(call.operator)
    return found


@lru_cache(maxsize=1)
def _decomposed(cached: Cached) -> Any:
    """Break an exported program down to the operators that litert-torch lowers."""
    with silent():
        from litert_torch import fx_infra

        return fx_infra.safe_run_decompositions(exported(cached), fx_infra.decomp.pre_lower_decomp(), can_skip=False)


def _is_dynamic(node: Any) -> bool:
    """Return whether a node's result is a number, or has a size, that is not known beforehand."""
    import torch

    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
    return any(isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) for size in sizes)


def _is_complex(node: Any) -> bool:
    """Return whether a node gives complex numbers; a Fourier transform of the last dimension may."""
    import torch

    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.dtype.is_complex:
        return False
    rank = value.dim()
    return node.target != torch.ops.aten._fft_r2c.default or [dim % rank for dim in node.args[1]] != [rank - 1]


def _as(operator: str, call: Call) -> str:
    return f" (as {call.operator})" if operator != call.operator else ""
