"""Grad-CAM++: channels weighed by positive gradients, each place by its share (A. Chattopadhay et al. 2018, eq. 12 and 19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.explain._layers import Taken, explained

NEEDS = "gradients"
SEEDED = False
STEPS = 1
LAYERED = True


def explain(network: Any, inputs: Any, classes: Sequence[int], settings: Mapping[str, Any]) -> Any:
    """Return relu(Σ weight × activation) [n, rows, columns]."""
    return explained(network, inputs, classes, settings, _weigh)


def _weigh(taken: Taken) -> Any:
    """Weigh channels; of the exponential of a score whose second derivative is 0, as of networks of ReLUs.

    Then the second and third derivatives of exp(score) are its value times
    gradient² and gradient³, and the value cancels out of each place's share.
    """
    import torch

    gradient, square = taken.gradient, taken.gradient**2
    total = taken.activation.sum(dim=(-2, -1), keepdim=True)
    below = 2 * square + total * square * gradient
    share = torch.where(below != 0, square / torch.where(below != 0, below, torch.ones_like(below)), torch.zeros_like(below))
    return (share * gradient.clamp(min=0)).sum(dim=(-2, -1))
