"""Mixtures of precision, measured on the device: latency in turn with one reference, and what they lose on held-out samples."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.analysis import metrics, stats
from edgebench.analysis.metrics import scores_of
from edgebench.bundle.export import Order, drawn_samples
from edgebench.bundle.manifest import list_files, write_manifest
from edgebench.bundle.samples import Array
from edgebench.data import Dataset, Split
from edgebench.data._mapped import hashed, hashes
from edgebench.device.job import Pass
from edgebench.errors import InputError
from edgebench.files import sha256_json, write_json
from edgebench.run.interleave import Part, Plan, take_turns
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, forget, subject_of
from edgebench.schema import Block, Bundle, Comparison, Measurement, Mixer, ModeSpec, Scenario, Target, TurnSpec
from edgebench.store.noise import noise_floor

ROUNDS, EACH = 3, 6
BRIEF = ModeSpec(trials=ROUNDS, min_samples=20, min_seconds=0.25, cap_seconds=5, window_seconds=0.1, adaptive=False)
"""Trials of the search: short, since a device is asked for dozens, and the winner is measured again."""
BRIEF_TURNS = TurnSpec(pairs=ROUNDS, turns=4, cap_seconds=8, seconds=0.05)
WARMUP_SECONDS = 0.1
Choices = Mapping[str, str]
"""A node's name → `int8`, `int8-weights` or `fp32`."""


@dataclass(frozen=True)
class Found:
    """What one mixture measured."""

    ratio: float
    """Latency over that of the reference, in turn with it."""
    median_ns: float
    metric: float
    divergence: float
    """Mean of ‖scores − scores in float32‖ / ‖scores in float32‖."""
    size_bytes: int


