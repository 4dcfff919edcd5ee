"""What goes into a brought file's inputs: numbers by a fixed seed, constants, arrays of files, and outputs fed back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.bundle import arrays
from edgebench.errors import InputError, UnknownName
from edgebench.schema import Input, Values
from edgebench.schema.file import FileDescription, FileTensor

INPUTS = "inputs.npz"
FULL = ("uint8", "int8", "int16", "uint16")
"""Types whose whole range is meant by default: samples, and quantized numbers."""


@dataclass(frozen=True)
class Given:
    """What was asked for, by input."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    inputs: Mapping[str, float | Path | Any] = field(default_factory=dict)
    """A constant, a `.npy` or `.npz`, or an array."""
    carry: Mapping[str, str] = field(default_factory=dict)
    """From an input to the output that is fed back into it."""


def check(path: str, described: FileDescription, given: Given) -> None:
    """Raise `UnknownName` for a name that is none of the file's, `InputError` for an input that is given twice."""
    names, outputs = [each.name for each in described.inputs], [each.name for each in described.outputs]
    for name in [*given.ranges, *given.inputs, *given.carry]:
        if names and name not in names:
            raise UnknownName(f"input of {path}", name, names)
        if name in given.ranges and name in given.inputs:
            raise InputError(f"{path}: --range and --input are both given for {name}; give one of them")
    for output in given.carry.values():
        if outputs and output not in outputs:
            raise UnknownName(f"output of {path}", output, outputs)


def opened(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arrays that were given; constants are left out."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, (str, Path)):
            found[name] = arrays.one_of(Path(value), arrays.load(Path(value)), name)
        elif isinstance(value, np.ndarray):
            found[name] = value
    return found


def made(tensors: Sequence[FileTensor], given: Given, found: Mapping[str, Any], staging: Path) -> tuple[Input, ...]:
    """Say how each input is made, and write the arrays among them to `inputs.npz`; `found` are those of `opened`."""
    kept = {}
    for index, tensor in enumerate(tensors):
        if tensor.name in found:
            shape, dtype = _sizes(tensor), tensor.dtype or "float32"
            kept[f"input_{index}"] = arrays.samples(f"--input {tensor.name}", found[tensor.name], shape, dtype)
    counts = {len(array) for array in kept.values() if len(array) > 1}
    if len(counts) > 1:
        raise InputError(f"--input: arrays hold {' and '.join(map(str, sorted(counts)))} samples; give as many for each, or one")
    if kept:
        np.savez(staging / INPUTS, **kept)
    return tuple(_input(tensor, given, f"input_{index}", kept.get(f"input_{index}")) for index, tensor in enumerate(tensors))


def _input(tensor: FileTensor, given: Given, name: str, array: Any) -> Input:
    if array is not None:
        values = Values(source="file", file=INPUTS, array=name, sha256=digest(array))
    elif tensor.name in given.inputs:
        values = Values(source="constant", value=_constant(tensor, given.inputs[tensor.name]))
    elif tensor.name in given.carry and tensor.name not in given.ranges:
        values = Values(source="constant", value=0)
    else:
        low, high = _range(tensor, given.ranges.get(tensor.name))
        values = Values(source="synthetic", low=low, high=high)
    return Input(
        name=tensor.name,
        shape=_sizes(tensor),
        dtype=tensor.dtype or "float32",
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        values=values,
        carry=given.carry.get(tensor.name),
    )


def _sizes(tensor: FileTensor) -> tuple[int, ...]:
    return tuple(size or 0 for size in tensor.shape or ())


def _constant(tensor: FileTensor, value: Any) -> int | float:
    number = float(value)
    dtype = np.dtype(tensor.dtype or "float32")
    if dtype.kind in "iu" and not (number.is_integer() and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max):
        raise InputError(f"--input {tensor.name}={value}: is no {dtype}; give a whole number in its range")
    return int(number) if dtype.kind in "iub" else number


def _range(tensor: FileTensor, given: tuple[float, float] | None) -> tuple[float, float]:
    """Return the range that was given, or one that suits the type: 0…1 for real numbers, masks and indices, else all of it."""
    dtype = np.dtype(tensor.dtype or "float32")
    whole = dtype.kind in "iu"
    limits = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if whole else (0, 1)
    if given is None:
        return limits if tensor.dtype in FULL else (0, 1)
    low, high = given
    fits = np.isfinite([low, high]).all() and low <= high and (not whole or (limits[0] <= low and high <= limits[1]))
    if not fits:
        raise InputError(f"--range {tensor.name}={low:g}:{high:g}: no range of {dtype}; the lower end first, for instance 0:255")
    return (int(low), int(high)) if whole else (low, high)


def digest(array: Any) -> str:
    """Hash an array's numbers."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
