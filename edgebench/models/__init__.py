"""Build networks by name and load their weights; a model is a folder with `model.json` and a checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgebench.errors import CheckpointError, InputError, MissingExtra, UnknownName
from edgebench.files import sha256_file, write_json
from edgebench.schema import Model, Network
from edgebench.trust import check_written, remember

FACTORY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
PROGRAM = "exported-program"
ARCHITECTURES = (
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{number}" for number in range(8)),
    *("efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *("resnet101", "resnet152", "resnet18", "resnet34", "resnet50"),
    *("resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"),
    *("wide_resnet101_2", "wide_resnet50_2"),
)
"""Torchvision's classifiers that can be built; a list, so that printing it imports no torch."""
PLAIN = ("cnn", "cnn_large")
"""Networks of our own."""


def require_torch(what: str) -> None:
    """Raise `MissingExtra` where torch or torchvision is not installed."""
    for module in ("torch", "torchvision"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(what, "torch", module)


def build(architecture: str, classes: int, channels: int, size: int, pretrained: bool = False) -> Any:
    """Build a torchvision classifier, or call the user's own `package.module:factory(classes=, channels=, size=)`."""
    if architecture not in (*PLAIN, *ARCHITECTURES) and not FACTORY.match(architecture):
        raise UnknownName("model", architecture, [*PLAIN, *ARCHITECTURES, "package.module:factory"])
    require_torch(f"building {architecture}")
    if architecture in PLAIN:
        from edgebench.models import plain_zoo

        return plain_zoo.build(architecture, classes, channels)
    if FACTORY.match(architecture):
        return _own(architecture, classes, channels, size)
    from edgebench.models import torchvision_zoo

    return torchvision_zoo.build(architecture, classes, channels, size, pretrained)


def _own(architecture: str, classes: int, channels: int, size: int) -> Any:
    import torch

    module_name, _, function = architecture.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` would: what lies in the current folder can be imported
    try:
        factory = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{architecture}: {error}; give package.module:factory that Python can import from here") from error
    network = factory(classes=classes, channels=channels, size=size)
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"{architecture}: returned {type(network).__name__}; a factory returns a torch.nn.Module")
    return network


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
    return model


def write_model(folder: Path, model: Model) -> None:
    """Write `model.json`; a factory that it names is the user's own, and runs without further asking."""
    write_json(folder / "model.json", model.model_dump(mode="json"))
    if FACTORY.match(model.architecture):
        remember(sha256_file(folder / "model.json"))


def load_model(folder: Path, trust: bool = False) -> Network:
    """Build the network of a model folder, with its weights, in evaluation mode; `trust` as `checkpoint.read` has it."""
    from edgebench.models import checkpoint

    model = read_model(folder)
    if FACTORY.match(model.architecture):
        check_written(folder / "model.json", f"the network {model.architecture}", trust)
    return load_network(model, checkpoint.read(checkpoint_path(folder, model), trust), str(folder))


def load_network(model: Model, weights: Any, where: str) -> Network:
    """Put weights into the network that a model names; counts multiply-accumulates too."""
    from edgebench.models import checkpoint

    if model.architecture == PROGRAM:
        from edgebench.models.program import Program

        module = Program(weights.module())
    else:
        spec = model.preprocessing
        module = build(model.architecture, len(model.classes), spec.channels, spec.height)
        checkpoint.fill(module, weights, where)
        module.eval()
    network = Network(model, module, None)
    return replace(network, macs=count_macs(network))


def count_macs(network: Network) -> int | None:
    """Count the multiply-accumulates of one inference with torch's own counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.module(*network.example())
    return int(counter.get_total_flops() // 2) or None


def count_parameters(module: Any) -> int:
    """Count the numbers that training sets (not the running statistics)."""
    return sum(parameter.numel() for parameter in module.parameters())
