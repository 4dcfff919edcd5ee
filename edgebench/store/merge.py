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
from edgebench.schema import RECORD_SCHEMA, Noise, Progress, Record
from edgebench.store import layout, records
from edgebench.store.index import open_index
from edgebench.store.layout import NOISE, RECORDS, is_record
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
    sha256: str
    samples: str | None


@dataclass(frozen=True)
class Offer:
    """A record or a noise measurement that was read, and fits its hash."""

    path: Path
    place: str
    """Where it belongs below the folder of results, whatever it is called where it comes from."""
    content: dict[str, Any]
    value: Record | Noise

    @property
    def known(self) -> Known:
        """Keep of it what decides over others."""
        samples = self.value.samples if isinstance(self.value, Record) else None
        return Known(self.value.started_at, self.value.sha256, samples.file if samples else None)


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
    """Take the records and noise measurements of other folders of results into one.

    Each is checked against its hash, and its samples against theirs; what does
    not hold is refused with its reason, and the others go on. Samples are
    written before their record: what ends early is taken up by the same merge.
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
    if not (source / RECORDS).is_dir():
        raise InputError(f"{source}: holds no {RECORDS}/; name the folder of results that `edgebench run` wrote")
    if source.resolve() == into.resolve():
        raise InputError(f"{source}: cannot be merged into itself; name another folder with --into")
    for folder, read in ((RECORDS, _record), (NOISE, _noise)):
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


# ---------------------------------------------------------------- what becomes of each


def _arrive(path: Path, read: Reader, ledger: _Ledger) -> Arrival:
    """Check one file, and take it if it is to be taken."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RecordError(f"{path}: a link or something else that is no plain file; copy what it stands for, and merge again")
        offer = read(path)
        present = ledger.places.get(offer.place) or _present(ledger.into, offer, read)
        state = _state(offer.known, present)
        samples = _samples(offer) if state in TAKEN else None
    except (OSError, RecordError) as error:
        return Arrival(path, "refused", reason=str(error))
    if state in TAKEN:
        if not ledger.dry_run:
            _write(ledger.into, offer, samples, present)
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
    return "newer" if offer.started_at > present.started_at else "older"


def _samples(offer: Offer) -> bytes | None:
    """Read an offer's samples and check them against the hash that it carries."""
    if not isinstance(offer.value, Record) or offer.value.samples is None:
        return None
    if offer.path.with_name(offer.value.samples.file).is_symlink():
        raise RecordError(f"{offer.path}: its samples are a link; copy what it stands for, and merge again")
    return records.read_sidecar(offer.path, offer.value)


def _write(into: Path, offer: Offer, samples: bytes | None, present: Known | None) -> None:
    """Write samples, then what names them, and remove the samples of what it replaces."""
    path = into / offer.place
    if not path.parent.resolve().is_relative_to(into.resolve()):
        raise StorageError(f"{path.parent}: a link that leads out of {into}; put a folder in its place")
    beside = path.with_name(offer.known.samples) if offer.known.samples else None
    with storage(path):
        wanted = beside is not None and samples is not None and not _holds(beside, samples)
        if beside and not wanted:
            os.utime(beside)  # so that a prune beside us takes them for what they are: about to be named
    if beside and samples and wanted:
        write_atomic(beside, samples)
    try:
        write_json(path, offer.content)
    except StorageError:
        if beside and wanted:
            beside.unlink(missing_ok=True)
        raise
    if present and present.samples and present.samples != offer.known.samples:
        path.with_name(present.samples).unlink(missing_ok=True)


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
