"""What a task hands over for the parts of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Separated:
    """What ROC and precision-recall curves are drawn of."""

    names: Sequence[str]
    """Of the classes that have a curve."""
    truth: Any
    """Whether each sample is of them: 0 or 1, [n, names]."""
    likely: Any
    """How likely that was held [n, names]."""
    note: str = ""


@dataclass(frozen=True)
class Worst:
    """What the list of the worst samples is made of."""

    loss: Any
    """Of each sample [n]: the highest come first."""
    truth: Any
    """The classes that it is of: 0 or 1, [n, classes]."""
    decided: Any
    """Those that it was decided to be of, likewise."""
    confidence: Any
    """How likely the decision was held [n]."""
