"""What a user hands over to export: a model folder, a checkpoint, an exported program, or an architecture's name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgebench import models
from edgebench.architectures import VOLUMES, is_listed
from edgebench.config import explain
from edgebench.data._labels import class_names
from edgebench.errors import CheckpointError, InputError
from edgebench.files import new_folder, sha256_file, sha256_json
from edgebench.models import factory, hugging_face, outputs, untrained
from edgebench.models.normalization import (
    IMAGENET,
    KINETICS,
    TOOLS,
    check_kind,
    check_normalization,
    check_placed,
    preprocessing,
    tool_versions,
)
from edgebench.models.outputs import FAILURES
from edgebench.schema import Input, InputPlan, Lineage, Model, Network, Preprocessing, Role, image_input
from edgebench.trust import LIBRARIES, check_program, is_program, remember

if TYPE_CHECKING:
    from edgebench.data import Dataset

LIBRARY = {"timm": ("timm",), "hf": ("transformers",)}
"""What else builds a network, by the beginning of its name."""
VOLUME = 28
"""Slices, rows and columns of a volume where neither a data set nor the user says them, as MedMNIST has them."""
ENDINGS = {".pt", ".pth", ".ckpt", ".pt2", ".bin", ".safetensors"}


@dataclass(frozen=True)
class SourceOptions:
    """What was handed over, and what the user said of it."""

    text: str
    architecture: str | None = None
    name: str | None = None
    classes: int | None = None
    size: int | None = None
    channels: int | None = None
    pretrained: bool = False
    role: Role | None = None
    """Baseline unless given; what has a teacher is a student."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    trust: bool = False
    """Whether the user vouches for a file that can run code."""
    weights: str | None = None
    """`ema` or `raw`, where a checkpoint holds both."""
    expect_accuracy: float | None = None
    """In percent, on the test split: an export is refused where the network's is another."""
    head: str | None = None
    """What its scores are: logits, softmax or sigmoid; looked at on its outputs unless given."""
    classes_file: Path | None = None
    """Names of the classes in the order of the scores, where no data set has them."""
    scale: tuple[float, float] | None = None
    """What the pixels 0 and 255 become before `mean` and `std`, which are in its units; 0 and 1 unless given."""
    output: str | None = None
    """Name or index of the output that holds the scores, where a network returns several."""

    @property
    def is_file(self) -> bool:
        """Return whether it names a checkpoint file rather than an architecture."""
        path = Path(self.text)
        if self.text.startswith(LIBRARIES):
            return False
        return path.suffix in ENDINGS or (path.exists() and not path.is_dir())


def open_source(source: SourceOptions, data: Dataset | None) -> tuple[Model, Callable[[], Network]]:
    """Find out what the model is; its network is built when it is first needed."""
    folder = Path(source.text)
    if (folder / "model.json").is_file():
        model = models.read_model(folder)
        if data is not None and data.classes != model.classes:
            raise InputError(
                f"{folder}: has {len(model.classes)} classes, {data.ref} has {len(data.classes)}; "
                "choose the data set that it was trained on"
            )
        if data is not None and sum(each.is_image for each in model.inputs) == 1:
            check_kind(str(folder), model.preprocessing, data)
            check_placed(model.preprocessing, data)
        check_program(models.checkpoint_path(folder, model), source.trust)
        return model, lambda: models.load_model(folder, source.trust)
    model, weights = materialize(source, data)
    return model, lambda: models.load_network(model, weights, source.text)


def checkpoint_folder(source: SourceOptions, data: Dataset, root: Path) -> Path:
    """Name the model folder that `import_checkpoint` would return, which is the given one where it is a model folder.

    Makes nothing.
    """
    path = Path(source.text)
    if (path / "model.json").is_file():
        return _own_folder(source, path, data)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; the profile's path is relative to where edgebench runs")
    stated = [
        source.name,
        source.architecture,
        source.size,
        source.channels,
        source.role or "baseline",
        source.mean,
        source.std,
        str(data.ref),
    ]
    digest = models.source_digest(source.architecture or "")
    stated += [digest] if digest else []
    stated += [source.weights] if source.weights else []
    stated += [f"head {source.head}"] if source.head else []
    stated += [f"scale {source.scale}"] if source.scale else []
    return root / f"{source.name}-{sha256_json([sha256_file(path), stated])[:12]}"


