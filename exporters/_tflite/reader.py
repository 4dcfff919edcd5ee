"""What a TFLite file says of itself, read from its bytes: field numbers are those of TensorFlow's schema.fbs, version 3."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgebench.exporters._shared.flatbuffer import Table, root
from edgebench.exporters._shared.protobuf import opened
from edgebench.schema.file import CustomOperator, FileDescription, FileTensor, Unreadable, precision_of

IDENTIFIER = b"TFL3"
TYPES = [
    "float32",
    "float16",
    "int32",
    "uint8",
    "int64",
    "string",
    "bool",
    "int16",
    "complex64",
    "int8",
    "float64",
    "complex128",
    "uint64",
    "resource",
    "variant",
    "uint32",
    "uint16",
    "int4",
    "bfloat16",
    "int2",
]
CUSTOM = 32
"""The operator code of those that have a name instead."""
WEIGHTED = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "CONV_3D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
    "CONV_3D_TRANSPOSE": (2, 1),
    "BATCH_MATMUL": (0, 1),
    "SVDF": (0, 1),
    "RNN": (0, 1),
    "LSTM": (0, 2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (0, 1),
    "EMBEDDING_LOOKUP": (1, 1),
}
"""Operators with weights: which input holds activations, and which weights."""
UNPACKS = ("DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE")
ADDED = ("metadata.json", "temp_meta.txt")
"""Members of the archive that some exporters append to the file."""
LARGEST_TEXT = 1 << 20
EDGETPU = "edgetpu-custom-op"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph."""

    table: Table

    @cached_property
    def name(self) -> str:
        return self.table.text(3)

    @cached_property
    def dtype(self) -> str:
        code = self.table.number(1, "<b")
        return TYPES[code] if 0 <= code < len(TYPES) else f"type-{code}"

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.table.numbers(0))

    @property
    def is_sparse(self) -> bool:
        return bool(self.table.field(6))

    @property
    def signature(self) -> tuple[int | None, ...]:
        """Return the shape with None for each size that is open."""
        stated = self.table.numbers(7) or self.shape
        return tuple(None if size < 0 else size for size in stated)

    @property
    def quantization(self) -> tuple[float | None, int | None]:
        """Return scale and zero point where there is one of each, for an integer tensor."""
        table = self.table.table(4)
        scales = table.numbers(2, "f") if table else []
        zeros = table.numbers(3, "q") if table else []
        if len(scales) != 1 or self.dtype not in ("int8", "uint8", "int16"):
            return None, None
        return float(scales[0]), int(zeros[0]) if zeros else 0


@dataclass(frozen=True)
class Operator:
    """One operator."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    is_custom: bool


def recognizes(head: bytes) -> bool:
    """Return whether a file begins as TFLite does."""
    return head[4:8] == IDENTIFIER


def read(path: Path) -> FileDescription:
    """Describe a file; `Unreadable` where it is broken, or takes what no runtime is fed."""
    with opened(path) as data:
        model = root(data)
        codes = [_code(each) for each in model.tables(1)]
        graphs = model.tables(2)
        if not graphs:
            raise Unreadable("holds no graph")
        filled = [_filled(each, data) for each in model.tables(4)]
        found, kinds, parameters, sparse = [], Counter[str](), 0, 0
        for graph in graphs:
            tensors = [Tensor(each) for each in graph.tables(0)]
            operators = [_operator(each, codes) for each in graph.tables(3)]
            for each in tensors:
                number = each.table.number(2, "<I")
                if 0 < number < len(filled) and filled[number] and _is_weight(each):
                    parameters += _count(each.shape)
                    sparse += each.is_sparse
            kinds.update(_kinds(tensors, operators, filled))
            found += [(each, tensors) for each in operators]
        main = graphs[0]
        tensors = [Tensor(each) for each in main.tables(0)]
        names = _signature_names(model, tensors)
        custom = tuple(CustomOperator(each.name, _label(each, of)) for each, of in found if each.is_custom)
        used = sorted({code for code in codes if not code[2]})
        plain = precision_of(dict(kinds), "fp32")
        return FileDescription(
            format="edgetpu" if any(each.operator == EDGETPU for each in custom) else "tflite",
            inputs=tuple(_described(_at(tensors, index), names.get(("in", index)), "input") for index in main.numbers(1)),
            outputs=tuple(_described(_at(tensors, index), names.get(("out", index)), "output") for index in main.numbers(2)),
            precision=plain + ("-sparse" if sparse else ""),
            kinds=dict(sorted(kinds.items())),
            parameters=parameters,
            metadata=appended(path),
            details={"operators": [f"{name} v{version}" for name, version, _ in used], "nodes": len(found)},
            operators={name: version for name, version, _ in used},
            custom=custom,
            suffix=".tflite",
        )


def _code(table: Table) -> tuple[str, int, bool]:
    """Read an operator's name, its version, and whether it is custom."""
    number = max(table.number(0, "<b"), table.number(3))
    if number == CUSTOM:
        return table.text(1), table.number(2, default=1), True
    return _builtin(number), table.number(2, default=1), False


