"""MedMNIST, all 2D and 3D sets (Yang et al. 2023), and any `.npz` in its format.

`medmnist:pathmnist` reads `pathmnist.npz` (or `pathmnist_64.npz`, …) from the
folder `root`, `~/.medmnist` unless stated, checks its published MD5, and
fetches it through the `medmnist` package where it is missing.
`medmnist:/path/own.npz` reads a file of one's own; `task` says how to read its
labels, `md5` may pin it. Names, tasks and sums stand in `medmnist.json`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgebench.data import SPLITS, Split, text_option
from edgebench.errors import DataError, MissingExtra, UnknownName
from edgebench.schema import Task

OPTIONS = ("source", "root", "size", "task", "md5")
Loaded = tuple[Task, tuple[str, ...], Callable[[str], Split]]


def sets() -> dict[str, dict[str, Any]]:
    """Return what is known of each official set: task, class names, MD5 by image size."""
    table = importlib.resources.files("edgebench.data").joinpath("medmnist.json").read_text(encoding="utf-8")
    return dict(json.loads(table))


def load(options: Mapping[str, str | int | bool]) -> Loaded:
    """Find the file and check its sum; `DataError` says what is wrong with it."""
    source = text_option(options, "source")
    if source is None:
        raise DataError("medmnist: which set? give --dataset medmnist:pathmnist or medmnist:/path/own.npz")
    return _own(Path(source), options) if source.endswith(".npz") else _official(source, options)


def missing(options: Mapping[str, str | int | bool]) -> Path | None:
    """Return the file that `load` would fetch; None where it would fetch none."""
    source = text_option(options, "source")
    if source not in sets():
        return None
    path = _file(source, options)
    return None if path.exists() else path


def _file(name: str, options: Mapping[str, str | int | bool]) -> Path:
    root, size = Path(text_option(options, "root") or "~/.medmnist").expanduser(), str(options.get("size", 28))
    return root / (f"{name}.npz" if size == "28" else f"{name}_{size}.npz")


def _official(name: str, options: Mapping[str, str | int | bool]) -> Loaded:
    known = sets()
    if name not in known:
        raise UnknownName("MedMNIST set", name, known)
    facts, size = known[name], str(options.get("size", 28))
    if size not in facts["md5"]:
        raise DataError(f"medmnist: {name} comes in sizes {', '.join(facts['md5'])}, not {size}")
    path = _file(name, options)
    if not path.exists():
        _fetch(name, int(size), path.parent)
    _check(path, text_option(options, "md5") or facts["md5"][size])
    return facts["task"], tuple(facts["classes"]), partial(_read, path, facts["task"])


def _own(path: Path, options: Mapping[str, str | int | bool]) -> Loaded:
    if not path.is_file():
        raise DataError(f"medmnist: no file {path}; give a set's name or an .npz in MedMNIST's format")
    if "md5" in options:
        _check(path, str(options["md5"]))
    labels = _array(path, "train_labels")
    inferred = "multi-label" if labels.ndim == 2 and labels.shape[1] > 1 else "multi-class"
    task = str(options.get("task", inferred))
    if task not in get_args(Task):
        raise UnknownName("task", task, get_args(Task))
    count = labels.shape[1] if task == "multi-label" else int(labels.max()) + 1
    read = partial(_read, path, task)
    return task, tuple(str(index) for index in range(count)), read  # type: ignore[return-value]


def _fetch(name: str, size: int, root: Path) -> None:
    """Let the `medmnist` package download the file."""
    try:
        from edgebench.data._torchvision import load_torchvision

        load_torchvision()  # before medmnist does it
        import medmnist
    except ImportError as error:
        raise MissingExtra(f"{root}/{name}.npz is not there, and downloading it", "torch", "medmnist") from error
    root.mkdir(parents=True, exist_ok=True)
    try:
        cls = getattr(medmnist, medmnist.INFO[name]["python_class"])
        cls(split="test", download=True, root=str(root), size=size)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"medmnist: {root} has no {name}.npz and it could not be downloaded; put the official file there, or give root=FOLDER"
        ) from error


def _check(path: Path, expected: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path}: its MD5 is {digest.hexdigest()}, the published one {expected}: truncated or another version; fetch it again"
        )


def _array(path: Path, key: str) -> NDArray[Any]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except KeyError as error:
        raise DataError(f"{path}: no array {key!r}; MedMNIST's format has train/val/test _images and _labels") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a complete .npz ({error}); fetch it again") from error


def _read(path: Path, task: str, name: str) -> Split:
    if name not in SPLITS:
        raise DataError(f"{path}: no split {name!r}; known: {', '.join(SPLITS)}")
    images, labels = _array(path, f"{name}_images"), _array(path, f"{name}_labels").astype(np.int64)
    if images.dtype != np.uint8 or len(images) != len(labels) or images.ndim not in (3, 4, 5) or not len(images):
        raise DataError(f"{path}: {name}_images is {images.dtype}{list(images.shape)}; uint8 [n, h, w(, c)] is wanted")
    if task != "multi-label":
        labels = labels.reshape(-1)
    if images.ndim == 3 or images.shape[-1] not in (1, 3):
        images = images[..., None]
    return Split(images, labels)
