"""Several files, several methods, the same samples: each made once, compared with the first file's, and written down."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.analysis import saliency
from edgebench.errors import GoalMissed, InputError
from edgebench.explain import _sheet, load, methods
from edgebench.explain._cells import divided
from edgebench.explain._choice import choose
from edgebench.explain._maps import Maps, Study, layer_of, make
from edgebench.explain._subjects import Subject, subjects
from edgebench.models.source import SourceOptions
from edgebench.run.options import ExplainOptions
from edgebench.run.session import Session, now
from edgebench.schema import Target
from edgebench.schema.explanation import Drift, Explanation
from edgebench.store import explanations as store


@dataclass(frozen=True)
class Explained:
    """One file's maps by one method."""

    explanation: Explanation
    maps: Maps
    again: Maps
    cached: bool


@dataclass(frozen=True)
class Result:
    """What `edgebench explain` found."""

    found: tuple[Explained, ...]
    """By files in the order given, and of each by methods."""
    sheet: Path
    """PNG."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values, without the pictures."""
        rows = [{**each.explanation.model_dump(mode="json", by_alias=True), "cached": each.cached} for each in self.found]
        return {"sheet": str(self.sheet), "explanations": rows}


def explain(session: Session, files: Sequence[Subject], options: ExplainOptions) -> Result:
    """Explain each file by each method that it can, compare all with the first, and write what is new.

    `GoalMissed`, with the result, where a file's maps correlate less than they must.
    """
    plan = _plan(files, options)
    study = _study(session, files[0], options)
    found: list[Explained] = []
    for subject, names in plan:
        for method in names:
            each = _explained(session, subject, study, method, options)
            first = next((one for one in found if one.explanation.method == method), None)
            found.append(each if first is None else _compared(session, each, first, study))
    drawn = _sheet.draw(study, files[0].model.classes, [(each.explanation, each.maps) for each in found])
    found = [_with_sheet(session, each, drawn) for each in found]
    last = found[-1].explanation
    assert last.sheet is not None
    result = Result(tuple(found), (session.options.results / store.place(last)).with_name(last.sheet.file))
    _judge(result, options.min_correlation)
    return result


def explain_sources(
    session: Session,
    sources: Sequence[str | Path | SourceOptions],
    target: Target,
    dataset: str | None,
    options: ExplainOptions,
) -> Result:
    """Open what `api.explain` was given, and explain it."""
    if not sources:
        raise InputError("explain: give a model or a bundle")
    _check(options)
    return explain(session, subjects(session, list(sources), target, dataset), options)


def _check(options: ExplainOptions) -> None:
    """Refuse, before anything is opened, what can never be done."""
    for name in options.methods:
        load(name)
    for option, value in (("--samples", options.samples), ("--worst", options.worst)):
        if value < 0:
            raise InputError(f"{option} {value}: is a number from 0 on")
    if not options.samples + options.worst:
        raise InputError("--samples 0 --worst 0: leaves nothing to explain; give a number to one of them")
    if options.evaluations is not None and options.evaluations < 16:
        raise InputError(f"--evaluations {options.evaluations}: so few say nothing; give 16 or more")


def _plan(files: Sequence[Subject], options: ExplainOptions) -> list[tuple[Subject, list[str]]]:
    """Say which methods each file gets: deployed ones those without gradients; `InputError` where one gets none."""
    names = list(dict.fromkeys(options.methods))
    needs = {name: load(name).NEEDS for name in names}
    plan = []
    for subject in files:
        able = [name for name in names if subject.network is not None or needs[name] == "scores"]
        if not able:
            others = ", ".join(each for each in methods() if load(each, here=False).NEEDS == "scores")
            raise InputError(
                f"{subject.file.name}: {names[0]} needs gradients, which a deployed file does not give; "
                f"explain the model it was made from, or use one of {others}"
            )
        plan.append((subject, able))
    return plan


def _study(session: Session, subject: Subject, options: ExplainOptions) -> Study:
    choice = choose(subject, options, session.options.work)
    images = subject.data.read("test").some(np.array(choice.samples)).images
    return Study(choice, np.asarray(images), divided(images.shape[1:], subject.spec, options.cells, options.baseline))


