"""Records and what is behind them → the page of `edgebench report`, and its static figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import __version__
from edgebench.errors import InputError, RecordError
from edgebench.files import storage, write_atomic
from edgebench.report import content, explained
from edgebench.report.content import Page
from edgebench.report.detail import Splits, gather, pictures
from edgebench.report.tables import SORTS
from edgebench.schema import Progress
from edgebench.store import records
from edgebench.store.index import Where
from edgebench.store.row import Entry

if TYPE_CHECKING:
    from edgebench.report.leaderboard import Open

PICTURES_BYTES = 600_000
"""What the samples' pictures may take of a page, all data sets together."""
SHEETS_BYTES = 6_000_000
"""Likewise the pictures of explanations."""
MOST = 5000
"""Cells that one page may show; it is ten times as large as one of 500 then."""
DRAWN = ("roc", "confusion")
"""Of an evaluation, what figures draw."""


@dataclass(frozen=True)
class Reported:
    """What was written, and what had to be left out."""

    out: Path | None
    size: int
    rows: int
    failed: int
    figures: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "out": None if self.out is None else str(self.out),
            "bytes": self.size,
            "rows": self.rows,
            "failed": self.failed,
            "figures": [str(path) for path in self.figures],
            "left_out": [{"record": path, "reason": reason} for path, reason in self.left_out],
        }


@dataclass(frozen=True)
class Behind:
    """What is behind one record."""

    facts: Mapping[str, Any] | None
    """As `content.facts` returns it; None where the record cannot be read."""
    evidence: str
    """JSON."""
    worst: Sequence[int] = ()
    """The samples that it is worst at."""
    drawn: Mapping[str, Any] | None = None
    sheets: Mapping[str, str] = field(default_factory=dict)
    """Pictures of explanations by their hashes: PNG in base64."""
    reason: str = ""


class Collection:
    """What is behind records, each read once as long as it stays as it is."""

    def __init__(self, results: Path) -> None:
        """Take the folder that the records' paths begin in."""
        self._results = results
        self._splits = Splits()
        self._known: dict[tuple[Any, ...], Behind] = {}

    def of(self, entry: Entry) -> Behind:
        """Return what is behind a record; samples that cannot be read are told of."""
        key = (entry.path, entry.sha256, explained.stamp(self._results, entry))
        if key not in self._known:
            self._known[key] = self._read(entry.path)
        return self._known[key]

    def _read(self, path: str) -> Behind:
        try:
            record = records.read_record(self._results / path, whole=False)
        except RecordError as error:
            return Behind(None, "null", reason=str(error))
        if record.status != "done":
            return Behind(content.facts(record), "null")
        found = gather(self._results / path, record, *self._splits.of(record))
        scores = found.evaluation or {}
        worst = [sample["index"] for sample in scores.get("worst") or ()]
        drawn = {"evaluation": {name: scores[name] for name in DRAWN if name in scores}, "training": found.training}
        sheets = explained.sheets(self._results, record) if found.explanations else {}
        return Behind(content.facts(record), content.written(found.values()), worst, drawn, sheets)

    def pictures(self, entries: Sequence[Entry]) -> dict[str, dict[int, str]]:
        """Return pictures of the samples that records are worst at, those that most of them are first."""
        wanted: dict[str, Counter[int]] = {}
        some: dict[str, Entry] = {}
        for entry in entries:
            some.setdefault(entry.evaluation_sha256, entry)
            wanted.setdefault(entry.evaluation_sha256, Counter()).update(self.of(entry).worst)
        pictured = {split: self._pictured(some[split], order, len(wanted)) for split, order in wanted.items() if order}
        return {**pictured, **self._sheets(entries)}

    def _sheets(self, entries: Sequence[Entry]) -> dict[str, dict[int, str]]:
        """Return the pictures of explanations, the first ones while a page has room for them."""
        found: dict[str, dict[int, str]] = {}
        left = SHEETS_BYTES
        for name, picture in {name: each for entry in entries for name, each in self.of(entry).sheets.items()}.items():
            left -= len(picture)
            if left >= 0:
                found[name] = {0: picture}
        return found

    def _pictured(self, entry: Entry, order: Counter[int], splits: int) -> dict[int, str]:
        images, _ = self._splits.of(records.read_record(self._results / entry.path, whole=False))
        return {} if images is None else pictures(images, [index for index, _ in order.most_common()], PICTURES_BYTES // splits)


def page(
    opened: Open, collection: Collection, out: Path | None, by: Sequence[str], where: Where | None, progress: Progress
) -> Page:
    """Collect what a page holds; out: where it will lie, None: beside the folder `records`."""
    made = {"latency": opened.tables(by=by, where=where)}
    count = sum(len(table.rows) + len(table.failed) for table in made["latency"].tables)
    if count > MOST:
        many = f"{count} cells are too many for one page, {MOST} at most"
        raise InputError(f"{opened.results}: {many}; choose some, for instance with --where target=cpu")
    made |= {sort: opened.tables(sort=sort, by=by, where=where) for sort in SORTS if sort not in made}
    bare = Page(
        {sort: each.tables for sort, each in made.items()},
        results=str(opened.results),
        base=Path() if out is None else Path(os.path.relpath(opened.results, out.parent)),
        by=by,
        where=where or {},
    )
    read = []
    for count, entry in enumerate(bare.entries):
        progress("reading what is behind the records", count, len(bare.entries))
        read.append(collection.of(entry))
    damaged = [(each.path, each.reason) for each in made["latency"].damaged]
    return replace(
        bare,
        facts=[each.facts for each in read],
        evidence=[each.evidence for each in read],
        pictures=collection.pictures(bare.entries),
        left_out=damaged + [(entry.path, each.reason) for entry, each in zip(bare.entries, read, strict=True) if each.reason],
    )


def written(page: Page) -> str:
    """Write the page."""
    from edgebench.report import page as pages

    return pages.render(page, __version__)


def draw(page: Page, collection: Collection, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Write static figures of a page's tables into a folder."""
    from edgebench.report import figures

    evidence = {entry.path: collection.of(entry).drawn or {} for entry in page.entries}
    paths: list[Path] = []
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in figures.draw(page.tables, evidence):
        progress(f"drawing figures ({name})", len(paths), len(paths) + 1)
        write_atomic(folder / name, drawn)
        paths.append(folder / name)
    return tuple(paths)
