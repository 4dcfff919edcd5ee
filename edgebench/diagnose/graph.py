"""A network as a runtime executes it: what kind of kernel each node is, and which of them stand alone in floating point."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Kind = Literal["integer", "float", "convert", "layout", "cast"]
CONVERTS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QUANTIZE", "DEQUANTIZE"}
LAYOUTS = {"Transpose", "ReorderInput", "ReorderOutput", "TRANSPOSE"}
CASTS = {"Cast", "CAST"}
INTEGER = re.compile(r"QLinear|QGemm|QAttention|MatMulInteger|ConvInteger|DynamicQuantizeMatMul")
PASSES_ON = {"Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
"""ONNX operators that have one kernel for integers and floats: what goes in decides."""


@dataclass(frozen=True)
class Node:
    """One kernel of an executed graph."""

    name: str
    op: str
    where: str
    ns: float | None
    """Nanoseconds of one profiled inference; None where the runtime does not say."""
    inputs: tuple[str, ...] = ()
    """Tensors that it reads, weights left out; empty where the runtime does not say."""
    outputs: tuple[str, ...] = ()
    dtype: str = ""
    """Of its first output, where the runtime says."""


@dataclass(frozen=True)
class Island:
    """Kernels that compute in floating point between conversions from and to integers."""

    nodes: tuple[Node, ...]
    converts: tuple[Node, ...]
    place: str
    """The part of the torch network that it belongs to."""

    @property
    def ops(self) -> tuple[str, ...]:
        """Name its operators, each once, in order."""
        return tuple(dict.fromkeys(node.op for node in self.nodes))


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run, and the exported file's own, by which nameless ones are placed."""

    nodes: Sequence[Node]
    original: Sequence[Node] = ()

    @cached_property
    def total_ns(self) -> float:
        """Sum up the kernels' time."""
        return sum(node.ns or 0.0 for node in self.nodes)

    @property
    def timed(self) -> bool:
        """Return whether the runtime timed its nodes."""
        return self.total_ns > 0

    @property
    def connected(self) -> bool:
        """Return whether the runtime told what its nodes read."""
        return any(node.inputs for node in self.nodes)

    @cached_property
    def producers(self) -> dict[str, int]:
        """Map each tensor to the node that writes it."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, list[int]]:
        """Map each tensor to the nodes that read it."""
        found = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.inputs):
                found[name].append(index)
        return found

    @cached_property
    def kinds(self) -> list[Kind]:
        """Tell the nodes' kinds apart; a kernel that passes values on is what goes into it."""
        integers: set[str] = set()
        kinds: list[Kind] = []
        for node in self.nodes:
            kind = _kind(node, integers)
            kinds.append(kind)
            passes = node.op in PASSES_ON and bool(node.inputs) and set(node.inputs) <= integers
            if kind == "integer" or passes or node.op in ("QuantizeLinear", "DynamicQuantizeLinear"):
                integers.update(node.outputs)
        return kinds

    def of_kind(self, *kinds: Kind) -> list[Node]:
        """List the nodes of some kinds."""
        return [node for node, kind in zip(self.nodes, self.kinds, strict=True) if kind in kinds]

    def share(self, nodes: Iterable[Node]) -> float | None:
        """Return the nodes' share of the kernels' time, 0…1."""
        return sum(node.ns or 0.0 for node in nodes) / self.total_ns if self.timed else None

    @cached_property
    def islands(self) -> list[Island]:
        """Find what was not fused: float kernels that get their input from a conversion, or give their output to one."""
        found = []
        for members in _groups(self):
            before = {self.producers[t] for i in members for t in self.nodes[i].inputs if t in self.producers}
            after = {user for i in members for t in self.nodes[i].outputs for user in self.consumers[t]}
            converts = sorted(i for i in (before | after) - set(members) if self.kinds[i] == "convert")
            if converts and any(self.kinds[index] == "float" for index in members):
                nodes = tuple(self.nodes[index] for index in members)
                found.append(Island(nodes, tuple(self.nodes[index] for index in converts), self.place(members[0])))
        return found

    def place(self, index: int) -> str:
        """Name the module of the torch network that a node belongs to, or after which it stands; empty: not known."""
        node = self.nodes[index]
        own = module_of(node)
        if own:
            return own
        above = self._above(index)
        if not above:
            return ""
        followers = self._followers(above)
        return followers[0] if len(followers) == 1 else f"after {above}"

    def _above(self, index: int) -> str:
        """Find the nearest module upstream."""
        todo, seen = [index], {index}
        while todo:
            for tensor in self.nodes[todo.pop(0)].inputs:
                before = self.producers.get(tensor)
                if before is None or before in seen:
                    continue
                named = module_of(self.nodes[before])
                if named and self.kinds[before] != "convert":
                    return named
                seen.add(before)
                todo.append(before)
        return ""

    def _followers(self, module: str) -> list[str]:
        """List the modules of the exported file that follow one and are no longer executed under their own name."""
        executed = {_module(node.name) for node, kind in zip(self.nodes, self.kinds, strict=True) if kind != "convert"}
        readers = defaultdict(list)
        for node in self.original:
            for name in node.inputs:
                readers[name].append(node)
        todo = [name for node in self.original if module_of(node) == module for name in node.outputs]
        found: dict[str, None] = {}
        while todo:
            for node in readers[todo.pop()]:
                if node.op in CONVERTS:
                    todo.extend(node.outputs)
                elif module_of(node) not in executed:
                    found[module_of(node)] = None
        return [name for name in found if name]


