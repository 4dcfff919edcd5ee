"""What a user hands over to export: a model folder, a checkpoint, an exported program, or an architecture's name."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import models
from edgebench.architectures import is_listed
from edgebench.errors import CheckpointError, InputError
from edgebench.files import new_folder, sha256_file, sha256_json
from edgebench.models import hugging_face, outputs, untrained
from edgebench.models.description import class_names_of, described, input_of, program_classes, program_input
from edgebench.models.normalization import check_kind, check_placed
from edgebench.models.options import ENDINGS as ENDINGS
from edgebench.models.options import SourceOptions as SourceOptions
from edgebench.models.outputs import FAILURES
from edgebench.schema import Model, Network, Preprocessing, image_input
from edgebench.trust import check_program, is_program, remember

if TYPE_CHECKING:
    from edgebench.data import Dataset


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
            return described(source, models.PROGRAM, (), data, program.tensors(weights, path), digest, parameters), weights
        spec = program_input(source, weights, data)
        classes = class_names_of(source, data, program_classes(source, weights, spec, data))
        return described(source, models.PROGRAM, classes, data, (image_input(spec),), digest, parameters), weights
    if source.architecture is None:
        known = [str(value) for value in found.said.values() if isinstance(value, str) and is_listed(value)]
        told = f"its hyper_parameters say {known[0]}" if known else "for instance resnet18"
        raise InputError(f"{path}: holds weights alone; name its network with --architecture, {told}")
    spec = input_of(source, data)
    if data is None and source.classes is None and not found.classes and models.FACTORY.match(source.architecture):
        architecture, (module, names) = source.architecture, _built(source, source.architecture, spec, data, None)
        checkpoint.say_stripped(str(path), checkpoint.fill(module, weights, str(path)))
    else:
        names = class_names_of(source, data, len(found.classes) or None)
        stated = data is not None or source.classes_file is not None
        names = found.classes if not stated and len(found.classes) == len(names) else names
        if stated:
            stems.agree(found.classes, names, str(path), str(data.ref if data else source.classes_file))
        architecture, module = stems.filled(source.architecture, weights, len(names), spec, str(path), source.output)
    parameters = models.count_parameters(module)
    weights = {key: value.detach() for key, value in module.state_dict().items()}
    model = described(source, architecture, names, data, (image_input(spec),), sha256_file(path), parameters)
    return model, weights


def _named(source: SourceOptions, data: Dataset | None) -> tuple[Model, Any]:
    """Build an architecture: pretrained, or with random weights that a seed fixes."""
    import torch

    spec = input_of(source, data)
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
    return described(
        source, source.text, names, data, (image_input(spec),), digest.hexdigest(), models.count_parameters(module)
    ), weights


def _built(
    source: SourceOptions, architecture: str, spec: Preprocessing, data: Dataset | None, default: int | None
) -> tuple[Any, tuple[str, ...]]:
    """Build a network, and name its classes: none of a factory's that returns no scores, where nobody says how many."""
    import torch

    from_factory = models.FACTORY.match(architecture) is not None
    if data is not None or source.classes is not None or not from_factory:
        names = class_names_of(source, data, default)
        size = (spec.channels, spec.height, source.pretrained, source.output, spec.volume)
        return models.build(architecture, len(names), *size), names
    module = models.build(architecture, None, spec.channels, spec.height, output=source.output)
    example = (torch.zeros(1, spec.channels, spec.height, spec.width),)
    if not outputs.may_hold_scores(module, example):
        return module, ()
    names = class_names_of(source, data, default)
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
    spec = input_of(source, data)
    weights, digest = hugging_face.weights(source.text)
    module = models.build(source.text, len(names), spec.channels, spec.height, output=source.output, volume=spec.volume)
    checkpoint.fill(module, weights, source.text)
    inputs, parameters = (image_input(spec),), models.count_parameters(module)
    return described(source, source.text, data.classes if data else names, data, inputs, digest, parameters), weights
