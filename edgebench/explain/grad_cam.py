"""Grad-CAM: a layer's channels, weighed by their mean gradients (R. R. Selvaraju et al. 2017, eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.explain._layers import Taken, explained

NEEDS = "gradients"
SEEDED = False
STEPS = 1
LAYERED = True


def explain(network: Any, inputs: Any, classes: Sequence[int], settings: Mapping[str, Any]) -> Any:
    """Return relu(Σ weight × activation) [n, rows, columns], where a channel's weight is the mean of its gradients."""
    return explained(network, inputs, classes, settings, _weigh)


def _weigh(taken: Taken) -> Any:
    return taken.gradient.mean(dim=(-2, -1))
