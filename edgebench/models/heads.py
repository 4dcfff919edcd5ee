"""Put a new head in the place of a network's own: what comes after its pooled features.

A head is the dense layers that run last, each on a vector of features for an image. Where they are several in a row
(VGG's three), all of them go, and with them the positions that they tell apart: what pools to a grid before them then
pools to one mean for each channel, as a network made for one dense layer does (M. Lin et al., "Network in network", 2014).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgebench.errors import InputError
from edgebench.schema import NewHead

DROPOUTS = (nn.Dropout, nn.AlphaDropout)


class Head(nn.Sequential):
    """A head that was put in the place of another: where it is replaced again, all of it goes."""


def replace(module: nn.Module, new: NewHead, example: Tensor, classes: int) -> nn.Module:
    """Change a network in place so that it ends in a new head; returns that head.

    example: an input [1, c, h, w]. Raises as `own` does.
    """
    place = nn.Identity()
    head = made(new, cut(module, example, place), classes)
    _put(module, [path for path, layer in module.named_modules() if layer is place], head)
    return head


def cut(module: nn.Module, example: Tensor, place: nn.Module | None = None) -> int:
    """Take a network's head off in place, so that it returns its pooled features [n, f]; returns how many.

    example: an input [1, c, h, w]; `place` stands where the head was. Raises as `own` does.
    """
    paths, place = own(module, example), place or nn.Identity()
    _pool(_ran(module, example), paths[0])
    _put(module, paths, place)
    [features] = [shape[1] for _, layer, shape in _ran(module, example, place) if layer is place]
    return features


def own(module: nn.Module, example: Tensor) -> list[str]:
    """Return the paths of the layers that are the head.

    `InputError` where the network does not end in a dense layer on features [n, f].
    """
    heads = [path for path, layer in module.named_modules() if isinstance(layer, Head)]
    if heads:
        return heads
    dense: list[str] = []
    for path, layer, shape in reversed(_ran(module, example)):
        if not isinstance(layer, nn.Linear) or len(shape) != 2:
            break
        dense.insert(0, path)
    if not dense:
        what = "does not end in a dense layer on one vector of features an image"
        raise InputError(f"{type(module).__name__}: {what}, and gets no new head; choose another architecture")
    together = len({path.rpartition(".")[0] for path in dense}) == 1 and isinstance(_holder(module, dense[0]), nn.Sequential)
    return dense if together else dense[-1:]


def made(new: NewHead, features: int, classes: int) -> Head:
    """Make a head [n, features] → [n, classes]: dropout before each dense layer, ReLU between two."""
    hidden: list[nn.Module] = []
    if new.hidden is not None:
        hidden = [nn.Dropout(new.dropout), nn.Linear(features, new.hidden), nn.ReLU()]
    return Head(*hidden, nn.Dropout(new.dropout), nn.Linear(new.hidden or features, classes))


def _ran(module: nn.Module, example: Tensor, *others: nn.Module) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """List the layers that have weights, pool to a grid or are asked for, as they run, with the shape of their input."""
    ran: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(path: str, layer: nn.Module) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                ran.append((path, layer, tuple(inputs[0].shape)))

        return keep

    hooks = [
        layer.register_forward_pre_hook(note(path, layer))
        for path, layer in module.named_modules()
        if layer in others or isinstance(layer, nn.AdaptiveAvgPool2d) or next(layer.parameters(recurse=False), None) is not None
    ]
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
        for layer in training:
            layer.training = True
    return ran


def _pool(ran: list[tuple[str, nn.Module, tuple[int, ...]]], first: str) -> None:
    """Let the pooling that runs right before a dense layer leave one value a channel."""
    at = next((index for index, (path, _, _) in enumerate(ran) if path == first), 0)
    before = ran[at - 1][1] if at else None
    if isinstance(before, nn.AdaptiveAvgPool2d):
        before.output_size = 1


def _holder(module: nn.Module, path: str) -> nn.Module:
    return module.get_submodule(path.rpartition(".")[0])


def _put(module: nn.Module, paths: list[str], layer: nn.Module) -> None:
    """Put one layer in the place of several in a row, what stands between them, and the dropout before them."""
    holder, leaves = _holder(module, paths[0]), [path.rpartition(".")[2] for path in paths]
    if not isinstance(holder, nn.Sequential):
        setattr(holder, leaves[0], layer)
        return
    children = dict(holder.named_children())
    names = list(children)
    first, last = names.index(leaves[0]), names.index(leaves[-1])
    while first and isinstance(children[names[first - 1]], DROPOUTS):
        first -= 1
    kept = {name: children[name] for name in names[:first]} | {leaves[0]: layer}
    kept |= {name: children[name] for name in names[last + 1 :]}
    for name in names:
        delattr(holder, name)
    for name, child in kept.items():
        holder.add_module(name, child)
