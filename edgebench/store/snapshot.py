"""What lies in a folder of records."""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from edgebench.store.layout import RECORDS, is_record

Digests = dict[str, str]


@dataclass
class Folder:
    """What lies in one folder, and what changes where a record does: its time, size and inode."""

    name: str
    """Below the folder of results, with `/`."""
    files: list[str]
    facts: array[int]
    """All times, then all sizes, then all inodes."""

    @property
    def digest(self) -> str:
        """Hash it all."""
        return hashlib.sha256(repr(self.files).encode() + self.facts.tobytes()).hexdigest()

    def stamps(self) -> dict[str, str]:
        """Return each record's facts by its path; names that are no Unicode are escaped, and so not found."""
        count = len(self.files)
        columns = (self.facts[start : start + count] for start in (0, count, 2 * count))
        return {
            escaped(f"{self.name}/{file}"): f"{time_ns} {size} {inode}"
            for file, time_ns, size, inode in zip(self.files, *columns, strict=True)
        }


def look(results: str, name: str) -> tuple[Folder, list[str]]:
    """List one folder's records, and the folders in it; one that cannot be read holds a record without a name."""
    try:
        place = os.open(os.path.join(results, name), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return Folder(name, [], array("q")), []
    except OSError:
        return Folder(name, [""], array("q", (0, 0, 0))), []
    try:
        return _listed(place, name)
    finally:
        os.close(place)


def _listed(place: int, name: str) -> tuple[Folder, list[str]]:
    inner = os.listdir(place)
    named = [(file, _facts(file, place)) for file in inner if is_record(file)]
    found = [(file, facts) for file, facts in named if facts is not None]
    others = [(file, _facts(file, place)) for file in inner if not file.endswith((".json", ".npz"))]
    below = [f"{name}/{file}" for file, facts in others if facts is not None and stat.S_ISDIR(facts.st_mode)]
    columns = ([each.st_mtime_ns for _, each in found], [each.st_size for _, each in found], [each.st_ino for _, each in found])
    return Folder(name, [file for file, _ in found], array("q", [value for column in columns for value in column])), below


def _facts(file: str, place: int) -> os.stat_result | None:
    try:
        return os.stat(file, dir_fd=place, follow_symlinks=False)
    except OSError:  # gone in the meantime
        return None


def walk(results: str) -> Iterator[Folder]:
    """List every folder of records."""
    waiting = [RECORDS]
    while waiting:
        found, below = look(results, waiting.pop())
        waiting += below
        yield found


def digests(results: str) -> Digests:
    """Hash what lies in each folder."""
    return {folder.name: folder.digest for folder in walk(results)}


def escaped(name: str) -> str:
    """Write what is no Unicode in a file's name as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")
