"""Flatbuffers of any origin: tables, vectors and texts, within their bounds, without their schema or a library."""

from __future__ import annotations

import struct
from typing import Any

from edgebench.schema.file import Unreadable

MOST = 1 << 24
"""Entries of a vector that are read."""


class Table:
    """A table within a file: its fields by their numbers."""

    def __init__(self, data: Any, place: int) -> None:
        self.data, self.place = data, place
        self.names = place - unpack(data, "<i", place)
        self.count = max(0, (unpack(data, "<H", self.names) - 4) // 2)

    def field(self, number: int) -> int:
        """Return where a field is; 0 where the table has none of it."""
        within = unpack(self.data, "<H", self.names + 4 + 2 * number) if number < self.count else 0
        return self.place + within if within else 0

    def number(self, number: int, form: str = "<i", default: int = 0) -> int:
        """Read a number of this form."""
        place = self.field(number)
        return unpack(self.data, form, place) if place else default

    def table(self, number: int) -> Table | None:
        """Read a table that a field leads to."""
        place = self.field(number)
        return Table(self.data, follow(self.data, place)) if place else None

    def tables(self, number: int) -> list[Table]:
        """Read a vector of tables."""
        begin, count = self.vector(number, 4)
        return [Table(self.data, follow(self.data, begin + 4 * index)) for index in range(count)]

    def numbers(self, number: int, form: str = "i") -> list[Any]:
        """Read a vector of numbers of this form."""
        begin, count = self.vector(number, struct.calcsize(form))
        return list(struct.unpack_from(f"<{count}{form}", self.data, begin))

    def text(self, number: int) -> str:
        """Read a text; empty where there is none."""
        begin, count = self.vector(number, 1)
        return bytes(self.data[begin : begin + count]).decode("utf-8", "replace")

    def vector(self, number: int, width: int) -> tuple[int, int]:
        """Return where a vector's entries begin and how many there are, all of them within the file."""
        place = self.field(number)
        if not place:
            return 0, 0
        begin = follow(self.data, place)
        count = unpack(self.data, "<I", begin)
        if begin + 4 + count * width > len(self.data) or (width > 1 and count > MOST):
            raise Unreadable(f"is cut short: a vector has {count} entries, the file ends at byte {len(self.data)}")
        return begin + 4, count


def root(data: Any) -> Table:
    """Read a file's outermost table."""
    return Table(data, follow(data, 0))


def follow(data: Any, place: int) -> int:
    """Return where an offset leads to."""
    found = place + int(unpack(data, "<I", place))
    if found >= len(data):
        raise Unreadable(f"is cut short: something lies at byte {found}, the file ends at {len(data)}")
    return found


def unpack(data: Any, form: str, place: int) -> Any:
    """Read one number at a place."""
    if place < 0 or place + struct.calcsize(form) > len(data):
        raise Unreadable(f"is cut short: something lies at byte {place}, the file ends at {len(data)}")
    return struct.unpack_from(form, data, place)[0]
