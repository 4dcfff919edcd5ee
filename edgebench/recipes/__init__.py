"""Ways to make a model: one file per recipe, each from a data set to a model folder with its lineage."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from edgebench import plugins
from edgebench.analysis import chance
from edgebench.config import explain
from edgebench.data import Dataset
from edgebench.data._warnings import of_data
from edgebench.errors import InputError, MissingExtra
from edgebench.files import sha256_json
from edgebench.models import read_model, source_digest
from edgebench.models.normalization import TOOLS, tool_versions
from edgebench.schema import NAME, InputPlan, Lineage, Model, Network, Preprocessing, Progress, Role, image_input


@dataclass(frozen=True)
class FileKind:
    """As what file, and on which target, a network is timed."""

    format: str
    precision: str
    target: str


@dataclass(frozen=True)
class Timing:
    """How long a network takes beside the one that it is made of, the two in turn."""

    ratio: float
    """p50 over the other's."""
    median_ns: float
    parent_median_ns: float


class Timer(Protocol):
    """Times a network that is not trained yet, as a file on a device: recipes know neither exporters nor devices."""

    def __call__(self, network: Network, parent: Network, kind: FileKind) -> Timing:
        """Time a network beside its parent; the errors of an export and of a measurement."""


@dataclass(frozen=True)
class Job:
    """What a recipe is to make, and from what."""

    name: str
    architecture: str
    role: Role
    dataset: Dataset
    input: InputPlan
    options: Mapping[str, Any]
    teacher: Path | None
    """The teacher's model folder."""
    progress: Progress
    trust: bool = False
    """Whether the user vouches for a teacher or a parent that can run code."""
    parent: Path | None = None
    """The model folder that the model is made of."""
    timer: Timer | None = None
    """None: nothing can be timed, and a recipe that must refuses its options."""

    @property
    def others(self) -> dict[str, Path]:
        """Return the folders of the models that go into it, by what they are to it: teacher, parent."""
        given = {"teacher": self.teacher, "parent": self.parent}
        return {kind: folder for kind, folder in given.items() if folder is not None}


@dataclass(frozen=True)
class Work:
    """What a recipe computes at most, to estimate how long it takes: how many steps, and how many images."""

    steps: int
    learned: int
    """Images that go through the network and back."""
    judged: int
    """Images that go through the network alone."""
    taught: int = 0
    """Images that go through the teacher."""


def work_of(recipe: str, job: Job) -> Work | None:
    """Ask a recipe what it has to compute; None where its file has no `work(options, dataset)`."""
    plugin = plugins.load("edgebench.recipes", recipe, "recipe")
    if not hasattr(plugin, "work"):
        return None
    found: Work = plugin.work(check_recipe(recipe, job.name, job.options, _parents(plugin)), job.dataset)
    return found


def make_model(recipe: str, job: Job, root: Path) -> Path:
    """Make a model in a folder below `root`, or return the folder where it was made before.

    The folder's name carries the hash of everything that went in: recipe,
    options, data, teacher or parent, and the source of a factory. An interrupted training goes on where it stopped.
    """
    plugin, options, lineage = _plan(recipe, job)
    folder = model_folder(recipe, job, root)
    if (folder / "model.json").exists():
        read_model(folder)
        return folder
    for module in TOOLS:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"the recipe {recipe}", "torch", module)
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()  # before Lightning does it
    plugin.make(job, options, lineage, folder)
    return folder


def model_folder(recipe: str, job: Job, root: Path) -> Path:
    """Name the folder that `make_model` would return; makes nothing."""
    _, _, lineage = _plan(recipe, job)
    inputs, made_from = job.input.model_dump(exclude_none=True), lineage.model_dump(exclude={"tools"})
    built = [job.architecture, *(read_model(folder).architecture for folder in job.others.values())]
    sources = [digest for digest in map(source_digest, built) if digest]
    key = sha256_json([job.name, job.architecture, job.role, inputs, made_from, *sources])
    return root / f"{job.name}-{key[:12]}"


