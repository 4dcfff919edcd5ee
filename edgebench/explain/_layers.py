"""Which layer's maps Grad-CAM takes, and their gradients: of convolutions [n, c, h, w], of transformers' tokens [n, t, c]."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebench.errors import InputError, UnknownName

LEAST = 4
"""Rows and columns that a map has at least: less tells no place."""
PREFIX = 8
"""Tokens that may go before those of the image: class token, distillation token, registers."""


@dataclass(frozen=True)
class Taken:
    """A layer's maps of one image, and the gradient of the explained score by them; both [1, c, h, w]."""

    layer: str
    activation: Any
    gradient: Any


@dataclass(frozen=True)
class Kept:
    """What a layer returned, and how its maps are read from it."""

    layer: str
    value: Any
    maps: Callable[[Any], Any]
    """Turns such a tensor into [n, c, h, w]."""
    shape: tuple[int, int]


def explained(
    network: Any, inputs: Any, classes: Sequence[int], settings: Mapping[str, Any], weigh: Callable[[Taken], Any]
) -> Any:
    """Return relu(Σ channel weight × activation) of each image as float64 [n, h, w]; inputs: float32 tensor [n, c, h, w].

    `settings["layer"]`: the layer by name; else the last one whose maps have
    4 × 4 cells and a gradient.
    """
    maps = []
    for index, wanted in enumerate(classes):
        taken = take(network.module, inputs[index : index + 1], wanted, settings.get("layer"))
        weights = weigh(taken)
        found = (weights[..., None, None] * taken.activation).sum(dim=1).clamp(min=0)
        maps.append(found[0].detach().double().numpy())
    return np.stack(maps)


def take(module: Any, inputs: Any, wanted: int, layer: str | None = None) -> Taken:
    """Run one image [1, c, h, w] forth and back, and return the chosen layer's maps.

    `UnknownName` where no layer of the name returns maps, `InputError` where none does.
    """
    import torch

    with torch.enable_grad():
        given = inputs.detach().clone().requires_grad_(True)
        kept, scores = _run(module, given)
        score = score_of(scores, torch.tensor([wanted])).sum()
        return _chosen(kept, score, layer)


def score_of(scores: Any, classes: Any) -> Any:
    """Return the score of each one's class [n]; of one column for two classes, the first has the opposite of the second's."""
    if scores.shape[1] == 1:
        return scores[:, 0] * (2 * classes.to(scores.dtype) - 1)
    return scores.gather(1, classes[:, None].expand(len(scores), 1))[:, 0]


def _run(module: Any, given: Any) -> tuple[list[Kept], Any]:
    """Run a network and keep what its layers return, in the order in which they are done."""
    kept: list[Kept] = []
    size = (int(given.shape[-2]), int(given.shape[-1]))

    def keep(name: str) -> Callable[[Any, Any, Any], Any]:
        def hook(layer: Any, taken: Any, value: Any) -> Any:
            read = reader(value, size) if hasattr(value, "detach") and value.requires_grad else None
            if read is None:
                return None
            kept.append(Kept(name, value, *read))
            return value.clone()  # what is done to it in place later is not done to what is kept

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in module.named_modules() if name]
    try:
        scores = module(given)
    finally:
        for hook in hooks:
            hook.remove()
    return kept, scores


def reader(value: Any, size: tuple[int, int]) -> tuple[Callable[[Any], Any], tuple[int, int]] | None:
    """Say how maps [n, c, h, w] are read from what a layer returned for images of a size, and their rows and columns.

    None where it returned no maps. Channels stand where the other two
    dimensions are as those of the image are to each other.
    """
    shape = tuple(int(each) for each in value.shape)
    if len(shape) == 4:
        if _alike(shape[2:4], size):
            return (lambda maps: maps), (shape[2], shape[3])
        if _alike(shape[1:3], size):
            return (lambda maps: maps.permute(0, 3, 1, 2)), (shape[1], shape[2])
        return None
    if len(shape) != 3 or shape[0] != 1:
        return None
    for prefix in range(PREFIX + 1):
        rows = _rows(shape[1] - prefix, size)
        if rows is not None:
            columns = (shape[1] - prefix) // rows
            return _tokens(prefix, rows, columns), (rows, columns)
    return None


def _tokens(prefix: int, rows: int, columns: int) -> Callable[[Any], Any]:
    return lambda tokens: tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, rows, columns)


def _alike(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Return whether rows are to columns as those of the image, to within one of each."""
    return abs(shape[0] * size[1] - shape[1] * size[0]) < max(size)


def _rows(count: int, size: tuple[int, int]) -> int | None:
    """Return into how many rows so many tokens go, as the image's sides are to each other."""
    rows = math.isqrt(count * size[0] // size[1]) if count > 0 else 0
    return rows if rows > 1 and count % rows == 0 and rows * size[1] == count // rows * size[0] else None


def _chosen(kept: Sequence[Kept], score: Any, layer: str | None) -> Taken:
    import torch

    names = {each.layer for each in kept}
    kept = [each for each in _without_attention(kept) if layer in (None, each.layer)]
    if not kept and layer is not None:
        raise UnknownName("layer", layer, names)
    if not kept:
        raise InputError("no layer of this network returns maps of the image; use --method occlusion")
    gradients = torch.autograd.grad(score, [each.value for each in kept], allow_unused=True)
    found = [
        Taken(each.layer, each.maps(each.value).detach(), each.maps(gradient).detach())
        for each, gradient in zip(kept, gradients, strict=True)
        if gradient is not None
    ]
    usable = [each for each in found if bool((each.gradient != 0).any())]
    if not usable:
        raise InputError("the score of this class depends on no layer's maps; use --method occlusion, or another --layer")
    wide = {each.layer for each in found if min(each.activation.shape[-2:]) >= LEAST}
    narrow = {each.layer for each in found} - wide
    last = _last({each.layer: each for each in usable if each.layer in wide}, narrow)
    return last or max(usable, key=lambda each: each.activation.shape[-2] * each.activation.shape[-1])


def _last(usable: Mapping[str, Taken], narrow: Set[str], within: str = "") -> Taken | None:
    """Find the last layer of `usable` ones, in the order in which they were done.

    A block counts as one: what lies in it is looked at where the block itself is not usable; in one that returns maps, but
    `narrow` ones, only where none of its neighbours has any. What returns no maps (a list of blocks, an encoder that returns
    several things) is looked into as if it were not there.
    """
    begin = f"{within}." if within else ""
    inner = [name for name in usable if name.startswith(begin)]
    children = list(dict.fromkeys(begin + name[len(begin) :].partition(".")[0] for name in reversed(inner)))
    for child in sorted(children, key=narrow.__contains__):
        found = usable.get(child) or _last(usable, narrow, child)
        if found is not None:
            return found
    return None


def _without_attention(kept: Sequence[Kept]) -> list[Kept]:
    """Leave out what only looks like maps: attention [1, heads, t, t], and tokens that are wider than those between blocks."""
    tokens = [tuple(each.value.shape) for each in kept if each.value.dim() == 3]
    counts, width = {shape[1] for shape in tokens}, Counter(shape[2] for shape in tokens).most_common(1)
    return [
        each
        for each in kept
        if (each.value.dim() == 3 and each.value.shape[2] == width[0][0])
        or (each.value.dim() == 4 and not (each.value.shape[2] == each.value.shape[3] and each.value.shape[2] in counts))
    ]
