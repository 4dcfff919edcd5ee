"""What a profile's stage wants explained: its models, as they were trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from edgebench.config import read_target
from edgebench.errors import EdgebenchError, StorageError
from edgebench.explain import load
from edgebench.explain._work import Result, explain_sources
from edgebench.models.source import SourceOptions
from edgebench.run.options import ExplainOptions
from edgebench.run.outcome import ExplainOutcome, RunResult
from edgebench.run.prepare import Maker
from edgebench.run.session import Session
from edgebench.schema import ExplainPlan, Profile


def check(stage: Profile) -> None:
    """Refuse methods that there are not, before anything long begins."""
    for method in stage.explain.methods if stage.explain is not None else ():
        load(method, here=False)


def look(session: Session, stage: Profile, maker: Maker, result: RunResult) -> list[ExplainOutcome]:
    """Make the maps that are missing, with all models of a stage beside each other; what fails is told with its reason.

    Models of which no cell is among the results were not asked for.
    """
    plan = stage.explain
    assert plan is not None
    asked = {cell.model for cell in result.cells}
    names = [name for name in plan.models or [model.name for model in stage.models] if name in asked]
    if session.options.dry_run:
        return [ExplainOutcome(name, method, "to do") for name in names for method in plan.methods]
    made = {name: folder for name in names if (folder := maker.existing(name)) is not None}
    lost = [
        ExplainOutcome(name, method, "failed", "was not made") for name in names for method in plan.methods if name not in made
    ]
    found = _shown(session, made, plan.methods, plan) if made else []
    return [*lost, *sorted(found, key=lambda each: (names.index(each.model), plan.methods.index(each.method)))]


def _shown(session: Session, made: dict[str, Path], by: Sequence[str], plan: ExplainPlan) -> Sequence[ExplainOutcome]:
    """Explain models by methods, all on one sheet; where that fails, apart, so that one takes no other with it."""
    options = ExplainOptions(by, samples=plan.samples, worst=plan.worst, cells=plan.cells, evaluations=plan.evaluations)
    sources = [SourceOptions(str(folder), trust=session.options.trust) for folder in made.values()]
    try:
        return _told(explain_sources(session, sources, read_target("cpu"), None, options), list(made), by)
    except StorageError:
        raise
    except EdgebenchError as error:
        if len(made) > 1:
            return [each for name, folder in made.items() for each in _shown(session, {name: folder}, by, plan)]
        if len(by) > 1:
            return [each for method in by for each in _shown(session, made, (method,), plan)]
        return [ExplainOutcome(name, by[0], "failed", str(error)) for name in made]


def _told(result: Result, names: Sequence[str], by: Sequence[str]) -> list[ExplainOutcome]:
    """Tie what was found to models and methods: it comes by models, and of each by methods."""
    return [
        ExplainOutcome(name, method, "cached" if each.cached else "done", "", each.explanation, result.sheet)
        for (name, method), each in zip(itertools.product(names, by), result.found, strict=True)
    ]
