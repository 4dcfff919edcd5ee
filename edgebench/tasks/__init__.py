"""Tasks: what a network's scores mean, and how good they are; one file a task, its name is what models and data sets call it.

A task has what `schema.Task` says, and of `schema.OptionalTask` what it has; the rest is left out. One that
declares `LIKE` has all that the task of that name has, but for what it says itself.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from edgebench import plugins
from edgebench.errors import InputError
from edgebench.schema import Task


def load(name: str) -> Task:
    """Import a task; `UnknownName` offers the nearest."""
    return cast(Task, _loaded(name))


@cache
def generating() -> str:
    """Name the task of language models: the one that declares `GENERATES`."""
    return next(name for name in plugins.names("edgebench.tasks") if part(name, "GENERATES"))


def part(name: str, wanted: str) -> Any:
    """Return what a task has of `OptionalTask` under a name; None where it has not."""
    return getattr(_loaded(name), wanted, None)


def wrong(name: str, labels: Any, classes: int) -> str:
    """Say what is wrong with labels of so many classes; empty: nothing."""
    task = load(name)
    shape = task.misshapen(labels.shape, classes)
    if shape or not labels.size:
        return shape
    least, greatest, most = labels.min(), labels.max(), task.most(classes)
    return "" if least >= 0 and greatest <= most else f"labels go from 0 to {most}, not from {least} to {greatest}"


@cache
def _loaded(name: str, above: tuple[str, ...] = ()) -> SimpleNamespace:
    module = plugins.load("edgebench.tasks", name, "task")
    like = plugins.declared(module, "LIKE", "")
    if like in (name, *above):
        raise InputError(f"tasks: {name} is LIKE {like}, which is like it; name another task, or say all that a task has")
    inherited = vars(_loaded(like, (name, *above))) if like else {}
    return SimpleNamespace(**{**inherited, **vars(module)})
