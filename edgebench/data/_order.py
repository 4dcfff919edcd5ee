"""The option `classes=FILE` of every data set that does not read it itself: the classes' order, as a file says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgebench.data import Opened, Split
from edgebench.data._labels import class_names
from edgebench.errors import DataError
from edgebench.schema import DatasetRef


def in_order_of(opened: Opened, file: str, ref: DatasetRef) -> Opened:
    """Give a data set's classes the order of a file; `DataError` where it names others."""
    path = Path(file).expanduser()
    wanted = class_names(path)
    strange = sorted(set(wanted) ^ set(opened.classes))
    if strange or len(set(opened.classes)) < len(opened.classes):
        what = f"the class {strange[0]!r} is not in both" if strange else "the data set has two classes of one name"
        known = ", ".join(opened.classes[:12]) + (", …" if len(opened.classes) > 12 else "")
        raise DataError(f"{path}: {what}; it wants the names of {ref.name}, one a line: {known}")
    if opened.task == "ordinal" and wanted != opened.classes:
        raise DataError(f"{path}: the classes of the task ordinal have an order already; leave classes= out")
    return opened._replace(classes=wanted, read=_numbered(opened, wanted))


def _numbered(opened: Opened, wanted: tuple[str, ...]) -> Callable[[str], Split]:
    """Read splits with labels in the other order."""
    before = [opened.classes.index(name) for name in wanted]
    numbers = np.argsort(before)

    def read(name: str) -> Split:
        split = opened.read(name)
        labels = split.labels
        if labels.ndim == 2:
            return replace(split, labels=np.ascontiguousarray(labels[:, before]))
        inside = not labels.size or (labels.min() >= 0 and labels.max() < len(wanted))
        return replace(split, labels=numbers[labels].astype(np.int64)) if inside else split  # the task refuses these

    return read
