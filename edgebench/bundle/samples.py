"""The samples that a bundle's inputs are given: a data set's images and texts, or what each input's values say, by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._arrays import Limit, open_npz
from edgebench.data._mapped import parts
from edgebench.errors import BundleError, InputError
from edgebench.files import inside
from edgebench.models import tokens
from edgebench.schema import Input, Values

if TYPE_CHECKING:
    from edgebench.data import Dataset, Split

Array = NDArray[Any]
COUNT, MOST_BYTES = 32, 64 << 20
"""So many samples are made where no data set gives them, and fewer where they are large."""


def samples(inputs: Sequence[Input], folder: Path, data: Dataset | None, count: int | None = None) -> tuple[Array, ...]:
    """Return for each input its samples [n, …], or one [1, …] that is the same in each.

    Images are uint8 [n, h, w, c], volumes [n, d, h, w, c]: the test split of `data`, else noise; a file of a fixed batch takes
    so many at once.
    Other tensors are [n, *shape] in the input's own dtype. `count`: how many are made where nothing gives them.
    """
    if data is None:
        return made(inputs, folder, count)
    if not any(each.is_image for each in inputs):
        raise InputError(f"{data.ref}: no input takes its images (there are {', '.join(each.name for each in inputs)})")
    return given(inputs, folder, data.read("test"), str(data.ref))


def given(inputs: Sequence[Input], folder: Path, split: Split, where: str = "the samples") -> tuple[Array, ...]:
    """Return images [n, h, w, c] or volumes [n, d, h, w, c] for the inputs that take them, and as many samples of the others.

    Inputs that are made of text take what stands beside the images; `folder` holds their tokenizer.
    """
    found: list[Array] = []
    for index, each in enumerate(inputs):
        if each.is_image:
            found.append(_batched(each, split.images))
        elif each.tokens is not None:
            found.append(tokens.samples(each, split.texts, folder, where))
        else:
            found.append(_plain(each, folder, len(split), index))
    return tuple(found)


def made(inputs: Sequence[Input], folder: Path, count: int | None = None) -> tuple[Array, ...]:
    """Return samples that no data set gives: of images noise, of others what their values say."""
    largest = max((_bytes(each) for each in inputs), default=1)
    wanted = max(1, min(count or COUNT, MOST_BYTES // max(largest, 1)))
    return tuple(
        _noise(each, wanted, index) if each.is_image else _plain(each, folder, wanted, index) for index, each in enumerate(inputs)
    )


def _bytes(each: Input) -> int:
    return int(np.prod(each.shape)) * np.dtype(each.dtype).itemsize


def _batched(each: Input, images: Array) -> Array:
    """Put images together, as many as a file of a fixed batch takes at once; what is left over is not used."""
    batch = each.shape[0] if each.shape else 1
    if batch <= 1:
        return images
    if len(images) < batch:
        raise InputError(f"{each.name}: takes {batch} images at once, {len(images)} are there")
    whole = len(images) // batch
    return images[: whole * batch].reshape(whole, batch, *images.shape[1:])


def _noise(each: Input, count: int, index: int) -> Array:
    spec = each.preprocessing
    assert spec is not None
    batch = each.shape[0] if each.shape else 1
    shape = (count * max(batch, 1), *spec.sides, spec.channels)
    return _batched(each, np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))


def _plain(each: Input, folder: Path, count: int, index: int) -> Array:
    """Make the samples of a tensor; a constant, a carried one and an array of one sample are [1, …]."""
    values = each.values or Values()
    if values.source == "constant":
        return np.full((1, *each.shape), values.value or 0).astype(each.dtype)
    if values.source == "file":
        return _read(each, values, folder)
    return synthetic(each, values, 1 if each.carry is not None else count, index)


def synthetic(each: Input, values: Values, count: int, seed: int) -> Array:
    """Draw [count, *shape] evenly from the range that is stated, or that suits the dtype; integers inclusive."""
    random, shape, dtype = np.random.default_rng(seed), (count, *each.shape), np.dtype(each.dtype)
    low, high = values.bounds(each.dtype)
    if dtype.kind == "f":
        return (random.random(shape, np.float32) * np.float32(high - low) + np.float32(low)).astype(dtype)
    return random.integers(int(low), int(high), shape, dtype=np.int64, endpoint=True).astype(dtype)


def _read(each: Input, values: Values, folder: Path) -> Array:
    """Read an array of a file of the bundle: [n, *shape], or `shape` alone."""
    if values.file is None or values.array is None:
        raise BundleError(f"{folder}: {each.name}: its values name no file and array; make the bundle again")
    path = inside(folder, values.file)
    with open_npz(path, Limit.of(None)) as opened:
        opened.header(values.array, "fiub")
        array = opened.read(values.array).astype(each.dtype)
    if array.shape == each.shape:
        array = array[None]
    if array.shape[1:] != each.shape or not len(array):
        raise BundleError(f"{path}: {values.array} is {list(array.shape)}, {each.name} takes {list(each.shape)}; make it again")
    return array


def digest(arrays: Sequence[Array]) -> str:
    """Hash samples with their types and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        for part in parts(array):
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
