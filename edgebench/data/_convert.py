"""A data set written as folders of PNG files that `image-folder` reads back to the same pixels."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data import SPLITS, Dataset, Split
from edgebench.data._folders import TOOLS
from edgebench.data._mapped import parts
from edgebench.data._named import write_mark
from edgebench.errors import DataError
from edgebench.files import PROGRESS, new_folder
from edgebench.schema import SYNTHETIC

MANIFEST, FACTS = "manifest.csv", "data.yaml"
PATHS = frozenset(("source", "root", "labels", "classes", "preset"))
"""Options that name files, and are not written down."""
MOST_CHARACTERS = 100


@dataclass(frozen=True)
class Converted:
    """What was written."""

    folder: str
    dataset: str
    counts: dict[str, int]
    """Images by split."""
    patients: dict[str, int]
    """By split, where it is known whose the images are."""
    renamed: dict[str, str]
    """Classes whose names can be no folders', and what these are called."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def convert(data: Dataset, folder: Path) -> Converted:
    """Write each split's images as PNG, a folder per class, with MANIFEST (file, label, split, patient's number, text) and FACTS.

    Names are numbers: nothing of the files that the images come from is in them. `DataError` for labels that are no classes.
    """
    if data.task not in ("binary", "multi-class", "ordinal"):
        raise DataError(f"{data.ref}: its task is {data.task}, and a folder per class wants one class for each image")
    names = _folders(data)
    splits = {name: data.read(name) for name in SPLITS}
    rows: list[dict[str, str | int]] = []
    with new_folder(folder, MANIFEST) as staging:
        for split, content in splits.items():
            for name in names:
                (staging / split / name).mkdir(parents=True)
            for index, pixels in enumerate(_images(content)):
                label = names[int(content.labels[index])]
                place = f"{split}/{label}/{index:06d}.png"
                _write(staging / place, pixels)
                whose = {} if content.groups is None else {"patient": int(content.groups[index])}
                text = {} if content.texts is None else {"text": content.texts[index]}
                rows.append({"file": place, "label": label, "split": split, **whose, **text})
                PROGRESS.get()(f"write {split}", index + 1, len(content))
        (staging / MANIFEST).write_text(_table(rows), encoding="utf-8")
        if SYNTHETIC in data.ref.options:
            how = {"data": data.ref.name, "form": data.ref.options[SYNTHETIC], "seed": "unknown"}
            write_mark(staging, {".": how})
        (staging / FACTS).write_text(_facts(data, names, splits), encoding="utf-8")
    return Converted(
        str(folder),
        data.ref.name,
        {name: len(split) for name, split in splits.items()},
        {name: len(np.unique(split.groups)) for name, split in splits.items() if split.groups is not None},
        {old: new for old, new in zip(data.classes, names, strict=True) if old != new},
    )


def _folders(data: Dataset) -> tuple[str, ...]:
    """Name a folder for each class, like the class where that can be; `DataError` where two would be one."""
    names = tuple(re.sub(r"[^\w .+=@()-]", "-", name).strip(". ")[:MOST_CHARACTERS] or "-" for name in data.classes)
    wrong = next((name for name in names if name.lower() in TOOLS), None)
    if wrong is not None or len({name.lower() for name in names}) < len(names):
        raise DataError(f"{data.ref}: the names of its classes do not make a folder each; name them by other letters and digits")
    return names


def _images(split: Split) -> Iterator[NDArray[np.uint8]]:
    for part in parts(split.images):
        yield from part


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise DataError(
            f"samples of {' × '.join(map(str, pixels.shape))} are no images of 1 or 3 channels, and PNG has no others"
        )
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path, "PNG")


def _table(rows: list[dict[str, str | int]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _facts(data: Dataset, names: tuple[str, ...], splits: dict[str, Split]) -> str:
    """Write classes in their order, splits, and what the images were made of, as YAML (each value is JSON, which YAML is)."""
    options = {key: value for key, value in sorted(data.ref.options.items()) if key not in PATHS}
    made_of = {"dataset": data.ref.name, "options": options, "sha256": {name: split.sha256 for name, split in splits.items()}}
    content = {"names": list(names), **{name: name for name in splits}, "made_of": made_of}
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in content.items())