def _builtin(number: int) -> str:
    """Name a built-in operator, as LiteRT's own schema does; its number where that is not installed."""
    try:
        from ai_edge_litert.schema_py_generated import BuiltinOperator
    except ImportError:
        return f"OPERATOR_{number}"
    names: dict[int, str] = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    return names.get(number, f"OPERATOR_{number}")


def _operator(table: Table, codes: Sequence[tuple[str, int, bool]]) -> Operator:
    number = table.number(0, "<I")
    if number >= len(codes):
        raise Unreadable(f"is broken: an operator has the kind {number} of {len(codes)}")
    name, _, is_custom = codes[number]
    return Operator(name, table.numbers(1), table.numbers(2), is_custom)


def _filled(buffer: Table, data: Any) -> bool:
    """Return whether a buffer holds anything, within the file or behind its flatbuffer; `Unreadable` where it is cut off."""
    offset, size = buffer.number(1, "<Q"), buffer.number(2, "<Q")
    if offset > 1:
        if offset + size > len(data):
            raise Unreadable(f"is cut short: weights reach to byte {offset + size}, the file ends at {len(data)}")
        return bool(size)
    return buffer.vector(0, 1)[1] > 0


def _is_weight(tensor: Tensor) -> bool:
    """Return whether numbers of a tensor count as parameters: shapes and indices do not."""
    return tensor.dtype.startswith(("float", "bfloat")) or tensor.dtype in ("int8", "uint8", "int4", "int2")


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= max(0, size)
    return count


def _at(tensors: Sequence[Tensor], index: int) -> Tensor:
    if not 0 <= index < len(tensors):
        raise Unreadable(f"is broken: it names the tensor {index} of {len(tensors)}")
    return tensors[index]


def _kinds(tensors: Sequence[Tensor], operators: Sequence[Operator], filled: Sequence[bool]) -> list[str]:
    """Name the precision of each operator with weights: by the types of what it takes, and of what those were unpacked from."""
    makers = {output: each for each in operators for output in each.outputs}
    found = []
    for each in operators:
        at = WEIGHTED.get(each.name)
        if at is None or max(at) >= len(each.inputs):
            continue
        taken, weight = (_at(tensors, each.inputs[index]) for index in at)
        place, through = each.inputs[at[1]], list[str]()
        while place in makers and makers[place].name in UNPACKS and len(through) < 8:
            through.append(makers[place].name)
            place = makers[place].inputs[0]
        stored = _at(tensors, place)
        number = stored.table.number(2, "<I")
        if place not in makers and 0 < number < len(filled) and filled[number]:
            found.append(_kind(each.name, taken.dtype, weight.dtype, stored.dtype))
    return found


def _kind(operator: str, taken: str, used: str, stored: str) -> str:
    if stored in ("int4", "int2"):
        return f"{stored}-weights"
    if stored in ("int8", "uint8"):
        if used not in ("int8", "uint8") or operator == "EMBEDDING_LOOKUP":
            return "int8-weights"
        return "int8-dynamic" if taken.startswith("float") else "int16x8" if taken == "int16" else "int8"
    return {"float32": "fp32", "float16": "fp16", "float64": "fp64", "bfloat16": "bf16"}.get(stored, stored)


def _label(operator: Operator, tensors: Sequence[Tensor]) -> str:
    """Name a node, which has no name of its own, by what it makes."""
    return _at(tensors, operator.outputs[0]).name if len(operator.outputs) else ""


def _signature_names(model: Table, tensors: Sequence[Tensor]) -> dict[tuple[str, int], str]:
    """Return what the one signature of a file calls its inputs and outputs, where tensors have no names of their own."""
    signatures = model.tables(7)
    if len(signatures) != 1 or all(each.name for each in tensors):
        return {}
    both = (("in", 0), ("out", 1))
    return {(role, pair.number(1, "<I")): pair.text(0) for role, at in both for pair in signatures[0].tables(at)}


def _described(tensor: Tensor, name: str | None, role: str) -> FileTensor:
    called = tensor.name or name or role
    if tensor.dtype in ("string", "resource", "variant") and role == "input":
        what = "text" if tensor.dtype == "string" else f"a {tensor.dtype}"
        raise Unreadable(f"input {called!r} takes {what}, and numbers alone are made; convert it without its preprocessing")
    scale, zero_point = tensor.quantization
    return FileTensor(called, tensor.dtype, tensor.signature, (), scale, zero_point)


def appended(path: Path) -> dict[str, str]:
    """Read what exporters append to the file as an archive: `metadata` holds its text."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename in ADDED and info.file_size <= LARGEST_TEXT:
                    return {"metadata": archive.read(info).decode("utf-8", "replace")}
            labels = [info for info in archive.infolist() if re.search(r"labels?[^/]*\.txt$", info.filename)]
            if labels and labels[0].file_size <= LARGEST_TEXT:
                return {"labels": archive.read(labels[0]).decode("utf-8", "replace")}
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError, EOFError):
        return {}
    return {}
