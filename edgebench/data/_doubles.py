"""Samples that a data set has twice: by a hash of their pixels, or nearly, by small pictures of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebench.agent.runtimes import preprocess
from edgebench.data import Dataset, Split
from edgebench.data._mapped import hashes, parts

SIDE, NEAR_BITS, NEAR_LEVELS = 16, 10, 4.0
"""Near duplicates differ in so many of 64 bits of a difference hash, and by so many levels of 255 in the mean, at most."""
MOST_ALIKE = 200
"""Of images with equal parts of hashes; more are as plain as each other, and not compared."""
SHOWN = 5


@dataclass(frozen=True)
class Duplicates:
    """Samples of one split that stand in another (or again in the same), by hash, or nearly."""

    first: str
    second: str
    exact: int
    near: int
    examples: tuple[tuple[str, str], ...]


def duplicates(data: Dataset, splits: dict[str, Split], near: bool = True) -> tuple[Duplicates, ...]:
    """Find samples that stand in two splits or twice in one: exactly the same pixels, and `near`: nearly.

    Volumes are compared exactly alone: most are empty for the larger part, and nearly the same in that.
    """
    names = [(name, index) for name, split in splits.items() for index in range(len(split))]
    exact = [digest for split in splits.values() for digest in hashes(split.images)]
    pairs: dict[tuple[int, int], bool] = {}
    groups: dict[bytes, list[int]] = {}
    for position, digest in enumerate(exact):
        groups.setdefault(digest, []).append(position)
    again = {position for group in groups.values() for position in group[1:]}
    for group in groups.values():
        pairs.update(dict.fromkeys(_of_group(group, names), True))
    if near and all(split.images.ndim == 4 for split in splits.values()):
        thumbs = np.concatenate([_thumbnails(split.images) for split in splits.values()])
        alone = [position for position in range(len(names)) if position not in again]
        pairs.update({pair: False for pair in _near(thumbs, alone) if pair not in pairs})
    return _summed(data, names, pairs)


def _of_group(group: list[int], names: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair the first of each split with those of the others, and the first of a split with its copies."""
    first: dict[str, int] = {}
    pairs = []
    for position in group:
        split = names[position][0]
        pairs += [(other, position) for name, other in first.items()]
        first.setdefault(split, position)
    return pairs


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shrink to 16 × 16 in grey: float32 [n, 16, 16]."""
    spec = {"height": SIDE, "width": SIDE, "channels": 1}
    return np.concatenate([preprocess.resized(part, spec)[..., 0] for part in parts(images)]).astype(np.float32)


def _near(thumbs: NDArray[np.float32], positions: list[int]) -> list[tuple[int, int]]:
    """Find pairs whose difference hashes (N. Krawetz 2013) and thumbnails are nearly the same."""
    small = thumbs.reshape(len(thumbs), 8, 2, 8, 2).mean(axis=(2, 4))
    bits = np.concatenate([small, small[:, :, :1]], axis=2)
    hashes = np.packbits((bits[:, :, 1:] > bits[:, :, :-1]).reshape(len(thumbs), 64), axis=1)
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    found = set()
    for band in range(4):
        groups: dict[int, list[int]] = {}
        for position in positions:
            groups.setdefault(int(bands[position, band]), []).append(position)
        for group in groups.values():
            if 1 < len(group) <= MOST_ALIKE:
                found |= _close(np.array(group), hashes, thumbs)
    return sorted(found)


def _close(group: NDArray[np.int64], hashes: NDArray[np.uint8], thumbs: NDArray[np.float32]) -> set[tuple[int, int]]:
    apart = np.bitwise_count(hashes[group][:, None] ^ hashes[group][None]).sum(axis=2)
    first, second = np.nonzero(np.triu(apart <= NEAR_BITS, 1))
    levels = np.abs(thumbs[group[first]] - thumbs[group[second]]).mean(axis=(1, 2))
    kept = levels <= NEAR_LEVELS
    return {(int(one), int(other)) for one, other in zip(group[first[kept]], group[second[kept]], strict=True)}


def _summed(data: Dataset, names: list[tuple[str, int]], pairs: dict[tuple[int, int], bool]) -> tuple[Duplicates, ...]:
    """Count, by pairs of splits, how many samples of the later one have a double in the earlier one."""
    found: dict[tuple[str, str], dict[int, bool]] = {}
    examples: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for (one, other), exact in sorted(pairs.items(), key=lambda pair: not pair[1]):
        key = names[one][0], names[other][0]
        known = found.setdefault(key, {})
        known[other] = known.get(other, False) or exact
        if len(examples.setdefault(key, [])) < SHOWN:
            examples[key].append((_called(data, *names[one]), _called(data, *names[other])))
    return tuple(
        Duplicates(first, second, sum(doubled.values()), len(doubled) - sum(doubled.values()), tuple(examples[first, second]))
        for (first, second), doubled in found.items()
    )


def _called(data: Dataset, split: str, index: int) -> str:
    return f"{split} {index}" if data.files is None else str(data.files(split)[index])
