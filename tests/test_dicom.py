"""DICOM: pixels as pydicom itself computes them, no patient in two splits, and no word of who they are in anything written."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from conftest import Cli
from dicomfiles import PLANTED, SYNTAXES, clinic, dicom, scan, write
from few import few_digits
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset as Elements
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit, JPEGLosslessSV1
from sklearn.model_selection import StratifiedGroupKFold

from edgebench import api, errors, files
from edgebench.config import read_dataset
from edgebench.data import SPLITS, Dataset, _mapped, open_images
from edgebench.data._patients import deal_patients
from edgebench.data._windows import NAMED
from edgebench.errors import DataError, DataWarning
from edgebench.schema import DatasetRef

QUIET = pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")
SIZE = "size=40x36"
HOUNSFIELD: dict[str, Any] = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}


def opened(root: Path, options: str = "") -> Dataset:
    return open_images(read_dataset(f"dicom:{root},{SIZE}{',' * bool(options)}{options}"))


def three_splits(root: Path, **more: Any) -> Path:
    """Write a set of two classes with a file of each in train and val; returns the folder of one class of test."""
    for number, (split, name) in enumerate((split, name) for split in SPLITS for name in ("a", "b")):
        write(
            root / split / name / "0.dcm",
            dicom(scan(number), patient=f"plain{number}", WindowCenter=[2048, 1000], WindowWidth=[4096, 2000], **more),
        )
    return root / "test" / "a"


def right(path: Path, frame: int = 0, window: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Return what pydicom makes of a file as real numbers 0…255, with its own window or another."""
    elements = pydicom.dcmread(path)
    stored = elements.pixel_array
    stored = stored[frame] if stored.ndim == 3 else stored
    values = apply_modality_lut(stored, elements)
    if window is not None:
        elements.WindowCenter, elements.WindowWidth = window
        elements.VOILUTFunction = "LINEAR"
    shown = np.asarray(apply_windowing(values, elements), dtype=np.float64)
    signed = elements.PixelRepresentation == 1
    ends = (-(2 ** (elements.BitsStored - 1)), 2 ** (elements.BitsStored - 1) - 1) if signed else (0, 2**elements.BitsStored - 1)
    low, high = (end * elements.get("RescaleSlope", 1) + elements.get("RescaleIntercept", 0) for end in ends)
    share = (shown - low) / (high - low)
    return np.asarray(255 * (1 - share if elements.PhotometricInterpretation == "MONOCHROME1" else share), dtype=np.float64)


def agrees(found: NDArray[np.uint8], wanted: NDArray[np.float64]) -> bool:
    """Return whether whole numbers are the nearest to these."""
    return bool(np.abs(found[:, :, 0] - wanted).max() <= 0.5 + 1e-6)


