"""Protocol buffers of any origin: read field by field, within their bounds, without their schema or a library."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebench.schema.file import Unreadable

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DEEPEST = 64
"""Messages within messages; graphs in graphs are far from it."""


class Message:
    """A message within a file: its fields by their numbers, each as often as it is there."""

    def __init__(self, data: Any, begin: int, end: int, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise Unreadable("is nested too deeply")
        self.data, self.begin, self.end, self.depth = data, begin, end, depth
        self.found: dict[int, list[tuple[int, Any]]] = {}
        for number, kind, value in fields(data, begin, end):
            self.found.setdefault(number, []).append((kind, value))

    def messages(self, number: int) -> list[Message]:
        """Read a field's messages."""
        return [Message(self.data, *place, self.depth + 1) for place in self.places(number)]

    def message(self, number: int) -> Message:
        """Read a field's last message; an empty one where there is none."""
        found = self.messages(number)
        return found[-1] if found else Message(self.data, 0, 0, self.depth + 1)

    def places(self, number: int) -> list[tuple[int, int]]:
        """Return where each of a field's texts, messages or bytes begins and ends."""
        return [value for kind, value in self.found.get(number, ()) if kind == BYTES]

    def content(self, number: int) -> list[bytes]:
        """Read a field's bytes."""
        return [bytes(self.data[begin:end]) for begin, end in self.places(number)]

    def texts(self, number: int) -> list[str]:
        """Read a field's texts."""
        return [content.decode("utf-8", "replace") for content in self.content(number)]

    def text(self, number: int) -> str:
        """Read a field's text; empty where there is none."""
        return (self.texts(number) or [""])[-1]

    def numbers(self, number: int) -> list[int]:
        """Read a field's whole numbers, packed or one by one, with their sign."""
        found: list[int] = []
        for kind, value in self.found.get(number, ()):
            if kind == VARINT:
                found.append(signed(value))
            elif kind == BYTES:
                position, end = value
                while position < end:
                    each, position = varint(self.data, position, end)
                    found.append(signed(each))
        return found

    def number(self, number: int, default: int = 0) -> int:
        """Read a field's number."""
        found = [value for kind, value in self.found.get(number, ()) if kind == VARINT]
        return signed(found[-1]) if found else default


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Map a file into memory; an empty one is empty bytes."""
    if path.stat().st_size == 0:
        yield b""
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def fields(data: Any, begin: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """Go through a message: each field's number, its kind, and its value or where that begins and ends."""
    position = begin
    while position < end:
        key, position = varint(data, position, end)
        kind, number = key & 7, key >> 3
        if not number:
            raise Unreadable("is no protocol buffer (a field has the number 0)")
        if kind == VARINT:
            value, position = varint(data, position, end)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, position = varint(data, position, end)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise Unreadable(f"is no protocol buffer (wire type {kind})")
        if position + size > end:
            raise Unreadable(f"is cut short: a field goes on to byte {position + size}, what holds it ends at {end}")
        yield number, kind, (position, position + size)
        position += size


def varint(data: Any, position: int, end: int) -> tuple[int, int]:
    """Read a number of seven bits a byte; returns it and where the next thing begins."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise Unreadable(
        "is cut short within a number" if position >= end else "is no protocol buffer (a number of more than 64 bits)"
    )


def signed(value: int) -> int:
    """Return a 64-bit number with its sign."""
    return value - (1 << 64) if value >> 63 else value


def matches(data: Any, known: Callable[[int, int, Any], bool], least: int = 1) -> bool:
    """Return whether a file's outermost fields are all known ones, `least` of them at least; it may be cut short after."""
    count = 0
    try:
        for number, kind, value in fields(data, 0, len(data)):
            if not known(number, kind, value):
                return False
            count += 1
    except Unreadable as error:
        return count >= least and "cut short" in str(error)
    return count >= least
