"""Augmentation of volumes: the policies that images have too, in three dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

DEGREES, SCALE, SHIFT = 15.0, 0.1, 0.1
"""Slices turn by so many degrees at most, either way; volumes grow or shrink and move by such shares of their size."""


def augmented(volumes: Tensor, kind: str) -> Tensor:
    """Change each volume [n, c, d, h, w] a little, differently.

    `affine`: turned in the plane of its slices, scaled, moved along all three axes;
    `flip`: also mirrored, along each axis for itself.
    """
    matrix = _matrix(len(volumes), mirrored=kind == "flip")
    grid = functional.affine_grid(matrix, list(volumes.shape), align_corners=False).to(volumes.device)
    return functional.grid_sample(volumes, grid, padding_mode="border", align_corners=False)


def _matrix(count: int, mirrored: bool) -> Tensor:
    """Draw matrices [count, 3, 4] from positions (x, y, z of −1…1) in the new volume to those in the old."""
    angle = (2 * torch.rand(count) - 1) * math.radians(DEGREES)
    turned = torch.zeros(count, 3, 3)
    turned[:, 0, 0] = turned[:, 1, 1] = angle.cos()
    turned[:, 0, 1], turned[:, 1, 0] = -angle.sin(), angle.sin()
    turned[:, 2, 2] = 1
    scale = 1 + (2 * torch.rand(count) - 1) * SCALE
    mirror = 1 - 2 * (torch.rand(count, 3) < 0.5).float() if mirrored else torch.ones(count, 3)
    shift = (2 * torch.rand(count, 3) - 1) * SHIFT
    return torch.cat([turned * scale[:, None, None] * mirror[:, None, :], shift[:, :, None]], dim=2)
