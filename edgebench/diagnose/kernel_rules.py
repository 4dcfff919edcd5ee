"""What kernels cost: where they run, what lies between them, and how they compare with those of FP32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from edgebench.diagnose.findings import INSTEAD, SEARCH, SLOW_PLACES, Case, Finding, times
from edgebench.diagnose.graph import Kind, Node

NOTEWORTHY = 0.01
SLOWER = 1.1
"""Kernels are called slower from this ratio on: profiles scatter."""
SMALL_NS = 20e3
"""What a kernel takes on average where starting it counts."""


def layouts(case: Case) -> Iterator[Finding]:
    """Tell what rearranging tensors costs."""
    nodes = case.graph.of_kind("layout")
    share = case.graph.share(nodes)
    if not nodes or (share is not None and share < NOTEWORTHY):
        return
    blocked = any(node.op.startswith("Reorder") for node in nodes)
    kernels = "FP32 convolutions compute on blocks of channels (NCHWc)" if blocked else "INT8 convolutions want channels last"
    yield Finding(
        what=f"tensors are rearranged {times(len(nodes))} ({', '.join(sorted({node.op for node in nodes}))})",
        share=share,
        why=f"the runtime's {kernels}, what stands between them does not",
        remedy="nothing in the file: fewer switches between convolutions and other operators; tflite is channels-last throughout",
        nodes=len(nodes),
    )


def fallback(case: Case) -> Iterator[Finding]:
    """Tell which operators the accelerator, or the fast kernels, did not take."""
    graph = case.graph
    places = {node.where for node in graph.nodes}
    slow = places & set(SLOW_PLACES)
    if places == {"plain kernels"}:
        yield Finding(
            what="no operator runs in XNNPACK",
            share=1.0 if graph.timed else None,
            why=f"{case.runtime} does not hand {case.bundle.precision} to it: plain kernels compute everything",
            remedy="a newer runtime, where the device's Python has one; else fp32, which older ones hand to XNNPACK",
            nodes=len(graph.nodes),
        )
    elif slow and places - slow:
        fast = " and ".join(sorted(places - slow))
        crossings = sum((a.where in slow) != (b.where in slow) for a, b in zip(graph.nodes, graph.nodes[1:], strict=False))
        left = defaultdict(list)
        for index, node in enumerate(graph.nodes):
            if node.where in slow:
                left[node.op].append(index)
        for op, indices in left.items():
            yield _left_out(case, op, indices, fast, crossings)


def _left_out(case: Case, op: str, indices: Sequence[int], fast: str, crossings: int) -> Finding:
    nodes = [case.graph.nodes[index] for index in indices]
    typed = f"{nodes[0].dtype} {op}".strip()
    return Finding(
        what=f"{op} runs in {nodes[0].where}, not in {fast}",
        share=case.graph.share(nodes),
        why=f"{fast} does not take {typed} ({times(len(nodes))}); inferences go over from one to the other {times(crossings)}",
        remedy=SEARCH if case.bundle.precision.startswith("int8") else "choose another operator, or compare with another format",
        nodes=len(nodes),
        places=tuple(dict.fromkeys(place for index in indices if (place := case.graph.place(index)))),
    )


def compiled(case: Case) -> Iterator[Finding]:
    """Tell what a compiler left to the processor, by its own log."""
    placement = case.bundle.placement
    for row in () if placement is None else placement.cpu:
        yield Finding(
            what=f"{row.operator} runs on the processor, not on the accelerator, {times(row.count)}",
            share=None,
            why=f"the compiler says: {row.status}" if row.status else "the compiler did not map it, and does not say why",
            remedy="another operator in its place; whatever follows the first that does not map stays on the processor too",
            nodes=row.count,
            places=(row.layer,) if row.layer else (),
        )


def engine(case: Case) -> Iterator[Finding]:
    """Tell which precision the layers of an engine compute in."""
    layers = (case.finish or {}).get("layers") or {}
    counts: dict[str, int] = dict(layers.get("by_precision") or {})
    wanted = case.bundle.precision
    others = {name: count for name, count in counts.items() if name not in (wanted, "unknown")}
    if wanted in ("int8", "fp16") and others:
        listed = ", ".join(f"{count} in {name}" for name, count in sorted(others.items()))
        yield Finding(
            what=f"{sum(others.values())} of the engine's {layers.get('count')} layers are not {wanted}",
            share=None,
            why=f"{listed}: the builder found them faster so, or has no {wanted} kernel for them, or the file leaves no choice",
            remedy=f"compare with {'fp16' if wanted == 'int8' else 'fp32'}: what is left may be worth nothing",
            nodes=sum(others.values()),
        )


def slower_kernels(case: Case) -> Iterator[Finding]:
    """Tell which kernels take longer than those of the FP32 file."""
    if case.reference is None or not case.reference.timed or not case.graph.timed:
        return
    kinds: tuple[Kind, ...] = ("integer",) if case.bundle.precision.startswith("int8") else ("float",)
    before, after = _families(case.reference.nodes), _families(case.graph.of_kind(*kinds))
    for family, nodes in after.items():
        one, other = (sum(node.ns or 0.0 for node in found) for found in (before.get(family, []), nodes))
        share = case.graph.share(nodes) or 0.0
        if one and other > SLOWER * one and share >= 0.05:
            fewer = len(nodes) - len(before[family])
            blocked, kept = (sum(node.name.endswith("_nchwc") for node in found) for found in (before[family], nodes))
            yield Finding(
                what=f"{family} takes longer than in FP32",
                share=share,
                why=f"{other / 1e3:.0f} µs in {len(nodes)} kernels against {one / 1e3:.0f} µs in {len(before[family])}, profiled"
                + (f"; FP32 fuses the other {fewer} into its kernels" if fewer > 0 else "")
                + (f"; {blocked} of FP32's compute on blocks of channels (NCHWc), {kept} of these" if kept < blocked else ""),
                remedy=INSTEAD.get(case.bundle.precision, SEARCH),
                nodes=len(nodes),
            )


def _families(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Group nodes by the operator that they stand for, in whatever precision."""
    found = defaultdict(list)
    for node in nodes:
        found[family(node.op)].append(node)
    return found


def family(op: str) -> str:
    """Name the operator that a kernel stands for."""
    for begin, name in (("QGemm", "Gemm"), ("FusedConv", "Conv"), ("ConvInteger", "Conv"), ("MatMulInteger", "MatMul")):
        if op.startswith(begin):
            return name
    return op.removeprefix("QLinear")


def more_kernels(case: Case) -> Iterator[Finding]:
    """Tell that a file has many more kernels than its FP32 form."""
    count, before = len(case.graph.nodes), len(case.reference.nodes) if case.reference is not None else 0
    if not before or count < 1.2 * before or case.graph.total_ns / count > SMALL_NS:
        return
    mean = f", {case.graph.total_ns / count / 1e3:.1f} µs each on average" if case.graph.timed else ""
    yield Finding(
        what=f"{count} kernels are started, {before} in FP32",
        share=None,
        why=f"starting one costs the same whatever it computes{mean}; the smaller the input, the more that counts",
        remedy="a larger input or a network of fewer, larger layers gains more from INT8",
        nodes=count,
    )
