"""An index over a folder of records, so that a hundred thousand of them are searched at once; the files stay the truth."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import __version__
from edgebench.errors import InputError, RecordError, UnknownName
from edgebench.files import storage
from edgebench.store import snapshot
from edgebench.store.row import ALWAYS, FIELDS, FILTERS, REVISION, Entry, Selection, flatten, grouping

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from edgebench.schema import Progress

BATCH = 5000
"""Records that are read before they are written into the index."""
PATIENCE_SECONDS = 120.0
"""How long to wait for another edgebench that has the same index open."""
FORGOTTEN_SECONDS = 90 * 86400.0
"""An index that was not written for so long is removed; it can be made again."""
TYPES = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN"}
TABLES: dict[str, dict[str, str]] = {
    "entries": {name: TYPES[kind.partition(" ")[0]] for name, kind in FIELDS.items()},
    "damaged": {"path": "VARCHAR", "reason": "VARCHAR"},
    "files": {"path": "VARCHAR", "folder": "VARCHAR", "stamp": "VARCHAR"},
    "folders": {"folder": "VARCHAR", "digest": "VARCHAR"},
}
LAYOUT = hashlib.sha256(repr((__version__, REVISION, TABLES)).encode()).hexdigest()[:16]
"""Part of the index's name: that of another edgebench is left alone, and one of this is made anew."""
ORDERS = {
    "latency": "median_ns",
    "metric": "-metric",
    "size": "size_bytes",
    "p99": "p99_ns",
    "memory": "peak_bytes",
    "energy": "CASE WHEN energy_short THEN NULL ELSE energy_joules END",
}
"""What the best row has least of."""
AXES = ("latency", "metric", "size")
"""In these orders, whatever beats a row in all of them comes before it."""
UNJUDGED = ("latency", "size", "memory")
"""Likewise of rows that have no data set."""
LARGEST = 2**63 - 1
TOGETHER = "NOT generates"
"""What stands in the tables that all share."""
LISTED = "(SELECT unnest(?::VARCHAR[]))"
Where = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Damaged:
    """A record that cannot be read, and why."""

    path: str
    reason: str


