"""What a model takes, which classes it knows, and what it is, from what its user, its file and a data set say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgebench import models
from edgebench.architectures import VOLUMES
from edgebench.config import explain
from edgebench.data._labels import class_names
from edgebench.errors import CheckpointError, InputError
from edgebench.models import factory, outputs
from edgebench.models.normalization import (
    IMAGENET,
    KINETICS,
    TOOLS,
    check_kind,
    check_normalization,
    preprocessing,
    tool_versions,
)
from edgebench.models.options import SourceOptions
from edgebench.models.outputs import FAILURES
from edgebench.schema import Input, InputPlan, Lineage, Model, Preprocessing

if TYPE_CHECKING:
    from edgebench.data import Dataset

LIBRARY = {"timm": ("timm",), "hf": ("transformers",)}
"""What else builds a network, by the beginning of its name."""
VOLUME = 28
"""Slices, rows and columns of a volume where neither a data set nor the user says them, as MedMNIST has them."""


def class_names_of(source: SourceOptions, data: Dataset | None, default: int | None) -> tuple[str, ...]:
    """Name the classes: the data set's, or those of the user's file, or numbers; `InputError` where counts differ."""
    wanted = source.classes or (default if data is None else None)
    if data is None and source.classes_file is not None:
        names = class_names(source.classes_file)
        if source.classes not in (None, len(names)) or (source.is_file and default not in (None, len(names))):
            raise InputError(f"{source.text}: has {wanted} classes, {source.classes_file} names {len(names)}; name each once")
        return names
    if data is None:
        if wanted is None:
            raise InputError(f"{source.text}: how many classes? give --dataset or --classes")
        return tuple(str(index) for index in range(wanted))
    if source.classes not in (None, len(data.classes)):
        raise InputError(f"{source.text}: --classes {source.classes}, but {data.ref} has {len(data.classes)}")
    if default is not None and source.is_file and default != len(data.classes):
        raise CheckpointError(f"{source.text}: has {default} classes, {data.ref} has {len(data.classes)}")
    return data.classes


def input_of(source: SourceOptions, data: Dataset | None) -> Preprocessing:
    """Find the image or volume that a network takes: as the user says, else as the data set is, else as usual."""
    shown = data.geometry if data is not None else None
    volume = data.volume if data is not None else None
    size = source.size or (volume[1] if volume is not None else shown.height if shown is not None else _usual(source))
    stated = {"mean": source.mean, "std": source.std, "scale": source.scale}
    grey = (volume is not None or _of_volumes(source)) and not source.pretrained
    given = {"size": size, "channels": source.channels or (1 if grey else 3), **stated}
    try:
        plan = InputPlan.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{source.text}: {explain(error, InputPlan)}") from error
    if data is not None:
        return preprocessing(data, plan, source.pretrained)
    depth = plan.size if _of_volumes(source) else None
    if plan.scale is not None:
        mean, std = plan.of_shares()
        return Preprocessing(depth=depth, height=plan.size, width=plan.size, channels=plan.channels, mean=mean, std=std)
    if plan.mean is not None and plan.std is not None:
        check_normalization(plan.mean, plan.std)
    usual = KINETICS if depth is not None else IMAGENET
    mean, std = usual if plan.channels == 3 else ((0.5,), (0.5,))
    mean, std = plan.mean or mean, plan.std or std
    return Preprocessing(depth=depth, height=plan.size, width=plan.size, channels=plan.channels, mean=mean, std=std)


def _usual(source: SourceOptions) -> int:
    """Return a size where nobody says one: ImageNet's, of volumes MedMNIST's."""
    return VOLUME if _of_volumes(source) else 224


def _of_volumes(source: SourceOptions) -> bool:
    """Return whether a network by name takes volumes."""
    return (source.architecture or source.text) in VOLUMES


def program_input(source: SourceOptions, program: Any, data: Dataset | None) -> Preprocessing:
    """Find it for an exported program, whose shape is fixed; `CheckpointError` where it takes something else."""
    from edgebench.models.program import taken as taken_

    taken = taken_(program)
    shape = tuple(taken[0][1].shape) if len(taken) == 1 else ()
    volume = data.volume if data is not None else None
    rank = 4 if volume is None else 5
    if len(shape) != rank or shape[1] not in (1, 3) or str(shape[0]) != "1":
        found = list(shape) if len(taken) == 1 else f"{len(taken)} inputs"
        wanted = (
            "[1, 1 or 3, height, width]" if volume is None else "[1, 1 or 3, depth, height, width], as the data set's volumes"
        )
        raise CheckpointError(f"{source.text}: takes {found}; export the program with one input {wanted}")
    channels, *given = (int(value) for value in shape[1:])
    *_, height, width = given
    base = input_of(replace(source, size=height, channels=channels), data)
    if volume is not None and data is not None:
        spec = base.model_copy(update=dict(zip(("depth", "height", "width"), given, strict=True)))
        check_kind(source.text, spec, data)
        return spec
    return base.model_copy(update={"height": height, "width": width})


def program_classes(source: SourceOptions, program: Any, spec: Preprocessing, data: Dataset | None) -> int:
    """Count the classes of an exported program by running it once; `CheckpointError` where it does not run."""
    import torch

    from edgebench.models.program import Program

    example = (torch.zeros(1, spec.channels, *spec.sides),)
    wanted = len(data.classes) if data else source.classes
    try:
        found = outputs.fit(Program(program.module()), example, wanted, source.output, source.text)
        return wanted if found == 1 and wanted == 2 else found
    except FAILURES as error:
        raise CheckpointError(f"{source.text}: does not run: {factory.told(error)}; export the program again") from error
    except InputError as error:
        raise CheckpointError(str(error)) from error


def described(
    source: SourceOptions,
    architecture: str,
    classes: tuple[str, ...],
    data: Dataset | None,
    inputs: tuple[Input, ...],
    sha256: str,
    parameters: int,
) -> Model:
    """Describe a model that was handed over: its name, how it came to be, and what was said of it."""
    named = re.sub("^hf:", "", source.text)
    if source.is_file or named != source.text:
        recipe = "checkpoint"
    else:
        recipe = "pretrained" if source.pretrained else "random-weights"
    given = source.name or (Path(named).stem if recipe == "checkpoint" else source.text)
    return Model(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-._")[:64] or "model",
        architecture=architecture,
        role=source.role or "baseline",
        task=data.task if data else "multi-class" if classes else "none",
        classes=classes,
        inputs=inputs,
        sha256=sha256,
        parameters=parameters,
        lineage=Lineage(
            recipe=recipe,
            options={
                **({} if source.output is None else {models.OUTPUT: source.output}),
                **({} if source.head is None else {"head": source.head}),
                **({} if source.weights is None else {"weights": source.weights}),
                **({} if source.scale is None else {"scale": list(source.scale)}),
            },
            dataset=data.ref if data else None,
            splits=data.hashes() if data else {},
            tools=tool_versions((*TOOLS, *LIBRARY.get(source.text.partition(":")[0], ()))),
        ),
    )
