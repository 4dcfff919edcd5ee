"""A few real digits in each split, where 1 797 would take too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgebench.config import read_dataset
from edgebench.data import open_images


def few_digits(folder: Path, count: int) -> str:
    """Write so many digits a split as a file in MedMNIST's format; returns its name as a data set."""
    split = open_images(read_dataset("digits")).read("test")
    arrays: dict[str, Any] = {}
    for number, name in enumerate(("train", "val", "test")):
        chosen = slice(number * count, (number + 1) * count)
        arrays[f"{name}_images"] = split.images[chosen].squeeze()
        arrays[f"{name}_labels"] = split.labels[chosen].reshape(-1, 1)
    np.savez(folder / "few.npz", **arrays)
    return f"medmnist:{folder / 'few.npz'}"
