"""A model file that somebody brought, as far as it can be read without running any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FileTensor:
    """An input or output, as a file declares it."""

    name: str
    dtype: str | None
    """As numpy names it; None: the file does not say."""
    shape: tuple[int | None, ...] | None
    """None for each size that is open; None for all where not even the rank is said."""
    symbols: tuple[str, ...] = ()
    """What open sizes are called, "" where they are not; as long as `shape`, or empty."""
    scale: float | None = None
    zero_point: int | None = None

    @property
    def is_open(self) -> bool:
        """Return whether something of its shape is not said."""
        return self.shape is None or None in self.shape

    def symbol(self, axis: int) -> str:
        """Return what an open size is called; empty where it has no name."""
        return self.symbols[axis] if axis < len(self.symbols) else ""

    def __str__(self) -> str:
        """Write it as messages do: `images [batch, 3, ?, ?] float32`."""
        if self.shape is None:
            return f"{self.name} (shape not said)"
        sizes = [str(size) if size is not None else self.symbol(axis) or "?" for axis, size in enumerate(self.shape)]
        return f"{self.name} [{', '.join(sizes)}] {self.dtype or ''}".rstrip()


@dataclass(frozen=True)
class CustomOperator:
    """A node whose operator neither the format nor its usual runtimes define."""

    operator: str
    """With its domain, where it has one: `my.domain.Decode`."""
    node: str

    def __str__(self) -> str:
        """Write it as messages do."""
        return f"{self.operator} ({self.node})" if self.node else self.operator


@dataclass(frozen=True)
class FileDescription:
    """What a file says of itself: an exporter's `read` makes it."""

    format: str
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    precision: str
    """Of its operators with weights, one by one: `fp32`, `fp16`, `int8`, `int8-dynamic`, `int8-weights`, …; `mixed`: several."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """How many operators with weights there are of each precision."""
    parameters: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What its maker wrote into it, as text."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the format, as a bundle keeps them: opset, IR version, number of nodes."""
    operators: Mapping[str, int] = field(default_factory=dict)
    """Versions of its operators, where the format numbers them."""
    custom: tuple[CustomOperator, ...] = ()
    files: tuple[Path, ...] = ()
    """Files that it reads besides, relative to its folder."""
    suffix: str = ""
    """What a bundle's file is called at its end."""
    entry: str = ""
    """Of a folder whose `files` are taken and no others: the one that the runtime opens."""
    asks: str = ""
    """Of a language model: `text`, prompts of a file, or `tokens`, random ones; empty: it is none."""


def precision_of(kinds: Mapping[str, int], otherwise: str) -> str:
    """Name a file's precision from those of its operators; `otherwise` where none has weights."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return "mixed" if kinds else otherwise


class Unreadable(ValueError):
    """Says what is wrong with a file, or what of it is not taken, without its path: the caller knows that."""
