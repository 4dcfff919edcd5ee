"""A CSV that somebody brings, and which sample of the test split each of its rows is about."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from edgebench.data import SPLITS, Dataset
from edgebench.data._dealing import ALIASES
from edgebench.errors import InputError
from edgebench.store.records import bytes_of

MOST_BYTES = 64 << 20
INDEX, FILE, SPLIT = "index", "file", "split"
SHOWN = 60
"""So much of a stranger's text stands in a message."""


@dataclass(frozen=True)
class Table:
    """Rows with their line numbers; columns are called as in the file, without what surrounds their names."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]

    def want(self, column: str) -> None:
        """Raise `InputError` where there is no such column."""
        if column not in self.columns:
            raise InputError(f"{self.path}: has no column {column!r}; its columns: {', '.join(map(shown, self.columns))}")


def shown(text: str) -> str:
    """Shorten a stranger's text for a message."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def read(path: Path) -> Table:
    """Read a CSV in UTF-8, parted by commas, semicolons or tabs; `InputError` says in which line something is wrong."""
    try:
        content = bytes_of(path, MOST_BYTES)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path}: is larger than {MOST_BYTES >> 20} MiB; leave columns out that are not needed")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a CSV file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not in UTF-8; save it as CSV in UTF-8") from error
    head = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        columns = tuple(name.strip() for name in next(lines, []))
        return Table(path, _checked(path, columns), tuple(_rows(path, columns, lines)))
    except csv.Error as error:
        raise InputError(f"{path}: line {lines.line_num}: is no CSV ({error}); mend it") from error


def _checked(path: Path, columns: tuple[str, ...]) -> tuple[str, ...]:
    if not any(columns):
        raise InputError(f"{path}: has no columns; its first line names them, for instance file,patient,sex,age")
    for name in columns:
        if not name or columns.count(name) > 1:
            what = f"the column {shown(name)!r} stands twice in it" if name else "a column has no name"
            raise InputError(f"{path}: {what}; name each column once in the first line")
    return columns


def _rows(path: Path, columns: Sequence[str], lines: Iterator[list[str]]) -> Iterator[tuple[int, Mapping[str, str]]]:
    for number, line in enumerate(lines, 2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != len(columns):
            raise InputError(f"{path}: line {number}: has {len(line)} cells, and there are {len(columns)} columns; mend it")
        yield number, dict(zip(columns, (cell.strip() for cell in line), strict=True))


# ---------------------------------------------------------------- which sample a row is about


@dataclass(frozen=True)
class Placed:
    """Rows by the sample that they are about."""

    rows: Mapping[str, Sequence[tuple[int, int, Mapping[str, str]]]]
    """By split: line number, the sample's place in the whole split, and the row."""


class Identity:
    """Finds a data set's samples by their number in a split, or by their files."""

    def __init__(self, data: Dataset) -> None:
        """Take the whole data set, not a subset of it."""
        self._data = data

    def place(self, table: Table) -> Placed:
        """Find what each row is about; `InputError` where it is about no sample, or about none alone."""
        known = [name for name in (INDEX, FILE) if name in table.columns]
        if not known:
            raise InputError(
                f"{table.path}: has no column {INDEX} (a sample's number in its split, from 0) or {FILE}; "
                f"its columns: {', '.join(map(shown, table.columns))}"
            )
        if known[0] == FILE and self._data.files is None:
            raise InputError(
                f"{table.path}: names files, and {self._data.ref.name} has none; name samples by a column {INDEX} (from 0)"
            )
        find = self._by_index if known[0] == INDEX else self._by_file
        found: dict[str, list[tuple[int, int, Mapping[str, str]]]] = {name: [] for name in SPLITS}
        for line, row in table.rows:
            split, place = find(table.path, line, row)
            found[split].append((line, place, row))
        return Placed(found)

    def _by_index(self, path: Path, line: int, row: Mapping[str, str]) -> tuple[str, int]:
        split, text = self._split(path, line, row) or "test", row[INDEX]
        if split != "test":
            return split, int(text) if text.isdecimal() and len(text) < 10 else 0
        count = len(self._data.read("test"))
        if not text.isdecimal() or len(text) > 9 or int(text) >= count:
            raise InputError(f"{path}: line {line}: {INDEX} {shown(text)!r} is no sample; the test split has 0 to {count - 1}")
        return split, int(text)

    def _by_file(self, path: Path, line: int, row: Mapping[str, str]) -> tuple[str, int]:
        named, text = self._split(path, line, row), row[FILE]
        parts = _parts(text)
        found = self._files.get(parts[-1:], []) if parts else []
        matching = [each for each in found if each[2][-len(parts) :] == parts and named in (None, each[0])]
        if not matching:
            raise InputError(f"{path}: line {line}: {FILE} {shown(text)!r} is none of the data set; name it as it lies there")
        if len(matching) > 1:
            raise InputError(f"{path}: line {line}: {FILE} {shown(text)!r} could be {len(matching)} files; give its folder too")
        split, place, _ = matching[0]
        return split, place

    def _split(self, path: Path, line: int, row: Mapping[str, str]) -> str | None:
        text = row.get(SPLIT, "")
        if not text:
            return None
        split = ALIASES.get(text.lower())
        if split is None:
            raise InputError(f"{path}: line {line}: {SPLIT} {shown(text)!r} is none of {', '.join(SPLITS)}")
        return split

    @cached_property
    def _files(self) -> Mapping[tuple[str, ...], list[tuple[str, int, tuple[str, ...]]]]:
        """List every split's files by their names: the split, the place, and the parts of the path."""
        assert self._data.files is not None
        found: dict[tuple[str, ...], list[tuple[str, int, tuple[str, ...]]]] = {}
        for split in SPLITS:
            for place, file in enumerate(self._data.files(split)):
                parts = file.parts
                found.setdefault(parts[-1:], []).append((split, place, parts))
        return found


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in PurePath(re.sub(r"\\", "/", text)).parts if part != ".")
