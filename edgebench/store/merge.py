"""Bring the records of several people into one folder: each is checked before it is taken, and of two the newer stays."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edgebench.errors import InputError, RecordError, StorageError
from edgebench.files import below, sha256_file, storage, write_atomic, write_json
from edgebench.schema import RECORD_SCHEMA, Noise, Progress, Record, Sidecar
from edgebench.schema.explanation import Explanation
from edgebench.store import explanations, layout, records
from edgebench.store.index import open_index
from edgebench.store.layout import EXPLANATIONS, NOISE, RECORDS, is_record
from edgebench.store.noise import read_noise_file

State = Literal["new", "newer", "older", "same", "refused"]
STATES: tuple[State, ...] = ("new", "newer", "older", "same", "refused")
TAKEN = ("new", "newer")
HASH = re.compile(r"[0-9a-f]{64}")
TELLING = ("board", "cpu", "machine", "cores", "os")
"""Facts of a device that people know it by."""


class Known(NamedTuple):
    """What lies at a place."""

    started_at: str
    compared: bool
    """Whether it is an explanation that was compared with another file's, which is written later than it was made."""
    sha256: str
    beside: tuple[str, ...]
    """The files that belong to it: samples, maps, a sheet of pictures."""


@dataclass(frozen=True)
class Offer:
    """A record, a noise measurement or an explanation that was read, and fits its hash."""

    path: Path
    place: str
    """Where it belongs below the folder of results, whatever it is called where it comes from."""
    content: dict[str, Any]
    value: Record | Noise | Explanation

    @property
    def known(self) -> Known:
        """Keep of it what decides over others."""
        compared = isinstance(self.value, Explanation) and self.value.drift is not None
        return Known(self.value.started_at, compared, self.value.sha256, tuple(each.file for each in self.beside))

    @property
    def beside(self) -> tuple[Sidecar, ...]:
        """Name the files that belong to it."""
        if isinstance(self.value, Explanation):
            return explanations.beside(self.value)
        return (self.value.samples,) if isinstance(self.value, Record) and self.value.samples else ()


@dataclass(frozen=True)
class Arrival:
    """A file that was offered, and what became of it."""

    path: Path
    state: State
    place: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Conflict:
    """Two or more devices that go by one target's name; their tables stay apart."""

    target: str
    devices: Mapping[str, Mapping[str, Any]]
    """By their hash: the facts in which they differ."""


@dataclass(frozen=True)
class Merged:
    """What a merge did, or would do."""

    counts: Mapping[State, int]
    """`new`, `newer` than what was there, `older`, the `same`, and `refused`."""
    migrated: int
    """Records of an older schema among those taken."""
    arrivals: tuple[Arrival, ...]
    """What took the place of an older one, what gave way to a newer one, and what was refused."""
    conflicts: tuple[Conflict, ...]

    @property
    def taken(self) -> int:
        """How many files were brought over."""
        return self.counts["new"] + self.counts["newer"]

    def of(self, state: State) -> list[Arrival]:
        """List the files of which this became."""
        return [each for each in self.arrivals if each.state == state]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        arrivals = [
            {"path": str(each.path), "state": each.state, "place": each.place, "reason": each.reason} for each in self.arrivals
        ]
        conflicts = [{"target": each.target, "devices": dict(each.devices)} for each in self.conflicts]
        return {"counts": dict(self.counts), "migrated": self.migrated, "told": arrivals, "conflicts": conflicts}