def _own_folder(source: SourceOptions, folder: Path, data: Dataset) -> Path:
    """Check that a model folder is what is said of it; `InputError` where it has another name or other classes."""
    model = models.read_model(folder)
    if model.name != source.name:
        raise InputError(f"{folder}: holds a model called {model.name}, not {source.name}; call it by its name")
    if data.classes != model.classes:
        raise InputError(
            f"{folder}: knows {len(model.classes)} classes, {data.ref} has {len(data.classes)}; use its own data set"
        )
    return folder


def import_checkpoint(source: SourceOptions, data: Dataset, root: Path) -> Path:
    """Make a model folder of a user's checkpoint; returns the one made before if the file is the same.

    A program that the user vouches for is vouched for from then on: the folder holds the same bytes.
    Any other is looked at again whenever it is loaded.
    """
    import torch

    folder, path = checkpoint_folder(source, data, root), Path(source.text)
    if folder == path:
        return folder
    if check_program(path, source.trust) is None and is_program(path):
        remember(sha256_file(path))
    if (folder / "model.json").exists():
        models.read_model(folder)
        return folder
    model, weights = materialize(source, data)
    models.load_network(model, weights, source.text)
    with new_folder(folder, "model.json") as staging:
        kept = models.checkpoint_path(staging, model)
        if model.architecture == models.PROGRAM:
            kept.write_bytes(path.read_bytes())
        else:
            written = io.BytesIO()  # torch's own writing of files ends the process where the disk is full
            torch.save(weights, written)
            kept.write_bytes(written.getbuffer())
        model = model.model_copy(update={"sha256": sha256_file(kept)})
        models.write_model(staging, model)
    return folder


def materialize(source: SourceOptions, data: Dataset | None) -> tuple[Model, Any]:
    """Read or make the weights, and describe the model that they belong to."""
    models.require_torch(f"reading {source.text}")
    if source.text.startswith(hugging_face.PREFIX):
        return _hugging_face(source, data)
    if not source.is_file:
        return _named(source, data)
    from edgebench.models import checkpoint, stems

    path = Path(source.text)
    found = checkpoint.open_file(path, source.trust, source.weights)
    weights = found.weights
    if path.suffix == ".pt2":
        from edgebench.models import program

        parameters = sum(value.numel() for value in dict(weights.named_parameters()).values())
        digest = sha256_file(path)
        if data is None and source.classes is None and not program.is_classifier(weights):
            return _model(source, models.PROGRAM, (), data, program.tensors(weights, path), digest, parameters), weights
        spec = _program_input(source, weights, data)
        classes = _class_names(source, data, _program_classes(source, weights, spec, data))
        return _model(source, models.PROGRAM, classes, data, (image_input(spec),), digest, parameters), weights
    if source.architecture is None:
        known = [str(value) for value in found.said.values() if isinstance(value, str) and is_listed(value)]
        told = f"its hyper_parameters say {known[0]}" if known else "for instance resnet18"
        raise InputError(f"{path}: holds weights alone; name its network with --architecture, {told}")
    spec = _spec(source, data)
    if data is None and source.classes is None and not found.classes and models.FACTORY.match(source.architecture):
        architecture, (module, names) = source.architecture, _built(source, source.architecture, spec, data, None)
        checkpoint.say_stripped(str(path), checkpoint.fill(module, weights, str(path)))
    else:
        names = _class_names(source, data, len(found.classes) or None)
        stated = data is not None or source.classes_file is not None
        names = found.classes if not stated and len(found.classes) == len(names) else names
        if stated:
            stems.agree(found.classes, names, str(path), str(data.ref if data else source.classes_file))
        architecture, module = stems.filled(source.architecture, weights, len(names), spec, str(path), source.output)
    parameters = models.count_parameters(module)
    weights = {key: value.detach() for key, value in module.state_dict().items()}
    model = _model(source, architecture, names, data, (image_input(spec),), sha256_file(path), parameters)
    return model, weights


