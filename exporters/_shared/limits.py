"""What bundles say among their limits whatever their format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgebench.schema import Limits


class SharedLimits(Limits):
    """Limits of a format whose bundles once said these of every format: their keys, and those of new ones, still hold them."""

    ALWAYS: ClassVar[Mapping[str, Any]] = {"opset": None, "ir": None, "activations": "int8", "per_channel": True}
