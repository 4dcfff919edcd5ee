"""What a search has found: what nothing beats, the best under the limits, and whether that is better than one recipe alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebench.errors import RecordError
from edgebench.report.limits import KINDS, breaks
from edgebench.report.tables import SORTS, Row, front
from edgebench.schema import Record
from edgebench.search.study import DONE, SKIPPED, Tried
from edgebench.store import records
from edgebench.store.layout import RECORDS
from edgebench.store.row import Entry, flatten


@dataclass(frozen=True)
class Candidate:
    """A trial, what was measured of it, and which limits that breaks."""

    tried: Tried
    entry: Entry | None
    """None: nothing was measured."""
    broken: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name it as messages do."""
        return self.tried.choice.told() if self.entry is None else self.entry.name

    @property
    def keeps(self) -> bool:
        """Return whether it was measured and keeps to every limit."""
        return self.entry is not None and not self.broken

    @property
    def single(self) -> bool:
        """Return whether it is one recipe alone."""
        return bool(self.tried.label)


@dataclass(frozen=True)
class Found:
    """All of a search, as far as it is."""

    candidates: tuple[Candidate, ...]
    """In the order in which they were tried."""
    unbeaten: tuple[Candidate, ...]
    """Those that no other is as good as in metric, median latency and size, and better than in one; the fastest first."""
    best: Candidate | None
    """Of those that keep to the limits."""
    single: Candidate | None
    """The best that is one recipe alone, likewise."""
    sort: str
    """What is best: a name of `SORTS`."""
    compared: Mapping[str, Any] | None = None
    """The best in turn with the best single recipe, as `run.compare.Compared.values` has it; None: these are not two."""

    def why_not(self, candidate: Candidate) -> str:
        """Say in a line why a trial is not the best; empty for that."""
        tried = candidate.tried
        if candidate is self.best:
            return ""
        if candidate.entry is None:
            return str(tried.result["reason"]) if tried.state == SKIPPED else f"failed: {tried.result['reason']}"
        if candidate.broken:
            return "; ".join(candidate.broken)
        assert self.best is not None and self.best.entry is not None
        beaten = "" if candidate in self.unbeaten else "; beaten in metric, latency and size at once"
        return f"keeps to all limits; {self.best.name} has {_better(self.best.entry, candidate.entry, self.sort)}{beaten}"

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "trials": [self._values(each) for each in self.candidates],
            "pareto": [each.tried.number for each in self.unbeaten],
            "best": None if self.best is None else self.best.tried.number,
            "best_single": None if self.single is None else self.single.tried.number,
            "compared": self.compared,
        }

    def _values(self, candidate: Candidate) -> dict[str, Any]:
        tried, entry = candidate.tried, candidate.entry
        choice, measured = tried.choice, ("metric", "median_ns", "p99_ns", "size_bytes", "peak_bytes", "parameters", "verdict")
        return {
            "number": tried.number,
            "single": tried.label,
            "student": choice.student,
            "ratio": choice.ratio,
            "alpha": choice.alpha,
            "format": choice.file.format,
            "precision": choice.file.precision,
            "qat": choice.file.learned,
            "state": tried.state,
            "predicted": tried.result.get("predicted"),
            "model": None if entry is None else entry.model,
            **{name: None if entry is None else getattr(entry, name) for name in measured},
            "record": None if entry is None else entry.path,
            "bundle": tried.result.get("bundle"),
            "keeps": candidate.keeps,
            "why_not": self.why_not(candidate),
        }


def read_entry(results: Path, target: str, tried: Tried) -> Entry | None:
    """Read the record of a trial that was measured; None where it is gone or changed."""
    if tried.state != DONE:
        return None
    key = str(tried.result["key"])
    for path in sorted((results / RECORDS / target).glob(f"*.{key[:10]}.json")):
        try:
            record = records.read_record(path, whole=False)
        except RecordError:
            return None
        if record.key == key and record.status == "done":
            return flatten(path.relative_to(results).as_posix(), record)
    return None


def beyond(record: Record, limits: Mapping[str, float]) -> dict[str, float]:
    """Return by how much a record breaks each limit, as a share of it: 0 or less where it does not, 1 where that is not known."""
    row = row_of(flatten("", record))
    return dict(_shares(row, limits))