@dataclass
class _Ledger:
    """What is known while a merge goes on."""

    into: Path
    dry_run: bool
    places: dict[str, Known] = field(default_factory=dict)
    """What was taken, or would have been."""
    devices: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Facts of the devices that it was measured on, by target and hash."""
    counts: Counter[State] = field(default_factory=Counter)
    migrated: int = 0
    arrivals: list[Arrival] = field(default_factory=list)


def merge(sources: Sequence[Path], into: Path, *, dry_run: bool = False, progress: Progress) -> Merged:
    """Take the records, noise measurements and explanations of other folders of results into one.

    Each is checked against its hash, and its samples or maps against theirs;
    what does not hold is refused with its reason, and the others go on. Samples
    are written before their record: what ends early is taken up by the same merge.
    """
    offered = [(source, path, read) for source in sources for path, read in _found(source, into)]
    ledger = _Ledger(into, dry_run)
    for number, (source, path, read) in enumerate(offered, 1):
        arrival = _arrive(path, read, ledger)
        ledger.counts[arrival.state] += 1
        if arrival.state not in ("new", "same"):
            ledger.arrivals.append(arrival)
        progress(f"merging {source}", number, len(offered))
    conflicts = tuple(_conflicts(ledger, progress))
    return Merged({state: ledger.counts[state] for state in STATES}, ledger.migrated, tuple(ledger.arrivals), conflicts)


Reader = Callable[[Path], Offer]


def _found(source: Path, into: Path) -> Iterator[tuple[Path, Reader]]:
    """List what a folder offers; `InputError` where it is none, or the one that is merged into."""
    if not any((source / folder).is_dir() for folder in (RECORDS, EXPLANATIONS)):
        raise InputError(f"{source}: holds no {RECORDS}/; name the folder of results that `edgebench run` wrote")
    if source.resolve() == into.resolve():
        raise InputError(f"{source}: cannot be merged into itself; name another folder with --into")
    for folder, read in ((RECORDS, _record), (NOISE, _noise), (EXPLANATIONS, _explanation)):
        for path in below(source / folder):
            if is_record(path.name) or (path.is_symlink() and path.is_dir()):
                yield path, read


def _record(path: Path) -> Offer:
    """Read a record; where it belongs is computed from its content."""
    content = records.read_content(path)
    key = str(content.get("key"))
    if not HASH.fullmatch(key):
        raise RecordError(f"{path}: its key {key[:80]!r} is no sha256; ask whoever measured it for the original")
    record = records.owned(path, content)
    place = layout.place(record)
    right = record.samples and layout.samples_name(Path(place).name, record.samples.sha256)
    if record.samples and record.samples.file != right:
        named = record.samples.file[:200]
        raise RecordError(f"{path}: its samples are called {named!r} and not {right}; ask whoever measured it for the original")
    return Offer(path, place, content, record)


def _noise(path: Path) -> Offer:
    content, noise = read_noise_file(path)
    if not HASH.fullmatch(noise.device):
        raise RecordError(f"{path}: its device {noise.device[:80]!r} is no sha256; ask whoever measured it for the original")
    return Offer(path, layout.noise_place(noise.target, noise.device, noise.mode), content, noise)


def _explanation(path: Path) -> Offer:
    content = explanations.read_content(path)
    found = explanations.owned(path, content)
    return Offer(path, explanations.place(found), content, found)


# ---------------------------------------------------------------- what becomes of each


def _arrive(path: Path, read: Reader, ledger: _Ledger) -> Arrival:
    """Check one file, and take it if it is to be taken."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RecordError(f"{path}: a link or something else that is no plain file; copy what it stands for, and merge again")
        offer = read(path)
        present = ledger.places.get(offer.place) or _present(ledger.into, offer, read)
        state = _state(offer.known, present)
        beside = _beside(offer) if state in TAKEN else {}
    except (OSError, RecordError) as error:
        return Arrival(path, "refused", reason=str(error))
    if state in TAKEN:
        if not ledger.dry_run:
            _write(ledger.into, offer, beside, present)
        _enter(offer, ledger)
    return Arrival(path, state, offer.place)


def _present(into: Path, offer: Offer, read: Reader) -> Known | None:
    """Read what lies where an offer belongs."""
    path = into / offer.place
    return read(path).known if path.is_symlink() or path.exists() else None


def _state(offer: Known, present: Known | None) -> State:
    if present is None:
        return "new"
    if present.sha256 == offer.sha256:
        return "same"
    return "newer" if offer[:2] > present[:2] else "older"


def _beside(offer: Offer) -> dict[str, bytes]:
    """Read an offer's samples, or its maps and pictures, and check them against the hashes that it carries."""
    found = {}
    for each in offer.beside:
        if offer.path.with_name(each.file).is_symlink():
            raise RecordError(f"{offer.path}: its {_called(offer)} are a link; copy what it stands for, and merge again")
        if isinstance(offer.value, Record):
            found[each.file] = records.read_sidecar(offer.path, offer.value)
        else:
            found[each.file] = explanations.read_beside(offer.path.parent, each)
    return found


def _called(offer: Offer) -> str:
    return "samples" if isinstance(offer.value, Record) else "maps"


def _write(into: Path, offer: Offer, beside: Mapping[str, bytes], present: Known | None) -> None:
    """Write samples, then what names them, and remove the samples of what it replaces."""
    path = into / offer.place
    if not path.parent.resolve().is_relative_to(into.resolve()):
        raise StorageError(f"{path.parent}: a link that leads out of {into}; put a folder in its place")
    written = []
    try:
        for name, content in beside.items():
            with storage(path):
                wanted = not _holds(path.with_name(name), content)
                if not wanted:
                    os.utime(path.with_name(name))  # so that a clean beside us takes it for what it is: about to be named
            if wanted:
                write_atomic(path.with_name(name), content)
                written.append(name)
        write_json(path, offer.content)
    except StorageError:
        for name in written:
            path.with_name(name).unlink(missing_ok=True)
        raise
    for name in set(present.beside if present else ()) - set(offer.known.beside):
        path.with_name(name).unlink(missing_ok=True)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_file(path) == hashlib.sha256(content).hexdigest()


def _enter(offer: Offer, ledger: _Ledger) -> None:
    """Remember what was taken."""
    ledger.places[offer.place] = offer.known
    if isinstance(offer.value, Record):
        cell = offer.value.cell
        ledger.migrated += offer.content["schema"] < RECORD_SCHEMA
        if cell.device:
            ledger.devices.setdefault(cell.target, {})[cell.device] = offer.value.environment


# ---------------------------------------------------------------- devices of one name


def _conflicts(ledger: _Ledger, progress: Progress) -> Iterator[Conflict]:
    """Name the targets of what was taken that stand for several devices, and what tells these apart."""
    devices = ledger.devices
    if devices and ledger.into.is_dir():
        with open_index(ledger.into, progress) as index:
            for entry in index.entries({"target": list(devices)}):
                if entry.device and entry.device not in devices[entry.target]:
                    devices[entry.target][entry.device] = entry.more["environment"]
    for target, known in sorted(devices.items()):
        if len(known) > 1:
            yield Conflict(target, _differing(known))


def _differing(devices: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep the facts in which devices differ."""
    differ = [name for name in TELLING if len({repr(facts.get(name)) for facts in devices.values()}) > 1]
    return {device: {name: facts.get(name) for name in differ} for device, facts in sorted(devices.items())}
