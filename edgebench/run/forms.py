"""Other forms of a profile: on synthetic data of its data sets' exact form, and in minutes, to see that all of it runs.

Both change the profile before anything begins, so that all that is made carries it: the data set's options `synthetic` and
`limit`, the recipe's own options in the lineage, and the mode `tiny` in which is measured then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgebench import plugins
from edgebench.config import explain
from edgebench.data import LIMIT, open_dataset, synthesize
from edgebench.errors import InputError, ProfileError
from edgebench.files import sha256_json, write_json
from edgebench.recipes import check_recipe
from edgebench.schema import DatasetRef, ModelPlan, Overrides, Profile

SIZE, SAMPLES = 32, 64
"""Of tiny forms, at most: pixels of a side, and samples of each split of real data."""
EPOCHS = 5
"""More than so many are not tried where a recipe refuses fewer."""
EXPLAINED, EVALUATIONS = 4, 64
FOLDER = "synthetic"
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """How a profile is run otherwise than it says."""

    synthetic: bool = False
    """On synthetic data in place of its own."""
    tiny: bool = False
    """With one epoch, small inputs and few samples."""

    def __bool__(self) -> bool:
        """Return whether anything is otherwise."""
        return self.synthetic or self.tiny

    @property
    def told(self) -> str:
        """Say in one line what figures of this form are worth; empty where nothing is otherwise."""
        said = ["synthetic data (their pixels are drawn, their form is exact)"] if self.synthetic else []
        said += ["tiny form (one epoch or so, small inputs, few samples, brief measuring)"] if self.tiny else []
        return f"{' in a '.join(said)}: it shows that all runs; its figures say nothing of the real thing" if said else ""

    def of(self, stage: Profile, work: Path, notice: Notice) -> Profile:
        """Return a stage in this form, its synthetic data made below `work` where they are missing.

        `notice` hears what is made and left out. `ProfileError` where what the profile says of the form does not fit.
        """
        own = stage.tiny if self.tiny else stage.synthetic if self.synthetic else Overrides()
        if self.synthetic:
            stage = _from_scratch(stage, notice)
        data = self._data(stage, own, work, notice)
        changed = _changed(stage, own, self.tiny).model_copy(update={"dataset": data})
        return _stood_in(changed, work / FOLDER / f"for-{sha256_json(str(data))[:12]}") if self.synthetic else changed

    def _data(self, stage: Profile, own: Overrides, work: Path, notice: Notice) -> DatasetRef:
        options = {**stage.dataset.options, **own.dataset}
        if self.tiny and not self.synthetic:
            options.setdefault(LIMIT, SAMPLES)
        ref = DatasetRef(name=stage.dataset.name, options=options)
        return synthetic(ref, work / FOLDER, self.tiny, notice) if self.synthetic else ref


def synthetic(ref: DatasetRef, root: Path, tiny: bool, notice: Notice) -> DatasetRef:
    """Make synthetic data in the form of a data set below `root`, once; returns what opens them.

    A data set that comes with a library (`BUILT_IN`) stays as it is: nothing of it has to be fetched.
    """
    if plugins.declared(plugins.load("edgebench.data", ref.name, "data set"), "BUILT_IN", False):
        return ref
    limits = {key: value for key, value in ref.options.items() if key == LIMIT}
    options = {key: value for key, value in ref.options.items() if key != LIMIT}
    key = sha256_json([ref.name, options, tiny])[:12]
    folder = root / f"{ref.name}-{key}"
    known = root / f"{ref.name}-{key}.json"
    if known.is_file():
        found = DatasetRef.model_validate(json.loads(known.read_text(encoding="utf-8")))
    else:
        notice(f"synthesize {ref.name}{''.join(f', {name} {value}' for name, value in options.items())}")
        found = synthesize(ref.name, folder, tiny=tiny, options=options)
        write_json(known, found.model_dump(mode="json"))
    return found.model_copy(update={"options": {**found.options, **limits}})


# ---------------------------------------------------------------- what is otherwise


def _from_scratch(stage: Profile, notice: Notice) -> Profile:
    """Let models begin at random that would begin with published weights, which nothing on synthetic data needs."""
    models, changed = [], []
    for model in stage.models:
        options = dict(model.options)
        if options.pop("pretrained", False):
            changed.append(model.name)
            if "untrained" in _options_of(model):
                options["untrained"] = True
        models.append(model.model_copy(update={"options": options}))
    if changed:
        notice(f"{stage.title}: no published weights on synthetic data: {', '.join(changed)} begin at random")
    return stage.model_copy(update={"models": tuple(models)})


def _stood_in(stage: Profile, folder: Path) -> Profile:
    """Let recipes put something random in the place of what else has to be fetched, where their file has a `stand_in`."""
    models, data = [], cache(lambda: open_dataset(stage.dataset))
    for model in stage.models:
        options = model.options
        plugin = None if model.recipe is None else plugins.load("edgebench.recipes", model.recipe, "recipe")
        if plugin is not None and hasattr(plugin, "stand_in"):
            options = plugin.stand_in(options, folder, data())
        models.append(model.model_copy(update={"options": options}))
    return stage.model_copy(update={"models": tuple(models)})


def _options_of(model: ModelPlan) -> Mapping[str, Any]:
    if model.recipe is None:
        return {}
    fields: Mapping[str, Any] = plugins.load("edgebench.recipes", model.recipe, "recipe").Options.model_fields
    return fields


def _changed(stage: Profile, own: Overrides, tiny: bool) -> Profile:
    size = {"size": min(stage.input.size, SIZE)} if tiny else {}
    models = [_model(stage, model, own, tiny) for model in stage.models]
    explained: dict[str, Any] = {}
    if stage.explain is not None:
        few = {"samples": min(stage.explain.samples, EXPLAINED), "evaluations": EVALUATIONS} if tiny else {}
        explained = {"explain": _laid(stage, stage.explain, {**few, **own.explain}, "explain")}
    return stage.model_copy(
        update={
            "input": _laid(stage, stage.input, {**size, **own.input}, "input"),
            "models": tuple(models),
            "variants": own.variants or stage.variants,
            "calibration": _laid(stage, stage.calibration, own.calibration, "calibration"),
            **explained,
        }
    )


def _laid(stage: Profile, given: BaseModel, changes: Mapping[str, Any], key: str) -> BaseModel:
    try:
        return type(given).model_validate({**given.model_dump(), **changes})
    except ValidationError as error:
        raise ProfileError(f"{stage.title}: {explain(error, type(given), within=f'{key}.')}") from error


def _model(stage: Profile, model: ModelPlan, own: Overrides, tiny: bool) -> ModelPlan:
    """Give a model the options of a form: the profile's own, and where it says none, as few epochs as its recipe takes."""
    fields = _options_of(model)
    every = {key: value for key, value in own.options.items() if key in fields}
    mine = {key.rpartition(".")[2]: value for key, value in own.options.items() if key.rpartition(".")[0] == model.name}
    unknown = [key for key in mine if model.recipe is not None and key not in fields]
    if unknown:
        raise ProfileError(f"{stage.title}: {model.name}.{unknown[0]}: the recipe {model.recipe} has no such option")
    options = {**model.options, **every, **mine}
    if tiny and "epochs" in fields and "epochs" not in {*every, *mine}:
        options = _fewest(model, options)
    return model.model_copy(update={"options": options})


def _fewest(model: ModelPlan, options: dict[str, Any]) -> dict[str, Any]:
    for epochs in range(1, EPOCHS + 1):
        try:
            check_recipe(str(model.recipe), model.name, {**options, "epochs": epochs}, model.others)
        except InputError:
            continue
        return {**options, "epochs": epochs}
    return options
