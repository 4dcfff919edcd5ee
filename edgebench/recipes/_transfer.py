"""What a transfer begins with, the blocks of a network, and which of them learn when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgebench import models
from edgebench.errors import CheckpointError, InputError
from edgebench.models import checkpoint, heads
from edgebench.models.normalization import preprocessing
from edgebench.recipes import Job, _classifier
from edgebench.recipes._groups import Group
from edgebench.schema import Preprocessing, Pruned

if TYPE_CHECKING:
    from edgebench.recipes.transfer import Options

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
MOST = 0.8
"""Share of the parameters from which on a part is not one block, but holds the blocks."""


def example(spec: Preprocessing) -> Tensor:
    """Make an input [1, c, h, w]."""
    return torch.zeros(1, spec.channels, spec.height, spec.width)


# ---------------------------------------------------------------- what it begins with


def beginning(job: Job, options: Options) -> tuple[nn.Module, Preprocessing, Pruned | None]:
    """Return a network that has learnt something, what it sees, and how it was pruned; its head is still its own."""
    if preprocessing(job.dataset, job.input, False).volume is not None:
        raise InputError(f"{job.name}: sees volumes, whose networks get no new heads here; use the recipe train")
    if job.parent is not None:
        parent = _classifier.parent_of(job, same_classes=False)
        return parent.module, parent.model.preprocessing, parent.model.pruned
    spec = preprocessing(job.dataset, job.input, options.pretrained or options.imagenet)
    if options.pretrained or options.untrained:
        wanted = (job.architecture, len(job.dataset.classes), job.input.channels, job.input.size)
        return models.build(*wanted, pretrained=options.pretrained), spec, None
    return _from_file(job, str(options.weights)), spec, None


def _from_file(job: Job, where: str) -> nn.Module:
    """Fill all of a network but its head, which a checkpoint may have for any classes."""
    weights = checkpoint.read(Path(where), job.trust)
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"{where}: holds an exported program, which is not trained further; give a network's own weights")
    network: nn.Module = models.build(job.architecture, len(job.dataset.classes), job.input.channels, job.input.size)
    own, of_head = network.state_dict(), _keys_of_head(network, job)
    found, _ = checkpoint.fitted({key: value for key, value in own.items() if key not in of_head}, weights)
    missing = sorted(key for key in own if key not in of_head and key not in found)
    if missing:
        raise CheckpointError(
            f"{where}: its keys do not fit {job.architecture}: missing {', '.join(missing[:3])}; "
            "name the architecture that it was trained as"
        )
    for key in own:
        if key not in of_head and own[key].shape != found[key].shape:
            raise CheckpointError(
                f"{where}: {key} has shape {list(found[key].shape)}, {list(own[key].shape)} is wanted; "
                "check the architecture and its stem (NAME:stock is torchvision's own), --channels and --size"
            )
    network.load_state_dict({key: own[key] if key in of_head else found[key] for key in own})
    return network


def _keys_of_head(network: nn.Module, job: Job) -> set[str]:
    """Name the weights that a new head takes the place of."""
    paths = heads.own(network, torch.zeros(1, job.input.channels, job.input.size, job.input.size))
    return {key for key in network.state_dict() if any(key.startswith(f"{path}.") for path in paths)}


# ---------------------------------------------------------------- which blocks learn when


def groups(network: nn.Module, head: nn.Module, image: Tensor, options: Options, name: str) -> tuple[Group, ...]:
    """Make the groups of a strategy, the head's first; `InputError` where there are not so many blocks."""
    found = blocks(network, head, image)
    own = Group(tuple(head.parameters()))
    kind, _, number = options.freeze.partition(":")
    if kind == "last" and int(number) > len(found):
        raise InputError(f"{name}: the network has {len(found)} blocks beside its head, and freeze {options.freeze} wants more")
    if kind == "gradual":
        waits = [max(1, (len(found) - place) * options.epochs // (len(found) + 1)) for place in range(len(found))]
        return own, *(changed(block, rate=options.backbone_rate, begins=epoch) for block, epoch in zip(found, waits, strict=True))
    still = len(found) - {"all": 0, "none": len(found), "last": int(number or 0)}[kind]
    return own, _joined(found[:still], None, options), _joined(found[still:], 0, options)


def _joined(blocks: Sequence[Group], begins: int | None, options: Options) -> Group:
    """Make one group of blocks that learn alike."""
    return Group(
        parameters=tuple(parameter for block in blocks for parameter in block.parameters),
        norms=tuple(norm for block in blocks for norm in block.norms),
        rate=options.backbone_rate,
        begins=begins,
    )


def blocks(network: nn.Module, head: nn.Module, image: Tensor) -> list[Group]:
    """Part all of a network but its head into blocks, in the order in which they run.

    A part that holds most of the parameters, or the head, is opened, and its parts are taken instead: of a ResNet there are
    the stem and four stages, of VGG its convolutions, of a vision transformer its layers. A norm belongs to what it follows,
    parameters that stand alone (embeddings of positions) to the first block.
    """
    loose: list[nn.Parameter] = []
    units = _in_order(_parts(network, head, loose), network, image)
    found: list[list[nn.Module]] = []
    for unit in units:
        if found and _is_norm(unit):
            found[-1].append(unit)
        else:
            found.append([unit])
    made = [_block(each) for each in found]
    if loose and made:
        made[0] = changed(made[0], parameters=(*loose, *made[0].parameters))
    return made


def _parts(network: nn.Module, head: nn.Module, loose: list[nn.Parameter]) -> list[nn.Module]:
    own = {id(parameter) for parameter in head.parameters()}
    whole = sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in own)
    waiting, found = [network], list[nn.Module]()
    while waiting:
        unit = waiting.pop(0)
        parts = [part for part in unit.children() if next(part.parameters(), None) is not None]
        holds_head = any(layer is head for layer in unit.modules())
        share = sum(parameter.numel() for parameter in unit.parameters()) / max(whole, 1)
        if unit is head:
            continue
        if parts and (holds_head or share >= MOST):
            loose += unit.parameters(recurse=False)
            waiting = [*parts, *waiting]
        else:
            found.append(unit)
    return found


def _in_order(units: list[nn.Module], network: nn.Module, image: Tensor) -> list[nn.Module]:
    """Sort by when they first run; what does not run stands first."""
    first: dict[int, int] = {}
    inside = {id(layer): index for index, unit in enumerate(units) for layer in unit.modules()}

    def note(layer: nn.Module, *_: Any) -> None:
        first.setdefault(inside[id(layer)], len(first))

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules() if id(layer) in inside]
    training = [layer for layer in network.modules() if layer.training]
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        network(image)
    for hook in hooks:
        hook.remove()
    for layer in training:
        layer.training = True
    return [units[index] for index in sorted(range(len(units)), key=lambda index: first.get(index, -1))]


def _is_norm(unit: nn.Module) -> bool:
    with_weights = [layer for layer in unit.modules() if next(layer.parameters(recurse=False), None) is not None]
    return all(isinstance(layer, NORMS) for layer in with_weights)


def _block(units: list[nn.Module]) -> Group:
    return Group(
        parameters=tuple(parameter for unit in units for parameter in unit.parameters()),
        norms=tuple(layer for unit in units for layer in unit.modules() if isinstance(layer, _BatchNorm)),
    )