def less_overhead(graph: Graph, median_ns: float) -> tuple[Graph, float]:
    """Take off each kernel what profiling it adds; returns the rest, and the nanoseconds taken off.

    Profilers add the same to every kernel: what all kernels take together beyond
    an inference without profiling (`median_ns`) is shared among them, no more than
    the shortest one has.
    """
    if not graph.timed:
        return graph, 0.0
    shortest = min(node.ns or 0.0 for node in graph.nodes)
    taken = max(0.0, min(shortest, (graph.total_ns - median_ns) / len(graph.nodes)))
    nodes = [dataclasses.replace(node, ns=(node.ns or 0.0) - taken) for node in graph.nodes]
    return Graph(nodes, graph.original), taken


def _kind(node: Node, integers: set[str]) -> Kind:
    if node.op in CONVERTS:
        return "convert"
    if node.op in LAYOUTS:
        return "layout"
    if node.op in CASTS:
        return "cast"
    if INTEGER.match(node.op) or node.dtype in ("int8", "uint8"):
        return "integer"
    return "integer" if node.op in PASSES_ON and node.inputs and set(node.inputs) <= integers else "float"


def _groups(graph: Graph) -> list[list[int]]:
    """Group neighbouring nodes that are neither integer kernels nor conversions; in order."""
    free = [kind in ("float", "cast", "layout") for kind in graph.kinds]
    seen: set[int] = set()
    found = []
    for start in range(len(graph.nodes)):
        if not free[start] or start in seen:
            continue
        todo, members = [start], []
        seen.add(start)
        while todo:
            index = todo.pop()
            members.append(index)
            node = graph.nodes[index]
            near = [graph.producers[t] for t in node.inputs if t in graph.producers]
            near += [user for t in node.outputs for user in graph.consumers[t]]
            fresh = {other for other in near if free[other]} - seen
            seen |= fresh
            todo.extend(fresh)
        found.append(sorted(members))
    return found


def module_of(node: Node) -> str:
    """Name the torch module that a node's name, or else its first output's, stands for: `layer1.0.conv1`; empty: none."""
    return next((found for found in map(_module, (node.name, *node.outputs[:1])) if found), "")


def _module(text: str) -> str:
    """Read a name as ONNX (`/layer1/layer1.0/conv1/Conv`) or TFLite (`torch….Net_wrapped/….Conv2d_conv1`) has it."""
    scopes = [scope for scope in text.split("/") if "_output_" not in scope or scope == text.rpartition("/")[2]]
    return _dotted(scopes[2:] if "torch." in scopes[0] or scopes[0].startswith("litert_torch") else scopes[1:-1])


def _dotted(scopes: Sequence[str]) -> str:
    """Join scopes: a Sequential's children are written with their parent's name before them, or as `package.Class_name`."""
    parts: list[str] = []
    for before, scope in zip(["", *scopes], scopes, strict=False):
        if before and scope.startswith(before + "."):
            parts.append(scope[len(before) + 1 :])
        elif "." in scope and "_" in scope.rpartition(".")[2]:
            parts.append(scope.rpartition(".")[2].partition("_")[2])
        else:
            parts.append(scope)
    return ".".join(part for part in parts if part)


def nodes_of(values: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Read what an agent sent; fields that another runtime adds are passed over."""
    return [
        Node(
            str(value["name"]),
            str(value["op"]),
            str(value["where"]),
            None if value.get("ns") is None else float(value["ns"]),
            tuple(value.get("inputs") or ()),
            tuple(value.get("outputs") or ()),
            str(value.get("dtype") or ""),
        )
        for value in values
    ]
