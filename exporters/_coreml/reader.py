"""What a Core ML package says of itself, read from its bytes: field numbers are those of Model.proto and MIL.proto."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgebench.exporters._shared.protobuf import BYTES, VARINT, Message, matches, opened
from edgebench.schema.file import FileDescription, FileTensor, Unreadable, precision_of

MANIFEST = "Manifest.json"
PROGRAM = 502
ARRAYS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
NUMBERS = {10: "float16", 11: "float32", 12: "float64", 21: "int8", 22: "int16", 23: "int32", 31: "uint8"}
"""MIL's types."""
SHORT = {"float16": "fp16", "float32": "fp32", "float64": "fp64"}
PACKED = {
    "constexpr_affine_dequantize": "int8-weights",
    "constexpr_blockwise_shift_scale": "int8-weights",
    "constexpr_lut_to_dense": "palettized",
    "constexpr_sparse_to_dense": "sparse-weights",
}
"""What unpacks weights, and what they were."""
WEIGHTED = ("conv", "conv_transpose", "linear", "matmul", "lstm", "gru", "rnn")


def recognizes(path: Path) -> bool:
    """Return whether a folder is a package with a Core ML model."""
    return path.is_dir() and (path / MANIFEST).is_file() and bool(_models(path))


def recognizes_specification(path: Path) -> bool:
    """Return whether a file is a bare `.mlmodel`: a specification without its package."""
    known = {1: VARINT, 2: BYTES, 10: VARINT}
    with opened(path) as data:
        return matches(data, lambda number, kind, _: known.get(number) == kind or (200 <= number <= 3000 and kind == BYTES), 3)


def _models(path: Path) -> list[Path]:
    return sorted((path / "Data").glob("*/*.mlmodel"))


def read(path: Path) -> FileDescription:
    """Describe a package; `Unreadable` where it is broken, or takes what no runtime is fed."""
    with opened(_models(path)[0]) as data:
        model = Message(data, 0, len(data))
        described = model.message(2)
        if not described.messages(1):
            raise Unreadable("describes no inputs")
        operations = list(_operations(model.message(PROGRAM)))
        kinds, outputs = _kinds(operations), [_feature(each, "output") for each in described.messages(10)]
        return FileDescription(
            format="coreml",
            inputs=tuple(_feature(each, "input") for each in described.messages(1)),
            outputs=tuple(each for each in outputs if each.dtype is not None),  # labels and dictionaries are no arrays
            precision=precision_of(kinds, _otherwise(operations)),
            kinds=kinds,
            parameters=sum(_count(each) for each in operations if _name(each) in ("const", *PACKED) and _is_weight(each)),
            metadata={each.text(1): each.text(2) for each in described.message(100).messages(100)},
            details={"specification": model.number(1), "nodes": sum(_name(each) != "const" for each in operations)},
            suffix=".mlpackage",
        )


def _feature(feature: Message, role: str) -> FileTensor:
    name, kind = feature.text(1), feature.message(3)
    if kind.places(4):
        image = kind.message(4)
        channels = 1 if image.number(3) == 10 else 3
        return FileTensor(name, "uint8", (1, channels, image.number(2), image.number(1)))
    if kind.places(5):
        array = kind.message(5)
        sizes = tuple(size if size > 0 else None for size in array.numbers(1))
        return FileTensor(name, ARRAYS.get(array.number(2), "float32"), sizes)
    if role == "input":
        what = "a whole number" if kind.places(1) else "text" if kind.places(3) else "no array"
        raise Unreadable(f"input {name!r} takes {what}; arrays and images alone are made")
    return FileTensor(name, None, None)


def _operations(program: Message, depth: int = 0) -> Iterator[Message]:
    """Go through all operations of a program's functions, those within others too."""
    for function in program.messages(2):
        for block in function.message(2).messages(3):
            yield from _within(block.message(2))


def _within(block: Message) -> Iterator[Message]:
    for operation in block.messages(3):
        yield operation
        for inner in operation.messages(4):
            yield from _within(inner)


def _name(operation: Message) -> str:
    return operation.text(1)


def _type(operation: Message) -> Message:
    """Return the tensor type of what an operation makes."""
    return operation.message(3).message(2).message(1)


def _dtype(operation: Message) -> str:
    return NUMBERS.get(_type(operation).number(1), "")


def _is_weight(operation: Message) -> bool:
    return _dtype(operation).startswith(("float", "int8", "uint8")) and _count(operation) > 1


def _count(operation: Message) -> int:
    count = 1
    for dimension in _type(operation).messages(3):
        count *= max(1, dimension.message(1).number(1))
    return count


def _inputs(operation: Message) -> dict[str, list[str]]:
    """Return which values an operation takes, by argument."""
    return {entry.text(1): [binding.text(1) for binding in entry.message(2).messages(1)] for entry in operation.messages(2)}


def _made(operation: Message) -> str:
    return operation.message(3).text(1)


def _kinds(operations: list[Message]) -> dict[str, int]:
    """Count the operations with weights by the precision that those are kept in."""
    makers: dict[str, Any] = {_made(each): each for each in operations}
    found: Counter[str] = Counter()
    for each in operations:
        if _name(each) not in WEIGHTED:
            continue
        taken = _inputs(each)
        names = taken.get("weight") or taken.get("weight_ih") or taken.get("y") or []
        maker = makers.get(names[0]) if names else None
        if maker is None:
            continue
        if _name(maker) in PACKED:
            found[_packed(maker)] += 1
        elif _name(maker) == "const":
            found[SHORT.get(_dtype(maker), _dtype(maker) or "fp32")] += 1
    return dict(sorted(found.items()))


def _packed(operation: Message) -> str:
    """Name the precision of packed weights; a table's by the bits that count its entries."""
    if _name(operation) != "constexpr_lut_to_dense":
        return PACKED[_name(operation)]
    attributes = {entry.text(1): entry.message(2).message(2).message(1) for entry in operation.messages(5)}
    sizes = [each.message(1).number(1) for each in attributes["lut"].messages(3)] if "lut" in attributes else []
    entries = max((size for size in sizes), default=0)
    return f"palettized-{entries.bit_length() - 1}bit" if entries > 1 else "palettized"


def _otherwise(operations: list[Message]) -> str:
    """Name the precision of a program without such operations: of what most of them make."""
    counts = Counter(SHORT[_dtype(each)] for each in operations if _dtype(each) in SHORT)
    most = counts.most_common(1)
    return most[0][0] if most else "fp32"
