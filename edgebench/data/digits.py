"""The 1 797 real handwritten digits (8 × 8, grey) that come with scikit-learn.

Source: UCI Optical Recognition of Handwritten Digits, its test set
(E. Alpaydin and C. Kaynak, 1998). The option `task` has them judged as another task does, for instance `ordinal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgebench.data import Split

OPTIONS = ("task",)
BUILT_IN = True
"""Nothing of it is fetched: scikit-learn brings it."""
TEST, VAL = 360, 180


def load(options: Mapping[str, str | int | bool]) -> tuple[str, tuple[str, ...], Callable[[str], Split]]:
    """Split once and for all, stratified: 1 257 train, 180 val, 360 test."""
    return str(options.get("task", "multi-class")), tuple("0123456789"), _read


def _read(name: str) -> Split:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
    train, val = train_test_split(rest, test_size=VAL, stratify=labels[rest], random_state=0)
    chosen = {"train": train, "val": val, "test": test}[name]
    return Split(pixels[chosen], labels[chosen].astype(np.int64))
