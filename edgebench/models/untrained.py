"""Random weights with which a network computes as a trained one does: neither zeros nor subnormal numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgebench.errors import InputError
from edgebench.models.factory import told
from edgebench.models.outputs import FAILURES
from edgebench.schema import Preprocessing

if TYPE_CHECKING:
    from edgebench.data import Dataset


def fill(module: Any) -> None:
    """Fill weights that start at zero, as a vision transformer's head does: scores of zero would agree with anything."""
    import torch

    for weights in module.parameters():
        if weights.dim() > 1 and not weights.any():
            torch.nn.init.trunc_normal_(weights, std=0.02)


def settle(module: Any, spec: Preprocessing, data: Dataset | None, where: str) -> None:
    """Scale random networks' batch norms so that activations stay near 1.

    Without, those of deep random networks fade to subnormal numbers, which no
    precision carries and which are slow to compute with. Scale alone: taking
    means away too would amplify rounding from layer to layer.
    """
    import numpy as np
    import torch

    from edgebench.agent.runtimes import preprocess

    if data is not None:
        images = data.read("train").images[:32]
    else:
        shape = (16, *spec.sides, spec.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def scale(layer: Any, inputs: Any) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        layer.running_mean.zero_()
        layer.running_var.copy_(inputs[0].square().mean(dim=axes).clamp(min=1e-12))

    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d)]
    hooks = [layer.register_forward_pre_hook(scale) for layer in norms]
    try:
        with torch.no_grad():
            module.eval()(torch.from_numpy(preprocess.apply(images, spec.model_dump())))
    except FAILURES as error:
        what = f"an input of {' × '.join(map(str, spec.shape[1:]))} does not fit it: {told(error)}"
        raise InputError(f"{where}: {what}; choose another --size or --channels, or mend the layer") from error
    finally:
        for hook in hooks:
            hook.remove()
