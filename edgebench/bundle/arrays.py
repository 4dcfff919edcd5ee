"""Arrays in files of any origin: `.npy` and `.npz`, without pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.errors import InputError

LARGEST = 8 << 30


def load(path: Path) -> dict[str, Any]:
    """Read a file's arrays by name; a `.npy` has one, named "". `InputError` where it is no such file, or holds objects."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give arrays as numpy.save or numpy.savez writes them")
    try:
        return _read(path)
    except (TypeError, ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise InputError(f"{path}: holds no plain arrays ({reason}); write it with numpy.save or numpy.savez") from error


def _read(path: Path) -> dict[str, Any]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > LARGEST:
                raise ValueError(f"more than {LARGEST >> 30} GB")
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return {"": found}
    with found:
        return {name: found[name] for name in found.files}


def one_of(path: Path, arrays: Mapping[str, Any], name: str) -> Any:
    """Choose the array of a name; a file with a single one needs no name. `InputError` names those that there are."""
    if name in arrays:
        return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise InputError(f"{path}: holds no array {name!r}; it holds {', '.join(map(repr, sorted(arrays)[:10]))}")


def samples(what: str, array: Any, shape: Sequence[int], dtype: str) -> Any:
    """Return samples [n, *shape] of a type: of one, of several, or of several joined along the batch. `InputError` else."""
    wanted, given = tuple(shape), tuple(array.shape)
    if given == wanted:
        array = array[None]
    elif given[1:] == wanted:
        pass
    elif wanted and given[1:] == wanted[1:] and given[0] and given[0] % wanted[0] == 0:
        array = array.reshape(-1, *wanted)
    else:
        raise InputError(f"{what}: is {list(given)}, wanted is {list(wanted)}, or several of them along a first axis")
    if not len(array):
        raise InputError(f"{what}: holds no samples; give one at least")
    if array.dtype != bool and not np.can_cast(array.dtype, np.dtype(dtype), "same_kind"):
        raise InputError(f"{what}: holds {array.dtype}, wanted is {dtype}; convert it first")
    return np.ascontiguousarray(array.astype(dtype)).reshape(-1, *wanted)
