"""Search the best way to compress a model for a device: every trial is measured there, and is a record like any other."""

from __future__ import annotations

import functools
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset, read_devices
from edgebench.data import open_images
from edgebench.errors import InputError, MeasureError, MissingExtra, UnknownName
from edgebench.files import sha256_json
from edgebench.models import load_model, read_model
from edgebench.models.source import SourceOptions, import_checkpoint
from edgebench.quantize.search import SearchOptions
from edgebench.recipes import check_recipe
from edgebench.report.leaderboard import read_limits
from edgebench.report.tables import SORTS
from edgebench.run.compare import run_turns
from edgebench.run.options import CompressOptions, MeasureOptions, RunOptions
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, subject_of
from edgebench.schema import Progress, Scenario, Target
from edgebench.search import output, study
from edgebench.search.clock import FILE, Clock
from edgebench.search.latency import read_measured
from edgebench.search.outcome import Candidate, Found, beyond, judge, read_entry, verdict
from edgebench.search.shapes import Shapes
from edgebench.search.space import ALPHAS, RATIOS, RECIPES, STUDENTS, Source, Space, files, plain
from edgebench.search.study import DONE, FAILED, Begun, Study, Tried
from edgebench.search.trial import Result, Trials
from edgebench.store.key import scenario_facts
from edgebench.store.row import Entry

if TYPE_CHECKING:
    from edgebench.data import Dataset

VERSION = 1
"""Of what a trial is; part of the key by which a search is found again."""
OUT = Path("compressed")
SEARCHED = ("ratio", "macs", "alpha", "control")
"""Options that the search chooses itself."""
COMPARED = "compared"
"""What a study keeps of the best in turn with the best single recipe."""


@dataclass(frozen=True)
class Compressed:
    """What a search has come to."""

    folder: Path
    found: Found
    complete: str
    """Why nothing more is tried: the time is over, or everything was tried."""
    spent_seconds: float
    notes: tuple[str, ...]
    """What could not be chosen, and why."""
    pages: tuple[Path, ...] = ()

    @property
    def verdict(self) -> str:
        """Say whether it is better than the best single recipe."""
        return verdict(self.found)


def compress(
    source: SourceOptions,
    dataset: str,
    target: str | Target,
    options: CompressOptions,
    measure: MeasureOptions,
    run: RunOptions,
    progress: Progress,
) -> Compressed:
    """Do what `api.compress` says."""
    began = time.monotonic()
    study.require()
    limits = read_limits(options.limits)
    _check(options)
    [device] = read_devices([target], run.trust or source.trust)
    data = open_images(read_dataset(dataset))
    run = replace(run, trust=run.trust or source.trust)
    folder = _base(source, data, run.work / "models")
    made = Source(str(folder), read_model(folder), data.ref, device.name, options.recipes)
    with Session(measure, run, progress) as session:
        session.connect([device])
        shapes = _shapes(made, data, run)
        space, notes = _space(shapes, device, options)
        key = _key(session, made, data, device, space, replace(options, limits=limits))
        out = options.out or OUT / f"{made.model.name}.{device.name}-{key[:8]}"
        with study.open_study(out, key, space) as kept:
            clock = Clock(out / FILE, options.budget_seconds, began=began)
            search = Search(session, made, data, device, options, limits, shapes, kept, clock, out)
            session.progress = search.clock.beside(progress)
            return search.run(tuple(notes))


def _check(options: CompressOptions) -> None:
    """Refuse what does not fit together before anything long begins."""
    if options.sort is not None and options.sort not in SORTS:
        raise UnknownName("order", options.sort, SORTS)
    for ratio in options.ratios or ():
        if not 0 < ratio < 1:
            raise InputError(f"compress: the ratio {ratio:g} is no share of channels between 0 and 1")
    for recipe, given in options.recipes.items():
        if recipe not in RECIPES:
            raise UnknownName("recipe of a search", recipe, RECIPES)
        chosen = [name for name in SEARCHED if name in given]
        if chosen:
            raise InputError(f"compress: {recipe}.{chosen[0]} is chosen by the search; leave it out")
        wanted = {"distill": ("teacher",), "prune": ("parent",), "qat": ("parent",)}.get(recipe, ())
        check_recipe(recipe, "options", given, wanted)


def _base(source: SourceOptions, data: Dataset, root: Path) -> Path:
    """Return the model folder that is compressed, made of a checkpoint where it is one."""
    path = Path(source.text)
    if (path / "model.json").is_file():
        return import_checkpoint(replace(source, name=read_model(path).name), data, root)
    if not path.is_file():
        raise InputError(f"{source.text}: no checkpoint and no model folder; make one with `edgebench train`")
    return import_checkpoint(replace(source, name=source.name or plain(path.stem)), data, root)


