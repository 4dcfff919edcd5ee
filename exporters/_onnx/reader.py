"""What an ONNX file says of itself, read from its bytes: field numbers are those of onnx.proto3.

Nothing is loaded, inferred or run, and weights are counted, not read, so that
files of any size and any origin are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgebench.exporters._onnx import precision
from edgebench.exporters._onnx.precision import Graph, Node, Weight
from edgebench.exporters._shared.protobuf import BYTES, VARINT, Message, matches, opened
from edgebench.schema.file import CustomOperator, FileDescription, FileTensor, Unreadable, precision_of

TOP = {1: VARINT, 5: VARINT, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
"""ModelProto's fields."""
LONGEST_NAME = 1024
"""Of a producer: where another format has this field, it holds the whole network."""
TYPES = [
    "undefined",
    "float32",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "float64",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
]
KINDS = {4: "a sequence", 5: "a map", 7: "an opaque value", 8: "a sparse tensor", 9: "an optional value"}
"""TypeProto's other fields than tensors."""
OWN = {
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.training",
    "ai.onnx.preview.training",
    "com.microsoft",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
    "com.microsoft.experimental",
}
"""Domains whose operators ONNX or ONNX Runtime define."""
EXTERNAL = 1
UNNAMED = re.compile(r"\?|None|-1|unk__[0-9]+")
"""What converters write for an open size that has no name."""


def recognizes(path: Path) -> bool:
    """Return whether a file is ONNX by its outermost fields, whole or cut short."""
    with opened(path) as data:
        return matches(data, _is_top, least=2)


def _is_top(number: int, kind: int, value: Any) -> bool:
    if TOP.get(number) != kind:
        return False
    if number == 1:
        return 0 < int(value) < 1000
    return number not in (2, 3, 4) or value[1] - value[0] <= LONGEST_NAME


@dataclass
class _Found:
    """What was seen of all graphs."""

    operators: Counter[str] = field(default_factory=Counter)
    custom: list[CustomOperator] = field(default_factory=list)
    functions: set[tuple[str, str]] = field(default_factory=set)
    files: dict[str, int] = field(default_factory=dict)
    """Other files that hold weights, and how many bytes each must have."""
    parameters: int = 0
    sparse: int = 0


def read(path: Path) -> FileDescription:
    """Describe a file; `Unreadable` where it is broken, or takes or gives what no runtime is fed."""
    with opened(path) as data:
        model = Message(data, 0, len(data))
        if not model.places(7):
            raise Unreadable("holds no graph; it is cut short, or no ONNX file")
        found = _Found(functions={(each.text(10), each.text(1)) for each in model.messages(25)})
        graph = _graph(model.message(7), None, found)
        for function in model.messages(25):
            _nodes(function, 7, None, found)
        kinds = precision.kinds(graph)
        return FileDescription(
            format="onnx",
            inputs=tuple(
                _tensor(value, "input") for value in model.message(7).messages(11) if value.text(1) not in graph.constants
            ),
            outputs=tuple(_tensor(value, "output") for value in model.message(7).messages(12)),
            precision=precision_of(kinds, precision.of_constants(graph)) + ("-sparse" if found.sparse else ""),
            kinds=kinds,
            parameters=found.parameters,
            metadata={each.text(1): each.text(2) for each in model.messages(14)},
            details=_details(model, found),
            custom=tuple(found.custom),
            files=_beside(path, found),
            suffix=".onnx",
        )


def _details(model: Message, found: _Found) -> dict[str, Any]:
    opsets = {each.text(1): each.number(2) for each in model.messages(8)}
    usual = opsets.get("", opsets.get("ai.onnx", 0))
    others = {domain: version for domain, version in opsets.items() if domain not in ("", "ai.onnx")}
    named = {"producer": " ".join(filter(None, (model.text(2)[:100], model.text(3)[:100])))}
    counts = {"opset": usual, "ir": model.number(1), "nodes": sum(found.operators.values())}
    return {**counts, **({"domains": others} if others else {}), **({k: v for k, v in named.items() if v})}


def _graph(message: Message, outer: Graph | None, found: _Found) -> Graph:
    graph = Graph(outer=outer)
    for tensor in message.messages(5):
        graph.constants[tensor.text(8)] = _weight(tensor, found)
    for sparse in message.messages(15):
        values = sparse.message(1)
        weight = _weight(values, found)
        found.sparse += 1
        graph.constants[values.text(8)] = weight
    for node in _nodes(message, 1, graph, found):
        graph.nodes.append(node)
        graph.makers.update(dict.fromkeys(filter(None, node.outputs), node))
    return graph