def _shares(row: Row, limits: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, limit in limits.items():
        kind = KINDS[name]
        value = kind.value(row)
        if value is None or math.isnan(value):
            yield name, 1.0
        else:
            yield name, (value - limit if kind.highest else limit - value) / max(abs(limit), 1e-12)


def row_of(entry: Entry) -> Row:
    """Make a table's row of a record alone, beside nothing."""
    return Row(None, False, entry, None, None, None, None, None)


def judge(pairs: Sequence[tuple[Tried, Entry | None]], limits: Mapping[str, float], sort: str) -> Found:
    """Choose among what was tried."""
    candidates = tuple(Candidate(tried, entry, _broken(entry, limits)) for tried, entry in pairs)
    valid = {each.entry.path: each for each in reversed(candidates) if each.entry is not None and each.entry.verdict != "INVALID"}
    unbeaten = [valid[path] for path in front(each.entry for each in valid.values() if each.entry is not None)]
    unbeaten.sort(key=lambda each: _order(each, "latency"))
    kept = sorted((each for each in candidates if each.keeps), key=lambda each: _order(each, sort))
    single = next((each for each in kept if each.single), None)
    return Found(candidates, tuple(unbeaten), kept[0] if kept else None, single, sort)


def _broken(entry: Entry | None, limits: Mapping[str, float]) -> tuple[str, ...]:
    return () if entry is None else breaks(row_of(entry), limits)


def _order(candidate: Candidate, sort: str) -> tuple[float, ...]:
    """Return what is least of the best: first what is asked for, then latency, metric and size; of equals, the first tried."""
    entry = candidate.entry
    assert entry is not None
    found = []
    for name in (sort, "latency", "metric", "size"):
        value = SORTS[name](entry)
        found.append(math.inf if value is None else -value if name == "metric" else value)
    return (*found, candidate.tried.number)


def _better(best: Entry, other: Entry, sort: str, called: str = "this one") -> str:
    """Say what the best has more or less of than the other, which is called so."""
    shown: dict[str, Callable[[Any], str]] = {
        "latency": lambda entry: f"p50 {entry.median_ns / 1e6:.3f} ms",
        "metric": lambda entry: f"{entry.headline} {100 * entry.metric:.2f} %",
        "size": lambda entry: f"size {entry.size_bytes / 2**20:.3f} MiB",
        "p99": lambda entry: f"p99 {entry.p99_ns / 1e6:.3f} ms",
        "memory": lambda entry: f"peak memory {entry.peak_bytes / 2**20:.1f} MiB",
        "energy": lambda entry: f"energy {1e3 * entry.joules:.3g} mJ",
    }
    here, there = SORTS[sort](best), SORTS[sort](other)
    if here is None or there is None:
        return f"{sort} {'not known' if here is None else f'known, which {called} has not'}"
    return f"{shown[sort](best)}, {called} {shown[sort](other)}"


# ---------------------------------------------------------------- against one recipe alone


def verdict(found: Found) -> str:
    """Say whether the search found something better than the best single recipe under the same limits."""
    best, single = found.best, found.single
    if best is None:
        return "Nothing that was tried keeps to all limits."
    if single is None:
        return f"No single recipe keeps to all limits; {best.name} does."
    if best.single:
        return f"The search did not beat the best single recipe: {single.name} ({single.tried.label}) is the best that was found."
    beaten, how = _margin(found, best, single)
    word = "beat" if beaten else "did not beat"
    return f"The search {word} the best single recipe, {single.name} ({single.tried.label}): {how}."


def _margin(found: Found, best: Candidate, single: Candidate) -> tuple[bool, str]:
    assert best.entry is not None and single.entry is not None
    if found.compared is not None and found.sort == "latency":
        latency = found.compared["latency"]
        ratio = latency["ratio"]
        told = f"{best.name} takes {100 * ratio['value']:.1f} % of its time in turn with it"
        if ratio["low"] is not None:
            told += f" (95 %: {100 * ratio['low']:.1f} to {100 * ratio['high']:.1f})"
        return latency["word"] == "faster", f"{told}, {latency['word']}"
    told = _better(best.entry, single.entry, found.sort, single.name)
    paired = found.compared and found.compared["accuracy"]
    if found.sort == "metric" and paired:
        low, high = paired["difference"]["low"], paired["difference"]["high"]
        if low is None or high is None:
            return False, f"{best.name} has {told}, of too few samples to tell"
        doubt = "" if low > 0 else ": chance could make as much"
        return low > 0, f"{best.name} has {told} (95 %: {100 * low:+.1f} to {100 * high:+.1f} points{doubt})"
    ahead = _order(best, found.sort)[0] < _order(single, found.sort)[0]
    alone = ", by their records alone: they have not run in turn" if found.sort == "latency" else ""
    return ahead, f"{best.name} has {told}{alone}"
