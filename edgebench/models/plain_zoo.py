"""Plain convolutional networks: what trains in seconds, where a demonstration or a first try must not wait."""

from __future__ import annotations

import torch

WIDTHS = {"cnn": (32, 64, 128), "cnn_large": (64, 128, 256)}


def build(architecture: str, classes: int, channels: int) -> torch.nn.Module:
    """Build three pairs of 3 × 3 convolutions with batch norm, each pair at half the resolution of the one before it."""
    layers: list[torch.nn.Module] = []
    inputs = channels
    for width in WIDTHS[architecture]:
        for stride in (1, 2):
            convolution = torch.nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
            layers += [convolution, torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            inputs = width
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(inputs, classes))
