"""Right outputs that somebody has for a file: arrays or ONNX's test data, kept in the bundle, compared on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgebench import plugins
from edgebench.bundle import arrays, kinds
from edgebench.bundle.values import digest
from edgebench.errors import InputError
from edgebench.schema import Bundle, Golden
from edgebench.schema.file import FileDescription, Unreadable

FILE = "golden.npz"


@dataclass(frozen=True)
class Outputs:
    """Right outputs by name, and how near others must be: |other − right| ≤ atol + rtol × |right|."""

    outputs: Mapping[str, Any]
    inputs: Mapping[str, Any]
    """What they belong to, where that was given with them."""
    rtol: float
    atol: float

    def key(self) -> Any:
        """Return what a bundle's key holds of it."""
        return [self.rtol, self.atol, {name: digest(array) for name, array in sorted(self.outputs.items())}]

    def write(self, folder: Path, bundle: Bundle) -> Golden:
        """Keep them in a bundle's folder; `InputError` where a shape does not fit."""
        names, kept = [each.name for each in bundle.outputs], {}
        for name, array in self.outputs.items():
            spec = next(each for each in bundle.outputs if each.name == name)
            kept[f"output_{names.index(name)}"] = arrays.samples(f"--golden {name}", array, spec.shape, _wide(array))
        np.savez(folder / FILE, **kept)
        return Golden(
            file=FILE,
            outputs={name: f"output_{names.index(name)}" for name in self.outputs},
            samples=min(len(array) for array in kept.values()),
            rtol=self.rtol,
            atol=self.atol,
        )


def _wide(array: Any) -> str:
    return str(array.dtype)


def read(path: Path, described: FileDescription, rtol: float, atol: float) -> Outputs:
    """Read a `.npz` by the outputs' names, a `.npy` of a single one, or a folder of the format's own test data."""
    if not (rtol >= 0 and atol >= 0):
        raise InputError("--rtol and --atol: how far an output may be off, as shares and as numbers from 0 on")
    names = [each.name for each in described.outputs]
    if path.is_dir():
        given, right = _folder(path, described)
    else:
        given, found = {}, arrays.load(path)
        single = next(iter(found.values())) if len(found) == 1 and len(names) == 1 else None
        right = {names[0]: single} if single is not None else found
    unknown = [name for name in right if name not in names]
    if unknown and names:
        raise InputError(f"{path}: holds {unknown[0]!r}, the file's outputs are {', '.join(names)}; name the arrays as those")
    return Outputs(right, given, rtol, atol)


def _folder(path: Path, described: FileDescription) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read test data by the files' own names, or in the order of inputs and outputs."""
    plugin = plugins.load(kinds.READERS, described.format, "format")
    reads: Callable[[Path], Any] | None = plugins.declared(plugin, "read_test_data", None)
    if reads is None:
        raise InputError(
            f"{path}: is a folder; {described.format} has no test data of its own, give a .npz by the outputs' names"
        )
    try:
        both = reads(path)
    except (Unreadable, OSError) as error:
        raise InputError(f"{path}: {error}") from error
    named = []
    for found, tensors in zip(both, (described.inputs, described.outputs), strict=True):
        if len(found) > len(tensors):
            raise InputError(
                f"{path}: holds {len(found)} tensors for {len(tensors)} of the file; give the folder that belongs to it"
            )
        names = [each.name for each in tensors]
        named.append({name if name in names else names[index]: array for index, (name, array) in enumerate(found)})
    return named[0], named[1]
