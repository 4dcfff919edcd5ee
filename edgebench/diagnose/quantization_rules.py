"""What quantization left undone: operators that stay in floating point, and what converting costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from edgebench.analysis.processor import ARM, REMEDY, SATURATE, X86
from edgebench.diagnose.findings import INSTEAD, SEARCH, SLOW_PLACES, Case, Finding, percent, times
from edgebench.diagnose.graph import PASSES_ON, Island

HAS_KERNEL = {
    "Add", "ArgMax", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul", "Resize",
    "Sigmoid", "Softmax", "Where",
}  # fmt: skip
"""Operators for which recent versions of ONNX Runtime have integer kernels (`QLinear…`, `QGemm`)."""
EVER = {"Add", "Conv", "MatMul", "Mul"}
"""Those that 1.10 and 1.31 both fuse, given activations of the sign that the processor wants."""
RESCALES = ("_quant_scales_mul", "_quant_output_scale_mul", "_output_quantized_cast")
"""How ONNX Runtime's quantizer calls what turns integer sums back into floats."""

MATTERS = 0.002
"""Of the scores' span: rounding alone stays below."""


def unfused(case: Case) -> Iterator[Finding]:
    """Tell which operators compute in floating point between conversions."""
    if case.bundle.precision != "int8":
        return
    groups: dict[tuple[str, ...], list[Island]] = defaultdict(list)
    for island in case.graph.islands:
        groups[tuple(sorted(island.ops))].append(island)
    for islands in groups.values():
        yield _unfused(case, islands)


def _unfused(case: Case, islands: Sequence[Island]) -> Finding:
    graph, ops = case.graph, islands[0].ops
    nodes = [node for island in islands for node in island.nodes]
    converts = list({id(node): node for island in islands for node in island.converts}.values())
    name = ", ".join(ops)
    timed = f" ({percent(graph.share(nodes))} in it, {percent(graph.share(converts))} in the conversions)" if graph.timed else ""
    return Finding(
        what=f"{name} is not fused",
        share=graph.share([*nodes, *converts]),
        why=f"{_why(case, ops)}: {times(len(islands))} the tensor is turned into float and back{timed}",
        remedy=_remedy(case, ops),
        nodes=len(nodes) + len(converts),
        places=tuple(dict.fromkeys(island.place for island in islands if island.place)),
    )


def _why(case: Case, ops: Sequence[str]) -> str:
    """Say what keeps operators from being fused."""
    if _wrong_sign(case) and case.machine in X86 and set(ops) & EVER:
        wanted, given = _wanted_sign(case), _sign(case)
        return f"on {case.machine} {case.runtime} fuses {wanted} activations, these are {given} and could not be changed"
    if case.bundle.format == "onnx" and set(ops) <= HAS_KERNEL | PASSES_ON:
        return f"{case.runtime} did not fuse it with the conversions around it, as newer versions may"
    return f"{case.runtime} has no INT8 kernel for {'it' if len(ops) == 1 else 'some of it'}"


def _remedy(case: Case, ops: Sequence[str]) -> str:
    if _wrong_sign(case) and case.machine in X86 and set(ops) & EVER:
        return f"`limits: {{activations: {_wanted_sign(case)}}}` in the target file, and export again"
    return f"{SEARCH}; or train with an activation that fuses, as ReLU does" if _activation(ops) else SEARCH


def _sign(case: Case) -> str:
    return str(case.bundle.limits["activations"])


def _wanted_sign(case: Case) -> str:
    """Name the signedness of activations that ONNX Runtime's kernels want; the bundle's own where that is not known."""
    return "uint8" if case.machine in X86 else "int8" if case.machine in ARM else _sign(case)


def _wrong_sign(case: Case) -> bool:
    """Return whether activations have the sign that the processor's kernels do not want."""
    return case.bundle.format == "onnx" and case.bundle.precision == "int8" and _sign(case) != _wanted_sign(case)


def _activation(ops: Sequence[str]) -> bool:
    return all(op.upper().replace("_", "") in ("HARDSIGMOID", "HARDSWISH", "MUL", "SIGMOID", "ERF", "GELU", "SILU") for op in ops)


def dynamic(case: Case) -> Iterator[Finding]:
    """Tell what it costs to choose the ranges of activations at run time."""
    scales = [node for node in case.graph.nodes if node.op == "DynamicQuantizeLinear"]
    if scales:
        rescale = [node for node in case.graph.nodes if node.name.endswith(RESCALES)]
        yield Finding(
            what="ranges of the activations are computed at each inference",
            share=case.graph.share([*scales, *rescale]),
            why=f"dynamic quantization reads every tensor twice before it converts it ({len(scales)} times), "
            f"and turns integer sums into floats in kernels of their own ({len(rescale)})",
            remedy=INSTEAD["int8-dynamic"],
            nodes=len(scales) + len(rescale),
        )


def halves(case: Case) -> Iterator[Finding]:
    """Tell that a processor computes fp16 as FP32."""
    if case.bundle.precision != "fp16" or not {node.where for node in case.graph.nodes} & {*SLOW_PLACES, "XNNPACK"}:
        return
    casts = [node for node in case.graph.nodes if node.op in ("Cast", "CAST", "DEQUANTIZE")]
    weights = [node for node in casts if not node.inputs]
    if case.machine in ARM and not weights:
        return  # newer runtimes have kernels for it there
    yield Finding(
        what=f"fp16 is computed as FP32, with {len(casts)} casts",
        share=case.graph.share(casts),
        why=f"the kernels of this processor's runtime are FP32; {len(weights)} of the casts are of weights",
        remedy=INSTEAD["fp16"],
        nodes=len(casts),
    )


def arithmetic(case: Case) -> Iterator[Finding]:
    """Tell that the runtime's integer kernels compute something else than the file says."""
    found = case.arithmetic
    if found is None or (found.error < MATTERS and found.agreement == 1):
        return
    reason = SATURATE if found.saturates else "its integer kernels round otherwise than the file's own operators"
    yield Finding(
        what=f"{case.runtime} computes otherwise than the file says",
        share=None,
        why=f"{100 * (1 - found.agreement):.1f} % of {found.samples} samples are decided otherwise than operator by operator, "
        f"scores differ by {100 * found.error:.2f} % of their span: {reason}",
        remedy=REMEDY if found.saturates else "compare the accuracy in the records, and with another version of the runtime",
        nodes=0,
    )


def signedness(case: Case) -> Iterator[Finding]:
    """Tell that integer kernels get activations of the sign that this processor is slower with."""
    products = [node for node in case.graph.nodes if node.op in ("QLinearConv", "QLinearMatMul", "QGemm")]
    changed = any("s8_to_u8" in name for node in case.graph.nodes for name in node.outputs)
    if products and _wrong_sign(case) and not changed:
        kernels = "multiply unsigned activations by signed weights" if _wanted_sign(case) == "uint8" else "take both signed"
        yield Finding(
            what=f"activations are {_sign(case)}",
            share=case.graph.share(products),
            why=f"the fast INT8 kernels of {case.machine} {kernels}; other pairs are computed more slowly",
            remedy=f"`limits: {{activations: {_wanted_sign(case)}}}` in the target file, and export again",
            nodes=len(products),
        )
