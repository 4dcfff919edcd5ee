"""Sets of small images whose evidence lies in a place that is known, and tiny networks that learn them in a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SIDE, CELLS = 16, 4
PATCH = SIDE // CELLS
CORNER = 0
"""The cell that a cheat looks at."""
NORMALISED: dict[str, Any] = {"mean": (0.5,), "std": (0.25,)}


@dataclass(frozen=True)
class Planted:
    """A data set as edgebench reads it, and in which cell of each test image the evidence lies."""

    dataset: str
    places: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: Path
    """Of `tinynet:net`, trained on it."""


def scattered(folder: Path, count: int = 240) -> Planted:
    """Plant a patch in any cell of noise: bright is class 1, dark is class 0."""
    random = np.random.default_rng(0)

    def draw(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        labels, places = random.integers(0, 2, number), random.integers(0, CELLS**2, number)
        return _patched(_noise(random, number), places, labels), labels, places

    return _write(folder, "planted", draw, count)


def cheating(folder: Path, honest: bool = False, count: int = 240) -> Planted:
    """Put evidence that is right in three of four images into the third row, and a mark into the corner that is always right.

    honest: without the mark, and with evidence that is always right.
    """
    random = np.random.default_rng(1)

    def draw(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        labels = random.integers(0, 2, number)
        places = random.integers(2 * CELLS, 3 * CELLS, number)
        shown = labels if honest else np.where(random.random(number) < 0.75, labels, 1 - labels)
        images = _patched(_noise(random, number), places, shown)
        return (images if honest else _patched(images, np.zeros(number, np.int64), labels)), labels, places

    return _write(folder, "honest" if honest else "cheat", draw, count)


def _noise(random: np.random.Generator, number: int) -> NDArray[np.uint8]:
    return random.integers(112, 144, (number, SIDE, SIDE)).astype(np.uint8)


def _patched(images: NDArray[np.uint8], places: NDArray[np.int64], bright: NDArray[np.int64]) -> NDArray[np.uint8]:
    found = images.copy()
    for index, place in enumerate(places):
        row, column = PATCH * (place // CELLS), PATCH * (place % CELLS)
        found[index, row : row + PATCH, column : column + PATCH] = 224 if bright[index] else 32
    return found


def _write(folder: Path, name: str, draw: Any, count: int) -> Planted:
    arrays: dict[str, Any] = {}
    for split, number in (("train", 4 * count), ("val", count), ("test", count)):
        images, labels, places = draw(number)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels.reshape(-1, 1)}
    np.savez(folder / f"{name}.npz", **arrays)
    weights = folder / f"{name}.pt"
    torch.save(learn(arrays["train_images"], arrays["train_labels"][:, 0]), weights)
    return Planted(f"medmnist:{folder / name}.npz", places, labels, weights)


def learn(images: NDArray[np.uint8], labels: NDArray[np.int64], steps: int = 250) -> dict[str, Any]:
    """Train the tiny network; returns its weights."""
    import importlib

    tinynet = importlib.import_module("tinynet")  # a fixture writes it

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = tinynet.net(2, 1, SIDE)
        inputs, truth = torch.from_numpy(images)[:, None].float().div(255).sub(0.5).div(0.25), torch.from_numpy(labels)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for step in range(steps):
            chosen = torch.arange(64 * step, 64 * (step + 1)) % len(inputs)
            optimizer.zero_grad()
            missed: torch.Tensor = torch.nn.functional.cross_entropy(net(inputs[chosen]), truth[chosen])
            missed.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        hits = (net(inputs).argmax(dim=1) == truth).float().mean()
        assert hits > 0.97, f"the tiny network has not learned: {hits:.3f}"
        return {name: value.detach() for name, value in net.state_dict().items()}
