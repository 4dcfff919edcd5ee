"""What to build and measure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from edgebench.schema.base import NAME, Frozen, Role
from edgebench.schema.cell import Scenario, Subset
from edgebench.schema.model import DatasetRef
from edgebench.schema.target import Target


class Variant(Frozen):
    """One format in several precisions."""

    format: str
    precisions: tuple[str, ...]


class ModelPlan(Frozen):
    """A model that a profile wants: made by a recipe, or read from a checkpoint."""

    name: str = Field(pattern=NAME)
    architecture: str
    role: Role = "baseline"
    recipe: str | None = Field(None, description="null where `checkpoint` names a file or a folder")
    teacher: str | None = Field(None, description="name of a model in the same profile")
    parent: str | None = Field(None, description="likewise, of the model that is pruned or trained for INT8")
    checkpoint: str | None = Field(None, description="a file, or a model folder, whose name the model has then")
    weights: Literal["ema", "raw"] | None = Field(None, description="which, where a checkpoint holds averaged ones too")
    head: Literal["logits", "softmax", "sigmoid"] | None = Field(None, description="what a checkpoint's network returns")
    options: dict[str, Any] = Field({}, description="the recipe's own options")
    variants: tuple[Variant, ...] | None = Field(None, min_length=1, description="in place of the profile's")

    @property
    def others(self) -> dict[str, str]:
        """Return the names of the models that it is made from, by what they are to it: teacher, parent."""
        given = {"teacher": self.teacher, "parent": self.parent}
        return {kind: name for kind, name in given.items() if name is not None}


class InputPlan(Frozen):
    """What the networks of a profile see."""

    size: int = Field(gt=0, description="height and width; volumes keep theirs, and it is one of these")
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] | None = Field(None, description="per channel, of values 0…1; null: the training split's own")
    std: tuple[float, ...] | None = Field(None, description="likewise; what a checkpoint was trained with")
    scale: tuple[float, float] | None = Field(
        None, description="what the pixels 0 and 255 become, for instance [0, 255]; mean and std are in its units; null: 0 and 1"
    )

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> InputPlan:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != self.channels or (name == "std" and min(values) <= 0)):
                raise ValueError(f"{name} wants {self.channels} values, those of std above 0")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError("scale goes from the lower to the higher")
        return self

    def of_shares(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of pixels 0…1 that scale, mean and std make together."""
        low, high = self.scale or (0.0, 1.0)
        mean, std = self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels
        return tuple((each - low) / (high - low) for each in mean), tuple(each / (high - low) for each in std)


class CalibrationPlan(Frozen):
    """How INT8 ranges are chosen."""

    samples: int = Field(256, ge=1, description="of the training split")
    method: str | None = Field(None, description="min-max, entropy or percentile; null: as the exporter usually does")
    percentile: float = Field(99.99, gt=50, le=100, description="for the method of that name")


class Goals(Frozen):
    """What a result must hold to count."""

    threshold: float | None = Field(None, ge=0, le=1, description="least headline metric, as a share of 1")
    max_degradation: float | None = Field(0.01, ge=0, le=1, description="most that the headline metric may lose against torch")
    percent_max_degradation: float | None = Field(None, ge=0, le=100, description="in percent of the torch model's metric")
    explanation_correlation: float | None = Field(
        None, ge=0, le=1, description="least rank correlation of a quantized file's maps with those of fp32 on the device"
    )
    min_mapped: float = Field(
        0.9,
        ge=0,
        le=1,
        description="least share of operators that an accelerator must take",
    )


class ExplainPlan(Frozen):
    """What of a profile's models is explained once its cells were measured."""

    methods: tuple[str, ...] = Field(("occlusion",), min_length=1, description="names of `edgebench/explain/`")
    samples: int = Field(16, ge=0, description="of the test split, drawn at random")
    worst: int = Field(0, ge=0, description="and so many that the first model is worst at")
    models: tuple[str, ...] | None = Field(None, min_length=1, description="these of the profile; null: all of them")
    cells: int = Field(8, ge=2, le=64, description="an image is divided into so many rows and columns")
    evaluations: int | None = Field(None, ge=16, description="covered images an image; null: as each method has it")


class Overrides(Frozen):
    """What a smaller form of a profile, or one on synthetic data, has otherwise; what is not said stays."""

    options: dict[str, Any] = Field({}, description="of every recipe that has them; MODEL.OPTION: of one model")
    dataset: dict[str, str | int | bool] = Field({}, description="options of the data set")
    input: dict[str, Any] = {}
    variants: tuple[Variant, ...] | None = Field(None, min_length=1, description="in place of the profile's; a model's own stay")
    calibration: dict[str, Any] = {}
    explain: dict[str, Any] = {}


class Profile(Frozen):
    """What to build and measure: all of a profile, or one of its stages."""

    name: str = Field(pattern=NAME)
    stage: str = Field("", description="name of the stage; empty where there is one alone")
    description: str = ""
    dataset: DatasetRef
    input: InputPlan
    models: tuple[ModelPlan, ...] = Field(min_length=1)
    variants: tuple[Variant, ...] = Field(min_length=1)
    targets: tuple[str, ...] = ("cpu",)
    scenario: Scenario = Field(default_factory=Scenario)
    calibration: CalibrationPlan = Field(default_factory=CalibrationPlan)
    evaluation: Subset | None = Field(None, description="which samples of the test split; null: all of them")
    goals: Goals = Field(default_factory=Goals)
    explain: ExplainPlan | None = Field(None, description="null: nothing is explained")
    tiny: Overrides = Field(default_factory=Overrides, description="of `--tiny`, over its general rule")
    synthetic: Overrides = Field(default_factory=Overrides, description="of `--synthetic` without `--tiny`")

    @property
    def title(self) -> str:
        """Name it as messages do."""
        return f"{self.name} {self.stage}".rstrip()

    @model_validator(mode="after")
    def _explains_what_it_has(self) -> Profile:
        for name in (self.explain and self.explain.models) or ():
            if name not in {model.name for model in self.models}:
                raise ValueError(f"explain.models: there is no model {name!r}")
        return self

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ModelPlan, ...]) -> tuple[ModelPlan, ...]:
        names = [model.name for model in models]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two models are called {', '.join(doubled)}")
        return models


def stages_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Spread what a profile's YAML says over its stages: each has what the whole has, but for what it says itself.

    `ValueError` where `stages` is no list of mappings with names that differ.
    """
    stages = content.get("stages")
    if stages is None:
        return [dict(content)]
    if not isinstance(stages, list) or not stages or not all(isinstance(each, dict) for each in stages):
        raise ValueError("stages is a list of mappings, each with a name and what it has otherwise than the whole")
    names = [each.get("name") for each in stages]
    if not all(isinstance(name, str) and re.fullmatch(NAME, name) for name in names) or len(set(names)) < len(names):
        raise ValueError("stages want a name each, of letters, digits, dots, dashes and underscores, and no two the same")
    shared = {key: value for key, value in content.items() if key != "stages"}
    spread = [{**shared, **each, "name": content.get("name"), "stage": each["name"]} for each in stages]
    for each, own in zip(spread, stages, strict=True):
        for key in ("tiny", "synthetic"):  # said of the whole and of a stage, both count
            if isinstance(shared.get(key), dict) and isinstance(own.get(key), dict):
                each[key] = {**shared[key], **own[key]}
    return spread


@dataclass(frozen=True)
class PlannedCell:
    """One combination that a profile asks for, before there is a bundle for it."""

    model: ModelPlan
    format: str
    precision: str
    target: Target
