"""Tell trackers of records, each once; what a tracker does not take is told, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebench.errors import RecordError
from edgebench.recipes._loggers import told
from edgebench.report import leaderboard
from edgebench.schema import Model, Progress, Record, no_progress
from edgebench.schema.tracking import Tracker
from edgebench.store import records
from edgebench.store.find import listing
from edgebench.store.index import Where
from edgebench.store.layout import RESULTS, place
from edgebench.track import Address, _runs, addresses, hidden

IN_A_ROW = 2
"""A tracker that refuses so many one after the other is not asked again."""
LOGS = Path(".edgebench/logs")
"""Where a tracker keeps what it writes on this computer."""


@dataclass
class Tracking:
    """What became of records on one tracker."""

    to: str
    tracked: int = 0
    there: int = 0
    """Records that it had already."""
    missing: dict[str, str] = field(default_factory=dict)
    """What it did not take, by name, and why: records by their paths, `model NAME`, `leaderboard`."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        missing = [{"what": name, "reason": reason} for name, reason in self.missing.items()]
        return {"to": self.to, "tracked": self.tracked, "there": self.there, "missing": missing}


@dataclass(frozen=True)
class Work:
    """What there is to tell."""

    results: Path
    records: Mapping[str, Record]
    """By their paths below the folder of results."""
    models: Mapping[str, Model]
    """By their hashes, each behind those that it was made from."""
    seen: Mapping[str, str]
    """When the first record of a model was measured."""
    unread: Mapping[str, str]
    family: _runs.Family
    """All models of the folder."""


def track(
    results: Path = RESULTS,
    *,
    to: Sequence[str | Address],
    only: Iterable[Record] | None = None,
    where: Where | None = None,
    folder: Path = LOGS,
    progress: Progress = no_progress,
) -> list[Tracking]:
    """Tell trackers (`mlflow:URI`, `wandb:PROJECT`) of the records of a folder that they do not have, and of the leaderboard.

    `only`: these records, `where`: those that fit; all unless given. Nothing is raised for a tracker that is down:
    what it has not got is in what is returned, and the same call again makes up for it.
    """
    meant = [each if isinstance(each, Address) else addresses([each])[0] for each in to]
    chosen = None if only is None else [place(record) for record in only]
    if not meant or chosen == []:
        return [Tracking(str(each)) for each in meant]
    results = Path(results)
    every = listing(results, None, None, progress)
    fitting = listing(results, where, None, progress).entries if where else every.entries
    paths = [entry.path for entry in fitting] if chosen is None else chosen
    family = {each.model_sha256: (each.model, each.more["parents"]) for each in every.entries if each.model_sha256}
    damaged = {each.path: each.reason for each in every.damaged} if chosen is None else {}
    work = _work(results, paths, family, damaged)
    return [_tracked(address, work, folder, progress) for address in meant]


def _work(results: Path, paths: Sequence[str], family: _runs.Family, damaged: Mapping[str, str]) -> Work:
    """Read records, and put their models into the order in which they were made."""
    found: dict[str, Record] = {}
    unread = dict(damaged)
    for path in paths:
        try:
            found[path] = records.read_record(results / path, whole=False)
        except RecordError as error:
            unread[path] = str(error)
    models: dict[str, Model] = {}
    seen: dict[str, str] = {}
    for record in sorted(found.values(), key=lambda each: each.started_at):
        if record.model is not None:
            models.setdefault(record.model.sha256, record.model)
            seen.setdefault(record.model.sha256, record.started_at)
    return Work(results, found, {each.sha256: each for each in _in_order(models)}, seen, unread, family)


def _in_order(models: Mapping[str, Model]) -> Iterator[Model]:
    done: set[str] = set()

    def line(sha256: str) -> Iterator[Model]:
        if sha256 in models and sha256 not in done:
            done.add(sha256)
            for parent in models[sha256].lineage.parents:
                yield from line(parent)
            yield models[sha256]

    for sha256 in models:
        yield from line(sha256)


def _tracked(address: Address, work: Work, folder: Path, progress: Progress) -> Tracking:
    found = Tracking(str(address), missing=dict(work.unread))
    todo = list(_steps(work))
    try:
        tracker: Tracker = address.module.Tracker(address.where, folder)
    except Exception as error:  # what these raise are classes of their own
        found.missing |= {name: hidden(told(error)) for name, _ in todo}
        return found
    try:
        _put_all(found, tracker, todo, progress)
    finally:
        tracker.close()
    return found


def _steps(work: Work) -> Iterator[tuple[str, Callable[[Tracker], bool]]]:
    """Yield what there is to put, by name; each says whether it was not there."""
    for model in work.models.values():
        yield f"model {model.name}", _put_model(work, model)
    for path, record in work.records.items():
        yield path, _put_record(work, path, record)
    if work.records:
        yield "leaderboard", _put_leaderboard(work)


def _put_all(
    found: Tracking, tracker: Tracker, todo: Sequence[tuple[str, Callable[[Tracker], bool]]], progress: Progress
) -> None:
    refused, last = 0, ""
    for number, (name, put) in enumerate(todo):
        progress(f"tracking with {found.to}", number, len(todo))
        if refused >= IN_A_ROW:
            found.missing[name] = last
            continue
        try:
            new = put(tracker)
        except RecordError as error:  # no fault of the tracker's
            found.missing[name] = str(error)
            continue
        except Exception as error:  # as above
            refused, last = refused + 1, hidden(told(error))
            found.missing[name] = last
            continue
        refused = 0
        if name.endswith(".json"):
            found.tracked, found.there = found.tracked + new, found.there + (not new)


def _put_model(work: Work, model: Model) -> Callable[[Tracker], bool]:
    def put(tracker: Tracker) -> bool:
        if tracker.has("model", model.sha256):
            return False
        tracker.put(_runs.model_run(model, work.seen[model.sha256], work.family))
        return True

    return put


def _put_record(work: Work, path: str, record: Record) -> Callable[[Tracker], bool]:
    def put(tracker: Tracker) -> bool:
        if tracker.has("record", record.sha256):
            return False
        file = work.results / path
        files = {file.name: records.bytes_of(file, records.MOST_BYTES)}
        if record.samples is not None:
            files[record.samples.file] = records.read_sidecar(file, record)
        tracker.put(_runs.record_run(record, files, work.family))
        return True

    return put


def _put_leaderboard(work: Work) -> Callable[[Tracker], bool]:
    def put(tracker: Tracker) -> bool:
        made = leaderboard.tables(work.results)
        kinds = {"leaderboard.md": "markdown", "leaderboard.csv": "csv", "leaderboard.json": "json"}
        text = {name: leaderboard.publish(made, work.results, format=kind) for name, kind in kinds.items()}
        run = _runs.leaderboard_run(made.tables, text, max(record.started_at for record in work.records.values()))
        if tracker.has(run.kind, run.sha256):
            return False
        tracker.put(run)
        return True

    return put