def _plan(recipe: str, job: Job) -> tuple[Any, BaseModel, Lineage]:
    """Find a recipe, check its options, and write down what will go in."""
    options = check_recipe(recipe, job.name, job.options, job.others)
    return plugins.load("edgebench.recipes", recipe, "recipe"), options, _lineage(recipe, options, job)


def check_recipe(recipe: str, name: str, options: Mapping[str, Any], given: Collection[str]) -> BaseModel:
    """Check a recipe's name, its options and which other models are `given` to it; returns the options with their defaults."""
    plugin = plugins.load("edgebench.recipes", recipe, "recipe")
    if not re.fullmatch(NAME, name):
        raise InputError(f"the name {name!r}: up to 64 letters, digits, dots, dashes and underscores, a letter or digit first")
    wanted = _parents(plugin)
    for kind in (each for each in ("teacher", "parent") if (each in wanted) != (each in given)):
        loaded = {each: plugins.load("edgebench.recipes", each, "recipe") for each in plugins.names("edgebench.recipes")}
        others = [each for each, other in loaded.items() if kind in _parents(other)]
        goes = f"a {kind} goes with the recipe {' or '.join(others)}, not with {recipe}"
        raise InputError(f"{name}: {goes if kind in given else f'the recipe {recipe} wants a {kind}'}")
    return _options(plugin.Options, recipe, options)


def role_of(recipe: str) -> Role:
    """Return what a recipe's models are called among others where the user does not say it."""
    role: Role = getattr(plugins.load("edgebench.recipes", recipe, "recipe"), "ROLE", "baseline")
    return role


def _parents(plugin: Any) -> tuple[str, ...]:
    """Return which other models a recipe wants: `teacher`, `parent`."""
    found: tuple[str, ...] = getattr(plugin, "PARENTS", ())
    return found


def _options(type_: type[BaseModel], recipe: str, given: Mapping[str, Any]) -> BaseModel:
    try:
        return type_.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(f"recipe {recipe}: {explain(error, type_)}") from error


def _lineage(recipe: str, options: BaseModel, job: Job) -> Lineage:
    return Lineage(
        recipe=recipe,
        options={name: value for name, value in options.model_dump().items() if name != "threads" or value is not None},
        parents=tuple(read_model(folder).sha256 for folder in job.others.values()),
        dataset=job.dataset.ref,
        splits=job.dataset.hashes(),
        seed=options.model_dump().get("seed", 0),
        tools=tool_versions(TOOLS),
    )


def describe(job: Job, module: Any, spec: Preprocessing, lineage: Lineage, sha256: str, metrics: dict[str, float]) -> Model:
    """Write down what was made, and what makes its metrics on the validation split (`val_…`) doubtful."""
    labels, task = job.dataset.read("val").labels, job.dataset.task
    judged = {name.removeprefix("val_"): value for name, value in metrics.items() if name.startswith("val_")}
    commonest = chance.commonest(task, labels)
    if commonest is not None and "accuracy" in judged:
        metrics = {**metrics, "val_commonest": round(commonest, 6)}
    return Model(
        name=job.name,
        architecture=job.architecture,
        role=job.role,
        task=task,
        classes=job.dataset.classes,
        inputs=(image_input(spec),),
        sha256=sha256,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        lineage=lineage,
        metrics=metrics,
        warnings=(*chance.near_chance(task, labels, judged, len(job.dataset.classes)), *of_data(job.dataset)),
    )


def input_plan(data: Dataset, size: int | None, channels: int | None, parent: Path | None = None) -> InputPlan:
    """Fill in what the user left open: as the parent's, else from the images themselves; a network wants 16 pixels at least."""
    if parent is not None:
        seen = read_model(parent).preprocessing
        return InputPlan(size=size or seen.height, channels=channels or seen.channels)
    height, width, depth = data.read("test").images.shape[1:]
    return InputPlan(size=size or max(height, width, 16), channels=channels or depth)
