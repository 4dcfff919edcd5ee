"""RSNA's pneumonia challenge of 2018 (G. Shih et al. 2019): 26 684 chest radiographs as DICOM, each of one patient.

`rsna:FOLDER` holds `stage_2_train_images`, `stage_2_train_labels.csv` (a line for each box of an opacity) and
`stage_2_detailed_class_info.csv`. A patient has pneumonia where any line says so; `labels=detailed` has the three classes of
the other table instead. Patients are dealt out by `val`, `test` (percent, 15 each) and `seed`, as `dicom` does; images and
patients of each class are counted and held against the published numbers, unless `counts=any`. The 3 000 of
`stage_2_test_images` have no labels and are not read. Windows, sizes, channels and limits are those of `dicom`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgebench.data import Opened, Requirements, dicom, int_option, text_option
from edgebench.data._dicom_labels import read_table
from edgebench.data._geometry import OPTIONS as GEOMETRY
from edgebench.data._patients import deal_patients
from edgebench.data._rsna_files import DETAILED, NORMAL, NOT_NORMAL, OPACITY, TRAIN_IMAGES, TRAIN_LABELS, Form, write
from edgebench.errors import DataError
from edgebench.schema import SYNTHETIC

SHARED = ("seed", "val", "test", "window", "channels", "max_pixels", "max_gib", *GEOMETRY)
OPTIONS = ("source", "labels", "counts", *SHARED, SYNTHETIC)
SYNTHESIS = ("side",)
Options = Mapping[str, str | int | bool]
FETCH = "kaggle competitions download -c rsna-pneumonia-detection-challenge && unzip rsna-pneumonia-detection-challenge.zip"
ZIP_BYTES, UNPACKED_BYTES = 3_930_000_000, 4_000_000_000
"""About; the images are compressed already."""
FULL = Form({NORMAL: 8851, NOT_NORMAL: 11_821, OPACITY: 6012}, (2614, 3266, 119, 13), 3000)
TINY = Form({NORMAL: 28, NOT_NORMAL: 20, OPACITY: 32}, (13, 15, 3, 1), 4)
SIDE, TINY_SIDE = 1024, 96


@dataclass(frozen=True)
class Kind:
    """A table of labels: which file, how its labels are called in it and here, and how many patients have each."""

    file: str
    classes: Mapping[str, str]
    counts: Mapping[str, int]


KINDS = {
    "target": Kind(
        TRAIN_LABELS,
        {"0": "no opacity", "1": "opacity"},
        {"0": FULL.patients[NORMAL] + FULL.patients[NOT_NORMAL], "1": FULL.patients[OPACITY]},
    ),
    "detailed": Kind(DETAILED, {name: name for name in sorted(FULL.patients)}, FULL.patients),
}


def requirements(options: Options) -> Requirements:
    """Say what is published, and how many samples of each class are dealt to each split."""
    kind = _kind(options)
    dealt = _dealt(tuple(kind.counts[name] for name in kind.classes), *_percents(options))
    by_class = {split: dict(zip(kind.classes.values(), counts, strict=True)) for split, counts in dealt.items()}
    return Requirements(
        "RSNA Pneumonia Detection Challenge of 2018 (G. Shih et al. 2019): chest radiographs of 1024 × 1024 as DICOM, "
        "one of each of 26 684 patients, and 9 555 boxes of opacities in 6 012 of them. It has no splits with labels: patients "
        "are dealt out. Whoever fetches it agrees to the rules of the challenge on Kaggle first",
        FETCH,
        ZIP_BYTES,
        {split: sum(counts) for split, counts in dealt.items()},
        by_class,
        UNPACKED_BYTES,
        "the number of patients of each class, and that of the images",
    )


def load(options: Options) -> Opened:
    """Count the table's patients and the files, and let `dicom` read them."""
    source, kind = text_option(options, "source"), _kind(options)
    if source is None:
        raise DataError(f"rsna: which folder? give --dataset rsna:FOLDER, the one in which this was run: {FETCH}")
    root = Path(source).expanduser()
    images, labels = root / TRAIN_IMAGES, root / kind.file
    for place, there in ((images, images.is_dir()), (labels, labels.is_file())):
        if not there:
            raise DataError(f"rsna: {root} holds no {place.name}; fetch it there: {FETCH}")
    counts = str(options.get("counts", "published"))
    if counts not in ("published", "any"):
        raise DataError(f"--dataset: counts={counts} is neither published nor any; give one of them, or leave it out")
    if counts == "published" and options.get(SYNTHETIC, "full") == "full":
        _check(images, labels, kind)
    given = {key: value for key, value in options.items() if key in SHARED}
    opened = dicom.load({**given, "source": str(images), "labels": str(labels)})
    strangers = set(opened.classes) - set(kind.classes)
    if strangers:
        raise DataError(f"rsna: {labels}: has labels other than {', '.join(kind.classes)}; fetch it again")
    return opened._replace(classes=tuple(kind.classes[name] for name in opened.classes))


def _kind(options: Options) -> Kind:
    name = str(options.get("labels", "target"))
    if name not in KINDS:
        raise DataError(f"--dataset: labels={name} is none of {', '.join(KINDS)}; give one of them, or leave it out")
    return KINDS[name]


def _percents(options: Options) -> tuple[int, int]:
    return int_option(options, "val", 15, 1, 98), int_option(options, "test", 15, 1, 98)


@cache
def _dealt(patients: tuple[int, ...], val: int, test: int) -> dict[str, list[int]]:
    """Tell how many patients of each class come to each split: which they are is a matter of the seed alone."""
    labels = np.repeat(np.arange(len(patients)), patients)
    dealt = deal_patients(np.arange(len(labels)), labels, 0, val=val, test=test)
    return {split: np.bincount(labels[indices], minlength=len(patients)).tolist() for split, indices in dealt.items()}


def _check(images: Path, labels: Path, kind: Kind) -> None:
    found = Counter(line.label for line in read_table(labels).lines)
    for name, count in kind.counts.items():
        if found[name] != count:
            told = f"{labels}: {found[name]} patients have the label {name}, {count} are published"
            raise DataError(f"rsna: {told}; fetch it again, or allow it by the data set option counts=any")
    there, wanted = sum(path.suffix == ".dcm" for path in images.iterdir()), sum(kind.counts.values())
    if there != wanted:
        raise DataError(
            f"rsna: {images} has {there} DICOM files, {wanted} are published; fetch it again, or allow it by the data set option "
            "counts=any"
        )


def synthesize(folder: Path, *, tiny: bool, seed: int, options: Options) -> Mapping[str, Path | str]:
    """Write images and tables; `side` is that of the images (1024, tiny 96). Detail ends at 128 × 128, and files are smaller."""
    side = int_option(options, "side", TINY_SIDE if tiny else SIDE, 32, 4096)
    write(folder, TINY if tiny else FULL, side, seed)
    return {"source": Path()}
