"""Words that several types share, and what all values have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
)

RECORD_SCHEMA = 4


BUNDLE_SCHEMA = 2


METHOD = 2
"""Version of the measuring method; part of every cell's key."""


Role = Literal["teacher", "student", "baseline", "quantized", "pruned"]


Mode = Literal["tiny", "quick", "standard", "strict", "sustained"]


Kind = Literal["single-stream", "multi-stream", "offline", "server", "paced"]


Provenance = Literal["wall", "board", "module", "soc", "estimate"]
"""How much of the device a power figure covers; different ones are never ranked together."""


Layout = Literal["nchw", "nhwc"]


VerdictWord = Literal["VALID", "UNSTABLE", "INVALID"]


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a model, target or profile may be called: it becomes part of file names."""


class Frozen(BaseModel):
    """A value: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


class Interval(Frozen):
    """A value and its 95 % confidence interval, over trials unless said otherwise."""

    value: float
    low: float | None = None
    high: float | None = None


Doubt = Literal[
    "near-chance", "class-order", "few-samples", "few-parity-samples", "duplicates", "shared-patients", "missing-classes",
    "calibration-left-out",
]  # fmt: skip


class Warned(Frozen):
    """One reason to look twice at a number that was measured."""

    kind: Doubt
    text: str