# ---------------------------------------------------------------- pixels


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file for each transfer syntax and both photometrics, signed and not, as the samples of a class of test."""
    root = tmp_path_factory.mktemp("many")
    place = three_splits(root, **HOUNSFIELD)
    (place / "0.dcm").unlink()
    for number, (name, syntax) in enumerate(SYNTAXES.items()):
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            for signed in (False, True):
                pixels = scan(100 + number, low=-200 if signed else 0, high=900)
                more: dict[str, Any] = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], **HOUNSFIELD}

                made = dicom(pixels, photometric, f"{name}{photometric}{signed}", **more)
                write(place / f"{name}-{photometric}-{'s' if signed else 'u'}.dcm", made, syntax)
    return root


@pytest.mark.parametrize(
    ("option", "window"),
    [("", (40, 400)), ("window=file:2", (300, 1500)), ("window=lung", NAMED["lung"]), ("window=-100.5:321", (-100.5, 321))],
)
def test_pixels_are_pydicoms_in_nine_transfer_syntaxes_and_both_photometrics(
    many: Path, option: str, window: tuple[float, float]
) -> None:
    files = sorted((many / "test" / "a").iterdir())
    images = opened(many, option).read("test").images
    assert len(files) == 4 * len(SYNTAXES) == 36 and len(images) == 37
    for file, found in zip(files, images, strict=False):
        assert agrees(found, right(file, window=window)), file.name
        assert len(np.unique(found)) > 20, file.name  # a window that shows something


def test_the_window_makes_other_pixels_and_so_another_hash(many: Path) -> None:
    hashes = {option: opened(many, option).read("test").sha256 for option in ("", "window=bone", "window=full", "window=ends")}
    assert len(set(hashes.values())) == 4
    assert opened(many, "window=bone").read("test").sha256 == hashes["window=bone"]


def test_least_and_greatest_values_become_black_and_white_where_ends_are_asked_for(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = scan(7, low=500, high=900)
    pixels[0, :3] = 0
    write(place / "0.dcm", dicom(pixels, PixelPaddingValue=0))
    found = opened(tmp_path, "window=ends").read("test").images[0]
    own = pixels[pixels > 0].astype(float)
    wanted = ((pixels - own.min()) / (own.max() - own.min())).clip(0, 1) * 255
    assert agrees(found, wanted)


def test_eight_bits_without_a_window_stay_as_they_are_and_twelve_want_one(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = scan(3, high=255).astype(np.uint8)
    write(place / "0.dcm", dicom(pixels, stored=8))
    assert np.array_equal(opened(tmp_path).read("test").images[0, :, :, 0], pixels)
    write(place / "0.dcm", dicom(255 - pixels, "MONOCHROME1", stored=8))
    assert np.array_equal(opened(tmp_path).read("test").images[0, :, :, 0], pixels)
    write(place / "0.dcm", dicom(scan(3)))
    with pytest.raises(DataError, match="no window stands in it, and 12 bits want one"):
        opened(tmp_path).read("test")
    found = opened(tmp_path, "window=full").read("test").images[0]
    assert agrees(found, scan(3) / 4095 * 255)


def test_sixteen_and_thirty_two_bits_keep_what_the_window_shows(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    for stored in (16, 32):
        pixels = scan(5, low=40_000, high=41_000).astype(np.uint32 if stored == 32 else np.uint16)
        write(place / "0.dcm", dicom(pixels, stored=stored, WindowCenter=40_500.5, WindowWidth=1001))
        found = opened(tmp_path).read("test").images[0]
        assert len(np.unique(found)) > 150
        assert agrees(found, ((pixels.astype(float) - 40_000) / 1000).clip(0, 1) * 255)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_function_of_a_window_is_pydicoms(tmp_path: Path, function: str) -> None:
    place = three_splits(tmp_path)
    made = dicom(scan(8), WindowCenter=1000.25, WindowWidth=777.5, VOILUTFunction=function, **HOUNSFIELD)
    path = write(place / "0.dcm", made)
    assert agrees(opened(tmp_path).read("test").images[0], right(path))


def test_tables_of_modality_and_window_are_looked_up(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    modality, voi = Elements(), Elements()
    first = np.linspace(0, 60_000, 4096).astype(np.uint16)
    modality.LUTDescriptor, modality.LUTData, modality.ModalityLUTType = [4096, 0, 16], first.tobytes(), "US"
    second = (np.linspace(0, 1, 50_000) ** 2 * 1023).astype(np.uint16)
    voi.LUTDescriptor, voi.LUTData = [50_000, 5_000, 10], second.tobytes()
    for element in (modality["LUTData"], voi["LUTData"]):
        element.VR = "OW"
    path = write(
        place / "0.dcm", dicom(scan(9), ModalityLUTSequence=[modality], VOILUTSequence=[voi], WindowCenter=5, WindowWidth=9)
    )
    wanted = second[(first[scan(9)].astype(int) - 5_000).clip(0, 49_999)] / 1023 * 255
    found = opened(tmp_path).read("test").images[0]
    assert agrees(found, wanted)
    elements = pydicom.dcmread(path)
    assert agrees(found, apply_voi_lut(apply_modality_lut(elements.pixel_array, elements), elements) / 1023 * 255)


def enhanced(frames: NDArray[np.uint16]) -> Any:
    """Make a file whose frames have rescaling and windows of their own, in functional groups."""
    made = dicom(frames)
    shared, each = Elements(), []
    shared.FrameVOILUTSequence = [Elements()]
    shared.FrameVOILUTSequence[0].WindowCenter, shared.FrameVOILUTSequence[0].WindowWidth = 0, 1000
    for number in range(len(frames)):
        own = Elements()
        own.PixelValueTransformationSequence = [Elements()]
        own.PixelValueTransformationSequence[0].RescaleSlope = str(number + 1)
        own.PixelValueTransformationSequence[0].RescaleIntercept = str(-1000 * (number + 1))
        each.append(own)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], each
    return made


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg-2000-lossless"])
def test_a_frame_is_chosen_and_rescaled_by_its_own_group(tmp_path: Path, syntax: str) -> None:
    place = three_splits(tmp_path)
    frames = np.stack([scan(number, high=2000) for number in range(5)])
    write(place / "0.dcm", enhanced(frames), SYNTAXES[syntax])
    with pytest.raises(DataError, match="it has 5 frames; give the data set option frame=first, middle"):
        opened(tmp_path)
    for option, number in (("first", 0), ("middle", 2), ("last", 4), ("2", 1)):
        if option != "2":
            found = opened(tmp_path, f"frame={option}").read("test").images[0]
            values = frames[number].astype(float) * (number + 1) - 1000 * (number + 1)
            assert agrees(found, ((values - -0.5) / 999 + 0.5).clip(0, 1) * 255), option
    split = opened(tmp_path, "frame=all").read("test")
    assert len(split) == 6 and split.groups is not None and len(set(split.groups[:5])) == 1
    assert list(split.labels) == [0] * 5 + [1]
    with pytest.raises(DataError, match="it has 1 frames, and frame=2 is asked for"):
        opened(tmp_path, "frame=2")


def test_colours_are_kept_with_three_channels_and_told_of_with_one(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = np.stack([scan(number, high=255) for number in range(3)], axis=-1).astype(np.uint8)
    write(place / "0.dcm", dicom(pixels, "RGB", stored=8))
    assert np.array_equal(opened(tmp_path, "channels=3").read("test").images[0], pixels)
    with pytest.warns(DataWarning, match="1 files are of colour and are made grey"):
        found = opened(tmp_path).read("test").images[0]
    assert np.array_equal(found[:, :, 0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    more: dict[str, Any] = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    more |= {
        f"{name}PaletteColorLookupTableData": (row << 8).tobytes()
        for name, row in zip(("Red", "Green", "Blue"), colours, strict=True)
    }
    pixels = scan(4, high=255).astype(np.uint8)
    write(place / "0.dcm", dicom(pixels, "PALETTE COLOR", stored=8, **more))
    found = opened(tmp_path, "channels=3").read("test").images[0]
    assert np.array_equal(found, colours[:, pixels].transpose(1, 2, 0))


def test_baseline_jpeg_is_read_without_a_decoder_of_its_own(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = scan(6, high=255).astype(np.uint8)
    path = write(place / "0.dcm", dicom(pixels, stored=8), JPEGBaseline8Bit)
    found = opened(tmp_path).read("test").images[0, :, :, 0]
    assert np.array_equal(found, pydicom.dcmread(path).pixel_array)
    assert np.abs(found.astype(int) - pixels).max() < 12


def test_eight_bits_in_words_of_the_other_order_are_put_right(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = scan(6, high=255).astype(np.uint8)
    made = dicom(pixels, stored=8)
    made.PixelData = pixels.reshape(-1, 2)[:, ::-1].tobytes()
    made["PixelData"].VR = "OW"
    write(place / "0.dcm", made, ExplicitVRBigEndian)
    assert np.array_equal(opened(tmp_path).read("test").images[0, :, :, 0], pixels)


@QUIET
def test_sizes_are_those_of_an_image_folder(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    pixels = scan(2, 40, 30, high=255).astype(np.uint8)
    write(place / "0.dcm", dicom(pixels, stored=8))
    for split in SPLITS:
        for name in ("a", "b"):
            (tmp_path / "png" / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "png" / split / name / "0.png")
    for option in ("size=16", "size=20x24,resize=pad:9,interpolation=bicubic", "resize=shortest:20+crop:16,antialias=false"):
        one = open_images(read_dataset(f"dicom:{tmp_path},{option}")).read("test").images[0]
        other = open_images(read_dataset(f"image-folder:{tmp_path / 'png'},channels=1,{option}")).read("test").images[0]
        assert np.array_equal(one, other), option


def test_a_missing_decoder_is_named_with_its_licence(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    made = dicom(scan(6))
    write(place / "0.dcm", made)
    content = (place / "0.dcm").read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", str(JPEGLosslessSV1).encode()
    assert content.count(old) == 1
    at = content.index(old)
    content = content[: at - 2] + len(new).to_bytes(2, "little") + new + content[at + len(old) :]
    (place / "0.dcm").write_bytes(content)
    with pytest.raises(DataError, match=r"JPEG Lossless, first-order prediction \(12 bits\), and no decoder .*GPL-3"):
        opened(tmp_path)


# ---------------------------------------------------------------- labels and patients


RSNA = """patientId,x,y,width,height,Target
{0},,,,,0
{1},10,20,30,40,1
{1},50,60,70,80,1
{2},,,,,0
{2},1,2,3,4,1
{3},,,,,0
"""


def test_rsnas_table_gives_each_patient_the_greatest_target(tmp_path: Path) -> None:
    names = [f"id-{number:02d}" for number in range(40)]
    for number, name in enumerate(names):
        write(tmp_path / "stage_2_train_images" / f"{name}.dcm", dicom(scan(number), patient=name, WindowCenter=9, WindowWidth=9))
    lines = "".join(RSNA.format(*names[place : place + 4]).partition("\n")[2] for place in range(0, 40, 4))
    (tmp_path / "stage_2_train_labels.csv").write_text(RSNA.partition("\n")[0] + "\n" + lines)
    data = opened(tmp_path, "labels=stage_2_train_labels.csv")
    assert (data.task, data.classes) == ("binary", ("0", "1"))
    labels = np.concatenate([data.read(name).labels for name in SPLITS])
    assert list(np.bincount(labels)) == [20, 20]


@QUIET
def test_a_table_of_patients_labels_all_that_is_theirs(tmp_path: Path) -> None:
    whose = clinic(tmp_path, 24)
    lines = [f"{PLANTED[1]}-{number},{'ill' if number % 4 == 0 else 'healthy'}" for number in range(24)]
    (tmp_path / "people.csv").write_text("\n".join(["patient_id;label", *lines]).replace(",", ";"))
    one, other = opened(tmp_path, "labels=people.csv"), opened(tmp_path, "labels=labels.csv")
    assert one.hashes() == other.hashes() and sum(len(one.read(name)) for name in SPLITS) == len(whose)


def people(data: Dataset) -> dict[str, set[int]]:
    found = {name: data.read(name).groups for name in SPLITS}
    return {name: set(map(int, each)) for name, each in found.items() if each is not None}


def test_no_patient_is_in_two_splits_and_classes_keep_their_shares(tmp_path: Path) -> None:
    clinic(tmp_path, 60, 2)
    data = opened(tmp_path, "labels=labels.csv,seed=3")
    groups = people(data)
    assert len(set.union(*groups.values())) == 60 == sum(map(len, groups.values()))
    shares = {name: float(data.read(name).labels.mean()) for name in SPLITS}
    assert all(abs(share - 1 / 4) < 0.05 for share in shares.values()), shares
    assert [len(data.read(name)) / 120 for name in SPLITS] == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
    assert opened(tmp_path, "labels=labels.csv,seed=3").hashes() == data.hashes()
    assert opened(tmp_path, "labels=labels.csv,seed=4").hashes() != data.hashes()


@pytest.mark.parametrize("seed", range(5))
def test_patients_are_dealt_out_as_evenly_as_scikit_learn_deals_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.3, 300)
    groups = np.repeat(np.arange(300), sizes)
    risk = rng.beta(0.6, 1.6, 300)
    labels = (rng.random(len(groups)) < risk[groups]).astype(np.int64)
    parts = deal_patients(groups, labels, seed, val=20, test=20)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(groups)))
    sets = [set(groups[part]) for part in parts.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    folds = [test for _, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(groups, labels, groups)]
    theirs = max(abs(labels[fold].mean() - labels.mean()) for fold in folds)
    assert max(abs(labels[part].mean() - labels.mean()) for part in parts.values()) <= max(theirs, 0.01)
    assert [len(part) / len(groups) for part in parts.values()] == pytest.approx([0.6, 0.2, 0.2], abs=0.02)


def test_whose_a_file_is_decides_on_the_hash_and_names_nobody(tmp_path: Path) -> None:
    clinic(tmp_path, 24)
    by = {whose: opened(tmp_path, f"labels=labels.csv,patient={whose}") for whose in ("header", "file", "folder")}
    assert by["header"].hashes() == by["folder"].hashes() == opened(tmp_path, "labels=labels.csv").hashes()
    assert sum(map(len, people(by["header"]).values())) == 24 and sum(map(len, people(by["file"]).values())) == 48
    split = by["header"].read("test")
    assert split.groups is not None and split.groups.max() < 24
    assert type(split)(split.images, split.labels).sha256 != split.sha256
    some = split.some(np.array([0, 2]))
    assert some.groups is not None and list(some.groups) == [split.groups[0], split.groups[2]]


@QUIET
def test_splits_that_share_patients_are_refused_or_told_of(tmp_path: Path) -> None:
    clinic(tmp_path, 24, 3, ("train", "val", "test"))
    assert {name: len(each) for name, each in people(opened(tmp_path, "labels=labels.csv,empty=allow")).items()} == dict.fromkeys(
        SPLITS, 8
    )
    table = (tmp_path / "labels.csv").read_text().splitlines()
    changed = [line.replace(",train", ",test") if "_0.dcm" in line else line for line in table]
    (tmp_path / "labels.csv").write_text("\n".join(changed))
    with pytest.raises(DataError, match="8 patients are in train and in test") as caught:
        opened(tmp_path, "labels=labels.csv,empty=allow")
    assert errors.written(caught.value) == "the DICOM data set cannot be used; `edgebench data` says why"
    found = api.inspect_data(f"dicom:{tmp_path},{SIZE},labels=labels.csv,empty=allow,shared=allow")
    assert any("8 patients have images in test and in train" in warning for warning in found.warnings)


def test_folders_of_patients_are_not_taken_for_classes(tmp_path: Path) -> None:
    clinic(tmp_path, 6)
    with pytest.raises(DataError, match="each of its 6 class folders holds files of one patient"):
        opened(tmp_path / "files")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file,label\nnowhere.dcm,ill\n", "none of its 1 lines names one of the 12 files"),
        ("file,label\nfiles/{0}.dcm,ill\nfiles/{0}.dcm,healthy\n", ":3: another label than line 2 gives to the same"),
        ("file,label\nfiles/{0}.dcm,ill\nfiles/{0},ill\n", ":3: the same file as in line 2"),
        ("file,label\n{1},ill\n", ":2: 6 files are called so"),
        ("file,label,split\nfiles/{0}.dcm,ill,later\n", ":2: its split is none of"),
        ("file,label,split\nfiles/{0}.dcm,ill,train\n", "it wants train and test"),
        ("file,label\nfiles/{0}.dcm\n", ":2: lacks a cell"),
        ("picture,label\nx,ill\n", "no column 'file' or 'patient_id'"),
        ("file,text\nx,ill\n", "no column 'label'"),
        ("file,label\nfiles/{0}.dcm,ill\n", "has images of 1 classes"),
    ],
)
@QUIET
def test_a_table_that_does_not_fit_is_one_line_without_names(tmp_path: Path, table: str, reason: str) -> None:
    clinic(tmp_path, 6)
    inner = f"{PLANTED[0]}_0/{PLANTED[1]}_0"
    (tmp_path / "own.csv").write_text(table.format(inner, f"{PLANTED[1]}_0"))
    with pytest.raises(DataError) as caught:
        opened(tmp_path, "labels=own.csv")
    assert reason in str(caught.value) and str(caught.value).isprintable()
    assert not any(word in str(caught.value) for word in PLANTED)


def test_a_file_without_a_patient_wants_to_be_told_whose_it_is(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    write(place / "0.dcm", dicom(scan(1), WindowCenter=9, WindowWidth=9, PatientID=""))
    with pytest.raises(DataError, match="no PatientID stands in it"):
        opened(tmp_path)
    opened(tmp_path, "patient=file")


@pytest.mark.parametrize(
    "option", ["window=lungs", "window=1:0", "window=x:y", "frame=none", "channels=2", "patient=name", "val=99"]
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, option: str) -> None:
    clinic(tmp_path, 6, 1)
    with pytest.raises(DataError):
        opened(tmp_path, f"labels=labels.csv,{option}")


def test_a_window_in_hounsfield_units_wants_a_ct(tmp_path: Path) -> None:
    place = three_splits(tmp_path)
    cases: dict[str, dict[str, Any]] = {"no CT": {"Modality": "CR", **HOUNSFIELD}, "no slope and intercept": {}}
    for reason, more in cases.items():
        write(place / "0.dcm", dicom(scan(1), **more))
        with pytest.raises(DataError, match=f"its values are no Hounsfield units .{reason}"):
            opened(tmp_path, "window=lung").read("test")


def test_large_splits_are_mapped_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic(tmp_path, 16, 1)
    few = opened(tmp_path, "labels=labels.csv").read("train")
    monkeypatch.setattr(_mapped, "LARGE", 1000)
    mapped = opened(tmp_path, "labels=labels.csv").read("train")
    assert isinstance(mapped.images, np.memmap) and mapped.sha256 == few.sha256
    other = opened(tmp_path, "labels=labels.csv,window=ends").read("train")
    assert isinstance(other.images, np.memmap) and other.sha256 != few.sha256


@QUIET
def test_what_is_no_image_is_left_out_and_counted(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    place = three_splits(tmp_path)
    report = dicom(scan(1), BurnedInAnnotation="YES")
    write(place / "1.dcm", report)
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    write(place / "2", report)
    (place / "notes.txt").write_text("x")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    opened(tmp_path, "window=full")
    told = " ".join(str(each.message) for each in recwarn.list)
    assert "left out 1 DICOM files that hold no image" in told and "left out 2 files or folders" in told
    assert "1 files say that text is burned into their pixels" in told


# ---------------------------------------------------------------- conversion


@QUIET
def test_converted_folders_read_back_to_the_same_pixels(tmp_path: Path, cli: Cli) -> None:
    clinic(tmp_path, 24)
    ref = f"dicom:{tmp_path},{SIZE},labels=labels.csv,window=1500:2000"
    code, out, errors_ = cli("data", "convert", ref, "--into", tmp_path / "png")
    assert code == 0, errors_
    assert "patients" in out
    before = open_images(read_dataset(ref))
    with (tmp_path / "png" / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for options in ("", ",labels=manifest.csv"):
        after = open_images(read_dataset(f"image-folder:{tmp_path / 'png'},channels=1,{SIZE}{options}"))
        assert after.classes == before.classes and after.files is not None
        for name in SPLITS:
            own = before.read(name)
            assert own.groups is not None
            mine = [row for row in rows if row["split"] == name]
            assert [int(row["patient"]) for row in mine] == list(own.groups)
            places = {str((tmp_path / "png" / row["file"]).resolve()): index for index, row in enumerate(mine)}
            order = [places[str(path.resolve())] for path in after.files(name)]
            assert np.array_equal(after.read(name).images, own.images[order]), name
            assert np.array_equal(after.read(name).labels, own.labels[order]), name
    facts = (tmp_path / "png" / "data.yaml").read_text()
    assert before.read("test").sha256 in facts and "1500:2000" in facts and str(tmp_path) not in facts
    code, _, errors_ = cli("data", "convert", ref, "--into", tmp_path / "png", "--json")
    assert code == 0, errors_  # what was written so is replaced
    (tmp_path / "own").mkdir()
    code, _, errors_ = cli("data", "convert", ref, "--into", tmp_path / "own")
    assert code == 2 and "holds no manifest.csv" in errors_


def test_classes_whose_names_can_be_no_folders_are_named_otherwise(tmp_path: Path) -> None:
    labels = ["No Lung Opacity / Not Normal", "Normal"]
    lines = ["file,label"]
    for number in range(12):
        write(tmp_path / f"{number}.dcm", dicom(scan(number), patient=str(number), WindowCenter=9, WindowWidth=9))
        lines.append(f"{number},{labels[number % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    made = api.convert_data(f"dicom:{tmp_path},{SIZE},labels=labels.csv", tmp_path / "png")
    assert made.renamed == {labels[0]: "No Lung Opacity - Not Normal"}
    assert open_images(read_dataset(f"image-folder:{tmp_path / 'png'},size=16")).classes == (
        "No Lung Opacity - Not Normal",
        "Normal",
    )


def test_any_data_set_of_classes_can_be_converted(tmp_path: Path) -> None:
    few = few_digits(tmp_path, 60)
    made = api.convert_data(few, tmp_path / "digits")
    assert (made.counts, made.patients) == (dict.fromkeys(SPLITS, 60), {})
    after = open_images(read_dataset(f"image-folder:{tmp_path / 'digits'},size=8,channels=1")).read("test")
    before = open_images(read_dataset(few)).read("test")
    order = np.argsort(before.labels, kind="stable")
    assert np.array_equal(after.images, before.images[order])


# ---------------------------------------------------------------- nobody is named


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Read every file below a folder, and what is packed in it."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield f"{path.relative_to(root)}", str(path.relative_to(root)).encode() + content
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    yield f"{path.relative_to(root)}:{name}", archive.read(name)


def named(content: bytes) -> list[str]:
    """Return the planted words in bytes, in any way that text is written."""
    return [word for word in PLANTED if any(word.encode(code) in content for code in ("utf-8", "utf-16-le", "utf-16-be"))]


@QUIET
def test_no_word_of_a_patient_is_in_anything_that_is_written_or_printed(
    here: Path, tmp_path_factory: pytest.TempPathFactory, cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path_factory.mktemp("source")
    clinic(source, 16)
    assert any(named(content) for _, content in contents(source))  # they can be found where they are
    caplog.set_level(logging.DEBUG)
    ref = f"dicom:{source},size=16,labels=labels.csv"
    said = []
    for command in (
        ("data", ref, "--sheet", "sheet.png"),
        ("data", ref, "--json"),
        ("data", "convert", ref, "--into", "png"),
        ("train", "tinynet:net", "--dataset", ref, "--option", "epochs=1", "--option", "threads=1", "--name", "small"),
        ("export", "tinynet:net", "--format", "onnx", "--dataset", ref, "--name", "tiny"),
        ("run", "BUNDLE", "--target", "sleeper.yaml"),
        ("leaderboard", "--out", "board.md"),
        ("report", "--out", "report.html"),
    ):
        words = [next(here.rglob("bundle.json")).parent if word == "BUNDLE" else word for word in command]
        code, out, errors_ = cli(*words)
        assert code == 0, (command, errors_)
        said += [out, errors_]
    (broken := source / "files" / f"{PLANTED[0]}_1" / f"{PLANTED[1]}_0.dcm").write_bytes(broken.read_bytes()[:-100])
    code, out, errors_ = cli("run", next(here.rglob("bundle.json")).parent, "--target", "sleeper.yaml", "--repeat")
    assert code == 2 and f"{broken.name}: it has" in errors_  # its user sees which file it is, on the terminal
    said.append(out)
    assert not named("\n".join(said).encode()), said
    assert not named(caplog.text.encode())
    written = {name: hits for name, content in contents(here) if (hits := named(content))}
    assert not written and len(list(here.rglob("*.json"))) > 3


@QUIET
def test_the_record_of_a_cell_that_failed_for_a_file_does_not_name_it(here: Path, cli: Cli, tiny_bundles: Any) -> None:
    clinic(here / "clinic", 12)
    broken = next((here / "clinic").rglob("*_0.dcm"))
    broken.write_bytes(broken.read_bytes()[:-100])
    ours = here / "ours"
    shutil.copytree(tiny_bundles["onnx", "fp32"], ours)
    manifest = json.loads((ours / "bundle.json").read_text())
    manifest["model"]["name"] = "ours"
    ref = DatasetRef(name="dicom", options={"source": "clinic", "size": 16, "labels": "labels.csv"})
    manifest["model"]["lineage"]["dataset"] = ref.model_dump()
    (ours / "bundle.json").write_text(json.dumps(files.seal(manifest)))
    code, out, errors_ = cli("run", ours, tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml")
    assert code == 1, errors_
    texts = {str(path): path.read_text() for path in (here / "results").rglob("*.json")}
    failed = [text for text in texts.values() if json.loads(text)["status"] == "failed"]
    assert len(failed) == 1 and "a DICOM file: it has" in failed[0]
    assert not named("".join([out, *texts.values()]).encode())
