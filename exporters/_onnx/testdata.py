"""ONNX's own test data: folders with `input_0.pb`, `output_0.pb`, …, each one tensor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.exporters._onnx.reader import TYPES
from edgebench.exporters._shared.protobuf import BYTES, FIXED32, FIXED64, Message, opened
from edgebench.schema.file import Unreadable

NAME = re.compile(r"(input|output)_(0|[1-9][0-9]{0,2})\.pb")
FLOATS, INTS, LONGS, NAMED, RAW, DOUBLES, UNSIGNED = 4, 5, 7, 8, 9, 10, 11
LARGEST = 1 << 31


def read(folder: Path) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Read a folder's inputs and outputs, in order, each with the name that its file gives, or none."""
    found: dict[str, dict[int, tuple[str, Any]]] = {"input": {}, "output": {}}
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match:
            found[match[1]][int(match[2])] = tensor(path)
    if not found["output"]:
        raise Unreadable("holds no output_0.pb; name a folder such as test_data_set_0")
    return tuple([each[index] for index in sorted(each)] for each in (found["input"], found["output"]))  # type: ignore[return-value]


def tensor(path: Path) -> tuple[str, Any]:
    """Read one tensor."""
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"holds {path.name}, which is larger than {LARGEST >> 30} GB")
    with opened(path) as data:
        message = Message(data, 0, len(data))
        dtype = TYPES[message.number(2)] if 0 < message.number(2) < len(TYPES) else ""
        if dtype not in np.sctypeDict or not message.found.get(2):
            raise Unreadable(f"holds {path.name}, which is no tensor of numbers")
        shape = message.numbers(1)
        try:
            return message.text(NAMED), _values(message, np.dtype(dtype)).reshape(shape)
        except ValueError as error:
            raise Unreadable(f"holds {path.name}, whose shape {shape} does not fit its numbers") from error


def _values(message: Message, dtype: Any) -> Any:
    raw = message.content(RAW)
    if raw:
        return np.frombuffer(raw[-1], dtype.newbyteorder("<")).astype(dtype)
    for field, form in ((FLOATS, "<f4"), (DOUBLES, "<f8")):
        if message.found.get(field):
            parts = [_fixed(message, value) for kind, value in message.found[field] if kind in (BYTES, FIXED32, FIXED64)]
            return np.frombuffer(b"".join(parts), form).astype(dtype)
    whole = np.array([each for field in (INTS, LONGS, UNSIGNED) for each in message.numbers(field)], np.int64)
    return whole.astype(np.uint16).view(np.float16) if dtype == np.float16 else whole.astype(dtype)


def _fixed(message: Message, place: tuple[int, int]) -> bytes:
    return bytes(message.data[place[0] : place[1]])
