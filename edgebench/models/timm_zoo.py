"""timm's classifiers, for any class count and channels; timm itself is optional."""

from __future__ import annotations

import importlib.util
from typing import Any

from edgebench.errors import InputError, MissingExtra, UnknownName
from edgebench.models import factory

PREFIX = "timm:"


def build(architecture: str, classes: int, channels: int, size: int, pretrained: bool) -> Any:
    """Build `timm:NAME` for images [n, channels, size, size]; networks of a fixed size are made for this one."""
    if importlib.util.find_spec("timm") is None:
        raise MissingExtra(f"building {architecture}", "timm", "timm")
    import timm

    name = architecture.removeprefix(PREFIX)
    if not timm.is_model(name):
        raise UnknownName("timm model", name, timm.list_models())
    config: Any = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {"img_size": size} if config is not None and config.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels, **sized)
    except Exception as error:  # whatever its layers make of the size
        remedy = "choose another size" if not pretrained else "go online once, or give a checkpoint with --architecture"
        raise InputError(f"{architecture}: {factory.told(error)}; {remedy}") from error
