"""What a network's input is normalised with, and the versions of the tools that made it."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import numpy as np

from edgebench.data import Dataset
from edgebench.schema import InputPlan, Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that torchvision's weights were trained with."""


TOOLS = ("torch", "torchvision", "lightning", "torchmetrics")


def tool_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Find the versions of installed distributions."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def preprocessing(dataset: Dataset, plan: InputPlan, pretrained: bool) -> Preprocessing:
    """Choose the input: as stated, else ImageNet's statistics for pretrained weights, else the training split's own."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    if plan.mean is not None and plan.std is not None:
        mean, std = plan.mean, plan.std
    elif pretrained and plan.channels == 3:
        mean, std = IMAGENET
    else:
        images = dataset.read("train").images
        axes = (0, 1, 2) if images.shape[-1] == plan.channels else None
        pixels = images[:: max(1, len(images) // 4096)].astype(np.float64) / 255
        means, deviations = np.atleast_1d(pixels.mean(axis=axes)), np.atleast_1d(pixels.std(axis=axes))
        mean = tuple(round(float(value), 4) for value in np.resize(means, plan.channels))
        std = tuple(round(max(float(value), 0.01), 4) for value in np.resize(deviations, plan.channels))
    return Preprocessing(height=plan.size, width=plan.size, channels=plan.channels, mean=mean, std=std)