class Index:
    """The records of a folder as lines of a database; `open_index` and `hold` make one."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        """Take a connection, and make the tables that it has not got."""
        self._connection = connection
        for table, columns in TABLES.items():
            self._rows(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    # ---------------------------------------------------------------- asking

    @property
    def damaged(self) -> list[Damaged]:
        """List the records that cannot be read, by their paths."""
        return [Damaged(*row) for row in self._rows("SELECT path, reason FROM damaged ORDER BY path")]

    def entries(self, where: Where | None = None, first: int | None = None, generating: bool = False) -> list[Entry]:
        """List records by their paths, or only the first ones, or only language models'.

        where: names of `FILTERS`, each with patterns (`resnet*`) of which one
        must fit; `UnknownName` for another name.
        """
        chosen, values = self._chosen(where or {})
        chosen += " AND generates" if generating else ""
        limit = "" if first is None else f" LIMIT {int(first)}"
        return self._entries(f"SELECT * FROM entries WHERE {chosen} ORDER BY path{limit}", values)

    def number(self, where: Where | None = None) -> int:
        """Count the records that `entries` lists."""
        chosen, values = self._chosen(where or {})
        return int(self._rows(f"SELECT count(*) FROM entries WHERE {chosen}", values)[0][0])

    def select(self, by: Sequence[str], where: Where | None = None, sort: str = "latency", top: int | None = None) -> Selection:
        """Choose the newest record of each combination, in order; `top`: only the first ones of each table.

        `where` chooses what is shown; what is left out still serves as teacher and reference.
        """
        if sort not in ORDERS:
            raise UnknownName("sort order", sort, ORDERS)
        self._choose(by, where or {})
        keys = ", ".join(grouping(by, sort))
        order = ", ".join(f"{ORDERS[each]} NULLS LAST" for each in dict.fromkeys([sort, *AXES, *UNJUDGED]))
        limit = "TRUE" if top is None else f"place <= {int(top)}"
        # what has the same hash by chance is told apart by `tables`
        self._rows(
            f"CREATE OR REPLACE TEMP TABLE placed AS SELECT id, hash(({keys})) AS grouped, "
            f"row_number() OVER (PARTITION BY grouped ORDER BY {order}, path) AS place "
            "FROM entries JOIN newest ON entries.rowid = id WHERE chosen AND status = 'done'"
        )
        placed, newest = (f"FROM entries JOIN {each} ON entries.rowid = id WHERE" for each in ("placed", "newest"))
        shown = f"SELECT entries.* {placed} {limit} ORDER BY {keys}, place"
        beside = (
            f"SELECT entries.* {newest} status = 'done' AND precision = 'fp32' "
            f"AND hash(({keys})) IN (SELECT grouped FROM placed) "
            f"AND (role = 'teacher' OR format = 'torch' AND model IN (SELECT model {placed} {limit})) ORDER BY path"
        )
        lost = f"SELECT entries.* {newest} chosen AND status = 'failed' ORDER BY path"
        group = ", ".join(f"any_value({key})" for key in grouping(by, sort))
        beyond = f"SELECT {group}, count(*) {placed} NOT ({limit}) GROUP BY grouped"
        return Selection(
            shown=tuple(self._entries(shown)),
            beside=tuple(self._entries(beside)),
            failed=tuple(self._entries(lost)),
            left_out={row[:-1]: row[-1] for row in self._rows(beyond)},
        )

    def _choose(self, by: Sequence[str], where: Where) -> None:
        """Make the table `newest` of all that the tables asked for could hold; `chosen` marks what is asked for."""
        scope, scoped = self._chosen({name: patterns for name, patterns in where.items() if name in (*by, *ALWAYS)})
        chosen, values = self._chosen(where)
        self._rows(
            f"CREATE OR REPLACE TEMP TABLE newest AS SELECT rowid AS id, {chosen} AS chosen FROM entries "
            f"WHERE {TOGETHER} AND {scope} "
            "QUALIFY row_number() OVER (PARTITION BY combination ORDER BY started_at DESC, path DESC) = 1",
            [*values, *scoped],
        )

    def count(self, by: Sequence[str], where: Where | None = None, sort: str = "latency") -> int:
        """Count the tables that `select` is about."""
        chosen, values = self._chosen(where or {})
        keys = ", ".join(grouping(by, sort))
        asked = f"SELECT count(DISTINCT ({keys})) FROM entries WHERE {TOGETHER} AND status = 'done' AND {chosen}"
        [(tables,)] = self._rows(asked, values)
        return int(tables)

    def _chosen(self, where: Where) -> tuple[str, list[Any]]:
        """Write patterns as a condition on the values that there are."""
        conditions, values = ["TRUE"], []
        for name, patterns in where.items():
            if name not in FILTERS:
                raise UnknownName("filter", name, FILTERS)
            known = [str(row[0]) for row in self._rows(f"SELECT DISTINCT {FILTERS[name]} FROM entries")]
            values.append([each for each in known if any(fnmatchcase(each, one) for one in patterns)])
            conditions.append(f"{FILTERS[name]} IN {LISTED}")
        return " AND ".join(conditions), values

    def _entries(self, query: str, values: Sequence[Any] = ()) -> list[Entry]:
        return [Entry(*row) for row in self._rows(query, values)]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, list(values)).fetchall()

    # ---------------------------------------------------------------- keeping up with the files

    def refresh(self, results: Path, progress: Progress, digests: snapshot.Digests) -> None:
        """Read what is new or changed since the last time, and forget what is gone; digests: of the folders, as they are now."""
        known = dict(self._rows("SELECT folder, digest FROM folders"))
        touched = [name for name in {*known, *digests} if known.get(name) != digests.get(name)]
        if not touched:
            return
        folders = [snapshot.look(str(results), name)[0] for name in touched]
        now = {path: stamp for folder in folders for path, stamp in folder.stamps().items()}
        names = [snapshot.escaped(name) for name in touched]
        before = dict(self._rows(f"SELECT path, stamp FROM files WHERE folder IN {LISTED}", [names]))
        fresh = sorted(path for path, stamp in now.items() if before.get(path) != stamp)
        self._connection.begin()
        self._forget("path", [path for path, stamp in before.items() if now.get(path) != stamp], "entries", "damaged", "files")
        for start in range(0, len(fresh), BATCH):
            self._read(results, {path: now[path] for path in fresh[start : start + BATCH]})
            if len(fresh) > BATCH:
                progress("reading records", min(start + BATCH, len(fresh)), len(fresh))
        self._forget("folder", names, "folders")
        lines = [{"folder": snapshot.escaped(each.name), "digest": each.digest} for each in folders if each.name in digests]
        self._insert("folders", lines)
        self._connection.commit()

    def _read(self, results: Path, stamps: Mapping[str, str]) -> None:
        from edgebench.store import records

        entries, damaged = [], []
        for path in stamps:
            try:
                entries.append(_fitting(flatten(path, records.read_record(results / path, whole=False))))
            except RecordError as error:
                damaged.append({"path": path, "reason": str(error)})
        self.add(entries)
        self._insert("damaged", damaged)
        files = [{"path": path, "folder": os.path.dirname(path), "stamp": stamp} for path, stamp in stamps.items()]
        self._insert("files", files)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add lines."""
        self._insert("entries", [vars(entry) for entry in entries])

    def _forget(self, column: str, values: list[str], *tables: str) -> None:
        for table in tables:
            self._rows(f"DELETE FROM {table} WHERE {column} IN {LISTED}", [values])

    def _insert(self, table: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write lines through a file: the database reads it a hundred times faster than single values."""
        if not lines:
            return
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in TABLES[table].items())
        with storage(Path(tempfile.gettempdir())), tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            read = f"read_json(?, format = 'newline_delimited', columns = {{{columns}}})"
            self._rows(f"INSERT INTO {table} SELECT * FROM {read}", [file.name])


def _fitting(entry: Entry) -> Entry:
    if any(isinstance(value, int) and abs(value) > LARGEST for value in vars(entry).values()):
        raise RecordError(f"{entry.path}: holds a number beyond 64 bits; delete it and measure this cell again")
    return entry


# ---------------------------------------------------------------- opening


def hold(entries: Iterable[Entry]) -> Index:
    """Make an index of lines that are at hand, in memory."""
    index = Index(_connect(":memory:"))
    index.add(entries)
    return index


@contextmanager
def open_index(results: Path, progress: Progress) -> Iterator[Index]:
    """Open a folder's index, up to date with its files; `InputError` where there is no such folder.

    It lies in the user's cache folder and can be deleted at any time. Where it
    cannot be kept there, it is made in memory.
    """
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; run `edgebench run` first, or give the folder that holds records/")
    index = _filled(_kept(_place(results)), results, progress, snapshot.digests(str(results)))
    try:
        yield index
    finally:
        index.close()


def _filled(connection: DuckDBPyConnection, results: Path, progress: Progress, digests: snapshot.Digests) -> Index:
    """Bring an index up to date; where its disk is full or its file broken, another in memory takes its place."""
    import duckdb

    try:
        index = Index(connection)
        index.refresh(results, progress, digests)
        return index
    except duckdb.Error:
        connection.close()
        index = Index(_connect(":memory:"))
        index.refresh(results, progress, digests)
        return index
    except BaseException:
        connection.close()
        raise


def _place(results: Path) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(os.fsencode(results.resolve())).hexdigest()[:16]
    return Path(home) / "edgebench" / f"{name}.{LAYOUT}.duckdb"


def _kept(place: Path) -> DuckDBPyConnection:
    """Connect to an index on disk: wait for another edgebench, make a damaged one anew, do without a disk."""
    import duckdb

    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if not place.exists():
                _tidy(place.parent)
            return _connect(str(place))
        except duckdb.IOException as error:
            if "lock" not in str(error).lower() or time.monotonic() > until:
                return _anew(place)
            time.sleep(0.05)
        except (duckdb.Error, OSError):
            return _anew(place)


def _tidy(folder: Path) -> None:
    """Make the folder of indexes, and remove those that nobody asked for in months."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in folder.glob("*.duckdb"):
        with suppress(OSError):
            if time.time() - index.stat().st_mtime > FORGOTTEN_SECONDS:
                index.unlink()


def _anew(place: Path) -> DuckDBPyConnection:
    import duckdb

    with suppress(duckdb.Error, OSError):
        place.unlink(missing_ok=True)
        return _connect(str(place))
    return _connect(":memory:")


def _connect(place: str) -> DuckDBPyConnection:
    import duckdb

    safe: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "memory_limit": "256MB",
        "threads": 2,
    }
    return duckdb.connect(place, config=safe)