def _nodes(message: Message, number: int, graph: Graph | None, found: _Found) -> Iterator[Node]:
    """Read a graph's or a function's nodes, and the graphs within them."""
    for each in message.messages(number):
        node = Node(each.text(4), each.text(7), each.text(3), each.texts(1), each.texts(2))
        attributes = each.messages(5)
        found.operators[node.op] += 1
        if node.domain not in OWN and (node.domain, node.op) not in found.functions:
            found.custom.append(CustomOperator(f"{node.domain}.{node.op}", node.name or (node.outputs or [""])[0]))
        for attribute in attributes:
            name, tensors = attribute.text(1), [*attribute.messages(5), *attribute.messages(10)]
            weights = [_weight(tensor, found) for tensor in tensors]
            if node.op == "Constant" and graph is not None and node.outputs:
                graph.constants[node.outputs[0]] = weights[0] if weights else Weight("float32", 1)
            if name in ("to", "bits"):
                node.numbers[name] = attribute.number(3)
            if node.op == "Constant" and name == "sparse_value":
                found.sparse += 1
            node.graphs += [_graph(inner, graph, found) for inner in (*attribute.messages(6), *attribute.messages(11))]
        yield node


def _weight(tensor: Message, found: _Found) -> Weight:
    dtype, count = _dtype(tensor.number(2)), 1
    for size in tensor.numbers(1):
        count *= max(0, size)
    if tensor.number(14) == EXTERNAL:
        entries = {each.text(1): each.text(2) for each in tensor.messages(13)}
        end = sum(int(entries[key]) for key in ("offset", "length") if entries.get(key, "").isdigit())
        where = entries.get("location", "")
        found.files[where] = max(found.files.get(where, 0), end)
    if precision.is_weight(dtype):
        found.parameters += count
    return Weight(dtype, count)


def _dtype(code: int) -> str:
    return TYPES[code] if 0 < code < len(TYPES) else f"type-{code}"


def _beside(path: Path, found: _Found) -> tuple[Path, ...]:
    """List the files that hold weights; `Unreadable` where one is missing, too short, or lies elsewhere."""
    for name, size in found.files.items():
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
            raise Unreadable(f"keeps weights in {name[:200]!r}, which leads out of its folder; save it with its data beside it")
        there = path.parent / pure
        if there.resolve().parent != (path.parent.resolve() / pure).parent:
            raise Unreadable(f"keeps weights in {name[:200]!r}, a link out of its folder; put the file itself there")
        if not there.is_file():
            raise Unreadable(f"keeps weights in {name[:200]!r}, which is not beside it; copy it to {path.parent or '.'}")
        if there.stat().st_size < size:
            raise Unreadable(f"keeps weights in {name[:200]!r}, which ends too early ({there.stat().st_size} of {size} bytes)")
    return tuple(Path(name) for name in sorted(found.files))


def _tensor(value: Message, role: str) -> FileTensor:
    """Read an input or output."""
    name, kind = value.text(1), value.message(2)
    for number, what in KINDS.items():
        if kind.places(number):
            advice = (
                "; export it without ZipMap" if role == "output" and number in (4, 5) else "; cut the graph where it is a tensor"
            )
            raise Unreadable(f"{role} {name!r} is {what}, and tensors alone are measured{advice}")
    tensor = kind.message(1)
    dtype = _dtype(tensor.number(1)) if tensor.number(1) else None
    if role == "input" and dtype == "string":
        raise Unreadable(f"input {name!r} takes text, and numbers alone are made; cut the graph behind its tokenizer")
    if not tensor.places(2):
        return FileTensor(name, dtype, None)
    sizes: list[int | None] = []
    symbols = []
    for dimension in tensor.message(2).messages(1):
        sizes.append(dimension.number(1) if dimension.found.get(1) and dimension.number(1) >= 0 else None)
        symbol = dimension.text(2)
        symbols.append("" if sizes[-1] is not None or UNNAMED.fullmatch(symbol) else symbol)
    return FileTensor(name, dtype, tuple(sizes), tuple(symbols))
