"""A profile's stages one after the other: each is prepared, measured and looked at before the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgebench.config import read_devices
from edgebench.data import open_images
from edgebench.errors import DataError, EdgebenchError, InputError, MissingExtra, UnknownName
from edgebench.recipes import check_recipe
from edgebench.run.forecast import Forecast, about
from edgebench.run.outcome import CellOutcome, ExplainOutcome, RunResult
from edgebench.run.plan import CellJob, parse_only, slots
from edgebench.run.prepare import Maker, prepare_profile
from edgebench.run.session import Session, measure_all
from edgebench.schema import PlannedCell, Profile, Progress, Target

Prepared = list[CellJob | CellOutcome]
Gate = Callable[[Session, Profile, Prepared], Prepared]
"""Lets cells through, or turns them into failed ones."""
Look = Callable[[Session, Profile, Maker, RunResult], Sequence[ExplainOutcome]]
"""Does what a stage wants once its cells were measured."""
Todo = tuple[Profile, Sequence[Target], str | None]
"""A stage, its devices, and which of its cells."""


def devices_of(stages: Sequence[Profile], given: Sequence[str | Target], trust: bool) -> dict[str, list[Target]]:
    """Read each stage's devices, by its name; `given` are in place of those that profiles name."""
    if given:
        devices = read_devices(given, trust)
        return dict.fromkeys((stage.stage for stage in stages), devices)
    read = {names: read_devices(names, trust) for names in {stage.targets for stage in stages}}
    return {stage.stage: read[stage.targets] for stage in stages}


def run_stages(
    session: Session, stages: Sequence[Profile], devices: Mapping[str, Sequence[Target]], only: str | None, gate: Gate, look: Look
) -> RunResult:
    """Do each stage that `only` lets through; data that cannot be had make a stage's cells fail, and the others go on.

    `InputError` before the first long work, `DataError` where no stage's data can be had.
    """
    todo = chosen([(stage, devices[stage.stage], only) for stage in stages])
    for stage, _, _ in todo:
        for model in stage.models:
            if model.recipe is not None:
                check_recipe(model.recipe, model.name, model.options, model.others)
    if not todo[0][0].stage:
        return _run(session, *todo[0], gate, look)
    found: list[RunResult] = []
    lost: list[DataError | MissingExtra] = []
    for number, each in enumerate(todo, 1):
        session.report(f"{each[0].title}: stage {number} of {len(todo)}", 0, 0)
        alone = replace(
            session,
            subset=None,
            forecast=(forecast := Forecast()),
            progress=_within(each[0].stage, forecast.beside(session.progress)),
        )
        try:
            result = _run(alone, *each, gate, look)
        except (DataError, MissingExtra) as error:
            lost.append(error)
            result = RunResult([_lost(alone, each[0], slot, error) for slot in slots(*each)])
        found.append(_of_stage(each[0].stage, result))
    if lost and len(lost) == len(todo):
        raise lost[0]
    return _joined(found)


def _within(stage: str, progress: Progress) -> Progress:
    """Name the stage before what is being done."""
    return lambda what, done, total, lane="": progress(f"{stage}: {what}", done, total, lane)


def _run(session: Session, stage: Profile, devices: Sequence[Target], only: str | None, gate: Gate, look: Look) -> RunResult:
    data = open_images(stage.dataset)
    prepared = gate(session, stage, prepare_profile(session, stage, data, devices, only))
    result = measure_all(session, prepared)
    if stage.explain is None:
        return result
    return replace(result, explained=look(session, stage, Maker(stage, data, session), result))


def chosen(every: Sequence[Todo]) -> list[Todo]:
    """Leave out stages of which `only` lets nothing through; `UnknownName` for what no stage has."""
    only = every[0][2]
    wanted = parse_only(only)
    named = wanted.pop("stage", None)
    stages = [stage.stage for stage, _, _ in every]
    if named is not None:
        for name in named - set(stages):
            raise UnknownName("stage", name, stages)
        every = [each for each in every if each[0].stage in named]
    rest = ",".join(f"{key}={value}" for key, values in wanted.items() for value in sorted(values)) or None
    if len(every) == 1 or not wanted:
        return [(stage, devices, rest) for stage, devices, _ in every]
    has = [_values(stage, devices) for stage, devices, _ in every]
    for key, values in wanted.items():
        known = set[str]().union(*(each[key] for each in has))
        for value in values - known:
            raise UnknownName(key, value, known)
    found: list[Todo] = []
    for (stage, devices, _), own in zip(every, has, strict=True):
        left = {key: sorted(values & own[key]) for key, values in wanted.items()}
        if all(left.values()):
            found.append((stage, devices, ",".join(f"{key}={value}" for key, values in left.items() for value in values)))
    if not found:
        raise InputError(f"--only {only}: each of these is of some stage, and all together of none; choose a stage's own")
    return found


def _values(stage: Profile, devices: Sequence[Target]) -> dict[str, set[str]]:
    every = slots(stage, devices, None)
    return {
        "model": {slot.model.name for slot in every},
        "format": {slot.format for slot in every},
        "precision": {slot.precision for slot in every},
        "target": {slot.target.name for slot in every},
    }


def _lost(session: Session, stage: Profile, slot: PlannedCell, error: EdgebenchError) -> CellOutcome:
    place = (slot.target.name, slot.model.name, slot.format, slot.precision)
    return session.fail(session.unmeasured(place, stage.dataset, None, stage.scenario), slot.model.role, error)


def _of_stage(name: str, result: RunResult) -> RunResult:
    cells = [replace(cell, stage=name) for cell in result.cells]
    return replace(result, cells=cells, explained=[replace(each, stage=name) for each in result.explained])


def _joined(results: Sequence[RunResult]) -> RunResult:
    seconds = sum(each.seconds for each in results)
    busy = sum(bool(each.ahead) for each in results)
    return RunResult(
        cells=[cell for each in results for cell in each.cells],
        ahead=f"{busy} of {len(results)} stages; {about(seconds)}" if busy else "",
        seconds=seconds,
        explained=[each for result in results for each in result.explained],
    )
