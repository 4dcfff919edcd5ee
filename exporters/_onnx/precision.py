"""In which precision an ONNX graph's operators with weights compute, one by one, from types alone: no name is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

WEIGHTED = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "FusedConv": (1,),
    "NhwcFusedConv": (1,),
    "DeformConv": (1,),
    "Gemm": (1, 0),
    "FusedGemm": (1, 0),
    "MatMul": (1, 0),
    "FusedMatMul": (1, 0),
    "LSTM": (1,),
    "GRU": (1,),
    "RNN": (1,),
    "Attention": (1,),
}
"""Operators with weights, and which inputs can hold them; the first that does."""
INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "QAttention", "QLinearConvTranspose")
DYNAMIC = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
PACKED = ("MatMulNBits", "MatMulBnb4", "QMoE")
PASSES = ("Cast", "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")
"""What weights go through before an operator takes them."""
SCALES = ("Mul", "Sub")
"""Likewise, where all that they take is constant."""
SHORT = {"float32": "fp32", "float16": "fp16", "float64": "fp64", "bfloat16": "bf16"}
EIGHT, FOUR = ("int8", "uint8"), ("int4", "uint4", "float4e2m1")
CASTS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
DEEPEST = 32


@dataclass(frozen=True)
class Weight:
    """A constant: its type, and how many numbers it has."""

    dtype: str
    count: int


@dataclass
class Node:
    """One node."""

    op: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    numbers: dict[str, int] = field(default_factory=dict)
    graphs: list[Graph] = field(default_factory=list)


@dataclass
class Graph:
    """A graph within a graph sees what is outside of it."""

    outer: Graph | None = None
    constants: dict[str, Weight] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    makers: dict[str, Node] = field(default_factory=dict)

    def constant(self, name: str) -> Weight | None:
        """Find a constant by name, here or outside."""
        if name in self.constants:
            return self.constants[name]
        return self.outer.constant(name) if self.outer is not None and name not in self.makers else None

    def maker(self, name: str) -> Node | None:
        """Find what makes a value, here or outside."""
        if name in self.makers:
            return self.makers[name]
        return self.outer.maker(name) if self.outer is not None and name not in self.constants else None


@dataclass(frozen=True)
class Stored:
    """How weights reach their operator."""

    dtype: str
    """As the file stores them."""
    used: str
    """As the operator takes them."""
    through: frozenset[str]


def is_weight(dtype: str) -> bool:
    """Return whether numbers of this type count as parameters: shapes and indices do not."""
    return dtype.startswith(("float", "bfloat")) or dtype in EIGHT + FOUR


def kinds(graph: Graph) -> dict[str, int]:
    """Count a graph's operators with weights by precision, those of graphs within it too."""
    found: Counter[str] = Counter()
    for each, node in _all(graph):
        kind = kind_of(each, node)
        if kind:
            found[kind] += 1
    return dict(sorted(found.items()))


def _all(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    for node in graph.nodes:
        yield graph, node
        for inner in node.graphs:
            yield from _all(inner)


def kind_of(graph: Graph, node: Node) -> str:
    """Name an operator's precision; empty where it has no weights.

    fp16-weights and int8-weights: stored so, unpacked to floats that it computes
    with; int8: what it takes is integers too; int8-dynamic: made integers as it runs.
    """
    if node.op in INTEGER:
        return "int8"
    if node.op in DYNAMIC:
        return "int8-dynamic"
    if node.op in PACKED:
        return f"int{node.numbers.get('bits') or 4}-weights"
    weights = [stored(graph, node.inputs[at]) for at in WEIGHTED.get(node.op, ()) if at < len(node.inputs)]
    weight = next((each for each in weights if each is not None), None)
    if weight is None:
        return ""
    whole = "DequantizeLinear" in weight.through
    if weight.dtype in FOUR:
        return "int4-weights"
    if weight.dtype in EIGHT or (whole and "QuantizeLinear" in weight.through):
        return "int8" if whole and any(_is_quantized(graph, name) for name in node.inputs[:2]) else "int8-weights"
    if weight.dtype.startswith("float8"):
        return "fp8-weights"
    short = SHORT.get(weight.dtype, weight.dtype)
    if weight.used == weight.dtype or weight.dtype == "float32":
        return SHORT.get(weight.used, short)
    return f"{short}-weights"


def stored(graph: Graph, name: str, depth: int = 0) -> Stored | None:
    """Follow weights back to where they are stored; None where they are computed from what is not constant."""
    constant = graph.constant(name)
    if constant is not None:
        return Stored(constant.dtype, constant.dtype, frozenset())
    node = graph.maker(name)
    if node is None or depth > DEEPEST or not node.inputs:
        return None
    if node.op not in PASSES + SCALES:
        return None
    before = [stored(graph, each, depth + 1) for each in (node.inputs if node.op in SCALES else node.inputs[:1])]
    if any(each is None for each in before):
        return None
    first = before[0]
    assert first is not None
    used = first.used
    if node.op == "Cast":
        used = CASTS.get(node.numbers.get("to", 0), "integer")
    elif node.op == "DequantizeLinear":
        scale = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        used = scale.dtype if scale else "float32"
    return Stored(first.dtype, used, first.through | {node.op})


def _is_quantized(graph: Graph, name: str) -> bool:
    """Return whether what an operator takes, its weights apart, was integers before."""
    if stored(graph, name) is not None:
        return False
    for _ in range(DEEPEST):
        node = graph.maker(name)
        if node is None or not node.inputs:
            return False
        if node.op == "DequantizeLinear":
            return True
        if node.op not in ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"):
            return False
        name = node.inputs[0]
    return False


def of_constants(graph: Graph) -> str:
    """Name the precision of a graph without such operators: of most of its constants."""
    counts: Counter[str] = Counter()
    for weight in graph.constants.values():
        if is_weight(weight.dtype):
            counts[weight.dtype] += weight.count
    most = counts.most_common(1)
    return SHORT.get(most[0][0], most[0][0]) if most else "fp32"
