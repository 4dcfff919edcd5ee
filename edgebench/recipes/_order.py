"""In which order samples come, and how a batch is dealt out to the processes that share it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from edgebench.errors import InputError


def drawn(seed: int, epoch: int, rank: int = 0) -> int:
    """Make an epoch's own seed: what is drawn in it does not depend on what came before, or on an interruption."""
    return int(np.random.SeedSequence([seed % 2**32, epoch, rank]).generate_state(1)[0])


def evenly(labels: NDArray[np.int64], name: str) -> torch.Tensor:
    """Weigh samples so that each class that occurs is drawn as often as any other.

    labels: the classes' numbers [n]; `InputError` where a sample has several.
    """
    if labels.ndim != 1:
        raise InputError(f"{name}: sampler weighted wants one label an image; take class_weights balanced instead")
    counts = np.bincount(labels)
    return torch.from_numpy(1.0 / counts[labels])


class Order(Sampler[int]):
    """All samples of a split in a new order each epoch, or as many drawn by weight, with replacement; alike in every process."""

    def __init__(self, count: int, seed: int, weights: torch.Tensor | None = None) -> None:
        self._count, self._seed, self._weights = count, seed, weights
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch, as Lightning tells it."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Count the samples of an epoch."""
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Yield the samples' numbers."""
        chance = torch.Generator().manual_seed(drawn(self._seed, self._epoch))
        if self._weights is None:
            yield from torch.randperm(self._count, generator=chance).tolist()
        else:
            yield from torch.multinomial(self._weights, self._count, replacement=True, generator=chance).tolist()


class Batches(Sampler[list[int]]):
    """Batches of an order: of each, every process has its share, and all have equally many batches.

    A last batch that gives a process fewer than `least` samples is left out in training (a batch norm cannot learn from one
    sample), and else joined to the one before.
    """

    def __init__(
        self, sampler: Sampler[int], count: int, size: int, *, least: int, leave_out: bool, rank: int, world: int
    ) -> None:
        self.sampler = sampler
        """Lightning tells it the epoch."""
        self._rank, self._world = rank, world
        starts = list(range(0, count, size))
        if len(starts) > 1 and count - starts[-1] < least * world:
            last = starts.pop()
            count = last if leave_out else count
        self._bounds = [*starts, count]

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's share of each batch."""
        indices = list(self.sampler)
        for start, end in zip(self._bounds, self._bounds[1:], strict=False):
            yield indices[start:end][self._rank :: self._world]
