"""The verbs on records that are there: leaderboard, recommend, and what lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.errors import RecordError, UnknownName
from edgebench.files import write_atomic
from edgebench.report import format_of, render
from edgebench.report import limits as limits_
from edgebench.report import tables as making
from edgebench.report.limits import Choice
from edgebench.report.tables import Table
from edgebench.store import explanations
from edgebench.store import index as indexing
from edgebench.store.index import Damaged, Index, Where
from edgebench.store.layout import NOISE, RESULTS
from edgebench.store.row import Entry
from edgebench.store.snapshot import digests

if TYPE_CHECKING:
    from edgebench.report.build import Reported
    from edgebench.report.server import Site
    from edgebench.schema import Progress, Record
    from edgebench.store.cleanup import Cleaned
    from edgebench.store.find import Listing
    from edgebench.store.merge import Merged

BY = ("dataset", "target")


def no_progress(what: str, done: float, total: float, lane: str = "") -> None:
    """Report nothing; as `schema.no_progress`, which takes a quarter of a second to import."""


@dataclass(frozen=True)
class Tables:
    """The tables of a folder, and what had to be left out of them."""

    tables: tuple[Table, ...]
    damaged: tuple[Damaged, ...]


@dataclass(frozen=True)
class Open:
    """A folder of records that is open for questions."""

    results: Path
    index: Index

    def tables(
        self,
        *,
        sort: str = "latency",
        by: Sequence[str] = BY,
        where: Where | None = None,
        top: int | None = None,
        many: int | None = None,
    ) -> Tables:
        """Make the leaderboard's tables; `top`: only the first rows of each, and one where there are too `many` tables."""
        damaged = list(self.index.damaged)
        if many is not None and self.index.count(by, where, sort) > many:
            top = 1
        early = top if sort in indexing.AXES else None  # else a row beyond could beat one that is shown
        selected = self.index.select(by, where, sort, early)
        made = making.make(selected, sort, by, self._floor(damaged), top, self._drifts(damaged))
        return Tables(tuple(made), tuple(damaged))

    def _drifts(self, damaged: list[Damaged]) -> making.Drifts:
        """Look up what explanations of a record's file were found to be; what cannot be read joins the damaged."""
        unreadable: list[tuple[str, str]] = []
        known = explanations.drifts(self.results, unreadable)
        damaged += [Damaged(path, reason) for path, reason in unreadable]

        def drift(entry: Entry) -> Mapping[str, Any] | None:
            tie = (str(entry.more["bundle"]), entry.target, entry.device, entry.options)
            return known[tie].values if tie in known else None

        return drift if known else lambda _: None

    def _floor(self, damaged: list[Damaged]) -> making.Floor:
        """Look up each device's noise once; what cannot be read joins the damaged."""
        measured = (self.results / NOISE).is_dir()

        @cache
        def known(target: str, device: str, mode: str) -> float | None:
            from edgebench.store.noise import read_noise

            try:
                noise = read_noise(self.results, target, device, mode)
            except RecordError as error:
                damaged.append(Damaged("noise", str(error)))
                return None
            return None if noise is None else noise.between_records

        def floor(entry: Entry) -> float | None:
            return known(entry.target, entry.device, entry.mode) if measured else None

        return floor


@contextmanager
def open_results(results: Path = RESULTS, progress: Progress = no_progress) -> Iterator[Open]:
    """Open a folder of records; its index is brought up to date, and each new record is checked against its hash."""
    with indexing.open_index(Path(results), progress) as index:
        yield Open(Path(results), index)


def tables(
    results: Path = RESULTS,
    *,
    sort: str = "latency",
    by: Sequence[str] = BY,
    where: Where | None = None,
    top: int | None = None,
    many: int | None = None,
    progress: Progress = no_progress,
) -> Tables:
    """Make the leaderboard's tables from every record below a folder, and name those that cannot be read.

    `where` chooses rows: a name (`precision`, `target`, `model`, …) and patterns, one of which must fit.
    `top`, `many`: see `Open.tables`.
    """
    with open_results(results, progress) as opened:
        return opened.tables(sort=sort, by=by, where=where, top=top, many=many)


def recommend(
    results: Path = RESULTS,
    *,
    limits: Mapping[str, str | float],
    sort: str = "metric",
    by: Sequence[str] = BY,
    where: Where | None = None,
) -> list[Choice]:
    """Choose among records: what keeps to the limits, best first, and what each of the others breaks.

    limits: `max_p50`, `max_p90`, `max_p99` (nanoseconds, or text like "20ms"),
    `max_size`, `max_memory` (bytes, "5MB"), `max_energy` (joules, "3mJ"),
    `min_metric` (0…1, "85%"), `min_rate` (per second). `InputError` for another name.
    """
    read = read_limits(limits)
    return limits_.choose(tables(results, sort=sort, by=by, where=where).tables, read)