def _named(source: SourceOptions, data: Dataset | None) -> tuple[Model, Any]:
    """Build an architecture: pretrained, or with random weights that a seed fixes."""
    import torch

    spec = _spec(source, data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, names = _built(source, source.text, spec, data, models.CLASSES)
        if not source.pretrained:
            untrained.fill(module)
            untrained.settle(module, spec, data, source.text)
    module.eval()
    weights = {key: value.detach().clone() for key, value in module.state_dict().items()}
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + weights[key].contiguous().numpy().tobytes())
    return _model(
        source, source.text, names, data, (image_input(spec),), digest.hexdigest(), models.count_parameters(module)
    ), weights


def _built(
    source: SourceOptions, architecture: str, spec: Preprocessing, data: Dataset | None, default: int | None
) -> tuple[Any, tuple[str, ...]]:
    """Build a network, and name its classes: none of a factory's that returns no scores, where nobody says how many."""
    import torch

    from_factory = models.FACTORY.match(architecture) is not None
    if data is not None or source.classes is not None or not from_factory:
        names = _class_names(source, data, default)
        size = (spec.channels, spec.height, source.pretrained, source.output, spec.volume)
        return models.build(architecture, len(names), *size), names
    module = models.build(architecture, None, spec.channels, spec.height, output=source.output)
    example = (torch.zeros(1, spec.channels, spec.height, spec.width),)
    if not outputs.may_hold_scores(module, example):
        return module, ()
    names = _class_names(source, data, default)
    with contextlib.suppress(*FAILURES):
        outputs.fit(module, example, len(names), None, architecture)
    return module, names


def _hugging_face(source: SourceOptions, data: Dataset | None) -> tuple[Model, Any]:
    """Take weights, classes and input from a folder of Hugging Face's; what the user gives goes first."""
    from edgebench.models import checkpoint

    said = hugging_face.stated(source.text)
    names = said["classes"]
    wanted = len(data.classes) if data else source.classes or len(names)
    if {wanted, source.classes or wanted} != {len(names)}:
        raise CheckpointError(
            f"{source.text}: has {len(names)} classes, {wanted} are wanted; choose the data set it was trained on"
        )
    source = replace(
        source,
        size=source.size or said.get("size"),
        channels=source.channels or said.get("channels"),
        mean=source.mean or said.get("mean"),
        std=source.std or said.get("std"),
    )
    spec = _spec(source, data)
    weights, digest = hugging_face.weights(source.text)
    module = models.build(source.text, len(names), spec.channels, spec.height, output=source.output, volume=spec.volume)
    checkpoint.fill(module, weights, source.text)
    inputs, parameters = (image_input(spec),), models.count_parameters(module)
    return _model(source, source.text, data.classes if data else names, data, inputs, digest, parameters), weights


def _class_names(source: SourceOptions, data: Dataset | None, default: int | None) -> tuple[str, ...]:
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


def _spec(source: SourceOptions, data: Dataset | None) -> Preprocessing:
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


def _program_input(source: SourceOptions, program: Any, data: Dataset | None) -> Preprocessing:
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
    base = _spec(replace(source, size=height, channels=channels), data)
    if volume is not None and data is not None:
        spec = base.model_copy(update=dict(zip(("depth", "height", "width"), given, strict=True)))
        check_kind(source.text, spec, data)
        return spec
    return base.model_copy(update={"height": height, "width": width})


def _program_classes(source: SourceOptions, program: Any, spec: Preprocessing, data: Dataset | None) -> int:
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


def _model(
    source: SourceOptions,
    architecture: str,
    classes: tuple[str, ...],
    data: Dataset | None,
    inputs: tuple[Input, ...],
    sha256: str,
    parameters: int,
) -> Model:
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
