"""A grid over the options of a profile's recipes: each point is the profile with other options; what is equal is made once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebench import plugins
from edgebench.config import read_devices, read_profile
from edgebench.data import open_images
from edgebench.errors import ExportError, InputError
from edgebench.recipes import check_recipe
from edgebench.run.options import MeasureOptions, RunOptions
from edgebench.run.outcome import CellOutcome, RunResult
from edgebench.run.prepare import Maker, prepare_profile
from edgebench.run.session import Session, measure_all
from edgebench.schema import ModelPlan, Profile, Progress, Scenario, Target
from edgebench.search.space import plain
from edgebench.search.task import Made, Task, make_all, make_here, processes

Over = Mapping[str, Sequence[Any]]
"""Options, of every recipe that has them or as `model.option` of one model, and their values."""
MOST = 1000
"""Points of one grid: more are a mistake."""
LONGEST = 64


@dataclass(frozen=True)
class Swept:
    """What a sweep has made and measured."""

    result: RunResult
    options: Mapping[str, Mapping[str, Any]]
    """Of each model, what the grid sets of it and of what it is made of."""


def sweep(
    profile: str,
    over: Over,
    *,
    target: Sequence[str | Target],
    jobs: int,
    only: str | None,
    measure: MeasureOptions,
    options: RunOptions,
    progress: Progress,
) -> Swept:
    """Do what `api.sweep` says."""
    plan = read_profile(profile, options.trust)
    grid, chosen = spread(plan, over)
    devices = read_devices(target or plan.targets, options.trust)
    session = Session(measure, options, progress)
    session.scenario(Scenario())  # refuse what does not fit together before anything long begins
    session.progress = session.forecast.beside(progress)
    data = open_images(grid.dataset)
    session.subset = grid.evaluation
    with session:
        session.connect(devices)
        maker = Maker(grid, data, session)
        for model in grid.models:
            maker.check(model)
        wanted = [model.name for model in grid.models if only is None or _asked(only, model.name)]
        lost = {} if options.dry_run else _train(maker, wanted, jobs, progress)
        kept = [name for name in wanted if name not in lost]
        failed = [outcome for name in lost if name in wanted for outcome in _failed(session, maker, name, lost[name], devices)]
        prepared = prepare_profile(session, grid, data, devices, _only(only, kept)) if kept else []
        return Swept(measure_all(session, [*failed, *prepared]), chosen)


def spread(profile: Profile, over: Over) -> tuple[Profile, dict[str, dict[str, Any]]]:
    """Put every point of a grid into one profile; returns it, and what the grid sets of each of its models.

    A model that the grid does not touch, nor anything that it is made of, stays as it is, once.
    `InputError` where an option is no model's, or a value is none of it.
    """
    for name, values in over.items():
        if not any(_sets(model, name) for model in profile.models):
            raise InputError(f"{profile.name}: --over {name}: no recipe of its models has such an option")
        if not values:
            raise InputError(f"--over {name}: no values; write them as {name}=1,2,3")
    points = [dict(zip(over, values, strict=True)) for values in itertools.islice(itertools.product(*over.values()), MOST + 1)]
    if len(points) > MOST:
        raise InputError(f"--over: more than {MOST} points; leave some values out")
    models: dict[str, ModelPlan] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for point in points:
        for plan, touched in _placed(profile, point):
            if models.setdefault(plan.name, plan) != plan:
                raise InputError(f"{plan.name}: two points of the grid would be called so; write their values otherwise")
            chosen[plan.name] = touched
    return profile.model_copy(update={"models": tuple(models.values())}), chosen


def _placed(profile: Profile, point: Mapping[str, Any]) -> Iterator[tuple[ModelPlan, dict[str, Any]]]:
    """Return a profile's models at one point, with what of it touches each."""
    by_name = {model.name: model for model in profile.models}
    touched = {name: {key: value for key, value in point.items() if _reaches(by_name, name, key)} for name in by_name}
    called = {name: _called(name, given) for name, given in touched.items()}
    for model in profile.models:
        own = {_option(key): value for key, value in point.items() if _sets(model, key)}
        options = {**model.options, **own}
        if own:
            check_recipe(str(model.recipe), model.name, options, model.others)
        made = {kind: called[other] for kind, other in model.others.items()}
        yield model.model_copy(update={"name": called[model.name], "options": options, **made}), touched[model.name]


def _reaches(models: Mapping[str, ModelPlan], name: str, key: str) -> bool:
    """Return whether an option is set of a model, or of what it is made of."""
    return _sets(models[name], key) or any(_reaches(models, other, key) for other in models[name].others.values())


def _sets(model: ModelPlan, key: str) -> bool:
    """Return whether an option, perhaps of one model alone, is one of this model's recipe."""
    name, dot, option = key.rpartition(".")
    if model.recipe is None or (dot and name != model.name):
        return False
    return option in plugins.load("edgebench.recipes", model.recipe, "recipe").Options.model_fields


def _option(key: str) -> str:
    return key.rpartition(".")[2]


def _called(name: str, touched: Mapping[str, Any]) -> str:
    """Name a model by what the grid sets of it."""
    whole = "-".join([name, *(f"{_option(key)}-{plain(str(value))}" for key, value in touched.items())])
    if len(whole) > LONGEST:
        raise InputError(f"{whole}: a name has {LONGEST} characters at most; give the models of the profile shorter ones")
    return whole


# ---------------------------------------------------------------- making and measuring


def _asked(only: str, model: str) -> bool:
    """Return whether `--only` lets any cell of a model through."""
    from edgebench.run.plan import parse_only

    return model in parse_only(only).get("model", {model})


def _only(only: str | None, models: Sequence[str]) -> str:
    """Let through what `--only` does, of these models."""
    rest = [part for part in (only or "").split(",") if part and not part.startswith("model=")]
    return ",".join([*(f"model={name}" for name in models), *rest])


def _train(maker: Maker, wanted: Sequence[str], jobs: int, progress: Progress) -> dict[str, str]:
    """Make the models that are missing; returns those that could not be made, and why."""
    session, missing = maker.session, maker.missing(wanted)
    tasks = [
        Task(maker.profile, name, session.options.work, session.options.trust, tuple(plan.others.values()))
        for name, plan in missing.items()
    ]
    made: list[Made]
    if jobs == 1 or len(tasks) < 2:
        made = make_here(tasks, progress)
    else:
        with processes(min(jobs, len(tasks))) as pool:
            made = make_all(tasks, pool, progress)
    return {each.model: each.reason for each in made if each.folder is None}


def _failed(session: Session, maker: Maker, name: str, reason: str, devices: Sequence[Target]) -> Iterator[CellOutcome]:
    """Write a model's cells down as failed."""
    profile, plan = maker.profile, maker.plan(name)
    for device in devices:
        for variant in profile.variants:
            for precision in variant.precisions:
                place = (device.name, name, variant.format, precision)
                cell = session.unmeasured(place, profile.dataset, maker.data, profile.scenario)
                yield session.fail(cell, plan.role, ExportError(reason))
