"""Synthetic files in the form of RSNA's pneumonia challenge: DICOM with JPEG within, a table of boxes, and one of classes."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._radiographs import Opacity, opacities, radiograph, shadows
from edgebench.data._textures import generator
from edgebench.errors import MissingExtra
from edgebench.files import PROGRESS

TRAIN_IMAGES, TEST_IMAGES = "stage_2_train_images", "stage_2_test_images"
TRAIN_LABELS, DETAILED = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
SAMPLE = "stage_2_sample_submission.csv"
NORMAL, NOT_NORMAL, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
QUALITY = 80
SPACINGS = ("0.139", "0.143", "0.168", "0.171", "0.19431099999999998")
"""Millimetres between pixels."""
HEART = 1.3
"""Of one that is not normal, and without an opacity."""


@dataclass(frozen=True)
class Form:
    """How many patients have each class, how many of the last have one box, two, …, and images without labels."""

    patients: Mapping[str, int]
    boxes: Sequence[int]
    unlabelled: int


def write(root: Path, form: Form, side: int, seed: int) -> None:
    """Write what the challenge's archive holds."""
    for name in (TRAIN_IMAGES, TEST_IMAGES):
        (root / name).mkdir()
    random = generator(seed, "rsna")
    every = random.permutation([name for name, count in form.patients.items() for _ in range(count)])
    boxes = iter(random.permutation(np.repeat(np.arange(1, len(form.boxes) + 1), form.boxes)))
    labels: list[tuple[Any, ...]] = []
    classes: list[tuple[str, str]] = []
    total = len(every) + form.unlabelled
    for done, name in enumerate(every, 1):
        patient = _patient(random)
        found = opacities(random, int(next(boxes))) if name == OPACITY else shadows(random)
        _write(root / TRAIN_IMAGES, patient, _drawn(random, str(name), found, side), random)
        lines = list(_lines(found, side)) if name == OPACITY else [("", "", "", "", 0)]
        labels += [(patient, *line) for line in lines]
        classes += [(patient, str(name))] * len(lines)
        PROGRESS.get()("draw radiographs", done, total)
    others = []
    for done in range(form.unlabelled):
        others.append(_patient(random))
        name = str(random.choice(list(form.patients)))
        found = opacities(random, 1) if name == OPACITY else shadows(random)
        _write(root / TEST_IMAGES, others[-1], _drawn(random, name, found, side), random)
        PROGRESS.get()("draw radiographs", len(every) + done + 1, total)
    _table(root / TRAIN_LABELS, ("patientId", "x", "y", "width", "height", "Target"), labels)
    _table(root / DETAILED, ("patientId", "class"), classes)
    _table(root / SAMPLE, ("patientId", "PredictionString"), [(patient, "0.5 0 0 100 100") for patient in others])


def _patient(random: np.random.Generator) -> str:
    return str(uuid.UUID(bytes=random.bytes(16), version=4))


def _drawn(random: np.random.Generator, name: str, found: tuple[Opacity, ...], side: int) -> NDArray[np.uint8]:
    heart = HEART if name == NOT_NORMAL else 1.0
    return radiograph(random, found, side, side, heart * random.uniform(0.88, 1.12))


def _lines(found: Sequence[Opacity], side: int) -> Iterator[tuple[float, float, float, float, int]]:
    """Write a box around each opacity: left, top, width, height in pixels, and the target."""
    for each in found:
        left, top = max(0.0, each.x - each.half_width), max(0.0, each.y - each.half_height)
        wide, high = min(1.0, each.x + each.half_width) - left, min(1.0, each.y + each.half_height) - top
        yield *(float(round(part * side)) for part in (left, top, wide, high)), 1  # type: ignore[misc]


def _table(path: Path, heads: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)


def _write(folder: Path, patient: str, pixels: NDArray[np.uint8], random: np.random.Generator) -> None:
    """Write an image as the challenge's are: secondary capture, 8 bits, JPEG baseline."""
    try:
        from pydicom import config
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage
    except ImportError as error:
        raise MissingExtra("writing DICOM files", "dicom", "pydicom") from error
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    view = str(random.choice(["AP", "PA"]))
    instance, series, study = (f"2.25.{int.from_bytes(random.bytes(15), 'big')}" for _ in range(3))
    with config.disable_value_validation():  # the challenge's ages have no unit, and some spacings too many digits
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, instance
        meta.TransferSyntaxUID = JPEGBaseline8Bit
        found: Any = Dataset()
        found.file_meta = meta
        found.SOPClassUID, found.SOPInstanceUID = SecondaryCaptureImageStorage, instance
        found.StudyInstanceUID, found.SeriesInstanceUID = study, series
        found.Modality, found.ConversionType, found.BodyPartExamined = "CR", "WSD", "CHEST"
        found.SeriesDescription, found.ViewPosition = f"view: {view}", view
        found.PatientName, found.PatientID = patient, patient
        found.PatientSex, found.PatientAge = str(random.choice(["F", "M"])), str(int(np.clip(random.normal(47, 17), 1, 95)))
        found.PixelSpacing = [str(random.choice(SPACINGS))] * 2
        found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
        found.Rows, found.Columns = pixels.shape
        found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 8, 8, 7, 0
        found.LossyImageCompression, found.LossyImageCompressionMethod = "01", "ISO_10918_1"
        found.PixelData = encapsulate([stream.getvalue()])
        found["PixelData"].VR = "OB"
        found.save_as(folder / f"{patient}.dcm", enforce_file_format=True)
