"""Integrated gradients from the mean image to the image (M. Sundararajan et al. 2017), by captum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NEEDS = "gradients"
SEEDED = False
STEPS = 32
REQUIRES = (("captum", "xai"),)


def explain(network: Any, inputs: Any, classes: Sequence[int], settings: Mapping[str, Any]) -> Any:
    """Return what each pixel adds to the score [n, rows, columns], summed over its channels; from 0, the normalised mean."""
    import numpy as np
    import torch
    from captum.attr import IntegratedGradients

    from edgebench.explain._layers import score_of

    def scores(batch: Any, wanted: Any) -> Any:
        return score_of(network.module(batch), wanted)

    maps = []
    method = IntegratedGradients(scores)
    for index, wanted in enumerate(classes):
        target = torch.tensor([wanted])
        found = method.attribute(
            inputs[index : index + 1], 0.0, additional_forward_args=(target,), n_steps=STEPS, internal_batch_size=1
        )
        maps.append(found.detach().sum(dim=1)[0].double().numpy())
    return np.stack(maps)
