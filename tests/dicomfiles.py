"""DICOM files that tests write, by pydicom alone: any transfer syntax, both photometrics, and planted words that name people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-2000-lossless": JPEG2000Lossless,
    "jpeg-2000": JPEG2000,
    "jpeg-ls-lossless": JPEGLSLossless,
    "jpeg-ls": JPEGLSNearLossless,
}
LOSSY: Mapping[str, Mapping[str, Any]] = {JPEG2000: {"j2k_psnr": [60]}, JPEGLSNearLossless: {"jls_error": 2}}
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEG2000, JPEGLSLossless, JPEGLSNearLossless)
PLANTED = ("Zwetschgenbaum", "PID-4711-XQ", "19531224", "Quittenklinik", "Mirabellarzt", "ACC-0815-YR", "Pflaumenweg")
"""No word of these may come out anywhere: name, number, birthday, hospital, physician, accession number, address."""


def scan(seed: int, height: int = 40, width: int = 36, low: int = 0, high: int = 4095) -> NDArray[np.uint16]:
    """Make a smooth image of whole numbers from `low` to `high` at most, its own for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.random((5, 5)).astype(np.float32))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    return np.round(low + fine * (high - low)).astype(np.int32 if low < 0 else np.uint16)


def dicom(pixels: NDArray[Any], photometric: str = "MONOCHROME2", patient: str = "A", stored: int = 12, **more: Any) -> Dataset:
    """Make a data set of pixels [h, w], [frames, h, w] or [h, w, 3], with planted words; `more` are further elements."""
    signed = pixels.dtype.kind == "i"
    coloured = pixels.ndim == 3 and pixels.shape[2] == 3
    allocated = 8 if stored <= 8 else 16 if stored <= 16 else 32
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = CT, meta.MediaStorageSOPInstanceUID, "CT"
    made.SpecificCharacterSet = "ISO_IR 192"
    name, number, birthday, hospital, physician, accession, address = PLANTED
    made.PatientName, made.PatientID, made.PatientBirthDate = f"{name}^Anna", f"{number}-{patient}", birthday
    made.InstitutionName, made.ReferringPhysicianName = hospital, f"{physician}^Max"
    made.AccessionNumber, made.PatientAddress = accession, address
    inner = Dataset()
    inner.PatientID, inner.ReferencedSOPInstanceUID = f"{number}-{patient}", generate_uid()
    made.OtherPatientIDsSequence = [inner]
    made.add_new(0x00091010, "LO", f"private {name}")
    made.Rows, made.Columns = pixels.shape[:2] if coloured else pixels.shape[-2:]
    if pixels.ndim == 3 and not coloured:
        made.NumberOfFrames = len(pixels)
    made.SamplesPerPixel = 3 if coloured else 1
    if coloured:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = allocated, stored, stored - 1, int(signed)
    kind = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    content = np.ascontiguousarray(pixels.astype(kind)).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB" if allocated == 8 else "OW"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def write(path: Path, made: Dataset, syntax: str = ExplicitVRLittleEndian, **options: Any) -> Path:
    """Save a data set in a transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == JPEGBaseline8Bit:
        made = as_jpeg(made)
    elif syntax in COMPRESSED:
        made.compress(syntax, generate_instance_uid=False, **{**LOSSY.get(syntax, {}), **options})
    else:
        if syntax == ExplicitVRBigEndian and made.BitsAllocated > 8:
            width = made.BitsAllocated // 8
            made.PixelData = np.frombuffer(made.PixelData, f"<u{width}").astype(f">u{width}").tobytes()
        made.file_meta.TransferSyntaxUID = syntax
    made.save_as(
        path, enforce_file_format=True, little_endian=syntax != ExplicitVRBigEndian, implicit_vr=syntax == ImplicitVRLittleEndian
    )
    return path


def as_jpeg(made: Dataset) -> Dataset:
    """Pack 8-bit pixels into a baseline JPEG, by Pillow."""
    stream = io.BytesIO()
    Image.fromarray(np.frombuffer(made.PixelData, np.uint8).reshape(made.Rows, made.Columns)).save(stream, "JPEG", quality=95)
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return made


def clinic(root: Path, patients: int = 24, each: int = 2, split: Sequence[str] = (), **more: Any) -> Mapping[str, str]:
    """Write files of patients in folders that are called as they are, and labels.csv; returns whose each file is.

    Every fourth patient is ill. With `split`, patients are written to these in turn.
    """
    whose, lines = {}, ["file,label" + ",split" * bool(split)]
    for number in range(patients):
        label = ("healthy", "ill")[number % 4 == 0]
        for index in range(each):
            file = f"{PLANTED[0]}_{number}/{PLANTED[1]}_{index}.dcm"
            given = {"WindowCenter": 2048, "WindowWidth": 4096, **more}
            bright = 1500 if label == "ill" else 0
            made = dicom(scan(number * 100 + index, low=bright, high=bright + 2500), patient=str(number), **given)
            write(root / "files" / file, made)
            whose[file] = str(number)
            lines.append(f"files/{file},{label}" + (f",{split[number % len(split)]}" if split else ""))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return whose
