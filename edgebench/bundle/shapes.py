"""The shapes of a brought file's inputs: what is open is given, known from the file's own description, or asked for."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgebench.errors import InputError, UnknownName
from edgebench.schema.file import FileDescription, FileTensor

NO_BATCH = re.compile(r"seq|len|time|height|width|frame|token|step|point|box|sample|length|depth", re.IGNORECASE)
"""Names of first dimensions that are something else."""
BATCH = re.compile(r"batch|^[nb]$|^bs$", re.IGNORECASE)
DTYPES = ("float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
LONGEST = 1 << 16
"""Characters of a description that is read."""


@dataclass(frozen=True)
class Wanted:
    """A shape that was asked for."""

    sizes: tuple[int, ...]
    dtype: str | None = None


def parse_shape(text: str) -> Wanted:
    """Read `1x3x320x320`, `scalar`, or with a type `1x8:int64`; `ValueError` says what to write."""
    sizes, _, dtype = text.partition(":")
    parts = [] if sizes in ("", "scalar") else re.split(r"[x,]", sizes.lower())
    if any(not part.strip().isdigit() or int(part) < 1 for part in parts) or len(parts) > 8:
        raise ValueError(f"{text!r} is no shape, for instance 1x3x320x320")
    if dtype and dtype not in DTYPES:
        raise ValueError(f"{dtype!r} is none of the types {', '.join(DTYPES)}")
    return Wanted(tuple(int(part) for part in parts), dtype or None)


def resolved(path: str, described: FileDescription, given: Mapping[str, Wanted]) -> tuple[FileTensor, ...]:
    """Return the file's inputs with every size known.

    `given`: shapes by an input's name, or one size by the name of an open one. The
    batch is 1 unless given; `InputError` names every other size that is still open.
    """
    known = {each.name: each for each in described.inputs}
    open_sizes = {each.symbol(axis) for each in described.inputs for axis, _ in enumerate(each.shape or ())} - {""}
    if not described.inputs:
        return _told(path, described, given)
    for name in given:
        if name not in known and name not in open_sizes:
            raise UnknownName(f"input or open size of {path}", name, [*known, *open_sizes])
    sizes = {name: each.sizes[0] for name, each in given.items() if name not in known and len(each.sizes) == 1}
    sizes = {**_same_names(path, known, given), **sizes}
    found = []
    for each in described.inputs:
        each = _given(path, each, given[each.name]) if each.name in given else each
        found.append(_filled(each, sizes, described))
    missing = [each for each in found if each.is_open]
    if missing:
        example = missing[0].name + "=" + "x".join(str(size or "N") for size in missing[0].shape or ("1", "3", "H", "W"))
        what = "; ".join(str(each) for each in missing)
        raise InputError(
            f"{path}: sizes are open, and no benchmark of a size that was guessed means anything: {what}; give --shape {example}"
        )
    return tuple(found)


def _told(path: str, described: FileDescription, given: Mapping[str, Wanted]) -> tuple[FileTensor, ...]:
    """Make the inputs of a file that names none, as engines do: from what was given, or its maker's description."""
    if given:
        return tuple(FileTensor(name, each.dtype or "float32", each.sizes) for name, each in given.items())
    size = image_size(described)
    if size is None:
        raise InputError(f"{path}: does not say what it takes; give each input in order, for instance --shape images=1x3x640x640")
    numbers = re.findall(r"[0-9]+", str(description(described).get("batch", "1")))
    return (FileTensor("images", "float32", (int(numbers[0]) if numbers else 1, 3, *size)),)