def _shapes(made: Source, data: Dataset, run: RunOptions) -> Shapes:
    load = functools.cache(lambda: load_model(Path(made.folder), run.trust))
    return Shapes(made, load, data, run.work / "searches" / f"sizes-{made.model.sha256[:16]}.json")


def _space(shapes: Shapes, target: Target, options: CompressOptions) -> tuple[Space, list[str]]:
    """Find what can be chosen for a model on a target, and say what cannot."""
    source, notes = shapes.source, []
    ratios = tuple(sorted({0.0, *(RATIOS if options.ratios is None else options.ratios)}))
    students = tuple(options.students or ())
    if not source.trains:
        notes.append(f"{source.model.name}: is no network of one square image with weights of its own; it is exported only")
        ratios, students = (0.0,), ()
    elif options.students is None:
        students = shapes.smaller(STUDENTS)
    why = shapes.why_unpruned(ratios[-1]) if len(ratios) > 1 else ""
    if why:
        notes.append(f"nothing is pruned: {why}")
        ratios = (0.0,)
    written, missing = files(target, options.formats, source.trains, options.mixed_minutes > 0)
    if not written:
        raise InputError(
            f"{target.name}: nothing that it runs can be written here; {'; '.join(missing) or 'choose other formats'}"
        )
    return Space(students, ratios, ALPHAS, written), [*notes, *missing]


def _key(session: Session, made: Source, data: Dataset, target: Target, space: Space, options: CompressOptions) -> str:
    """Hash all that decides what trials are and what is kept to; the time and the order of the kept are no part of it."""
    subset = session.measure.subset
    facts = {
        "version": VERSION,
        "model": made.model.keyed(),
        "data": [str(data.ref), data.hashes()],
        "subset": None if subset is None else subset.model_dump(),
        "device": [target.name, session.device(target).identity, session.measure.mode],
        "scenario": scenario_facts(session.scenario(Scenario())),
        "runtime": dict(session.measure.runtime),
        "limits": dict(options.limits),
        "recipes": {name: dict(given) for name, given in options.recipes.items()},
        "mixed_minutes": options.mixed_minutes,
        "space": asdict(space),
    }
    return sha256_json(facts)


