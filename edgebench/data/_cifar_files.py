"""CIFAR's batches as they are published: pickles of Python 2 (`cifar-10-batches-py`), or binary files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebench.data._files import open_regular
from edgebench.data._pickles import read_pickle
from edgebench.errors import DataError

SIDE, CHANNELS = 32, 3
VALUES = SIDE * SIDE * CHANNELS
MOST_BYTES = 1 << 28


class Batch(NamedTuple):
    """images: uint8 [n, 32, 32, 3]; labels: int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_python(path: Path, labels: str = "labels") -> Batch:
    """Read a pickled batch: `data` uint8 [n, 3072], the planes of each image one after the other, and its labels."""
    found = read_pickle(path)
    data, numbers = (found.get(key) if isinstance(found, dict) else None for key in ("data", labels))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != VALUES:
        raise DataError(f"{path}: has no array 'data' of {VALUES} bytes an image; it is no batch of CIFAR")
    if not isinstance(numbers, list) or not all(type(each) is int for each in numbers) or len(numbers) != len(data):
        raise DataError(f"{path}: has no list {labels!r} with a whole number for each of its {len(data)} images")
    if any(not 0 <= each < 256 for each in numbers):
        raise DataError(f"{path}: has the label {next(each for each in numbers if not 0 <= each < 256)}; they go from 0 on")
    return Batch(_upright(data), np.array(numbers, np.int64))


def read_names(path: Path) -> tuple[str, ...]:
    """Read the names of the classes out of `batches.meta`."""
    found = read_pickle(path)
    names = found.get("label_names") if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path}: has no list 'label_names' of text; it is no batches.meta of CIFAR")
    return tuple(name if isinstance(name, str) else name.decode("latin-1") for name in names)


def read_binary(path: Path) -> Batch:
    """Read a binary batch: a byte for the label and 3072 for the planes of the image, again and again."""
    with open_regular(path) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES or len(content) % (VALUES + 1):
        raise DataError(f"{path}: {len(content)} bytes are no whole number of images ({VALUES + 1} each); fetch it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, VALUES + 1)
    return Batch(_upright(rows[:, 1:]), rows[:, 0].astype(np.int64))


def _upright(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(planes.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1))


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay the planes of images [n, 32, 32, 3] one after the other: uint8 [n, 3072]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, VALUES)


# ---------------------------------------------------------------- writing


def python_batch(label: str, batch: Batch, names: Sequence[str]) -> bytes:
    """Write a batch as Python 2 pickled those that are published."""
    content = {"batch_label": label, "labels": batch.labels.tolist(), "data": planes(batch.images), "filenames": list(names)}
    return pickled(content)


def pickled(value: Any) -> bytes:
    """Write plain values and uint8 arrays as Python 2 did by protocol 2, text as bytes of an unsaid encoding."""
    return b"\x80\x02" + _item(value) + b"."


def _item(value: Any) -> bytes:
    if isinstance(value, str | bytes):
        text = value.encode("latin-1") if isinstance(value, str) else value
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"]" + b"(" + b"".join(map(_item, value)) + b"e"
    if isinstance(value, dict):
        return b"}" + b"(" + b"".join(_item(key) + _item(each) for key, each in value.items()) + b"u"
    return _array(value)


def _array(value: NDArray[np.uint8]) -> bytes:
    """Write what numpy 1 told pickle: `_reconstruct(ndarray, (0,), 'b')` and its state (version, shape, dtype, order, bytes)."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + _item(0) + b"\x85" + _item("b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _item("u1") + _item(0) + _item(1) + b"\x87R"
    kind += b"(" + _item(3) + _item("|") + b"NNN" + _item(-1) + _item(-1) + _item(0) + b"tb"
    shape = b"(" + b"".join(map(_item, value.shape)) + b"t"
    return made + b"(" + _item(1) + shape + kind + b"\x89" + _item(value.tobytes()) + b"tb"


def binary_batch(batch: Batch) -> bytes:
    """Write a batch as the binary version has it."""
    return np.concatenate([batch.labels.astype(np.uint8)[:, None], planes(batch.images)], axis=1).tobytes()
