"""What profiles there are, what data each wants, and about how long it takes: an estimate, from arithmetic alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from edgebench import models, plugins
from edgebench.config import read_stages
from edgebench.data import SPLITS, Dataset, open_dataset, requirements
from edgebench.errors import DataError, EdgebenchError, InputError
from edgebench.recipes import Work, check_recipe
from edgebench.run.forecast import EXPORT_SECONDS, OTHER_EXPORT_SECONDS
from edgebench.schema import MODES, ModelPlan, Profile

PACE = 15e9
"""Multiply-accumulates of a training in a second, as two cores without an accelerator do them."""
LEARNING = 3.0
"""Forward and backward, over forward alone."""


@dataclass(frozen=True)
class Wanted:
    """One stage of a profile: what it wants, and about how long it takes."""

    profile: str
    stage: str
    description: str
    dataset: str
    what: str
    """The data set in words."""
    fetch: str | None
    """The command that fetches it; None: nothing is fetched."""
    fetch_bytes: int | None
    unpacked_bytes: int | None
    samples: int | None
    here: bool | None
    """Whether it lies on this computer already; None: nothing is known of it before it is read."""
    models: tuple[str, ...]
    cells: int
    explained: tuple[str, ...]
    seconds: float | None
    """An estimate for two cores, of all its trainings, exports and measuring; None: cannot be estimated."""
    why: str = ""
    """What is unknown, and why."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values; the estimate says of itself that it is one."""
        found = asdict(self)
        return {**found, "seconds_estimated": found.pop("seconds")}


def catalogue(names: Sequence[str] = (), trust: bool = False) -> list[Wanted]:
    """Describe the stages of profiles, by name or path; of all that there are, unless some are given."""
    chosen = names or plugins.names("edgebench.profiles", ".yaml")
    return [_wanted(stage) for name in chosen for stage in read_stages(name, trust)]


def _wanted(stage: Profile) -> Wanted:
    cells = sum(len(each.precisions) for model in stage.models for each in model.variants or stage.variants)
    own: dict[str, Any] = {"what": "", "fetch": None, "fetch_bytes": None, "unpacked_bytes": None, "samples": None, "here": None}
    counts: Mapping[str, int] = {}
    why = ""
    plugin = plugins.load("edgebench.data", stage.dataset.name, "data set")
    if plugins.declared(plugin, "BUILT_IN", False):
        data = open_dataset(stage.dataset)
        counts = {name: len(data.read(name)) for name in SPLITS}
        own = {**own, "what": "comes with its library", "here": True, "samples": sum(counts.values())}
    else:
        try:
            found = requirements(stage.dataset.name, stage.dataset.options)
            counts = found.counts
            own = {
                "what": found.what,
                "fetch": found.fetch,
                "fetch_bytes": found.bytes,
                "unpacked_bytes": found.unpacked_bytes,
                "samples": sum(counts.values()),
                "here": _is_here(plugin, stage),
            }
        except DataError as error:
            why = str(error)
    seconds, reason = _seconds(stage, counts) if counts else (None, why)
    return Wanted(
        profile=stage.name,
        stage=stage.stage,
        description=stage.description,
        dataset=str(stage.dataset),
        models=tuple(model.name for model in stage.models),
        cells=cells * len(stage.targets),
        explained=() if stage.explain is None else stage.explain.methods,
        seconds=seconds,
        why=reason,
        **own,
    )


def _is_here(plugin: Any, stage: Profile) -> bool | None:
    if hasattr(plugin, "missing"):
        with contextlib.suppress(EdgebenchError):
            return plugin.missing(stage.dataset.options) is None
    source = stage.dataset.options.get("source")
    return None if source is None else Path(str(source)).expanduser().exists()


# ---------------------------------------------------------------- how long


def _seconds(stage: Profile, counts: Mapping[str, int]) -> tuple[float | None, str]:
    """Add up trainings by their multiply-accumulates, exports and measuring; None and why where that is not known."""
    total = 0.0
    for model in stage.models:
        try:
            macs = {
                name: _macs(plan.architecture, stage.input.size, stage.input.channels) for name, plan in _beside(stage, model)
            }
            total += _training(model, counts, macs)
        except EdgebenchError as error:
            return None, f"{model.name}: {error}"
    for model in stage.models:
        for variant in model.variants or stage.variants:
            each = EXPORT_SECONDS.get(variant.format, OTHER_EXPORT_SECONDS) + MODES["quick"].seconds(stage.scenario)
            total += each * len(variant.precisions) * len(stage.targets)
    return total, ""


def _beside(stage: Profile, model: ModelPlan) -> Iterator[tuple[str, ModelPlan]]:
    yield "own", model
    if model.teacher is not None:
        yield "teacher", next(plan for plan in stage.models if plan.name == model.teacher)


@cache
def _macs(architecture: str, size: int, channels: int) -> float:
    """Count the multiply-accumulates of one sample, without computing any; volumes are as deep as they are wide."""
    models.require_torch(f"counting {architecture}")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edgebench.models.outputs import FAILURES

    sides: tuple[int, ...] = (size, size)
    with torch.device("meta"):
        try:
            module = models.build(architecture, 2, channels, size)
        except InputError:
            sides = (size, size, size)
            module = models.build(architecture, 2, channels, size, volume=(size, size, size))
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                module.eval()(torch.zeros(1, channels, *sides))
        except FAILURES as error:
            raise InputError(f"{architecture}: does not run on {' × '.join(map(str, sides))} ({error})") from error
    return float(counter.get_total_flops() // 2)


def _training(model: ModelPlan, counts: Mapping[str, int], macs: Mapping[str, float]) -> float:
    if model.recipe is None:
        return 0.0
    plugin = plugins.load("edgebench.recipes", model.recipe, "recipe")
    options = check_recipe(model.recipe, model.name, model.options, model.others)
    if not hasattr(plugin, "work"):
        return 0.0
    work: Work = plugin.work(options, cast(Dataset, _Counted(counts)))
    learning = LEARNING * work.learned + work.judged
    return (learning * macs["own"] + work.taught * macs.get("teacher", macs["own"])) / PACE


@dataclass(frozen=True)
class _Counted:
    """A data set of which the numbers of samples are known, and nothing else."""

    counts: Mapping[str, int]

    def read(self, name: str) -> range:
        """Return as many numbers as the split has samples."""
        return range(self.counts.get(name, 0))
