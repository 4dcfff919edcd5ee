"""MedMNIST's sets: what is published of each, and synthetic ones in their exact form."""

from __future__ import annotations

import importlib.resources
import json
import math
import shlex
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._named import Requirements
from edgebench.data._textures import generator, pictures, shared_out, shuffled

TINY_TRAIN, TINY_OTHER = 48, 24
WHAT = "MedMNIST v2 (J. Yang et al. 2023)"


def sets() -> dict[str, dict[str, Any]]:
    """Return what is known of each official set: task, class names, MD5 by image size, samples by split and by class."""
    table = importlib.resources.files("edgebench.data").joinpath("medmnist.json").read_text(encoding="utf-8")
    return dict(json.loads(table))


def file_of(name: str, size: str) -> str:
    """Name a set's file in a size."""
    return f"{name}.npz" if size == "28" else f"{name}_{size}.npz"


def shape_of(facts: dict[str, Any], size: int) -> tuple[int, ...]:
    """Return the shape of a sample as edgebench reads it: [h, w, c] or [d, h, w, c]."""
    return (*[size] * (3 if facts["volumes"] else 2), facts["channels"])


def described_set(name: str, size: str, root: str | None) -> Requirements:
    """Say what is published of a set in a size; `root` is where its file is to lie, None: where the package puts it."""
    facts = sets()[name]
    shape, count = shape_of(facts, int(size)), sum(facts["counts"].values())
    sides = " × ".join(map(str, shape[:-1]))
    kind = f"{'volumes' if facts['volumes'] else 'images'} of {sides}, {'colour' if facts['channels'] == 3 else 'grey'}"
    where = "" if root is None else f", root={json.dumps(root)}"
    code = f'import medmnist; medmnist.{facts["python_class"]}(split="test", download=True, size={size}{where})'
    made = "" if root is None else f"mkdir -p {shlex.quote(root)} && "
    return Requirements(
        f"{WHAT}: {name}, {kind}, {facts['task']}, {len(facts['classes'])} {_noun(facts)}",
        f"{made}python -c {shlex.quote(code)}",
        None,
        dict(facts["counts"]),
        {split: dict(zip(facts["classes"], found, strict=True)) for split, found in facts["by_class"].items()},
        count * math.prod(shape),
        f"the file's MD5, {facts['md5'][size]}",
    )


def _noun(facts: dict[str, Any]) -> str:
    return "labels" if facts["task"] == "multi-label" else "classes"


# ---------------------------------------------------------------- synthetic


def write_set(path: Path, name: str, size: int, *, tiny: bool, seed: int) -> None:
    """Write a set's file with synthetic images: uint8 [n, h, w(, 3)] or [n, d, h, w], and labels uint8 [n, 1] or [n, labels]."""
    facts = sets()[name]
    shape, classes = shape_of(facts, size), len(facts["classes"])
    stored = shape if shape[-1] == 3 else shape[:-1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for split in ("train", "val", "test"):
            labels = _labels(facts, split, tiny, generator(seed, name, split))
            drawn = pictures(labels, classes, shape, seed, f"{name} {split}")
            _store(archive, f"{split}_images", (len(labels), *stored), drawn)
            wide = labels.astype(np.uint8).reshape(len(labels), -1)
            _store(archive, f"{split}_labels", wide.shape, [wide])


def _labels(facts: dict[str, Any], split: str, tiny: bool, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw labels in the published shares, or equal ones where none are: [n], or [n, labels] of 0 and 1."""
    classes = len(facts["classes"])
    count = max(TINY_TRAIN, 4 * classes) if tiny and split == "train" else max(TINY_OTHER, 2 * classes)
    count = count if tiny else facts["counts"][split]
    known = facts["by_class"].get(split) or facts["by_class"].get("all") or [1] * classes
    if facts["task"] != "multi-label":
        return shuffled(shared_out(count, np.array(known, float)), random)
    rates = np.array(known, float) / sum(facts["counts"].values())
    labels = (random.random((count, classes)) < rates).astype(np.int64)
    labels[np.arange(count) < classes] |= np.eye(classes, dtype=np.int64)[:count]
    return labels[random.permutation(count)]


def _store(archive: zipfile.ZipFile, key: str, shape: tuple[int, ...], parts: Iterable[NDArray[np.uint8]]) -> None:
    """Write an array part by part, as `numpy.savez` would."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    member = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
    with archive.open(member, "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in _ordered(parts):
            stream.write(part)


def _ordered(parts: Iterable[NDArray[np.uint8]]) -> Iterator[memoryview]:
    for part in parts:
        yield np.ascontiguousarray(part).reshape(-1).data
