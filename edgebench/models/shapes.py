"""Give a network's layers the shapes of a pruned network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgebench.errors import CheckpointError


def fit(module: nn.Module, weights: Mapping[str, Any], heads: Mapping[str, int], where: str = "") -> None:
    """Change a network in place until `load_state_dict` takes the weights; their keys must be its own.

    `heads`: of each `MultiheadAttention`, which its shapes do not say. `CheckpointError` where a
    weight has another number of dimensions than the architecture's.
    """
    for path, layer in module.named_modules():
        groups_of_one = isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == layer.in_channels > 1
        for store in (layer._parameters, layer._buffers):
            for name, own in store.items():
                key = f"{path}.{name}" if path else name
                if own is None or key not in weights or own.shape == weights[key].shape:
                    continue
                if own.ndim != weights[key].ndim:
                    raise CheckpointError(f"{where}: {key} has {weights[key].ndim} dimensions, the architecture's {own.ndim}")
                made = torch.zeros(weights[key].shape, dtype=own.dtype)
                store[name] = nn.Parameter(made) if store is layer._parameters else made
        _settle(layer, groups_of_one)
        if path in heads and isinstance(layer, nn.MultiheadAttention):
            layer.num_heads, layer.head_dim = heads[path], layer.embed_dim // heads[path]


def heads(module: nn.Module) -> dict[str, int]:
    """Return the number of heads of each layer of attention, by path."""
    return {path: layer.num_heads for path, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)}


def _settle(layer: nn.Module, groups_of_one: bool) -> None:
    """Let a layer's settings say what its weights are."""
    match layer:
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            multiplier = layer.out_channels // layer.in_channels
            layer.out_channels = layer.weight.shape[0]
            layer.groups = layer.out_channels // multiplier if groups_of_one else layer.groups
            layer.in_channels = layer.weight.shape[1] * layer.groups
        case nn.Linear():
            layer.out_features, layer.in_features = layer.weight.shape
        case nn.modules.batchnorm._NormBase():
            sized = layer.running_mean if layer.running_mean is not None else layer.weight
            layer.num_features = layer.num_features if sized is None else len(sized)
        case nn.LayerNorm():
            layer.normalized_shape = layer.normalized_shape if layer.weight is None else tuple(layer.weight.shape)
        case nn.GroupNorm():
            layer.num_channels = layer.num_channels if layer.weight is None else len(layer.weight)
        case nn.MultiheadAttention() if layer.in_proj_weight is not None:
            layer.embed_dim = layer.kdim = layer.vdim = layer.in_proj_weight.shape[1]
            layer.head_dim = layer.embed_dim // layer.num_heads
