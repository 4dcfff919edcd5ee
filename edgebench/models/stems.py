"""Which network a checkpoint's weights belong to, where an architecture's name leaves its stem open."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from edgebench import models
from edgebench.architectures import SMALL, STOCK, is_listed, split_stem
from edgebench.errors import CheckpointError, InputError, ModelWarning
from edgebench.models import checkpoint
from edgebench.schema import Preprocessing


def filled(
    architecture: str, weights: Mapping[str, Any], classes: int, spec: Preprocessing, where: str, output: str | None = None
) -> tuple[str, Any]:
    """Build a network with a checkpoint's weights; returns the name that it is built by, with its stem, and the network.

    `CheckpointError` where they do not fit, or where they fit torchvision's own
    stem and that for small images alike, which differ in function alone.
    """
    name, module = _of_stem(architecture, weights, classes, spec, where) or (architecture, None)
    if module is None:
        module = models.build(name, classes, spec.channels, spec.height, output=output, volume=spec.volume)
    checkpoint.say_stripped(where, checkpoint.fill(module, weights, where))
    return name, module


def _of_stem(
    architecture: str, weights: Mapping[str, Any], classes: int, spec: Preprocessing, where: str
) -> tuple[str, Any] | None:
    """Return torchvision's own network where only that fits; None where the name decides."""
    if not is_listed(architecture) or split_stem(architecture)[1] is not None or spec.volume is not None:
        return None
    from edgebench.models import torchvision_zoo

    if spec.height >= torchvision_zoo.BELOW or not torchvision_zoo.has_small_stem(architecture):
        return None
    stock, small = f"{architecture}:{STOCK}", f"{architecture}:{SMALL}"
    try:
        theirs = models.build(stock, classes, spec.channels, spec.height)
    except InputError:
        return None  # torchvision's own takes no images of this size
    if not checkpoint.fits(theirs, weights):
        return None
    if checkpoint.fits(models.build(small, classes, spec.channels, spec.height), weights):
        raise CheckpointError(
            f"{where}: at {spec.height} px two networks have these weights' shapes; say which it was trained as: "
            f"--architecture {stock} (torchvision's own) or {small} (edgebench's, whose stem keeps the resolution)"
        )
    warnings.warn(
        f"{where}: its shapes are those of torchvision's own stem, and it is read as {stock}", ModelWarning, stacklevel=4
    )
    return stock, theirs


def agree(classes: tuple[str, ...], wanted: tuple[str, ...], where: str, dataset: str) -> None:
    """Refuse a checkpoint whose classes are the data set's in another order; warn where their names cannot be compared."""
    if not classes or classes == wanted:
        return
    if sorted(classes) == sorted(wanted):
        index = next(index for index, pair in enumerate(zip(classes, wanted, strict=True)) if pair[0] != pair[1])
        raise CheckpointError(
            f"{where}: its class_to_idx has {classes[index]!r} at {index}, {dataset} has {wanted[index]!r} there; "
            "give the data set the order that it was trained in: its option classes=FILE"
        )
    warnings.warn(
        f"{where}: its class_to_idx names {', '.join(classes[:3])}, …, {dataset} names {', '.join(wanted[:3])}, …; "
        "that both mean the same order cannot be checked",
        ModelWarning,
        stacklevel=3,
    )
