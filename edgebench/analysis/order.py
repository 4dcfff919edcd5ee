"""Whether decisions fit the labels far better with the classes in another order, as those of a file made elsewhere may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAR = 2
"""By this factor the classes that change places are decided rightly more often than before."""
LEAST_P = 1e-3
"""How likely so much may be by chance, at most, on samples that had no say in the order."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Order:
    """Another order of the classes, and what it does."""

    classes: tuple[int, ...]
    """Of each output, the class that it stands for."""
    before: float
    """The accuracy as it stands."""
    after: float
    """The accuracy in the other order."""
    p: float


def better_order(labels: Array, decided: Array, classes: int) -> Order | None:
    """Find an order of the outputs that fits far better than that of the classes; None where none does.

    labels, decided: [n], numbers of classes and of outputs. The order is that of the assignment problem on their
    cross-table (H. W. Kuhn 1955). Each half of the samples judges the order that the other half has chosen: by McNemar's
    exact test it must decide more of them rightly, and by a binomial one more than always naming the commonest class does,
    which is the most that any order reaches where decisions know nothing of labels.
    """
    table = _table(labels, decided, classes)
    if bool((table.argmax(axis=1) == np.arange(classes))[table.any(axis=1)].all()):
        return None
    outputs = _chosen(table)
    if bool((outputs == np.arange(classes)).all()):
        return None
    shuffled = np.argsort(labels, kind="stable")
    halves = shuffled[0::2], shuffled[1::2]
    right, same = np.zeros(len(labels), bool), decided == labels
    for half, other in (halves, halves[::-1]):
        right[half] = decided[half] == _chosen(_table(labels[other], decided[other], classes))[labels[half]]
    gained, lost, commonest = (right & ~same).sum(), (same & ~right).sum(), table.sum(axis=1).max()
    p = max(_chance(gained, gained + lost, 0.5), _chance(right.sum(), len(labels), commonest / len(labels)))
    if p > LEAST_P:
        return None
    meaning = np.empty(classes, np.int64)
    meaning[outputs] = np.arange(classes)
    return Order(tuple(map(int, meaning)), float(same.mean()), float((decided == outputs[labels]).mean()), p)


def _table(labels: Array, decided: Array, classes: int) -> Array:
    """Count what each class (rows) was decided to be."""
    return np.bincount(labels * classes + decided, minlength=classes * classes).reshape(classes, classes)


def _chosen(table: Array) -> Array:
    """Return for each class the output that fits it best, an output for each; those that gain little keep their own."""
    from scipy.optimize import linear_sum_assignment

    _, outputs = linear_sum_assignment(2 * table + np.eye(len(table), dtype=np.int64), maximize=True)
    for cycle in _cycles(outputs):
        if table[cycle, outputs[cycle]].sum() < FAR * max(1, table[cycle, cycle].sum()):
            outputs[cycle] = cycle
    return np.asarray(outputs)


def _cycles(outputs: Array) -> Iterator[Array]:
    """List the classes that change places with each other."""
    seen: set[int] = set()
    for first in range(len(outputs)):
        cycle, at = [], first
        while at not in seen:
            seen.add(at)
            cycle.append(at)
            at = int(outputs[at])
        if len(cycle) > 1:
            yield np.array(cycle)


def _chance(hits: Any, count: Any, share: float) -> float:
    """Return how likely so many hits are by chance, or more."""
    from scipy.stats import binom

    return float(binom.sf(int(hits) - 1, int(count), share)) if count else 1.0


def named(order: Order, names: Sequence[str], most: int) -> str:
    """List the names in the order of the outputs; of more than `most`, some of those that change places."""
    found = [names[index] for index in order.classes]
    if len(found) <= most:
        return ", ".join(found)
    moved = [f"… {index}: {name}" for index, name in enumerate(found) if name != names[index]]
    return ", ".join(moved[:20]) + (f" and {len(moved) - 20} others" if len(moved) > 20 else "")
