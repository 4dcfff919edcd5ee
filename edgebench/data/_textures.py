"""Synthetic images: each class has a wave, a spot and a colour of its own, mixed with those of another class, and noise.

A sample is its class's pattern and a random other's, in random shares, so that none tells every class from every other.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CONTRAST, NOISE, GREY = 70.0, 24.0, 118.0
LEAST_SHARE = 0.4
"""Of a sample's own class; below a half, the other class shows more."""
CHUNK = 1 << 24
"""Values that are made at a time."""


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Make a generator for a part of a data set, the same on every computer."""
    return np.random.default_rng([seed, *(zlib.crc32(word.encode()) if isinstance(word, str) else word for word in words)])


def pictures(
    labels: NDArray[np.int64], classes: int, shape: tuple[int, ...], seed: int, part: str
) -> Iterator[NDArray[np.uint8]]:
    """Draw images for labels [n], or [n, labels] of 0 and 1: parts of uint8 [n, *shape], shape [h, w, c] or [d, h, w, c]."""
    basis = _basis(classes, shape)
    random = generator(seed, part, "pixels")
    step = max(1, CHUNK // math.prod(shape))
    for start in range(0, len(labels), step):
        shares = _shares(labels[start : start + step], classes, random)
        phases = random.uniform(0, 2 * math.pi, shares.shape)
        weights = np.concatenate([shares * np.cos(phases), shares * np.sin(phases), shares], axis=1).astype(np.float32)
        drawn = weights @ basis
        drawn += random.standard_normal(drawn.shape, dtype=np.float32) * NOISE + GREY
        yield np.clip(drawn, 0, 255).astype(np.uint8).reshape(-1, *shape)


def _shares(labels: NDArray[np.int64], classes: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Weigh the classes' patterns in each sample: float [n, classes]."""
    count = len(labels)
    own = random.uniform(LEAST_SHARE, 1, (count, 1))
    if labels.ndim == 2:
        return np.where(labels > 0, own, random.uniform(0, 1 - LEAST_SHARE, labels.shape) ** 2)
    shares = np.zeros((count, classes))
    others = (labels + random.integers(1, max(classes, 2), count)) % classes
    shares[np.arange(count), others] = 1 - own[:, 0]
    shares[np.arange(count), labels] += own[:, 0]
    return shares


def _basis(classes: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Make waves (cosine, sine) and spots of the classes: float32 [3 classes, values of a sample]."""
    sides, channels = shape[:-1], shape[-1]
    axes = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in sides), indexing="ij")
    made = []
    for index in range(classes):
        turn = math.pi * index / classes
        direction = (math.cos(turn), math.sin(turn), math.cos(3 * turn))[: len(sides)]
        waves = (3 + 1.5 * (index % 3)) * math.pi / 2 * sum(along * axis for along, axis in zip(direction, axes, strict=True))
        around = 2 * math.pi * index / classes
        place = (0.5 * math.sin(around), 0.5 * math.cos(around), 0.5 * math.cos(2 * around))[: len(sides)]
        far = sum((axis - at) ** 2 for axis, at in zip(axes, place, strict=True))
        tint = np.array([1 + 0.5 * math.cos(around + 2 * math.pi * channel / 3) for channel in range(channels)], np.float32)
        parts = (np.cos(waves), np.sin(waves), np.exp(-far / 0.08))
        made.append([CONTRAST / 2 * (part[..., None] * tint).reshape(-1) for part in parts])
    return np.array(made, np.float32).transpose(1, 0, 2).reshape(3 * classes, -1)


def shuffled(counts: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Write each class's number so often as its count says, in random order."""
    return random.permutation(np.repeat(np.arange(len(counts)), counts))


def shared_out(count: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide samples among classes by their shares, each at least one: whole numbers that sum up to `count`."""
    exact = shares / shares.sum() * count
    found = np.maximum(1, np.floor(exact)).astype(np.int64)
    while found.sum() > count:
        found[np.argmax(found)] -= 1
    for index in np.argsort(found - exact, kind="stable")[: count - found.sum()]:
        found[index] += 1
    counts: NDArray[np.int64] = found
    return counts