def read_limits(limits: Mapping[str, str | float]) -> dict[str, float]:
    """Read limits as `recommend` takes them."""
    for name in limits:
        if name not in limits_.KINDS:
            raise UnknownName("limit", name, limits_.KINDS)
    return {name: limits_.quantity(name, value) if isinstance(value, str) else float(value) for name, value in limits.items()}


def leaderboard(
    results: Path = RESULTS,
    *,
    out: Path | None = None,
    format: str | None = None,
    sort: str = "latency",
    by: Sequence[str] = BY,
    where: Where | None = None,
    columns: Sequence[str] = (),
    top: int | None = None,
) -> str:
    """Make the leaderboard of a folder of records; the same records give the same bytes.

    format: markdown, csv, json or latex; as the ending of `out` says unless given, else markdown.
    """
    made = tables(results, sort=sort, by=by, where=where, top=top)
    return publish(made, results, out=out, format=format, columns=columns)


def publish(
    made: Tables, results: Path, *, out: Path | None = None, format: str | None = None, columns: Sequence[str] = ()
) -> str:
    """Write the tables of a folder of records as `leaderboard` does."""
    base = Path(os.path.relpath(results, Path(out).parent)) if out is not None else Path()
    text = render(made.tables, format or format_of(out), columns, base)
    if out is not None:
        write_atomic(Path(out), text.encode(errors="backslashreplace"))  # a file's name need not be text
    return text


# ---------------------------------------------------------------- list, find, clean, merge


def listing(
    results: Path = RESULTS, *, where: Where | None = None, first: int | None = None, progress: Progress = no_progress
) -> Listing:
    """List the records of a folder that fit `where`, or only the first ones, without reading their samples."""
    from edgebench.store import find as find_

    return find_.listing(Path(results), where, first, progress)


def find(name: str | Path, results: Path = RESULTS) -> tuple[Path, Record]:
    """Find a record by its path, or by the beginning of its key or of its file's name."""
    from edgebench.store import find as find_

    return find_.find(Path(results), str(name))


def clean(
    results: Path = RESULTS,
    *,
    yes: bool = False,
    keep: int = 1,
    older_than: str | None = None,
    where: Where | None = None,
    progress: Progress = no_progress,
) -> Cleaned:
    """Find what no table shows any more, and with `yes` remove it; older_than: "90d", the others stay."""
    from edgebench.store import cleanup as pruning

    options = pruning.CleanupOptions(keep, pruning.age(older_than) if older_than else 0.0, where)
    found = pruning.plan(Path(results), options, progress)
    if yes:
        pruning.remove(Path(results), found, progress)
    return found


def merge(sources: Sequence[Path], into: Path = RESULTS, *, dry_run: bool = False, progress: Progress = no_progress) -> Merged:
    """Take the records of other folders of results into one; what is damaged is refused, and of two the newer stays."""
    from edgebench.store import merge as merging

    return merging.merge([Path(source) for source in sources], Path(into), dry_run=dry_run, progress=progress)


# ---------------------------------------------------------------- the page


def report(
    results: Path = RESULTS,
    *,
    out: Path | None = Path("report.html"),
    by: Sequence[str] = BY,
    where: Where | None = None,
    figures: Path | None = None,
    progress: Progress = no_progress,
) -> Reported:
    """Write one HTML page with tables, charts and what is behind each record; `figures`: also static ones, into that folder."""
    from edgebench.report import build

    collection = build.Collection(Path(results))
    with open_results(results, progress) as opened:
        page = build.page(opened, collection, Path(out) if out else None, by, where, progress)
    text = build.written(page).encode(errors="replace") if out is not None else b""
    if out is not None:
        write_atomic(Path(out), text)
    return build.Reported(
        out=out,
        size=len(text),
        rows=len(page.rows),
        failed=len(page.entries) - len(page.rows),
        figures=build.draw(page, collection, Path(figures), progress) if figures is not None else (),
        left_out=tuple(page.left_out),
    )


def site(results: Path = RESULTS, *, by: Sequence[str] = BY, where: Where | None = None) -> Site:
    """Prepare a page to be served; it is made anew where records have changed, of which only those are read again."""
    from edgebench.report import build
    from edgebench.report.server import Site

    collection = build.Collection(Path(results))

    def make(progress: Progress) -> str:
        with open_results(results, progress) as opened:
            return build.written(build.page(opened, collection, None, by, where, progress))

    return Site(Path(results), make, lambda: {**digests(str(results)), **explanations.stamps(Path(results))})
