"""Public data sets by name: right values come from torchvision, medmnist, pydicom, Pillow and pickle reading the same files."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import Cli
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from edgebench import api
from edgebench.config import read_dataset
from edgebench.data import SPLITS, Dataset, cifar10, medmnist, open_images, requirements, rsna, synthesize
from edgebench.data._chest_files import CLOSINGS, FINDINGS, _report
from edgebench.data._pickles import read_pickle
from edgebench.data._radiographs import opacities, radiograph, shadows
from edgebench.data._textures import generator, pictures
from edgebench.data._torchvision import load_torchvision
from edgebench.errors import DataError
from edgebench.schema import DatasetRef

pytestmark = pytest.mark.filterwarnings("ignore::edgebench.errors.DataWarning")
PYTHON = "cifar-10-batches-py"


def opened(text: str) -> Dataset:
    return open_images(read_dataset(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetRef]:
    """Synthesize a tiny form of each, once."""
    root = tmp_path_factory.mktemp("synthetic")
    asked: dict[str, Any] = {"cifar10": {}, "chest-xray": {"texts": True}, "rsna": {}, "medmnist": {"source": "bloodmnist"}}
    return {name: synthesize(name, root / name, tiny=True, seed=3, options=options) for name, options in asked.items()}


@pytest.fixture
def copy(made: dict[str, DatasetRef], tmp_path: Path) -> Iterator[Any]:
    """Copy a tiny form without its mark, as if it were real."""

    def unmarked(name: str) -> Path:
        place = made[name].options["source" if name != "medmnist" else "root"]
        shutil.copytree(str(place), tmp_path / name)
        (tmp_path / name / "synthetic.json").unlink()
        return tmp_path / name

    yield unmarked


# ---------------------------------------------------------------- cifar10


def test_torchvision_reads_the_same_of_cifars_batches(made: dict[str, DatasetRef]) -> None:
    load_torchvision()
    from torchvision.datasets import CIFAR10

    class Unchecked(CIFAR10):
        train_list: ClassVar = [[name, None] for name, _ in CIFAR10.train_list]
        test_list: ClassVar = [[name, None] for name, _ in CIFAR10.test_list]
        meta: ClassVar = {**CIFAR10.meta, "md5": None}

    data, root = open_images(made["cifar10"]), str(made["cifar10"].options["source"])
    right = Unchecked(root, train=False)
    assert (data.task, list(data.classes)) == ("multi-class", right.classes)
    np.testing.assert_array_equal(data.read("test").images, right.data)
    np.testing.assert_array_equal(data.read("test").labels, right.targets)
    whole = Unchecked(root, train=True)
    right_labels = {pixels.tobytes(): label for pixels, label in zip(whole.data, whole.targets, strict=True)}
    seen = Counter[bytes]()
    for name in ("train", "val"):
        split = data.read(name)
        assert [right_labels[pixels.tobytes()] for pixels in split.images] == split.labels.tolist()
        seen += Counter(pixels.tobytes() for pixels in split.images)
    assert seen == Counter(pixels.tobytes() for pixels in whole.data)
    assert np.bincount(data.read("val").labels).tolist() == [2] * 10  # a tenth of 20, which stand in 5 batches


def test_the_md5_and_the_archive_are_those_of_torchvision() -> None:
    load_torchvision()
    from torchvision.datasets import CIFAR10

    assert dict([*CIFAR10.train_list, *CIFAR10.test_list]) | {"batches.meta": CIFAR10.meta["md5"]} == cifar10.MD5
    assert (CIFAR10.url, CIFAR10.tgz_md5) == (cifar10.URL, cifar10.ARCHIVE_MD5)


@pytest.mark.parametrize("form", ["binary", "npz"])
def test_the_forms_of_cifar_hold_the_same(made: dict[str, DatasetRef], tmp_path: Path, form: str) -> None:
    other = synthesize("cifar10", tmp_path, tiny=True, seed=3, options={"form": form})
    assert open_images(other).hashes() == open_images(made["cifar10"]).hashes()
    if form == "binary":
        first = (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").read_bytes()[:3073]
        test = open_images(made["cifar10"]).read("test")
        assert first == bytes([test.labels[0]]) + test.images[0].transpose(2, 0, 1).tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_are_read_as_pickle_does(tmp_path: Path, protocol: int) -> None:
    content = {
        "data": np.arange(24, dtype=np.uint8).reshape(4, 6),
        "labels": [1, 2, 300, -1],
        "names": ["a", "ü" * 300],
        "t": (1,),
    }
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(tmp_path / "batch")
    np.testing.assert_array_equal(found.pop("data"), content.pop("data"))
    assert found == content


def test_synthetic_batches_are_what_pickle_reads(made: dict[str, DatasetRef]) -> None:
    path = Path(str(made["cifar10"].options["source"]), PYTHON, "data_batch_2")
    right, found = pickle.loads(path.read_bytes(), encoding="latin1"), read_pickle(path)
    np.testing.assert_array_equal(found.pop("data"), right.pop("data"))
    assert found == right
    assert right["batch_label"] == "training batch 2 of 5"


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


TEXT = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
BOMB = b"\x80\x02]c_codecs\nencode\nq\x00" + TEXT + b"X\x06\x00\x00\x00latin1\x86q\x02R" + b"h\x00h\x02R" * 300 + b"."
HOSTILE = {
    "runs": (pickle.dumps({"data": Runs()}, protocol=2), r"names \w+\.system: nothing is looked up or run"),
    "stack global": (pickle.dumps([Runs()], protocol=4), "nothing is looked up or run"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "persistent": (b"Pperson\n.", "opcode PERSID"),
    "instance": (b"(ios\nsystem\n.", "opcode INST"),
    "memo": (b"\x80\x02]r\xf0\xff\xff\xff.", "no batch of CIFAR|no array 'data'"),
    "huge": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"a.", "no complete pickle"),
    "cut": (pickle.dumps({"data": [1, 2]}, protocol=2)[:-3], "no complete pickle"),
    "object": (pickle.dumps({"data": np.array([{}], dtype=object)}, protocol=2), "array of something else than bytes"),
    "steps": (b"\x80\x02]" + b"N" * 1_000_001 + b".", "more than 1000000 steps"),
    "bomb": (BOMB, "becomes far larger than it is"),
    "state": (b"\x80\x02}}b.", "sets the state of something that is no array"),
    "called": (b"\x80\x02cnumpy\nndarray\n)R.", "calls numpy.ndarray"),
    "size": (b"", "no complete pickle"),
    "text": (b"hello", "no complete pickle"),
    "floats": (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}, protocol=2), "something else than bytes"),
    "labels": (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}, protocol=2), "no list 'labels'"),
    "flat": (pickle.dumps({"data": np.zeros(3072, np.uint8), "labels": [0]}, protocol=2), "no array 'data'"),
    "label": (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [400]}, protocol=2), "label 400"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_pickle_is_run(
    made: dict[str, DatasetRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(str(made["cifar10"].options["source"]), tmp_path / "it")
    content, reason = HOSTILE[kind]
    (tmp_path / "it" / PYTHON / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        opened(f"cifar10:{tmp_path / 'it'}")
    assert "\n" not in str(caught.value) and not Path("ran").exists()


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        ((), "its MD5 is .*, the published one"),
        (("data_batch_1",), "holds neither"),
        (("batches.meta", "test_batch"), "test_batch: cannot be opened"),
    ],
)
def test_what_is_not_the_published_cifar_is_one_line(copy: Any, removed: Sequence[str], reason: str) -> None:
    folder = copy("cifar10")
    for name in removed:
        (folder / PYTHON / name).unlink()
    with pytest.raises(DataError, match=reason):
        opened(f"cifar10:{folder}")


def test_a_binary_cifar_of_another_size_is_said(tmp_path: Path) -> None:
    synthesize("cifar10", tmp_path, tiny=True, options={"form": "binary"})
    (tmp_path / "synthetic.json").unlink()
    with pytest.raises(DataError, match="its test has 40 images, and 10000 are published"):
        opened(f"cifar10:{tmp_path}")
    for path in (tmp_path / "cifar-10-batches-bin").glob("*.bin"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no whole number of images"):
        opened(f"cifar10:{tmp_path}")


# ---------------------------------------------------------------- medmnist


@pytest.mark.parametrize(("name", "size"), [("pathmnist", 64), ("chestmnist", 28), ("retinamnist", 28), ("nodulemnist3d", 28)])
def test_the_medmnist_package_reads_the_same_file(tmp_path: Path, name: str, size: int) -> None:
    load_torchvision()
    import medmnist as package

    ref = synthesize("medmnist", tmp_path, tiny=True, options={"source": name, "size": size})
    data = open_images(ref)
    assert data.ref.options["size"] == size
    for split in SPLITS:
        right = getattr(package, package.INFO[name]["python_class"])(split=split, root=str(tmp_path), size=size)
        found = data.read(split)
        np.testing.assert_array_equal(found.images.reshape(right.imgs.shape), right.imgs)
        np.testing.assert_array_equal(found.labels.reshape(right.labels.shape), right.labels)
        present = found.labels.sum(axis=0) if found.labels.ndim == 2 else np.bincount(found.labels, minlength=len(data.classes))
        assert (present > 0).all()


def test_every_medmnist_set_is_known_in_every_size_with_its_published_counts(tmp_path: Path) -> None:
    load_torchvision()
    import medmnist as package

    for name, info in package.INFO.items():
        sizes = (28, 64) if name.endswith("3d") else (28, 64, 128, 224)
        for size in sizes:
            found = requirements("medmnist", {"source": name, "size": size})
            key = "MD5" if size == 28 else f"MD5_{size}"
            assert found.counts == info["n_samples"] and info[key] in found.check
        assert f"medmnist.{info['python_class']}(" in str(found.fetch)
        shape = (sizes[-1],) * (3 if name.endswith("3d") else 2)
        assert found.unpacked_bytes == sum(info["n_samples"].values()) * np.prod(shape) * info["n_channels"]
        for split, classes in found.classes.items():
            total = sum(info["n_samples"].values()) if split == "all" else info["n_samples"][split]
            assert list(classes) == list(info["label"].values())
            assert sum(classes.values()) == total or info["task"].startswith("multi-label")
    with pytest.raises(DataError, match="sizes 28, 64, not 128"):
        requirements("medmnist", {"source": "organmnist3d", "size": 128})


def test_full_sets_have_the_published_shares(tmp_path: Path) -> None:
    data = open_images(synthesize("medmnist", tmp_path, tiny=False, options={"source": "breastmnist"}))
    found = requirements("medmnist", {"source": "breastmnist"})
    for split in SPLITS:
        assert dict(zip(data.classes, np.bincount(data.read(split).labels), strict=True)) == found.classes[split]


def test_a_synthetic_file_without_its_mark_is_not_taken_for_the_published_one(copy: Any) -> None:
    with pytest.raises(DataError, match="its MD5 is"):
        opened(f"medmnist:bloodmnist,root={copy('medmnist')}")


# ---------------------------------------------------------------- chest-xray


def test_pillow_finds_what_the_chest_x_rays_are(made: dict[str, DatasetRef]) -> None:
    ref = made["chest-xray"]
    root = Path(str(ref.options["source"])) / "chest_xray"
    data = open_images(ref.model_copy(update={"options": {**ref.options, "size": 32}}))
    files = sorted(root.rglob("*.jpeg"))
    right = Counter((path.parts[-3], path.parts[-2]) for path in files)
    for split in SPLITS:
        labels = data.read(split).labels
        assert [right[split, name] for name in data.classes] == np.bincount(labels).tolist()
    sizes, modes = set(), set()
    for path in files:
        with Image.open(path) as image:
            sizes.add(image.size)
            modes.add(image.mode)
    assert len(sizes) > 30 and modes == {"L", "RGB"}
    assert data.files is not None
    with Image.open(data.files("test")[0]) as image:
        side, mean = min(image.size), np.asarray(image.convert("L")).mean()
    small = open_images(ref.model_copy(update={"options": {**ref.options, "size": side}})).read("test").images[0]
    assert small.shape == (side, side, 1) and abs(float(small.mean()) - mean) < 25


def test_a_wrong_count_of_chest_x_rays_is_one_line_and_can_be_allowed(copy: Any) -> None:
    folder = copy("chest-xray")
    with pytest.raises(DataError, match=r"train/NORMAL has 12 images, 1341 are published.*counts=any"):
        opened(f"chest-xray:{folder}")
    assert len(opened(f"chest-xray:{folder},counts=any,size=16").read("val")) == 12


def test_val_of_the_chest_x_rays_is_dealt_out_by_patients_where_that_is_asked(made: dict[str, DatasetRef]) -> None:
    source = made["chest-xray"].options["source"]
    with pytest.warns(match="its val has 12 images, too few to choose anything by; val=15"):
        given = opened(f"chest-xray:{source},size=16")
    data = opened(f"chest-xray:{source},size=16,val=30")
    assert data.files is not None and given.files is not None
    whose = {
        split: {re.match(r"person\d+|(NORMAL2-)?IM-\d+", path.name)[0] for path in data.files(split)}  # type: ignore[index]
        for split in ("train", "val")
    }
    assert not whose["train"] & whose["val"]
    assert 10 <= len(data.files("val")) <= 19
    assert sorted([*data.files("train"), *data.files("val")]) == sorted([*given.files("train"), *given.files("val")])
    assert data.files("test") == given.files("test")


def test_reports_stand_beside_the_chest_x_rays_and_mostly_agree(made: dict[str, DatasetRef]) -> None:
    root = Path(str(made["chest-xray"].options["source"])) / "chest_xray"
    with (root / "reports.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["file"] for row in rows} == {path.relative_to(root).as_posix() for path in root.rglob("*.jpeg")}
    assert all(row["file"].split("/")[:2] == [row["split"], row["label"]] and row["text"] for row in rows)
    assert made["chest-xray"].options["labels"] == "reports.csv"
    random = generator(0, "reports")
    labels = np.arange(800) % 2
    words = [*(sentence for told in FINDINGS for sentence in told), *CLOSINGS]
    texts = np.array([[word in text for word in words] for text in (_report(int(label), random) for label in labels)])
    score = LogisticRegression().fit(texts[:400], labels[:400]).score(texts[400:], labels[400:])
    assert 0.78 < score < 0.92


# ---------------------------------------------------------------- rsna


def test_pydicom_and_the_tables_say_the_same_of_rsna(made: dict[str, DatasetRef]) -> None:
    import pydicom

    root = Path(str(made["rsna"].options["source"]))
    with (root / "stage_2_train_labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    target = {row["patientId"]: 0 for row in rows}
    for row in rows:
        target[row["patientId"]] = max(target[row["patientId"]], int(row["Target"]))
    files = [pydicom.dcmread(path) for path in sorted((root / "stage_2_train_images").iterdir())]
    assert {file.PatientID for file in files} == set(target) == {Path(str(file.filename)).stem for file in files}
    assert {str(file.file_meta.TransferSyntaxUID) for file in files} == {"1.2.840.10008.1.2.4.50"}
    right = {file.pixel_array.tobytes(): target[file.PatientID] for file in files}
    data = opened(f"rsna:{root},size={rsna.TINY_SIDE}")
    assert (data.task, data.classes) == ("binary", ("no opacity", "opacity"))
    pairs = [(pixels.tobytes(), int(label)) for name in SPLITS for pixels, label in _samples(data, name)]
    assert dict(pairs) == right and len(pairs) == len(right)
    boxes = [[float(row[key]) for key in ("x", "y", "width", "height")] for row in rows if row["Target"] == "1"]
    assert len(boxes) > sum(target.values())
    assert all(x >= 0 and y >= 0 and x + w <= rsna.TINY_SIDE and y + h <= rsna.TINY_SIDE for x, y, w, h in boxes)


def _samples(data: Dataset, name: str) -> Any:
    split = data.read(name)
    return zip(split.images, split.labels, strict=True)


def test_rsnas_three_classes_are_those_of_the_other_table(made: dict[str, DatasetRef]) -> None:
    root = Path(str(made["rsna"].options["source"]))
    with (root / "stage_2_detailed_class_info.csv").open() as stream:
        right = Counter({row["patientId"]: row["class"] for row in csv.DictReader(stream)}.values())
    data = opened(f"rsna:{root},size=16,labels=detailed")
    assert Counter(data.classes[label] for name in SPLITS for label in data.read(name).labels) == right


def test_a_wrong_count_of_rsna_is_one_line(copy: Any) -> None:
    folder = copy("rsna")
    with pytest.raises(DataError, match=r"48 patients have the label 0, 20672 are published.*counts=any"):
        opened(f"rsna:{folder}")
    assert sum(len(opened(f"rsna:{folder},counts=any,size=16").read(name)) for name in SPLITS) == 80
    (folder / "stage_2_train_labels.csv").unlink()
    with pytest.raises(DataError, match=r"holds no stage_2_train_labels.csv; fetch it there: kaggle competitions"):
        opened(f"rsna:{folder}")


def test_rsnas_numbers_are_those_of_its_tables() -> None:
    found = requirements("rsna", {})
    assert sum(found.counts.values()) == 26_684
    assert sum(classes["opacity"] for classes in found.classes.values()) == 6012 == sum(rsna.FULL.boxes)
    lines = sum(number * count for number, count in enumerate(rsna.FULL.boxes, 1))
    assert (lines, lines + 26_684 - 6012) == (9555, 30_227)  # boxes, and lines of stage_2_train_labels.csv


# ---------------------------------------------------------------- synthetic


def test_what_is_synthetic_is_marked_however_it_is_opened(made: dict[str, DatasetRef], tmp_path: Path) -> None:
    cifar, chest = (made[name].options["source"] for name in ("cifar10", "chest-xray"))
    (tmp_path / "link").symlink_to(Path(str(cifar)) / PYTHON)
    ways = [
        *(f"cifar10:{cifar}", f"cifar10:{cifar}/{PYTHON}", f"cifar10:{tmp_path / 'link'}"),
        *(f"image-folder:{chest}/chest_xray,size=16", f"dicom:{made['rsna'].options['source']}/stage_2_train_images,size=16"),
        f"medmnist:{made['medmnist'].options['root']}/bloodmnist.npz",
    ]
    ways[4] += f",labels={made['rsna'].options['source']}/stage_2_train_labels.csv"
    for way in ways:
        with pytest.warns(match="these are synthetic data in the form of"):
            assert str(opened(way).ref).split(",")[1] == "synthetic=tiny", way
    assert made["cifar10"] == opened(f"cifar10:{cifar}").ref == read_dataset(str(made["cifar10"]))
    api.convert_data(f"cifar10:{cifar}", tmp_path / "png")
    assert opened(f"image-folder:{tmp_path / 'png'},size=32").ref.options["synthetic"] == "tiny"


def test_real_data_are_not_marked() -> None:
    assert "synthetic" not in opened("digits").ref.options


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        ('{"synthetic": {".": {"data": "x", "form": "a,b=1\\n<script>", "seed": [1]}}}', "unknown"),
        ('{"synthetic": {".": {"form": "own"}}}', "own"),
        ('{"synthetic": {"else": {"form": "tiny"}}}', "tiny"),
        ('{"synthetic": []}', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_a_mark_of_any_origin_is_a_word_or_none(tmp_path: Path, content: str, mark: str | None) -> None:
    for name in ("cat", "dog"):
        for split in SPLITS:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / split / name / "0.png")
    (tmp_path / "synthetic.json").write_text(content)
    assert opened(f"image-folder:{tmp_path},size=8").ref.options.get("synthetic") == mark


def test_the_mark_is_in_a_models_lineage_and_in_records(
    made: dict[str, DatasetRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    text = str(made["medmnist"]).replace("synthetic=tiny,", "")
    folder = api.train("cnn", dataset=text, options={"epochs": 1})
    lineage = json.loads((folder / "model.json").read_text())["lineage"]
    assert lineage["dataset"]["options"]["synthetic"] == "tiny"
    bundle = api.export(folder, format="onnx", dataset=text)
    code, out, error = cli("run", bundle.folder, "--mode", "quick")
    assert code == 0, error
    code, out, error = cli("results", "list", "--json")
    assert "medmnist,synthetic=tiny," in out, (out, error)


def test_a_folder_with_other_files_is_not_written_into(made: dict[str, DatasetRef], tmp_path: Path) -> None:
    (tmp_path / "bloodmnist.npz").write_bytes(b"real")
    with pytest.raises(DataError, match=r"holds bloodmnist\.npz already, which is not synthetic"):
        synthesize("medmnist", tmp_path, tiny=True, options={"source": "bloodmnist"})
    assert (tmp_path / "bloodmnist.npz").read_bytes() == b"real"
    one = synthesize("medmnist", tmp_path / "it", tiny=True, seed=1, options={"source": "bloodmnist"})
    first = open_images(one).hashes()
    synthesize("medmnist", tmp_path / "it", tiny=True, options={"source": "breastmnist"})
    synthesize("medmnist", tmp_path / "it", tiny=True, seed=2, options={"source": "bloodmnist"})
    with pytest.warns(match="tiny, seed 2"):
        assert open_images(one).hashes() != first
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == ["bloodmnist.npz", "breastmnist.npz", "synthetic.json"]
    synthesize("medmnist", tmp_path / "it", tiny=True, seed=1, options={"source": "bloodmnist"})
    assert open_images(one).hashes() == first


def test_patterns_are_learnt_better_than_chance_and_not_perfectly() -> None:
    labels = np.arange(1600) % 10
    flat = np.concatenate(list(pictures(labels, 10, (16, 16, 3), 0, "test"))).reshape(1600, -1) / 255
    score = RidgeClassifier(100.0).fit(flat[:1200], labels[:1200]).score(flat[1200:], labels[1200:])
    assert 0.3 < score < 0.97
    random = generator(0, "radiographs")
    ill = np.arange(700) % 2
    found = [opacities(random, int(random.integers(1, 4))) if label else shadows(random) for label in ill]
    chests = np.array([radiograph(random, each, 24, 24) for each in found]).reshape(700, -1)
    score = RandomForestClassifier(60, random_state=0).fit(chests[:500], ill[:500]).score(chests[500:], ill[500:])
    assert 0.65 < score < 0.97


def test_the_command_line_says_what_is_required_and_writes_what_is_synthetic(tmp_path: Path, cli: Cli) -> None:
    code, out, _ = cli("data", "requirements", "chest-xray", "--json")
    found = json.loads(out)
    assert code == 0 and found["counts"] == {"train": 5216, "val": 16, "test": 624} and "kaggle" in found["fetch"]
    code, out, _ = cli("data", "requirements", "cifar10")
    assert code == 0 and "4500 (10.0 %)" in out and "fetched: 170 MB" in out
    code, out, _ = cli("data", "synthesize", "medmnist:organmnist3d", "--into", tmp_path / "it", "--json")
    assert code == 0 and opened(json.loads(out)["dataset"]).volume == (28, 28, 28)
    for arguments, reason in (
        (("requirements", "digits"), "is no public data set that is fetched"),
        (("synthesize", "image-folder", "--into", tmp_path), "choose one of chest-xray, cifar10, medmnist, rsna"),
        (("synthesize", "cifar10,colour=1", "--into", tmp_path / "x"), "unknown option 'colour'"),
        (("show", "cifar10"), "which folder.*curl -O"),
        (("show", "medmnist:fracturemnist3d,size=224"), "sizes 28, 64, not 224"),
    ):
        code, _, error = cli("data", *arguments)
        assert code == 2 and re.search(reason, error), error


def test_official_sets_are_still_looked_for_by_their_sums() -> None:
    assert medmnist.missing({"source": "pathmnist", "root": "/nowhere"}) == Path("/nowhere/pathmnist.npz")
