"""Explanations that no table and no page shows any more: of files whose records went, or were replaced by other files'."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebench.errors import RecordError
from edgebench.store import explanations
from edgebench.store.explanations import MAPS, SHEET, Tie
from edgebench.store.layout import EXPLANATIONS
from edgebench.store.row import Entry

if TYPE_CHECKING:
    from edgebench.schema.explanation import Explanation

ENDINGS = (MAPS, SHEET)


@dataclass(frozen=True)
class Held:
    """The explanations of a folder, and which could not be read."""

    each: tuple[tuple[str, Explanation], ...]
    """Paths below the folder of results."""
    damaged: tuple[tuple[str, str], ...]

    @property
    def doubtful(self) -> set[str]:
        """Name the folders in which a damaged one may own what no other names."""
        return {os.path.dirname(path) for path, _ in self.damaged}


def held(results: Path) -> Held:
    """Read all explanations; one that a link leads to is damaged."""
    found, damaged = [], []
    for path in explanations.paths(results):
        name = path.relative_to(results).as_posix()
        try:
            if path.is_symlink() or not path.resolve().is_relative_to(results.resolve()):
                raise RecordError(f"{path}: reached by a link; it stays")
            each = explanations.owned(path, explanations.read_content(path))
            if explanations.place(each) != name:
                raise RecordError(f"{path}: does not lie where it belongs, {explanations.place(each)}; it stays")
        except RecordError as error:
            damaged.append((name, str(error)))
            continue
        found.append((name, each))
    return Held(tuple(found), tuple(damaged))


def stale(every: Held, entries: Sequence[Entry], going: Collection[str]) -> Iterator[tuple[str, Explanation]]:
    """Find the explanations whose file has no record that stays, but one that goes, or a newer one of another file by its name.

    What was explained and never measured stays, as do networks, and what a kept explanation was compared with.
    """
    staying = [entry for entry in entries if entry.path not in going]
    shown = {tie(entry) for entry in staying}
    went = {tie(entry) for entry in entries} - shown
    newest: dict[tuple[str, ...], str] = {}
    for entry in staying:
        name = (f"{entry.model}.{entry.format}.{entry.precision}", *tie(entry)[1:])
        newest[name] = max(newest.get(name, ""), entry.started_at)
    leaving = {}
    for path, each in every.each:
        mine = explanations.tie(each)
        replaced = each.started_at < newest.get((each.file.name, *mine[1:]), "")
        if mine not in shown and (mine in went or replaced):
            leaving[path] = each
    referred = {_reference(each) for path, each in every.each if path not in leaving}
    return ((path, each) for path, each in leaving.items() if _itself(each) not in referred)


def tie(entry: Entry) -> Tie:
    """Say which explanations a record has."""
    return str(entry.more["bundle"]), entry.target, entry.device, entry.options


def _reference(each: Explanation) -> tuple[object, ...]:
    return (each.drift and each.drift.reference_sha256, each.method, each.evaluation_sha256, each.samples)


def _itself(each: Explanation) -> tuple[object, ...]:
    return (each.file.sha256, each.method, each.evaluation_sha256, each.samples)


def named(every: Iterable[tuple[str, Explanation]]) -> set[str]:
    """List the maps and sheets that explanations name, below the folder of results."""
    return {f"{os.path.dirname(path)}/{each.file}" for path, found in every for each in explanations.beside(found)}


def is_beside(path: str) -> bool:
    """Return whether a file is what belongs to an explanation."""
    return path.startswith(f"{EXPLANATIONS}/") and path.endswith(ENDINGS)
