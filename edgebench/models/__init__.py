"""Build networks by name and load their weights; a model is a folder with `model.json` and a checkpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgebench.architectures import ARCHITECTURES, SCRATCH, VIDEO, VOLUMES, is_listed, split_stem
from edgebench.errors import CheckpointError, InputError, MissingExtra, UnknownName
from edgebench.files import sha256_file, write_json
from edgebench.models import factory, hugging_face, timm_zoo, tokens
from edgebench.schema import Model, Network
from edgebench.trust import LIBRARIES, check_written, names_code, remember

FACTORY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
PROGRAM = "exported-program"
RANGES = "ranges.json"
"""Learned ranges of activations, beside the checkpoint of a network that was trained for INT8."""
PLAIN = ("cnn", "cnn_large")
"""Networks of our own."""
CLASSES = 1000
"""Class count where neither a data set nor the user says one, as ImageNet has."""
OUTPUT = "output"
"""Under which of a lineage's options stands which output holds the scores, where somebody said it."""
OTHERS = ("timm:NAME", "hf:DIR", "package.module:factory")
"""What else `build` takes."""


def require_torch(what: str) -> None:
    """Raise `MissingExtra` where torch or torchvision is not installed."""
    for module in ("torch", "torchvision"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(what, "torch", module)


def build(
    architecture: str,
    classes: int | None,
    channels: int,
    size: int,
    pretrained: bool = False,
    output: str | None = None,
    volume: tuple[int, int, int] | None = None,
) -> Any:
    """Build a classifier for images [n, channels, size, size] that returns scores [n, classes].

    volume: depth, height and width, for volumes [n, channels, d, h, w] instead; `InputError` where a network by name takes
    the other kind, or a user's own does not run on them.
    classes None: a network that may return anything else; a factory that asks is told `CLASSES`.

    By torchvision's name, with `:stock` or `:small` where its stem is chosen,
    `timm:NAME`, `hf:DIR` (as a folder of Hugging Face's describes it), or by the
    user's own `package.module:factory`. Of several tensors that a network
    returns, `output` names the scores. `InputError` where it cannot be built, or
    returns something else; an input that does not fit it is no error here.
    """
    known = architecture in (*PLAIN, *SCRATCH, *VIDEO) or is_listed(architecture)
    if not (known or architecture.startswith(LIBRARIES) or FACTORY.match(architecture)):
        raise UnknownName("model", architecture, [*PLAIN, *SCRATCH, *VIDEO, *ARCHITECTURES, *OTHERS])
    _check_kind(architecture, channels, size, volume)
    require_torch(f"building {architecture}")
    from edgebench.data._torchvision import load_torchvision
    from edgebench.models import outputs

    load_torchvision()  # before a user's module, timm or transformers does it
    module = _built(architecture, CLASSES if classes is None else classes, channels, size, pretrained)
    if not known:
        import torch

        example = (torch.zeros(1, channels, *(volume or (size, size))),)
        try:
            if classes is not None:
                outputs.fit(module, example, classes, output, architecture)
            elif output is not None:
                outputs.pick(module, example, output, architecture)
        except outputs.FAILURES as error:  # the check before an export names the layer
            if volume is not None:
                what = f"does not take volumes of {_sides(channels, *volume)}: {factory.told(error)}"
                raise InputError(f"{architecture}: {what}; choose {', '.join(VOLUMES)}, or mend the factory") from error
    return module


def _check_kind(architecture: str, channels: int, size: int, volume: tuple[int, int, int] | None) -> None:
    """Refuse a network by name for the kind of data that it does not take."""
    takes_volumes = architecture in VOLUMES
    if volume is not None and not takes_volumes and not FACTORY.match(architecture):
        data = f"volumes of {_sides(channels, *volume)}"
        raise InputError(
            f"{architecture}: takes images, and the data are {data}; choose {', '.join(VOLUMES)}, or your own factory"
        )
    if volume is None and takes_volumes:
        data = f"images of {_sides(channels, size, size)}"
        raise InputError(f"{architecture}: takes volumes, and the data are {data}; choose another network, for instance cnn")


def _sides(channels: int, *sides: int) -> str:
    return " × ".join(map(str, (*sides, channels)))


def _built(architecture: str, classes: int, channels: int, size: int, pretrained: bool) -> Any:
    if architecture in PLAIN:
        from edgebench.models import plain_zoo

        return plain_zoo.build(architecture, classes, channels)
    if architecture in SCRATCH:
        from edgebench.models import scratch_zoo

        return scratch_zoo.build(architecture, classes, channels)
    if is_listed(architecture) or architecture in VIDEO:
        from edgebench.models import torchvision_zoo

        name, stem = split_stem(architecture)
        return torchvision_zoo.build(name, classes, channels, size, pretrained, stem)
    if architecture.startswith(timm_zoo.PREFIX):
        return timm_zoo.build(architecture, classes, channels, size, pretrained)
    if architecture.startswith(hugging_face.PREFIX):
        return hugging_face.build(architecture, classes, channels, size)
    return factory.call(architecture, classes, channels, size)


def source_digest(architecture: str) -> str | None:
    """Hash what a network is built by where that is the user's: a factory's source, a folder's `config.json`; None: neither."""
    if architecture.startswith(hugging_face.PREFIX):
        return hugging_face.digest(architecture)
    return factory.digest(architecture) if names_code(architecture) else None


def checkpoint_path(folder: Path, model: Model) -> Path:
    """Name a model folder's checkpoint file."""
    return folder / ("checkpoint.pt2" if model.architecture == PROGRAM else "checkpoint.pt")


def read_model(folder: Path) -> Model:
    """Read `model.json` and check the checkpoint against the hash in it."""
    try:
        model = Model.model_validate_json((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a model folder ({error}); train it again with `edgebench train`") from error
    path = checkpoint_path(folder, model)
    if not path.is_file() or sha256_file(path) != model.sha256:
        raise CheckpointError(f"{path}: missing or changed since it was written; remove {folder} and make the model again")
    if model.ranges is not None and (not (folder / RANGES).is_file() or sha256_file(folder / RANGES) != model.ranges):
        raise CheckpointError(f"{folder / RANGES}: missing or changed since it was written; make the model again")
    if model.fusion is not None:
        tokens.check(folder, model.fusion.tokenizer)
    return model


def read_ranges(folder: Path) -> dict[str, tuple[float, float]]:
    """Read the learned ranges of a model folder, by node of the network's graph."""
    path = folder / RANGES
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        found = {str(node): (float(low), float(high)) for node, (low, high) in given.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no ranges of activations ({error}); make the model again") from error
    wrong = [node for node, (low, high) in found.items() if not (math.isfinite(low) and math.isfinite(high) and low <= high)]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]} has no range; make the model again")
    return found


def write_ranges(folder: Path, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Write learned ranges beside a checkpoint; returns the file's hash."""
    write_json(folder / RANGES, ranges)
    return sha256_file(folder / RANGES)


def write_model(folder: Path, model: Model) -> None:
    """Write `model.json`; a factory that it names is the user's own, and runs without further asking."""
    write_json(folder / "model.json", model.model_dump(mode="json"))
    if names_code(model.architecture):
        remember(sha256_file(folder / "model.json"))


def load_model(folder: Path, trust: bool = False) -> Network:
    """Build the network of a model folder, with its weights, in evaluation mode; `trust` as `checkpoint.read` has it."""
    from edgebench.models import checkpoint

    model = read_model(folder)
    if names_code(model.architecture):
        check_written(folder / "model.json", f"the network {model.architecture}", trust)
    network = load_network(model, checkpoint.read(checkpoint_path(folder, model), trust), str(folder))
    network = replace(network, folder=folder)
    if model.ranges is None:
        return network
    from edgebench.models import graphs

    return replace(network, ranges=read_ranges(folder), graph=graphs.traced(network.module))


def load_network(model: Model, weights: Any, where: str) -> Network:
    """Put weights into the network that a model names; counts multiply-accumulates too."""
    from edgebench.models import checkpoint, heads, outputs, shapes

    source, output = source_digest(model.architecture) or "", model.lineage.options.get(OUTPUT)
    if model.architecture == PROGRAM:
        from edgebench.models.program import Program

        network = Network(model, Program(weights.module()), None)
        with contextlib.suppress(*outputs.FAILURES):
            if model.classes:
                outputs.fit(network.module, network.example(), len(model.classes), output, where)
    else:
        spec = model.preprocessing
        module = build(
            model.architecture, len(model.classes) or None, spec.channels, spec.height, output=output, volume=spec.volume
        )
        if model.new_head is not None:
            heads.replace(module, model.new_head, Network(model, module, None).example()[0], len(model.classes))
        if model.fusion is not None:
            from edgebench.models import fusion

            module = fusion.fused(module, model.fusion, len(model.classes), Network(model, module, None).example()[0])
        if model.pruned is not None:
            shapes.fit(module, weights, model.pruned.heads, where)
        checkpoint.fill(module, weights, where)
        network = Network(model, module.eval(), None, source)
    return replace(network, macs=count_macs(network))


def count_macs(network: Network) -> int | None:
    """Count the multiply-accumulates of one inference with torch's own counter; None where there are none, or it does not run."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edgebench.models.outputs import FAILURES

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.module(*network.example())
    except FAILURES:  # the check before an export names the layer
        return None
    return int(counter.get_total_flops() // 2) or None


def count_parameters(module: Any) -> int:
    """Count the numbers that training sets (not the running statistics)."""
    return sum(parameter.numel() for parameter in module.parameters())