def _explained(session: Session, subject: Subject, study: Study, method: str, options: ExplainOptions) -> Explained:
    """Make one file's maps, or find them; what is made is on disk when this returns."""
    plugin, file, results = load(method), subject.file, session.options.results
    label = f"explain {file.name} by {method} on {file.target}"
    settings = _settings(subject, study, plugin, options)
    evaluation = subject.data.read("test").sha256
    asked = Explanation.model_construct(
        method=method, file=file, evaluation_sha256=evaluation, **vars(study.choice), settings=settings
    )
    key = store.key_of(asked)
    known = None if session.options.repeat else store.find(results, key)
    if known is not None:
        arrays = store.arrays(results, known)
        return Explained(known, arrays["maps"], arrays["again"], True)
    started = now()
    made = make(subject, study, plugin, settings, label)
    found, classes = made.found, study.choice.classes
    likely = found.subject.likely(found.whole)
    explanation = Explanation(
        key=key,
        file=file,
        dataset=subject.data.ref,
        evaluation_sha256=evaluation,
        samples=study.choice.samples,
        chosen=study.choice.chosen,
        classes=classes,
        predicted=tuple(int(each) for each in likely.argmax(axis=1)),
        likely=tuple(round(float(row[wanted]), 6) for row, wanted in zip(likely, classes, strict=True)),
        method=method,
        settings=settings,
        grid=study.cells.grid,
        seconds_per_image=round(found.seconds_per_image, 6),
        inferences_per_image=found.inferences,
        own=made.own,
        curves=made.curves,
        infidelity=made.infidelity,
        started_at=started,
    )
    return Explained(store.save(results, explanation, made.arrays()), found.maps, found.again, False)


def _settings(subject: Subject, study: Study, plugin: Any, options: ExplainOptions) -> dict[str, Any]:
    """Write down what decides a method's maps besides samples and file; what it does not use changes no key."""
    cells = study.cells
    settings: dict[str, Any] = {
        "cells": list(cells.grid),
        "baseline": cells.baseline,
        "colour": list(cells.colour),
        "seed": options.seed,
    }
    if plugin.NEEDS == "scores":
        settings["evaluations"] = (options.evaluations or plugin.EVALUATIONS) if plugin.EVALUATIONS else 0
    elif getattr(plugin, "LAYERED", False):
        settings["layer"] = layer_of(subject, study, options.layer)
    return settings


def _compared(session: Session, each: Explained, first: Explained, study: Study) -> Explained:
    """Compare a file's maps with those of the first, and write that down unless it stands there."""
    explanation, reference = each.explanation, first.explanation
    pairs = saliency.compare(first.maps, each.maps)
    some = study.choice.random
    found = saliency.compare(first.maps[list(some)], each.maps[list(some)])
    other = saliency.compare(saliency.shuffled(first.maps[list(some)]), each.maps[list(some)])
    alike = [explanation.predicted[place] == reference.predicted[place] for place in some]
    drift = Drift(
        reference=reference.file.name,
        reference_sha256=reference.file.sha256,
        same_model=reference.file.model_sha256 == explanation.file.model_sha256,
        found=found.agreement(),
        own=saliency.lower(reference.own, explanation.own),
        other=other.agreement(),
        lost=found.lost,
        undefined=found.undefined,
        decided_alike=float(np.mean(alike)),
    )
    if (drift, pairs.correlations) == (explanation.drift, explanation.correlations):
        return each
    changed = explanation.model_copy(update={"drift": drift, "correlations": pairs.correlations})
    return Explained(store.save(session.options.results, changed), each.maps, each.again, each.cached)


def _with_sheet(session: Session, each: Explained, drawn: bytes) -> Explained:
    held = each.explanation.sheet
    if held is not None and held.sha256 == hashlib.sha256(drawn).hexdigest():
        return each
    return Explained(store.save(session.options.results, each.explanation, sheet=drawn), each.maps, each.again, each.cached)


def _judge(result: Result, least: float | None) -> None:
    for each in result.found:
        drift = each.explanation.drift
        wrong = None if drift is None or least is None else missed(drift, least)
        if wrong is not None:
            raise GoalMissed(f"{each.explanation.file.name}: by {each.explanation.method} {wrong}", result)


def missed(drift: Drift, least: float) -> str | None:
    """Say by how much maps miss the least correlation with the reference's; None where they hold it."""
    value = drift.found.correlation
    if value is not None and value >= least - 1e-9:
        return None
    shown = "none can be computed" if value is None else f"{value:.2f}"
    own = "" if drift.own.correlation is None else f"; with itself it is {drift.own.correlation:.2f}"
    return (
        f"its maps' rank correlation with those of {drift.reference} is {shown}, {least:.2f} is wanted (explanation_correlation)"
        f"{own}; use more calibration samples, another --calibration, or a wider precision"
    )
