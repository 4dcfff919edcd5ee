"""Synthetic chest radiographs: ribs, two lungs, a heart, and opacities of which some hardly show."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 128, 128
NOISE, LEAST, MOST = 7.0, 0.2, 1.0
"""Grey levels; how bright an opacity is, as a part of what a lung can become."""
BRIGHT = 85.0


class Opacity(NamedTuple):
    """A bright spot; middle and half sides are parts of the image's width and height."""

    x: float
    y: float
    half_width: float
    half_height: float
    strength: float


def opacities(random: np.random.Generator, count: int) -> tuple[Opacity, ...]:
    """Place spots within the lungs, the first of one in the right, the second in the left, and so on."""
    first = int(random.integers(2))
    return tuple(
        Opacity(
            (0.30 if (first + number) % 2 else 0.70) + random.uniform(-0.06, 0.06),
            random.uniform(0.30, 0.72),
            random.uniform(0.06, 0.13),
            random.uniform(0.06, 0.15),
            random.uniform(LEAST, MOST),
        )
        for number in range(count)
    )


def shadows(random: np.random.Generator) -> tuple[Opacity, ...]:
    """Draw what may look like an opacity in lungs without one: mostly nothing, sometimes a faint spot."""
    found = opacities(random, int(random.random() < 0.3))
    return tuple(each._replace(strength=each.strength * 0.45) for each in found)


def _far(x: float, y: float, half_width: float, half_height: float) -> NDArray[np.float32]:
    """Tell how far each pixel is from the middle of an ellipse, whose edge is at 1."""
    down = (np.arange(ROWS, dtype=np.float32) + 0.5) / ROWS
    right = (np.arange(COLUMNS, dtype=np.float32) + 0.5) / COLUMNS
    return np.sqrt(((right[None] - x) / half_width) ** 2 + ((down[:, None] - y) / half_height) ** 2)


def radiograph(
    random: np.random.Generator, found: tuple[Opacity, ...], width: int, height: int, heart: float = 1.0
) -> NDArray[np.uint8]:
    """Draw a chest with these opacities and a heart of some size: uint8 [height, width]; detail ends at 128 × 128."""
    from PIL import Image

    lean, wide, low = random.uniform(-0.04, 0.04), random.uniform(0.85, 1.1), random.uniform(-0.04, 0.04)
    down = np.linspace(0, 1, ROWS, dtype=np.float32)[:, None]
    body = (
        150
        + random.uniform(-30, 30)
        + random.uniform(5, 45) * down
        - 60 * np.clip(_far(0.5 + lean, 0.55 + low, 0.52 * wide, 0.62) - 0.8, 0, 1.5)
    )
    lungs = sum(1 / (1 + np.exp(12 * (_far(x + lean, 0.5 + low, 0.17 * wide, 0.33) - 1))) for x in (0.3, 0.7))
    grey = body - random.uniform(60, 95) * lungs
    grey += 9 * lungs * np.sin(2 * math.pi * (9 + random.uniform(-1, 1)) * down + random.uniform(0, 6))
    grey += 45 / (1 + np.exp(14 * (_far(0.56 + lean, 0.66 + low, 0.15 * heart, 0.17 * heart) - 1)))
    for each in found:
        grey += BRIGHT * each.strength * np.exp(-((_far(each.x, each.y, each.half_width, each.half_height)) ** 2))
    grey += random.standard_normal(grey.shape, dtype=np.float32) * NOISE
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