@dataclass
class Bench:
    """Measures mixtures of one network on one device; keeps what it found in a file, so that nothing is measured twice."""

    session: Session
    target: Target
    mixer: Mixer
    bundle: Bundle
    """Of the same network in float32: what mixtures are described by."""
    data: Dataset
    """The samples that accuracy is judged on, as its test split."""
    folder: Path
    """Holds the mixtures' files while they are measured."""
    journal: Path
    scores: Array
    """Of the network in float32 on these samples [n, classes]."""
    deadline: float
    """When to start nothing more, on `time.monotonic`."""
    reference: Choices = field(default_factory=dict)
    """The mixture that all others run in turn with: every node in float, with int8 weights."""
    known: dict[str, Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take up what an interrupted search has measured."""
        if self.journal.is_file():
            try:
                self.known = {key: Found(**value) for key, value in json.loads(self.journal.read_text()).items()}
            except (ValueError, TypeError):
                self.known = {}

    def measure(self, label: str, wanted: Sequence[Choices]) -> list[Found | None]:
        """Measure mixtures, some at a time; None for those that the time was over for."""
        missing = list({key_of(choices): choices for choices in wanted if key_of(choices) not in self.known}.items())
        for start in range(0, len(missing), EACH):
            if time.monotonic() > self.deadline:
                break
            self._batch(label, start, len(missing), dict(missing[start : start + EACH]))
        return [self.known.get(key_of(choices)) for choices in wanted]

    def _batch(self, label: str, begun: int, total: int, mixtures: Mapping[str, Choices]) -> None:
        first = self.subject(self.reference)
        same = key_of(self.reference)
        subjects = [first, *(first if key == same else self.subject(choices) for key, choices in mixtures.items())]
        judged = [Pass("accuracy", cell=cell) for cell in range(len(subjects))]
        part = Part(begun, len(mixtures), total)
        taken = take_turns(self.session, subjects, Plan(BRIEF_TURNS, ROUNDS), label, judged, BRIEF, part)
        for index, (key, subject) in enumerate(zip(mixtures, subjects[1:], strict=True), 1):
            self.known[key] = self._found(subject, taken.measurements[index], taken.compare(0, index, None).ratio.value)
        write_json(self.journal, {key: asdict(value) for key, value in self.known.items()})
        for subject in {each.folder: each for each in subjects}.values():
            forget(self.session, subject)
            shutil.rmtree(subject.folder)

    def _found(self, subject: CellJob, measurement: Measurement, ratio: float) -> Found:
        medians, scores = stats.medians(measurement.trials), predicted(measurement)
        return Found(
            ratio=ratio,
            median_ns=float(np.median(medians)),
            metric=headline(subject.bundle.model.task, self.data, scores),
            divergence=divergence(self.scores, scores),
            size_bytes=subject.bundle.size_bytes,
        )

    def subject(self, choices: Choices) -> CellJob:
        """Write a mixture's file, and tie it to the device."""
        folder = self.folder / key_of(choices)[:16]
        folder.mkdir()
        self.mixer.write(choices, folder / self.bundle.entry)
        update = {"precision": "mixed", "files": list_files(folder)}
        bundle = write_manifest(folder, self.bundle.model_copy(update=update))
        scenario = Scenario(warmup_seconds=WARMUP_SECONDS)
        return subject_of(self.session, folder, bundle, self.target, self.data, scenario)


def key_of(choices: Choices) -> str:
    """Hash a mixture; the usual choice needs not be said."""
    return sha256_json({name: choice for name, choice in choices.items() if choice != "int8-weights"})


def predicted(measurement: Measurement) -> Array:
    """Return the scores [n, classes] of a job's accuracy pass."""
    assert measurement.predictions is not None
    return scores_of(measurement.predictions.values, measurement.predictions.columns)


def headline(task: str, data: Dataset, scores: Array) -> float:
    """Return the task's headline metric; `InputError` where the labels leave it undefined."""
    name, labels = metrics.headline(task), data.read("test").labels
    found = metrics.evaluate(task, labels, scores).get(name)
    if found is None:
        raise InputError(f"{data.ref}: no {name} on {len(labels)} samples, too few kinds of labels; judge more (--samples)")
    return found


def divergence(reference: Array, scores: Array) -> float:
    """Return the mean relative distance of the scores [n, classes]."""
    norms = np.maximum(np.linalg.norm(reference, axis=1), 1e-30)
    return float((np.linalg.norm(scores - reference, axis=1) / norms).mean())


def held_out(order: Order, count: int) -> Dataset:
    """Make a data set whose test split is none: validation samples, then training samples that no range came from.

    No image of the real test split is in it.
    """
    data = order.dataset
    assert data is not None
    train, valid, known = data.read("train"), data.read("val"), set(hashes(data.read("test").images))
    spare = np.setdiff1d(np.arange(len(train)), drawn_samples(len(train), order.calibration.samples))
    spare = np.random.default_rng(1).permutation(spare)
    every = ((part, int(index)) for part, indices in ((valid, range(len(valid))), (train, spare)) for index in indices)
    fresh = (each for each in every if hashed(each[0].images[each[1]]) not in known)
    chosen = list(itertools.islice(fresh, count))
    if not chosen:
        return data.judged_on(Split(train.images[:0], train.labels[:0]))
    images, labels = (np.stack([getattr(part, name)[index] for part, index in chosen]) for name in ("images", "labels"))
    texts = [None if part.texts is None else part.texts[index] for part, index in chosen]
    known_texts = tuple(text for text in texts if text is not None)
    return data.judged_on(Split(images, labels, texts=known_texts if len(known_texts) == len(chosen) else None))


@dataclass(frozen=True)
class Tried:
    """A block, and what it alone did in INT8; None where the time was over."""

    block: Block
    found: Found | None
    drop: float = 0.0

    def row(self, choice: str, allowed: float) -> dict[str, Any]:
        """Write the block down with what was chosen for it, as plain JSON values."""
        found = self.found
        return {
            "name": self.block.name,
            "operators": dict(self.block.operators),
            "nodes": list(self.block.nodes),
            "choice": choice,
            "why": self.why(choice, allowed),
            "drop": None if found is None else self.drop,
            "divergence": None if found is None else found.divergence,
            "ratio": None if found is None else found.ratio,
            "latency_change_ns": None if found is None else found.median_ns * (1 - 1 / found.ratio),
        }

    def why(self, choice: str, allowed: float) -> str:
        """Say in words why the block computes as it does; `allowed` is the most that the metric may lose."""
        if self.found is None:
            return "not tried: the time was over"
        change = 100 * (self.found.ratio - 1)
        alone = f"{abs(change):.1f} % {'slower' if change > 0 else 'faster'} in INT8 alone"
        if choice == "int8":
            return alone if change < 0 else f"{alone}, faster beside its neighbours"
        if self.drop > allowed + 1e-9:
            return f"loses {100 * self.drop:.1f} points in INT8"
        return alone if change > 0 else f"{alone}, no gain beside the others"


@dataclass(frozen=True)
class Candidate:
    """One of the files that are compared at the end, on the test split."""

    name: str
    median_ns: float
    metric: float | None
    """None: no data set judges it."""
    size_bytes: int
    against: Comparison | None
    """Latency over that of the first; None for the first."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        against = None if self.against is None else self.against.model_dump()
        return {**asdict(replace(self, against=None)), "against": against}


def candidates(session: Session, subjects: Mapping[str, CellJob], rounds: int) -> dict[str, Candidate]:
    """Measure files in turn and judge them on their data; the first is what the others are compared with."""
    cells = list(subjects.values())
    judged = [Pass("accuracy", cell=cell) for cell, subject in enumerate(cells) if subject.judged]
    label = f"compare {', '.join(subjects)} on {cells[0].cell.target}"
    taken = take_turns(session, cells, Plan(session.turns, rounds), label, judged)
    found = taken.measurements
    medians = [stats.medians(each.trials) for each in found]
    floor = noise_floor(session.options.results, cells[0].cell)
    rows = {}
    for index, (name, subject) in enumerate(subjects.items()):
        against = taken.compare(0, index, floor) if index else None
        task, data = subject.bundle.model.task, subject.data
        metric = headline(task, data, predicted(found[index])) if data is not None and subject.judged else None
        rows[name] = Candidate(name, float(np.median(medians[index])), metric, subject.bundle.size_bytes, against)
    return rows
