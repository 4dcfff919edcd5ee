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
from edgebench.files import sha256_file, sha256_json
from edgebench.models import read_model, source_digest
from edgebench.models.normalization import TOOLS, tool_versions
from edgebench.recipes import _processes
from edgebench.recipes._processes import is_first as is_first
from edgebench.schema import NAME, InputPlan, Lineage, Model, Network, Preprocessing, Progress, Role, image_input

NONE: tuple[str, ...] = ()
LATER = "later"
"""Marks an option (`Annotated[int, LATER]`) that came after models had been made: a lineage and a folder's name hold it only
where it differs from its default, so that those models keep their names."""

BESIDE = "loggers"
"""An option that says nothing of what is made."""


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
    found: Work = plugin.work(_options(plugin.Options, recipe, job.options), job.dataset)
    return found


def shape_of(recipe: str, options: Mapping[str, Any], network: Network) -> Any:
    """Return the module that a recipe makes of a network, untrained: what its file and its arithmetic will be like.

    A recipe whose file has no `shaped(options, network)` leaves shapes as they are. `InputError` where it cannot make one.
    """
    plugin = plugins.load("edgebench.recipes", recipe, "recipe")
    if not hasattr(plugin, "shaped"):
        return network.module
    return plugin.shaped(_options(plugin.Options, recipe, options), network)


def begun(recipe: str, options: Mapping[str, Any], network: Network) -> Network:
    """Return what a recipe trains in the place of a network of the architecture that it is given, untrained.

    A recipe whose file has no `begun(options, network)` trains that network itself.
    """
    plugin = plugins.load("edgebench.recipes", recipe, "recipe")
    if not hasattr(plugin, "begun"):
        return network
    found: Network = plugin.begun(_options(plugin.Options, recipe, options), network)
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
        if getattr(options, "loggers", ()):
            job.progress(f"{job.name} was made before and is logged nowhere now; its epochs: {folder / 'history.json'}", 0, 0)
        return folder
    for module in TOOLS:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"the recipe {recipe}", "torch", module)
    devices = getattr(options, "devices", 1)
    _processes.check(job.name, devices)
    if devices > 1 and not _processes.started():
        _processes.start(recipe, job, root, devices)
        read_model(folder)
        return folder
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
    wanted, possible = _parents(plugin), (*_parents(plugin), *plugins.declared(plugin, "MAY_HAVE", NONE))
    for kind in (each for each in ("teacher", "parent") if each in wanted and each not in given):
        raise InputError(f"{name}: the recipe {recipe} wants a {kind}")
    for kind in (each for each in ("teacher", "parent") if each in given and each not in possible):
        loaded = {each: plugins.load("edgebench.recipes", each, "recipe") for each in plugins.names("edgebench.recipes")}
        takes = {each: (*_parents(other), *plugins.declared(other, "MAY_HAVE", NONE)) for each, other in loaded.items()}
        others = [each for each in takes if kind in takes[each]]
        raise InputError(f"{name}: a {kind} goes with the recipe {' or '.join(others)}, not with {recipe}")
    found = _options(plugin.Options, recipe, options)
    if hasattr(plugin, "check"):
        plugin.check(name, found, given)
    return found


def role_of(recipe: str) -> Role:
    """Return what a recipe's models are called among others where the user does not say it."""
    role: Role = getattr(plugins.load("edgebench.recipes", recipe, "recipe"), "ROLE", "baseline")
    return role


def starts_from(recipe: str, parent: Path | None, options: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Let a checkpoint file that is given as the parent be the option `weights` of a recipe that has one; returns both."""
    fields = plugins.load("edgebench.recipes", recipe, "recipe").Options.model_fields
    if parent is None or not parent.is_file() or "weights" not in fields or "weights" in options:
        return parent, dict(options)
    return None, {**options, "weights": str(parent)}


def _parents(plugin: Any) -> tuple[str, ...]:
    """Return which other models a recipe wants: `teacher`, `parent`."""
    return plugins.declared(plugin, "PARENTS", NONE)


def _options(type_: type[BaseModel], recipe: str, given: Mapping[str, Any]) -> BaseModel:
    try:
        return type_.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(f"recipe {recipe}: {explain(error, type_)}") from error


def _lineage(recipe: str, options: BaseModel, job: Job) -> Lineage:
    fields = type(options).model_fields
    files = getattr(plugins.load("edgebench.recipes", recipe, "recipe"), "files", lambda _: ())(options)
    return Lineage(
        recipe=recipe,
        options={
            name: value
            for name, value in options.model_dump().items()
            if name != BESIDE and (LATER not in fields[name].metadata or value != fields[name].default)
        },
        parents=(*(read_model(folder).sha256 for folder in job.others.values()), *map(_digest, files)),
        dataset=job.dataset.ref,
        splits=job.dataset.hashes(),
        seed=options.model_dump().get("seed", 0),
        tools=tool_versions(TOOLS),
    )


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; a profile's path is relative to where edgebench runs")
    return sha256_file(path)


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
    """Fill in what the user left open: as the parent's, else from the samples; images are brought to 16 pixels at least."""
    if parent is not None:
        seen = read_model(parent).preprocessing
        return InputPlan(size=size or seen.height, channels=channels or seen.channels)
    *_, height, width, depth = data.read("test").images.shape
    least = 16 if data.volume is None else 1
    return InputPlan(size=size or max(height, width, least), channels=channels or depth)
