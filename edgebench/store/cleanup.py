"""Remove what no table shows any more: records that newer ones replaced, and what writers left behind."""

from __future__ import annotations

import datetime
import os
import re
import stat
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgebench.errors import InputError, RecordError
from edgebench.files import below, storage
from edgebench.schema import Progress
from edgebench.store import explanations, orphans, records
from edgebench.store.index import Damaged, Where, open_index
from edgebench.store.layout import EXPLANATIONS, NOISE, RECORDS, SAMPLES
from edgebench.store.row import COMBINATION, Entry

Why = Literal["superseded", "failure", "explanation", "samples", "maps", "temporary"]
GRACE_SECONDS = 3600.0
"""What is younger may be a writer's that is still at work."""
TEMPORARY = re.compile(r"\..+\.([a-z0-9_]{8}|[0-9a-f]{8}-[0-9a-f]{8})")
"""What `write_atomic` calls its files before they are whole."""
AGE = re.compile(r"([0-9]{1,6})([smhdwy])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
CELL = tuple(name for name in COMBINATION if name != "status")


@dataclass(frozen=True)
class Removal:
    """A file that goes, with the raw samples that go with it, or the maps and pictures."""

    path: str
    """Below the folder of results."""
    why: Why
    bytes: int
    samples: str | None = None
    sha256: str | None = None
    """Of the record or the explanation; a file that has another by now stays."""
    maps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cleaned:
    """What goes, what would have gone but is damaged, and which damaged records were passed over."""

    going: tuple[Removal, ...]
    referred: int
    """Superseded records that stay because others refer to them."""
    damaged: tuple[Damaged, ...]

    @property
    def bytes(self) -> int:
        """How much space it frees."""
        return sum(each.bytes for each in self.going)

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        going = [
            {"path": each.path, "why": each.why, "bytes": each.bytes, "samples": each.samples, "maps": list(each.maps)}
            for each in self.going
        ]
        damaged = [{"path": each.path, "reason": each.reason} for each in self.damaged]
        return {"going": going, "bytes": self.bytes, "referred": self.referred, "damaged": damaged}


@dataclass(frozen=True)
class CleanupOptions:
    """How much is to go."""

    keep: int = 1
    """So many records of a combination stay, the newest."""
    older_than_seconds: float = 0.0
    """Only records that were measured longer ago go."""
    where: Where | None = None
    """Only records that fit go; see `Index.entries`."""


def age(text: str) -> float:
    """Read 90d, 12h, 2w as seconds; `InputError` where it is none."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--older-than {text}: not a number with a unit (s, m, h, d, w, y), for instance 90d")
    return float(int(found[1]) * SECONDS[found[2]])


def plan(results: Path, options: CleanupOptions, progress: Progress) -> Cleaned:
    """Find what can go; removes nothing.

    A record goes where newer ones of its combination are kept, a failure also
    where its cell has a newer result. Records that a kept one was compared with
    stay, and so does the newest of each model that a kept one was made from.
    Explanations of a file go with its last record, or where another file has
    taken its name since (see `orphans.stale`). Samples that no record names go,
    maps that no explanation names, and files of killed writers, where they are old
    enough that nobody can be at work on them (and no `where` was given).
    """
    with open_index(results, progress) as index:
        damaged, entries = index.damaged, index.entries()
        chosen = {entry.path for entry in (index.entries(options.where) if options.where else entries)}
    reasons = _stale(entries, options, chosen)
    referred = _referred(entries, reasons.keys())
    stale = [entry for entry in entries if entry.path in reasons and entry.path not in referred]
    going, broken = _checked(results, stale, reasons, progress)
    explained = orphans.held(results)
    going += _explanations(results, explained, entries, options, {each.path for each in going})
    damaged = [*damaged, *(Damaged(*each) for each in explained.damaged)]
    if not options.where:
        named = {_beside(entry.path, entry.samples) for entry in entries} | orphans.named(explained.each)
        going += _left_behind(results, named, damaged)
    return Cleaned(tuple(_alone(going, entries)), len(referred), (*damaged, *broken))


def _explanations(
    results: Path, explained: orphans.Held, entries: Sequence[Entry], options: CleanupOptions, going: Collection[str]
) -> Iterator[Removal]:
    """Find the explanations that go; with a `where` only those whose record goes now."""
    gone = {orphans.tie(entry) for entry in entries if entry.path in going}
    for path, each in orphans.stale(explained, entries, going):
        if options.where and explanations.tie(each) not in gone:
            continue
        if _age(each.started_at) < options.older_than_seconds:
            continue
        beside = explanations.beside(each)
        size = (results / path).stat().st_size + sum(one.bytes for one in beside)
        yield Removal(path, "explanation", size, sha256=each.sha256, maps=tuple(one.file for one in beside))


def _checked(
    results: Path, stale: Sequence[Entry], reasons: Mapping[str, Why], progress: Progress
) -> tuple[list[Removal], list[Damaged]]:
    """Check records before they go; what does not hold stays."""
    going, broken = [], []
    for number, entry in enumerate(stale, 1):
        try:
            going.append(_record(results, entry, reasons[entry.path]))
        except (RecordError, OSError) as error:
            broken.append(Damaged(entry.path, str(error)))
        progress("checking what goes", number, len(stale))
    return going, broken


def _alone(going: Iterable[Removal], entries: Iterable[Entry]) -> Iterator[Removal]:
    """Leave out samples that a record which stays names as well."""
    going = list(going)
    gone = {each.path for each in going}
    named = {_beside(entry.path, entry.samples) for entry in entries if entry.path not in gone and entry.samples}
    for each in going:
        yield replace(each, samples=None) if _beside(each.path, each.samples) in named else each


def remove(results: Path, cleaned: Cleaned, progress: Progress) -> None:
    """Remove what `plan` found; a record that was written anew in the meantime stays."""
    for number, each in enumerate(cleaned.going, 1):
        path = results / each.path
        with storage(path):
            if _is_still(path, each):
                for name in (path.name, *each.maps, *([] if each.samples is None else [each.samples])):
                    path.with_name(name).unlink(missing_ok=True)
        progress("removing", number, len(cleaned.going))


def _is_still(path: Path, going: Removal) -> bool:
    """Return whether a file is what it was when it was found."""
    try:
        if going.sha256 is None:
            return _is_left(path)
        read = explanations.read_content if going.why == "explanation" else records.read_content
        return bool(read(path)["sha256"] == going.sha256)
    except (RecordError, FileNotFoundError):
        return False


# ---------------------------------------------------------------- which records


def _stale(entries: Sequence[Entry], options: CleanupOptions, chosen: Container[str]) -> dict[str, Why]:
    """Say why each record goes that no table needs and that is wished away."""
    reasons: dict[str, Why] = dict.fromkeys(_overtaken(entries), "failure")
    reasons |= dict.fromkeys(_superseded(entries, options.keep), "superseded")
    if options.older_than_seconds:
        young = {entry.path for entry in entries if _age(entry.started_at) < options.older_than_seconds}
        reasons = {path: why for path, why in reasons.items() if path not in young}
    return {path: why for path, why in reasons.items() if path in chosen}


def _superseded(entries: Iterable[Entry], keep: int) -> set[str]:
    """Find the records of which enough newer ones of the same combination are there."""
    return {entry.path for members in _groups(entries, COMBINATION).values() for entry in members[keep:]}


def _overtaken(entries: Iterable[Entry]) -> set[str]:
    """Find failures that are older than a result of their cell."""
    found = set()
    for members in _groups(entries, CELL).values():
        newest = max((entry.started_at for entry in members if entry.status == "done"), default="")
        found |= {entry.path for entry in members if entry.status == "failed" and entry.started_at < newest}
    return found


def _groups(entries: Iterable[Entry], names: Sequence[str]) -> Mapping[tuple[Any, ...], list[Entry]]:
    """Group records by columns, the newest of each group first."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.started_at, entry.path), reverse=True):
        groups.setdefault(entry.values_of(names), []).append(entry)
    return groups


def _referred(entries: Sequence[Entry], stale: Collection[str]) -> set[str]:
    """Find what kept records were compared with or made from, and what those were, and so on."""
    families: dict[str, list[Entry]] = {}
    newest = sorted(entries, key=lambda entry: entry.started_at, reverse=True)
    for entry in sorted(newest, key=lambda entry: entry.precision != "fp32"):
        for name in {entry.key, entry.model_sha256 or entry.key} if entry.status == "done" else ():
            families.setdefault(name, []).append(entry)
    found: set[str] = set()
    waiting = [entry for entry in entries if entry.path not in stale]
    while waiting:
        for name in _refers(waiting.pop()):
            family = families.get(name, [])
            if all(other.path in stale and other.path not in found for other in family):
                found |= {other.path for other in family[:1]}
                waiting += family[:1]
    return found


def _refers(entry: Entry) -> Iterator[str]:
    """Name the keys of the records that one was compared with, and the hashes of the models that it was made from."""
    yield from entry.more["parents"]
    for name in ("to_fp32", "to_teacher"):
        if entry.more[name]:
            yield entry.more[name]["reference"]


def _age(started_at: str) -> float:
    """Seconds since a record was made; none where it does not say when."""
    try:
        then = datetime.datetime.fromisoformat(started_at.replace("Z", "+00:00"))
        return time.time() - then.timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _record(results: Path, entry: Entry, why: Why) -> Removal:
    """Check a record before it goes: what is damaged stays, and so does what a link leads out of the folder to."""
    path = results / entry.path
    if path.is_symlink() or not path.resolve().is_relative_to(results.resolve()):
        raise RecordError(f"{path}: reached by a link; it stays")
    record = records.read_record(path)
    if record.sha256 != entry.sha256:
        raise RecordError(f"{path}: written anew just now; it stays")
    samples = record.samples
    if samples is not None and "/" in samples.file:
        raise RecordError(f"{path}: its samples {samples.file} are not beside it; it stays")
    size = path.stat().st_size + (samples.bytes if samples else 0)
    return Removal(entry.path, why, size, samples.file if samples else None, entry.sha256)


# ---------------------------------------------------------------- what writers left behind


def _left_behind(results: Path, named: Container[str], damaged: Iterable[Damaged]) -> Iterator[Removal]:
    """Find samples and maps that nothing names, and temporary files, unless a writer may be at work on them."""
    doubtful = {os.path.dirname(each.path) for each in damaged}
    for path in (path for folder in (RECORDS, NOISE, EXPLANATIONS) for path in below(results / folder)):
        name = path.relative_to(results).as_posix()
        maps = orphans.is_beside(name)
        why: Why = "temporary" if TEMPORARY.fullmatch(path.name) else "maps" if maps else "samples"
        forgotten = (maps or name.endswith(SAMPLES)) and name not in named and os.path.dirname(name) not in doubtful
        if (why == "temporary" or forgotten) and _is_left(path):
            yield Removal(name, why, path.lstat().st_size)


def _is_left(path: Path) -> bool:
    """Return whether a file is so old that no writer is at work on it."""
    facts = path.lstat()
    return stat.S_ISREG(facts.st_mode) and facts.st_mtime < time.time() - GRACE_SECONDS


def _beside(path: str, samples: str | None) -> str:
    return f"{os.path.dirname(path)}/{samples or ''}"
