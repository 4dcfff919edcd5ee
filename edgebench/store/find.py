"""List records, and find one by its path or by the beginning of its key or of its file's name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebench.errors import InputError, RecordError
from edgebench.files import below
from edgebench.schema import Progress, Record
from edgebench.store import records
from edgebench.store.index import Damaged, Where, open_index
from edgebench.store.layout import RECORDS, is_record
from edgebench.store.row import Entry

KEY = re.compile(r"[0-9a-f]{4,64}")
IN_NAME = 10
"""So much of its key stands in a record's file name; see `store.stem`."""
SHOWN = 5
HIDDEN = ("combination", "details", "more", "options", "scenario")
"""What the index has for itself, or otherwise."""


@dataclass(frozen=True)
class Listing:
    """Records by their paths, and those that cannot be read."""

    entries: tuple[Entry, ...]
    beyond: int
    """How many more there are."""
    damaged: tuple[Damaged, ...]

    def json(self) -> Iterator[str]:
        """Write it as JSON, a line a record: a hundred thousand of them at once would fill the memory."""
        yield '{"records": ['
        for number, entry in enumerate(self.entries, 1):
            yield json.dumps(_values(entry), ensure_ascii=False) + ("," if number < len(self.entries) else "")
        damaged = [{"record": each.path, "reason": each.reason} for each in self.damaged]
        yield f'], "beyond": {self.beyond}, "damaged": {json.dumps(damaged, ensure_ascii=False)}}}'


def _values(entry: Entry) -> dict[str, Any]:
    plain = {name: value for name, value in vars(entry).items() if name not in HIDDEN}
    return {**plain, "options": json.loads(entry.options), "scenario": json.loads(entry.scenario)}


def listing(results: Path, where: Where | None, first: int | None, progress: Progress) -> Listing:
    """List the records that fit (see `Index.entries`), or only the first ones, without reading their samples."""
    with open_index(results, progress) as index:
        entries = index.entries(where, first)
        beyond = 0 if first is None else index.number(where) - len(entries)
        return Listing(tuple(entries), beyond, tuple(index.damaged))


def find(results: Path, name: str) -> tuple[Path, Record]:
    """Find a record: its path, the beginning of its key (four digits at least), or that of its name (`cpu/resnet18.onnx`).

    `InputError` where no record is called so, or several are.
    """
    if Path(name).is_file():
        return Path(name), records.read_record(Path(name))
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; give the one that holds {RECORDS}/ with --results")
    names = {path: path.relative_to(results / RECORDS).as_posix() for path in _records(results)}
    wanted = name.removeprefix(f"{RECORDS}/")
    found = [path for path, own in names.items() if wanted in (own, own.removesuffix(".json"), path.name)]
    found = found or [path for path, own in names.items() if own.startswith(wanted) or path.name.startswith(wanted)]
    if not found and KEY.fullmatch(name):
        found = [path for path, own in names.items() if _key(own).startswith(name[:IN_NAME]) and _has_key(path, name)]
    if not found:
        raise InputError(f"{results}: no record begins with {name!r}, nor does its key; `edgebench results list` names them")
    if len(found) > 1:
        some = ", ".join(names[path] for path in found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
        raise InputError(f"{name!r} is the beginning of {len(found)} records: {some}; give more of one")
    return found[0], records.read_record(found[0])


def _records(results: Path) -> Iterator[Path]:
    return (path for path in below(results / RECORDS) if is_record(path.name))


def _key(name: str) -> str:
    """Take the key's beginning out of a file's name."""
    return name.removesuffix(".json").removesuffix(".failed").rpartition(".")[2]


def _has_key(path: Path, name: str) -> bool:
    """Return whether a record's key begins so, where its file's name does not tell."""
    try:
        return len(name) <= IN_NAME or records.read_record(path, whole=False).key.startswith(name)
    except RecordError:
        return False
