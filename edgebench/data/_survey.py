"""What a data set holds, before anything long is done with it: counts, sizes, duplicates, and pictures."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.agent.runtimes import preprocess
from edgebench.data import SPLITS, Dataset, Split
from edgebench.data._files import inside
from edgebench.data._images import MAX_PIXELS, pixel_limit, read_header
from edgebench.data._mapped import hashes, parts

FEW = 200
"""With fewer test samples an accuracy is uncertain by several points: 3.5 with 200, at 90 % (Wilson's interval is ± 4)."""
SIDE, NEAR_BITS, NEAR_LEVELS = 16, 10, 4.0
"""Near duplicates differ in so many of 64 bits of a difference hash, and by so many levels of 255 in the mean, at most."""
MOST_ALIKE = 200
"""Of images with equal parts of hashes; more are as plain as each other, and not compared."""
SHOWN = 5
CELL, MOST_ROWS, PER_SPLIT = 64, 20, 4


@dataclass(frozen=True)
class Duplicates:
    """Samples of one split that stand in another (or again in the same), by hash, or nearly."""

    first: str
    second: str
    exact: int
    near: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Survey:
    """What was read."""

    dataset: str
    task: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """By split and class."""
    shapes: dict[str, list[int]]
    """Of one sample as networks get it, by split."""
    modes: dict[str, int]
    """Modes and formats of the files."""
    sizes: dict[str, int]
    """Of the files, width × height."""
    passed: int
    """Hidden files, and those of tools."""
    notes: tuple[str, ...]
    duplicates: tuple[Duplicates, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def survey(data: Dataset) -> Survey:
    """Read every split and look at it."""
    splits = {name: data.read(name) for name in SPLITS}
    modes, sizes, transparent = _headers(data)
    counts = {name: _counts(split, data.classes) for name, split in splits.items()}
    duplicates = _duplicates(data, splits)
    return Survey(
        str(data.ref),
        data.task,
        data.classes,
        counts,
        {name: list(split.images.shape[1:]) for name, split in splits.items()},
        dict(modes.most_common()),
        dict(sizes.most_common()),
        data.passed,
        data.notes,
        duplicates,
        _warnings(data, counts, splits, duplicates, transparent),
    )


def _counts(split: Split, classes: tuple[str, ...]) -> dict[str, int]:
    labels = split.labels
    found = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(classes))
    return dict(zip(classes, map(int, found), strict=False))


def _headers(data: Dataset) -> tuple[Counter[str], Counter[str], int]:
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    transparent = 0
    if data.files is None:
        return modes, sizes, transparent
    home = Path(str(data.ref.options["source"])).expanduser().resolve()
    limit = int(data.ref.options.get("max_pixels", MAX_PIXELS))
    with pixel_limit(limit):
        for path in itertools.chain.from_iterable(data.files(name) for name in SPLITS):
            mode, (width, height), alpha = read_header(path, inside(path, home), limit)
            modes[mode] += 1
            sizes[f"{width} × {height}"] += 1
            transparent += alpha
    return modes, sizes, transparent


def _warnings(
    data: Dataset,
    counts: dict[str, dict[str, int]],
    splits: dict[str, Split],
    duplicates: tuple[Duplicates, ...],
    transparent: int,
) -> tuple[str, ...]:
    found = []
    for each in duplicates:
        if each.first != each.second and "test" in (each.first, each.second):
            other = each.second if each.first == "test" else each.first
            what = f"{each.exact} test images stand in {other} too, and {each.near} nearly"
            found.append(f"{what}: a metric on them says little of new images; for instance {' and '.join(each.examples[0])}")
    for name, classes in counts.items():
        if missing := [label for label, count in classes.items() if not count]:
            found.append(f"{name} has no sample of {', '.join(missing[:SHOWN])}{', …' if len(missing) > SHOWN else ''}")
    if len(splits["test"]) < FEW:
        found.append(f"only {len(splits['test'])} test samples: fewer than {FEW} carry no accuracy to a few points")
    if transparent:
        behind = data.ref.options.get("background", "white")
        found.append(f"{transparent} images have transparent pixels, laid on {behind}; option background=none drops transparency")
    return tuple(found)


# ---------------------------------------------------------------- duplicates


def _duplicates(data: Dataset, splits: dict[str, Split]) -> tuple[Duplicates, ...]:
    names = [(name, index) for name, split in splits.items() for index in range(len(split))]
    exact = [digest for split in splits.values() for digest in hashes(split.images)]
    pairs: dict[tuple[int, int], bool] = {}
    groups: dict[bytes, list[int]] = {}
    for position, digest in enumerate(exact):
        groups.setdefault(digest, []).append(position)
    again = {position for group in groups.values() for position in group[1:]}
    for group in groups.values():
        pairs.update(dict.fromkeys(_of_group(group, names), True))
    if all(split.images.ndim == 4 for split in splits.values()):
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


# ---------------------------------------------------------------- pictures


def write_sheet(data: Dataset, path: Path) -> None:
    """Draw samples of each class (rows) and split as PNG."""
    from PIL import Image, ImageDraw

    rows = list(enumerate(data.classes))[:MOST_ROWS]
    margin = 120
    width = margin + len(SPLITS) * (PER_SPLIT * (CELL + 2) + 10)
    sheet = Image.new("RGB", (width, 16 + len(rows) * (CELL + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(SPLITS):
        split, left = data.read(name), margin + column * (PER_SPLIT * (CELL + 2) + 10)
        draw.text((left, 2), f"{name} ({len(split)})", fill="black")
        for index, label in rows:
            top = 16 + index * (CELL + 2)
            if column == 0:
                draw.text((2, top + CELL // 2 - 6), label.encode("ascii", "replace").decode()[:18], fill="black")
            of_class = split.labels[:, index] == 1 if split.labels.ndim == 2 else split.labels == index
            for place, sample in enumerate(np.flatnonzero(of_class)[:PER_SPLIT]):
                sheet.paste(_picture(split.images[sample]), (left + place * (CELL + 2), top))
    partial = path.with_name(f".{path.name}.partial")
    sheet.save(partial, "PNG")
    os.replace(partial, path)


def _picture(pixels: NDArray[np.uint8]) -> Any:
    from PIL import Image

    flat = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    image = Image.fromarray(flat[:, :, 0] if flat.shape[2] != 3 else flat).convert("RGB")
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