@dataclass
class Search:
    """One search that is going on."""

    session: Session
    source: Source
    data: Dataset
    target: Target
    options: CompressOptions
    limits: dict[str, float]
    shapes: Shapes
    study: Study
    clock: Clock
    folder: Path
    _entries: dict[str, Entry | None] = field(default_factory=dict)
    """What was measured, by the records' keys."""

    @property
    def sort(self) -> str:
        """Name what is best."""
        return self.options.sort or ("latency" if "min_metric" in self.limits else "metric")

    def run(self, notes: tuple[str, ...]) -> Compressed:
        """Try until the time is over or nothing is left, compare the best with the best single recipe, and write all down."""
        self.clock.tick(now=True)
        self._take_up()
        try:
            complete = self._tried()
            self._compare()
        except BaseException:
            self.clock.tick(now=True)
            self._written(notes, "it was interrupted")
            raise
        self.clock.tick(now=True)
        return self._written(notes, complete)

    def _take_up(self) -> None:
        """Queue what was begun and not ended, what can be tried again, and the single recipes."""
        for each in self.study.tried():
            lost = each.state == DONE and self._entry(each) is None
            if lost or (each.state == FAILED and each.result.get("retry")):
                self.study.repeat(each)
        begun = self.study.resume()
        if begun:
            self.session.progress(f"{begun} trial{'' if begun == 1 else 's'} of an earlier process begun again", 0, 0)
        pruned: Any = check_recipe("prune", "default", {}, ("parent",))
        self.study.queue(self.study.space.single(pruned.ratio))

    def _tried(self) -> str:
        """Try one choice after the other; returns why nothing more is tried."""
        trials = self._trials()
        while self.clock.left > 0:
            begun = self.study.ask()
            if begun is None:
                return "everything was tried"
            label = f", {begun.label}" if begun.label else ""
            self.session.progress(f"trial {begun.number}{label}: {begun.choice.told()}", 0, 0)
            result = trials.run(begun.choice, begun.number, begun.label)
            self._close(begun, result)
            self.clock.tick(now=True)
            self.session.progress(f"trial {begun.number}: {self._said(result)}", 0, 0)
            output.write_summary(self.folder, self._summary((), "it goes on"))
        return "the time is over"

    def _trials(self) -> Trials:
        session, identity = self.session, self.session.device(self.target).identity
        scenario = session.scenario(Scenario())
        measured = read_measured(session.options.results, self.target.name, identity, session.measure.mode, scenario)
        mixing = SearchOptions(minutes=self.options.mixed_minutes)
        return Trials(session, self.source, self.data, self.target, self.shapes, measured, self.limits, mixing)

    def _close(self, begun: Begun, result: Result) -> None:
        record = result.record
        if record is None:
            self.study.close(begun, result.values, beyond=result.beyond or {})
            return
        accuracy, latency = record.accuracy, record.latency
        invalid = record.verdict is not None and record.verdict.word == "INVALID"
        if accuracy is None or latency is None or record.size_bytes is None or invalid:
            what = "its measurement is INVALID" if invalid else "its runtime cannot judge the whole test split"
            self.study.close(begun, {**result.values, "state": FAILED, "reason": what, "retry": invalid})
            return
        values = (accuracy.metrics[accuracy.headline], latency.median_ns.value, float(record.size_bytes))
        self.study.close(begun, result.values, values, beyond(record, self.limits))

    def _said(self, result: Result) -> str:
        record = result.record
        if record is None or record.accuracy is None or record.latency is None:
            return str(result.values["reason"])
        metric = 100 * record.accuracy.metrics[record.accuracy.headline]
        p50, size = record.latency.median_ns.value / 1e6, (record.size_bytes or 0) / 2**20
        return f"{record.accuracy.headline} {metric:.2f} %, p50 {p50:.3f} ms, {size:.3f} MiB"

    # ------------------------------------------------------------ what was found

    def _entry(self, each: Tried) -> Entry | None:
        key = str(each.result.get("key", ""))
        if key not in self._entries or self._entries[key] is None:
            self._entries[key] = read_entry(self.session.options.results, self.target.name, each)
        return self._entries[key]

    def _found(self) -> Found:
        pairs = [(each, self._entry(each) if each.state == DONE else None) for each in self.study.tried()]
        found = judge(pairs, self.limits, self.sort)
        kept = self.study.noted(COMPARED)
        same = kept is not None and kept["keys"] == _keys(found)
        return replace(found, compared=kept["values"]) if same else found

    def _compare(self) -> None:
        """Let the best and the best single recipe take turns, once; where that fails, their records have to do."""
        found = self._found()
        keys = _keys(found)
        if keys is None or found.compared is not None:
            return
        assert found.best is not None and found.single is not None
        try:
            suite = run_turns(self.session, [self._subject(found.single), self._subject(found.best)])
        except (MeasureError, InputError) as error:
            self.session.progress(f"the best and the best single recipe could not take turns: {error}", 0, 0)
            return
        self.study.note(COMPARED, {"keys": keys, "values": suite.pairs[0].values()})

    def _subject(self, candidate: Candidate) -> CellJob:
        folder = Path(str(candidate.tried.result["bundle"]))
        return subject_of(self.session, folder, read_bundle(folder), self.target, self.data, Scenario())

    def _summary(self, notes: tuple[str, ...], complete: str) -> dict[str, Any]:
        found = self._found()
        return {
            "schema": VERSION,
            "model": self.source.model.name,
            "dataset": str(self.data.ref),
            "samples": self._samples(),
            "target": self.target.name,
            "mode": self.session.measure.mode,
            "limits": dict(self.limits),
            "sort": found.sort,
            "budget_seconds": self.options.budget_seconds,
            "spent_seconds": round(self.clock.spent, 1),
            "ended": complete,
            "notes": list(notes),
            "verdict": verdict(found),
            **found.values(),
        }

    def _samples(self) -> int:
        judged, _ = self.session.evaluated(self.data)
        return 0 if judged is None else len(judged.read("test"))

    def _written(self, notes: tuple[str, ...], complete: str) -> Compressed:
        found, summary = self._found(), self._summary(notes, complete)
        output.write_summary(self.folder, summary)
        output.write_bundles(self.folder, found)
        if found.best is not None:
            output.write_profile(self.folder, self.source.profile(found.best.tried.choice, found.best.tried.number), self.session)
        pages: tuple[Path, ...] = ()
        try:
            pages = (output.write_page(self.folder, summary),)
        except MissingExtra as error:
            self.session.progress(str(error), 0, 0)
        return Compressed(self.folder, found, complete, self.clock.spent, notes, pages)


def _keys(found: Found) -> list[str] | None:
    """Name the records of the best single recipe and of the best; None where these are not two."""
    if found.best is None or found.single is None or found.best is found.single:
        return None
    return [str(each.tried.result["key"]) for each in (found.single, found.best)]
