"""Which samples are explained, and for which class; chosen once by the first file's scores, the same for all others."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebench import tasks
from edgebench.errors import InputError, UnknownName
from edgebench.explain._subjects import Subject
from edgebench.files import sha256_json, write_json
from edgebench.run.interleave import Part

if TYPE_CHECKING:
    from edgebench.run.options import ExplainOptions

POOL = 512
"""The worst samples are the worst of so many at most, by a fixed seed and each class in its share."""


@dataclass(frozen=True)
class Choice:
    """The samples, as indices into the test split."""

    samples: tuple[int, ...]
    chosen: tuple[str, ...]
    """How each was chosen: `random` or `worst`."""
    classes: tuple[int, ...]
    """The class that each is explained for."""

    @property
    def random(self) -> tuple[int, ...]:
        """Return the places of those that figures are of: the random ones, or all where there are none."""
        places = tuple(place for place, how in enumerate(self.chosen) if how == "random")
        return places or tuple(range(len(self.chosen)))


def choose(subject: Subject, options: ExplainOptions, work: Path) -> Choice:
    """Choose samples by a file's scores, or find what was chosen before."""
    path = work / "explained" / f"{_key(subject, options)[:32]}.json"
    if path.is_file():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return Choice(**{name: tuple(held[name]) for name in ("samples", "chosen", "classes")})
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a damaged one is made anew
    found = _choose(subject, options)
    write_json(path, dataclasses.asdict(found))
    return found


def _key(subject: Subject, options: ExplainOptions) -> str:
    facts = [options.samples, options.worst, options.seed, options.of_class, POOL]
    return sha256_json([1, subject.file.model_dump(mode="json"), subject.data.read("test").sha256, facts])


def _choose(subject: Subject, options: ExplainOptions) -> Choice:
    wanted = _wanted(subject, options.of_class)
    some = subject.data.sampled(POOL, options.seed)
    test = some.read("test")
    pool = np.arange(len(test)) if some.indices is None else some.indices
    if not len(pool):
        raise InputError(f"{subject.data.ref}: its test split is empty; there is nothing to explain")
    scores = subject.ask(test.images, f"score samples with {subject.file.name}", Part(0, len(pool), len(pool)))
    subject = subject.looked_at(scores)
    worst = _worst(subject, test.labels, scores, options.worst)
    left = np.setdiff1d(np.arange(len(pool)), worst)
    drawn = np.sort(np.random.default_rng(options.seed).permutation(left)[: options.samples])
    places = [*drawn, *worst]
    decided = subject.likely(scores).argmax(axis=1)
    return Choice(
        samples=tuple(int(pool[place]) for place in places),
        chosen=("random",) * len(drawn) + ("worst",) * len(worst),
        classes=tuple(_class_of(wanted, decided[place], test.labels[place]) for place in places),
    )


def _worst(subject: Subject, labels: Any, scores: Any, count: int) -> Any:
    """Return the places of the samples of the highest loss, the highest first."""
    rate = tasks.part(subject.model.task, "worst")
    if count and rate is None:
        raise InputError(f"--worst {count}: the task {subject.model.task} rates no samples; give --worst 0")
    loss = np.asarray(rate(labels, subject.logits(scores)).loss) if count else np.empty(0)
    return np.argsort(-loss, kind="stable")[:count]


def _wanted(subject: Subject, text: str) -> int | str:
    """Read which class is meant: `predicted`, `true`, a name, or a number from 0."""
    names = subject.model.classes
    if text in ("predicted", "true"):
        return text
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    raise UnknownName("class", text, ["predicted", "true", *names])


def _class_of(wanted: int | str, decided: Any, label: Any) -> int:
    """Return one sample's class; of several labels the first that is there, and the likeliest where none is."""
    if isinstance(wanted, int):
        return wanted
    if wanted == "predicted":
        return int(decided)
    if np.ndim(label) == 0:
        return int(label)
    return int(np.flatnonzero(label)[0]) if np.any(label) else int(decided)
