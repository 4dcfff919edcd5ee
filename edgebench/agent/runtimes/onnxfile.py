"""The nodes of an ONNX file, read without the onnx package: devices have none.

Field numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto).
"""

import mmap
from typing import Any, Dict, Iterator, List, Tuple

GRAPH = 7
NODE, INITIALIZER = 1, 5
INPUT, OUTPUT, NAME, OPERATOR = 1, 2, 3, 4
TENSOR_NAME = 8
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def nodes(path: str) -> List[Dict[str, Any]]:
    """Read the main graph's nodes in their order: `{name, op, inputs, outputs}`, weights left out of the inputs.

    Raises ValueError where the file is no ONNX.
    """
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found: List[Dict[str, Any]] = []
        weights = set()
        for begin, end in [place for field, place in fields(data, 0, len(data)) if field == GRAPH]:
            for field, place in fields(data, begin, end):
                if field == NODE:
                    found.append(node(data, *place))
                elif field == INITIALIZER:
                    weights.update(texts(data, place, TENSOR_NAME))
        weights.update(name for each in found if each["op"] == "Constant" for name in each["outputs"])
    for each in found:
        each["inputs"] = [name for name in each["inputs"] if name and name not in weights]
    return [each for each in found if each["op"] != "Constant"]


def node(data: Any, begin: int, end: int) -> Dict[str, Any]:
    """Read one node."""
    place = (begin, end)
    return {
        "name": "".join(texts(data, place, NAME)),
        "op": "".join(texts(data, place, OPERATOR)),
        "inputs": texts(data, place, INPUT),
        "outputs": [name for name in texts(data, place, OUTPUT) if name],
    }


def texts(data: Any, place: Tuple[int, int], wanted: int) -> List[str]:
    """Read a field's strings."""
    return [bytes(data[begin:end]).decode("utf-8") for field, (begin, end) in fields(data, *place) if field == wanted]


def fields(data: Any, position: int, end: int) -> Iterator[Tuple[int, Tuple[int, int]]]:
    """Go through a message: field numbers, and where each that has a length begins and ends; numbers are passed over."""
    while position < end:
        key, position = varint(data, position)
        kind = key & 7
        if kind == BYTES:
            size, position = varint(data, position)
            if position + size > end:
                raise ValueError("no ONNX file: a field is longer than what holds it")
            yield key >> 3, (position, position + size)
            position += size
        elif kind == VARINT:
            _, position = varint(data, position)
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("no ONNX file: wire type %d" % kind)


def varint(data: Any, position: int) -> Tuple[int, int]:
    """Read a number of seven bits a byte; returns it and where the next thing begins."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("no ONNX file: it is cut short")
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
