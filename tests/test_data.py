"""Data sets: real digits, and small files of the real formats."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebench import plugins
from edgebench.config import read_dataset
from edgebench.data import SPLITS, _medmnist, medmnist, open_dataset, open_images
from edgebench.errors import DataError, UnknownName


def open_text(text: str) -> Any:
    return open_images(read_dataset(text))


def write_npz(path: Path, labels: int = 1, classes: int = 3, shape: tuple[int, ...] = (28, 28, 3), count: int = 40) -> Path:
    """Write a file in MedMNIST's format; class k is brighter than class k − 1."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        if labels == 1:
            truth = np.arange(count).reshape(-1, 1) % classes
            base = truth.reshape(-1, *[1] * len(shape)) * (200 // classes)
        else:
            truth = rng.integers(0, 2, (count, labels))
            base = truth.sum(axis=1).reshape(-1, *[1] * len(shape)) * (200 // labels)
        arrays[f"{name}_images"] = (base + rng.integers(0, 40, (count, *shape))).astype(np.uint8)
        arrays[f"{name}_labels"] = truth.astype(np.uint8)
    np.savez(path, **arrays)
    return path


def test_the_data_sets_are_files() -> None:
    assert plugins.names("edgebench.data") == ("chest-xray", "cifar10", "dicom", "digits", "image-folder", "medmnist", "rsna")
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        open_text("digts")


def test_digits_are_real_stratified_and_always_the_same() -> None:
    digits = open_text("digits")
    sizes = {name: len(digits.read(name)) for name in SPLITS}
    assert sizes == {"train": 1257, "val": 180, "test": 360}
    assert digits.task == "multi-class"
    test = digits.read("test")
    assert (test.images.shape, test.images.dtype, test.images.max()) == ((360, 8, 8, 1), np.uint8, 255)
    assert (np.bincount(test.labels) >= 34).all()
    assert digits.hashes() == open_text("digits").hashes()
    every = {image.tobytes() for name in SPLITS for image in digits.read(name).images}
    assert len(every) == 1797


def test_a_changed_label_changes_the_hash() -> None:
    test = open_text("digits").read("test")
    labels = test.labels.copy()
    labels[0] += 1
    assert type(test)(test.images, labels).sha256 != test.sha256


@pytest.mark.parametrize(
    ("arguments", "option", "task", "classes"),
    [
        ({}, "", "multi-class", 3),
        ({"classes": 2}, ",task=binary", "binary", 2),
        ({"classes": 4}, ",task=ordinal", "ordinal", 4),
        ({"labels": 5}, "", "multi-label", 5),
        ({"shape": (28, 28)}, "", "multi-class", 3),
    ],
)
def test_own_files_in_medmnists_format(tmp_path: Path, arguments: dict[str, Any], option: str, task: str, classes: int) -> None:
    path = write_npz(tmp_path / "own.npz", **arguments)
    data = open_text(f"medmnist:{path}{option}")
    assert (data.task, len(data.classes)) == (task, classes)
    train = data.read("train")
    assert train.images.ndim == 4
    assert train.labels.shape == ((40, 5) if task == "multi-label" else (40,))


def test_official_sets_are_read_from_a_folder_and_their_md5_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path / "pathmnist.npz", classes=9)
    with pytest.raises(DataError, match="its MD5 is"):
        open_text(f"medmnist:pathmnist,root={tmp_path}")
    known = _medmnist.sets()
    known["pathmnist"]["md5"]["28"] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(medmnist, "sets", lambda: known)
    data = open_text(f"medmnist:pathmnist,root={tmp_path}")
    assert data.classes[8] == "colorectal adenocarcinoma epithelium"


def test_the_facts_are_those_of_the_medmnist_package() -> None:
    info = pytest.importorskip("importlib.util").find_spec("medmnist")
    if info is None:
        pytest.skip("medmnist is not installed")
    import importlib.util

    path = Path(info.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("medmnist_info", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours = _medmnist.sets()
    assert set(ours) == set(module.INFO)
    for name, facts in module.INFO.items():
        assert ours[name]["md5"]["28"] == facts["MD5"]
        assert ours[name]["classes"] == [facts["label"][str(index)] for index in range(len(facts["label"]))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("medmnist", "which set"),
        ("medmnist:pathmnst", "did you mean 'pathmnist'"),
        ("medmnist:pathmnist,size=29", "sizes 28, 64, 128, 224"),
        ("medmnist:nowhere.npz", "no file"),
        ("medmnist:truncated.npz", "not a complete .npz"),
        ("medmnist:pickled.npz", "holds Python objects, and nothing is unpickled"),
        ("medmnist:other.npz", "no array 'train_labels'"),
        ("medmnist:float.npz", "float64"),
        ("medmnist:own.npz,task=regression", "unknown task"),
        ("medmnist:own.npz,md5=abc", "its MD5 is"),
        ("medmnist:own.npz,colour=1", "unknown option 'colour'"),
        ("digits:x", "unknown option 'source'"),
        ("image-folder", "which folder"),
        ("image-folder:nowhere", "not a folder"),
        ("image-folder:empty", "0 class folders"),
        ("image-folder:bare", "no JPEG or PNG file"),
        ("image-folder:photos,val=60,test=60", "percentages"),
    ],
)
def test_bad_data_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    content = write_npz(Path("own.npz")).read_bytes()
    Path("truncated.npz").write_bytes(content[: len(content) // 2])
    np.savez("pickled.npz", train_labels=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez("other.npz", images=np.zeros(3))
    arrays: dict[str, Any] = {f"{name}_{what}": np.zeros((4, 8, 8)) for name in SPLITS for what in ("images", "labels")}
    np.savez("float.npz", **arrays)
    Path("empty").mkdir()
    for name in ("bare/cat", "bare/dog"):
        Path(name).mkdir(parents=True)
    write_photos(Path("photos"))
    with pytest.raises((DataError, UnknownName), match=reason) as caught:
        open_text(text).read("train")
    assert "\n" not in str(caught.value)


def write_photos(root: Path, splits: tuple[str, ...] = ("",), count: int = 20) -> None:
    """Write JPEG and PNG files of two classes that differ in brightness."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in splits:
        for index, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = (rng.integers(0, 60, (30, 40, 3)) + 150 * index).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")


def test_image_folders_with_three_splits(tmp_path: Path) -> None:
    write_photos(tmp_path, SPLITS, 4)
    data = open_text(f"image-folder:{tmp_path},size=24")
    assert (data.task, data.classes) == ("binary", ("cat", "dog"))
    train = data.read("train")
    assert train.images.shape == (8, 24, 24, 3)
    assert train.labels.tolist() == [0] * 4 + [1] * 4


def test_image_folders_without_splits_are_dealt_out_once(tmp_path: Path) -> None:
    write_photos(tmp_path)
    data = open_text(f"image-folder:{tmp_path},size=16,channels=1,test=20,val=10")
    assert {name: len(data.read(name)) for name in SPLITS} == {"train": 28, "val": 4, "test": 8}
    assert data.read("test").labels.sum() == 4
    every = [image.tobytes() for name in SPLITS for image in data.read(name).images]
    assert len(set(every)) == 40


def test_a_corrupt_jpeg_is_named(tmp_path: Path) -> None:
    write_photos(tmp_path, SPLITS, 4)
    broken = tmp_path / "test" / "dog" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    data = open_dataset(read_dataset(f"image-folder:{tmp_path},size=24"))
    with pytest.raises(DataError, match=r"3\.jpg: not a readable image"):
        data.read("test")


def test_a_class_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path, SPLITS, 4)
    (tmp_path / "test" / "bird").mkdir()
    with pytest.raises(DataError, match="bird"):
        open_text(f"image-folder:{tmp_path}")


def test_the_facts_table_is_whole() -> None:
    known = _medmnist.sets()
    assert len(known) == 18
    assert sum(facts["volumes"] for facts in known.values()) == 6
    assert json.dumps(known["chestmnist"]["task"]) == '"multi-label"'
