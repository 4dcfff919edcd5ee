"""Chest X-rays of children, normal or with pneumonia (D. Kermany et al. 2018), the folder `chest_xray` of Kaggle.

`chest-xray:FOLDER` is that folder, or the one that holds it: `train`, `val` and `test`, each with `NORMAL` and `PNEUMONIA`, 5 856
JPEG files of many sizes. Images of each split and class are counted and held against the published numbers; `counts=any` lets
others be. Its val has 16 images, too few to choose anything by: `val=15` deals so many percent of train and val out instead, all
images of a patient (as files are called) to one of both, and leaves test as it is. `labels=FILE` is a CSV (file, label, split)
that says it all. Images are grey unless `channels=3`; sizes and limits are those of an image folder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from edgebench.data import Opened, Requirements, image_folder, int_option, text_option
from edgebench.data._chest_files import write_folder
from edgebench.data._geometry import OPTIONS as GEOMETRY
from edgebench.data._patients import deal_patients, numbered
from edgebench.data.image_folder import Files
from edgebench.errors import DataError
from edgebench.schema import SYNTHETIC

OPTIONS = ("source", "val", "labels", "counts", "channels", "max_pixels", "max_gib", *GEOMETRY, SYNTHETIC)
SYNTHESIS = ("texts", "scale")
Options = Mapping[str, str | int | bool]
CLASSES = ("NORMAL", "PNEUMONIA")
COUNTS = {"train": (1341, 3875), "val": (8, 8), "test": (234, 390)}
ZIP_BYTES, UNPACKED_BYTES = 2_460_000_000, 1_230_000_000
"""About: the archive holds the folder twice."""
FETCH = "kaggle datasets download -d paultimothymooney/chest-xray-pneumonia --unzip"
PERSON = re.compile(r"(person\d+|(?:NORMAL2-)?IM-\d+)")
OWN = ("val", "counts", SYNTHETIC)


def requirements(options: Options) -> Requirements:
    """Say what is published."""
    return Requirements(
        "Chest X-rays of children, normal or with pneumonia (D. Kermany et al. 2018), as Kaggle has them: JPEG files of 384 to "
        "2916 × 127 to 2713 pixels, most of them grey. Its val has 16 images, too few to choose anything by (val=15 deals "
        "out others)",
        FETCH,
        ZIP_BYTES,
        {split: sum(found) for split, found in COUNTS.items()},
        {split: dict(zip(CLASSES, found, strict=True)) for split, found in COUNTS.items()},
        UNPACKED_BYTES,
        "the number of images of each split and class",
    )


def load(options: Options) -> Opened:
    """List the files and count them."""
    source = text_option(options, "source")
    if source is None:
        raise DataError(f"chest-xray: which folder? give --dataset chest-xray:FOLDER, the one in which this was run: {FETCH}")
    path = Path(source).expanduser()
    root = next((place for place in (path, path / "chest_xray") if (place / "train").is_dir()), None)
    if root is None:
        raise DataError(f"chest-xray: {path} holds no chest_xray with train, val and test; fetch it there: {FETCH}")
    counts = str(options.get("counts", "published"))
    if counts not in ("published", "any"):
        raise DataError(f"--dataset: counts={counts} is neither published nor any; give one of them, or leave it out")
    checked = counts == "published" and options.get(SYNTHETIC, "full") == "full"
    given = {"channels": 1, **{key: value for key, value in options.items() if key not in OWN}, "source": str(root)}
    return image_folder.load(given, partial(_dealt, options, checked))


def _dealt(
    options: Options, checked: bool, root: Path, files: dict[str, Files], given: Options, notes: list[str]
) -> dict[str, Files]:
    """Count what there is, and deal val out where that is asked for."""
    if not {"train", "test"} <= set(files):
        raise DataError(f"chest-xray: {root / str(given.get('labels'))}: says of no file that it is of train, or of test; say it")
    for split, published in COUNTS.items():
        found = Counter(label for _, label in files.get(split, []))
        for label, (name, count) in enumerate(zip(CLASSES, published, strict=True)):
            if checked and found[label] != count:
                told = f"{root / split / name} has {found[label]} images, {count} are published"
                raise DataError(f"chest-xray: {told}; fetch it again, or allow it by the data set option counts=any")
    percent, few = int_option(options, "val", 0, 0, 90), len(files.get("val", []))
    if not percent and not few:
        raise DataError(f"chest-xray: {root} has no images in val; deal some out by the data set option val=15")
    if not percent:
        notes.append(f"its val has {few} images, too few to choose anything by; val=15 deals out 15 % of train and val instead")
        return files
    whole = [*files["train"], *files.get("val", [])]
    people = numbered([_person(path, label).encode() for path, label in whole], 0)
    dealt = deal_patients(people, np.array([label for _, label in whole]), 0, val=percent)
    made = {name: [whole[index] for index in indices] for name, indices in dealt.items()}
    notes.append(f"{len(made['val'])} of the {len(whole)} images of train and val are val, all of a patient in one of both")
    return {**made, "test": files["test"]}


def _person(path: Path, label: int) -> str:
    found = PERSON.match(path.name)
    return f"{label} {path.stem if found is None else found[1]}"


def synthesize(folder: Path, *, tiny: bool, seed: int, options: Options) -> Mapping[str, Path | str]:
    """Write the folder: names, splits, classes and sizes as published; `scale` is percent of their sides (100 unless given).

    `texts=true` writes `reports.csv` beside train, val and test: file, label, split and text, a sentence or two of a report that
    tells the class mostly; it is what `labels` is, then. What is not kept: detail finer than 128 × 128, and so small files.
    """
    counts = {"train": (12, 24), "val": (6, 6), "test": (8, 12)} if tiny else COUNTS
    scale = int_option(options, "scale", 8 if tiny else 100, 1, 100)
    texts = str(options.get("texts", False)).lower() in ("true", "1", "yes")
    write_folder(folder / "chest_xray", counts, CLASSES, scale, texts, seed)
    return {"source": Path(), **({"labels": "reports.csv"} if texts else {})}