def _given(path: str, tensor: FileTensor, wanted: Wanted) -> FileTensor:
    """Take a shape that was given; `InputError` where it does not fit what the file says."""
    stated = tensor.shape
    fits = stated is None or (
        len(stated) == len(wanted.sizes) and all(size in (None, other) for size, other in zip(stated, wanted.sizes, strict=True))
    )
    if not fits:
        raise InputError(
            f"{path}: --shape {tensor.name}={'x'.join(map(str, wanted.sizes))} does not fit {tensor}; keep what is fixed"
        )
    if wanted.dtype and tensor.dtype not in (None, wanted.dtype):
        raise InputError(f"{path}: {tensor} is no {wanted.dtype}; leave the type out")
    return replace(tensor, shape=wanted.sizes, dtype=tensor.dtype or wanted.dtype or "float32")


def _same_names(path: str, known: Mapping[str, FileTensor], given: Mapping[str, Wanted]) -> dict[str, int]:
    """Return what shapes that were given say of open sizes by their names: the same name is the same size elsewhere."""
    found: dict[str, int] = {}
    for name, wanted in given.items():
        tensor = known.get(name)
        for axis, size in enumerate(wanted.sizes if tensor is not None and tensor.shape is not None else ()):
            symbol = tensor.symbol(axis) if tensor is not None and axis < len(tensor.shape or ()) else ""
            if symbol and found.setdefault(symbol, size) != size:
                raise InputError(f"{path}: --shape gives {symbol} as {found[symbol]} and as {size}; give one of them")
    return found


def _filled(tensor: FileTensor, sizes: Mapping[str, int], described: FileDescription) -> FileTensor:
    """Fill in what is known of open sizes."""
    if tensor.shape is None:
        return tensor
    found = [sizes.get(tensor.symbol(axis), None) if size is None else size for axis, size in enumerate(tensor.shape)]
    others = {each.symbol(axis) for each in described.inputs for axis in range(1, len(each.shape or ()))}
    for axis, size in enumerate(found):
        symbol = tensor.symbol(axis)
        is_first = axis == 0 and len(found) > 1 and not NO_BATCH.search(symbol) and (not symbol or symbol not in others)
        if size is None and (is_first or BATCH.search(symbol)):
            found[axis] = sizes.get(symbol, 1)
    place, image = channels_at(tuple(found)), image_size(described)
    if place is not None and image is not None:
        axes = (2, 3) if place == 1 else (1, 2)
        for axis, size in zip(axes, image, strict=True):
            found[axis] = size if found[axis] is None else found[axis]
    return replace(tensor, shape=tuple(found), symbols=tensor.symbols)


def channels_at(shape: Sequence[int | None], rank: int = 4) -> int | None:
    """Return where an image's channels are: axis 1 (nchw) or 3 (nhwc) of four; None where it is no image, or may be either.

    rank: 5 for volumes, whose channels are at 1 or 4.
    """
    if len(shape) != rank:
        return None
    first, last = shape[1] in (1, 3), shape[-1] in (1, 3)
    return None if first == last else 1 if first else rank - 1


def image_size(described: FileDescription) -> tuple[int, int] | None:
    """Return height and width of the images that a file's maker says it takes (ultralytics' `imgsz`)."""
    numbers = re.findall(r"[0-9]+", str(description(described).get("imgsz", "")))
    if len(numbers) not in (1, 2):
        return None
    height, width = (int(number) for number in (numbers * 2)[:2])
    return (height, width) if 0 < height <= 65536 and 0 < width <= 65536 else None


def class_names(described: FileDescription) -> tuple[str, ...]:
    """Return the names of the classes that a file's maker says it knows; none where it does not."""
    names = _literal(description(described).get("names", ""))
    values = list(names.values()) if isinstance(names, dict) else names if isinstance(names, list) else []
    return tuple(str(value)[:200] for value in values)


def description(described: FileDescription) -> dict[str, Any]:
    """Return what a file's maker says of it: its metadata, and what an exporter packed into one text."""
    packed = _literal(described.metadata.get("metadata", ""))
    return {**described.metadata, **(packed if isinstance(packed, dict) else {})}


def _literal(text: Any) -> Any:
    """Read a value that was written as JSON or as Python does; None where it is neither."""
    if not isinstance(text, str):
        return text
    if not 0 < len(text) <= LONGEST:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None
