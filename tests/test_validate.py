"""`edgebench validate`: whose scores, which thresholds, which patients, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import clinic
import numpy as np
import pytest
from clinic import PERSONAL, write
from factory import make_cell, make_measurement, make_record
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from sklearn import metrics as sklearn

import edgebench
from edgebench import ValidateOptions
from edgebench.bundle.manifest import read_bundle, write_manifest
from edgebench.bundle.predict import Predictor
from edgebench.config import read_dataset
from edgebench.data import Dataset, Split, open_images
from edgebench.errors import BundleError, EdgebenchError, InputError
from edgebench.schema import DatasetRef, Predictions
from edgebench.store import records
from edgebench.validate import decisions, probabilities, readers
from edgebench.validate.patients import patients
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.table import Identity
from edgebench.validate.targets import log_odds, targets

Array = NDArray[Any]
Cli = Callable[..., tuple[int, str, str]]
COMMITTED = Path(__file__).parent.parent / "results" / "records" / "cpu"


def committed(name: str) -> Path:
    (path,) = COMMITTED.glob(f"{name}.standard.*.json")
    return path


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_images(read_dataset("digits"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return clinic.tables(tmp_path_factory.mktemp("tables"))


# ---------------------------------------------------------------- records


def test_two_records_are_judged_with_patients_and_readers(
    cli: Cli, tmp_path: Path, tables: tuple[Path, Path], digits: Dataset
) -> None:
    """Every number that scikit-learn has too is the same, and no personal word comes out."""
    paths = [committed("resnet18.torch.fp32"), committed("mobilenetv2-distilled.onnx.int8")]
    groups, read_by = tables
    out = tmp_path / "page.html"
    given = ("--groups", groups, "--by", "sex,age", "--bands", "age=40,60", "--readers", read_by, "--positive", "3")
    more = ("--prevalence", "0.05,0.2", "--json", "--out", out, "--work", tmp_path)
    code, said, errors = cli("validate", *paths, "--dataset", "digits", *given, *more)
    assert code == 0, errors
    found, page = json.loads(said), out.read_text()
    assert [word for word in PERSONAL if word in said or word in page] == []
    labels = digits.read("test").labels
    for path, area, whole in zip(paths, found["areas"], found["overall"], strict=True):
        scores = records.read_samples(path, records.read_record(path))["predictions"].astype(float)
        likely = softmax(scores, axis=1)
        assert area["auc"]["value"] == pytest.approx(sklearn.roc_auc_score(labels == 3, likely[:, 3]), abs=1e-9)
        assert whole["accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(labels, scores.argmax(axis=1)))
        assert whole["kappa"]["value"] == pytest.approx(sklearn.cohen_kappa_score(labels, scores.argmax(axis=1)))
        assert whole["mcc"] == pytest.approx(sklearn.matthews_corrcoef(labels, scores.argmax(axis=1)))
    assert {line["rule"] for line in found["points"]} == {"as it decides"}
    assert any("no operating point was chosen" in note for note in found["notes"])
    assert "computed on cpu" in found["files"][0]["where"]
    assert found["flow"] | {"classes": []} == {"test": 360, "judged": 360, "validation": 180, "patients": 180, "classes": []}
    [sex, age, *_] = found["subgroups"]
    assert [(row["group"], row["samples"]) for row in sex["rows"]] == [("all", 360), ("f", 180), ("m", 180)]
    assert [row["group"] for row in age["rows"]] == ["all", "under 40", "40 to under 60", "60 and over"]
    assert all(test["p_holm"] >= test["p"] for table in found["subgroups"] for test in table["tests"])
    assert {(table["column"], table["measure"]) for table in found["hurt"]} == {
        (column, measure) for column in ("sex", "age") for measure in ("decided rightly", "sensitivity", "specificity")
    }
    study = {line["figure"]: line for line in found["readers"]["studies"]}
    assert study["share decided rightly"]["difference"]["value"] > 0.2
    assert set(study) == {"share decided rightly", "AUC of ratings", "mean of sensitivity and specificity"}
    assert len(found["readers"]["raters"]["pairs"]) == 15  # truth, two files, three readers
    assert "Three readers read 60 cases" in found["methods"]
    for title in ("Groups of patients", "Readers without and with aid", "Decision curves", "What another file does to groups"):
        assert title in page
    assert page.count("data:image/svg+xml") >= 20


def test_what_is_printed_has_areas_groups_and_readers(cli: Cli, tmp_path: Path, tables: tuple[Path, Path]) -> None:
    groups, read_by = tables
    given = ("--groups", groups, "--by", "sex", "--readers", read_by, "--positive", "3", "--out", tmp_path / "page.html")
    code, said, _ = cli("validate", committed("resnet18.torch.fp32"), *given, "--work", tmp_path)
    assert code == 0
    for words in ("Area under the ROC curve", "resnet18.torch.fp32 by sex", "Fleiss' κ of 3 readers", "AUC of ratings, 3"):
        assert words in said
    assert not [word for word in PERSONAL if word in said]


def test_a_record_is_named_by_its_key_and_a_damaged_one_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "records" / "cpu"
    folder.mkdir(parents=True)
    path = committed("resnet18.torch.fp32")
    for each in path.parent.glob(f"{path.name.removesuffix('.json')}*"):
        shutil.copy(each, folder)
    key = records.read_record(path).key[:8]
    common = ("--results", tmp_path / "results", "--work", tmp_path, "--json")
    assert cli("validate", key, *common)[0] == 0
    samples = next(folder.glob("*.npz"))
    samples.write_bytes(samples.read_bytes()[:-9] + b"123456789")
    code, said, errors = cli("validate", key, *common)
    assert (code, said) == (2, "")
    assert "changed since it was measured" in errors


# ---------------------------------------------------------------- bundles


@pytest.fixture
def pair(tiny_bundles: dict[tuple[str, str], Path], tmp_path: Path) -> list[Path]:
    """Copy the tiny network's bundles, which a test may write into."""
    return [Path(shutil.copytree(tiny_bundles["onnx", each], tmp_path / "bundles" / each)) for each in ("fp32", "int8")]


def raw(folder: Path, images: Array) -> Array:
    with Predictor(folder, read_bundle(folder)) as predictor:
        return predictor.run([images])[0]


def test_bundles_are_run_here_and_thresholds_are_those_of_the_validation_split(pair: list[Path], digits: Dataset) -> None:
    found = edgebench.validate(pair, dataset="digits", options=ValidateOptions(positive=("3",))).values()
    assert [each["where"] for each in found["files"]] == ["scores by this computer's runtime (onnxruntime)"] * 2
    val, test = digits.read("val"), digits.read("test")
    for folder in pair:
        before, after = (softmax(raw(folder, split.images).astype(float), axis=1)[:, 3] for split in (val, test))
        _, true, thresholds = sklearn.roc_curve(val.labels == 3, before, drop_intermediate=False)
        threshold = thresholds[np.argmax(true >= 0.95)]
        name = read_bundle(folder).name
        [line] = [line for line in found["points"] if line["file"] == name and line["rule"] == "sensitivity 95 %"]
        assert line["threshold"] == pytest.approx(threshold, rel=1e-6)
        assert line["reached"]["sensitivity"] == pytest.approx(sklearn.recall_score(val.labels == 3, before >= threshold))
        expected = sklearn.recall_score(test.labels == 3, after >= threshold * (1 - 1e-12))
        assert line["sensitivity"]["value"] == pytest.approx(expected)


def test_a_temperature_is_kept_in_the_bundle_whose_hash_stays(
    cli: Cli, pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = [read_bundle(folder) for folder in pair]
    code, said, errors = cli("validate", *pair, "--dataset", "digits", "--keep-temperature", "--json")
    assert code == 0, errors
    for folder, old in zip(pair, before, strict=True):
        new = read_bundle(folder)
        assert new.temperature is not None
        assert json.loads(said)["kept"][str(folder)] == new.temperature.value
        assert new.model_copy(update={"temperature": None}) == old
        assert (new.temperature.samples, new.temperature.after < new.temperature.before) == (180, True)
        path = folder / "bundle.json"
        content = json.loads(path.read_text())
        for change in ({"value": 3.0}, {"bundle_sha256": "0" * 64}, {"value": float("nan")}):
            path.write_text(json.dumps(content | {"temperature": content["temperature"] | change}))
            with pytest.raises(BundleError, match="its temperature was changed"):
                read_bundle(folder)
        assert write_manifest(folder, new).temperature is None
        assert read_bundle(folder) == old


def test_a_record_of_a_bundle_at_hand_has_its_operating_points(pair: list[Path], digits: Dataset, tmp_path: Path) -> None:
    """The test scores are the record's; those of the validation split come from the bundle that it was measured of."""
    folder, bundle = pair[0], read_bundle(pair[0])
    scores = raw(folder, digits.read("test").images) * 2  # a device that computes otherwise
    cell = make_cell("tiny", bundle_sha256=bundle.sha256, evaluation_sha256=digits.read("test").sha256)
    measurement = replace(make_measurement(), predictions=Predictions(360, 10, scores.astype("<f4").tobytes()))
    saved = records.save(tmp_path / "results", make_record(cell=cell, model=bundle.model), measurement)
    (tmp_path / "work").mkdir()
    (tmp_path / "bundles").rename(tmp_path / "work" / "bundles")
    options = ValidateOptions(positive=("3",), work=tmp_path / "work")
    found = edgebench.validate([tmp_path / "results"], options=options).values()
    [file] = found["files"]
    assert f"scores of the record {saved.key[:10]}, computed on cpu" in file["where"]
    assert file["validation"] == "scores by this computer's runtime (onnxruntime)"
    assert [line["rule"] for line in found["points"]] == ["sensitivity 95 %", "specificity 95 %", "Youden", "as it decides"]
    assert found["areas"][0]["auc"]["value"] == pytest.approx(
        sklearn.roc_auc_score(digits.read("test").labels == 3, softmax(scores.astype(float), axis=1)[:, 3])
    )


# ---------------------------------------------------------------- two classes


def two_classes(task: str = "binary", count: int = 200, skill: float = 1.5) -> tuple[Judged, Scored]:
    """Make a data set of two classes without images to speak of, and the scores of one file."""
    draw = np.random.default_rng(0)
    splits = {name: Split(np.zeros((count, 1, 1, 1), np.uint8), draw.integers(0, 2, count)) for name in ("val", "test")}
    data = Dataset(DatasetRef(name="made"), task, ("well", "ill"), splits.__getitem__)
    made = {name: draw.normal(size=count) + skill * split.labels for name, split in splits.items()}
    test, val = (np.stack([np.zeros(count), made[name]], axis=1) for name in ("test", "val"))
    judged = Judged(data, np.arange(count), splits["test"].labels, "e" * 64)
    model: Any = None
    return judged, Scored("net", model, test, val, "here", "here", None, None)


def test_of_two_classes_the_second_is_positive_and_thresholds_move_its_decisions() -> None:
    judged, file = two_classes()
    looked_at = targets("binary", judged.whole.classes, judged.labels, judged.val_labels, ())
    assert ([target.name for target in looked_at.each], looked_at.closely) == (["ill"], True)
    lines = decisions.performances([file], judged, looked_at, None, ValidateOptions(specificity=0.9, prevalence=(0.02,)))
    named = {line["rule"]: line for line in lines}
    odds = log_odds("binary", file.test, 1)
    assert odds == pytest.approx(file.test[:, 1])
    for rule, line in named.items():
        if rule != "as it decides":
            decided = 1 / (1 + np.exp(-odds)) >= line["threshold"] - 1e-12
            tn, fp, fn, tp = sklearn.confusion_matrix(judged.labels, decided).ravel()
            assert line["counts"] == {"true_positive": tp, "false_positive": fp, "false_negative": fn, "true_negative": tn}
    assert named["sensitivity 95 %"]["reached"]["sensitivity"] >= 0.95
    assert named["specificity 90 %"]["reached"]["specificity"] >= 0.9
    assert named["Youden"]["predictive"][0]["ppv"]["value"] < named["Youden"]["ppv"]["value"]


def test_a_decision_curve_uses_the_temperature() -> None:
    judged, file = two_classes()
    looked_at = targets("binary", judged.whole.classes, judged.labels, judged.val_labels, ())
    scaled = {"net": probabilities.temperature(file, judged)}
    fitted = scaled["net"].fitted
    assert fitted is not None
    [line] = probabilities.decision_curves([file], scaled, judged, looked_at, ValidateOptions())
    likely = softmax(file.test / fitted.value, axis=1)[:, 1]
    at = line["thresholds"].index(0.3)
    _, fp, _, tp = sklearn.confusion_matrix(judged.labels, likely >= 0.3).ravel()
    assert line["benefit"][at] == pytest.approx((tp - fp * 0.3 / 0.7) / 200, abs=1e-5)


# ---------------------------------------------------------------- rows and samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Make a folder of images whose names are those of patients; one name is in two classes."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 2), ("val", 2), ("test", 3)):
        for name in ("ill", "well"):
            place = root / split / name
            place.mkdir(parents=True)
            for index in range(count):
                stem = "same" if split == "test" and index == 2 else f"{split}-{name}-{index}"
                Image.new("L", (4, 4), index * 9 + len(name)).save(place / f"{stem}.png")
    return open_images(read_dataset(f"image-folder:{root},size=4"))


def read_patients(data: Dataset, path: Path, **options: Any) -> Any:
    return patients(ValidateOptions(groups=path, **options), Identity(data), np.arange(len(data.read("test"))))


def test_rows_name_samples_by_their_files_and_patients_in_two_splits_are_counted(folder: Dataset, tmp_path: Path) -> None:
    assert folder.files is not None
    rows = [(f"{path.parent.name}/{path.name}", path.stem[:8], "m") for path in folder.files("test")]
    rows += [(path.name, "test-ill" if path.stem == "val-ill-0" else path.stem, "f") for path in folder.files("val")]
    path = write(tmp_path / "groups.csv", "file,patient,sex", rows[::-1])
    found = read_patients(folder, path, by=("sex",))
    assert found.count == 3
    assert found.shared == {"val": 1}
    assert found.columns[0].groups == ("m",)
    assert found.units.tolist() == [0, 1, 1, 0, 2, 2]  # same, test-ill, test-wel: patients by name


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (
            "name,sex",
            [("a", "f")],
            "has no column index (a sample's number in its split, from 0) or file; ",
        ),
        ("file,sex", [("nobody.png", "f")], "line 2: file 'nobody.png' is none of the data set"),
        ("file,sex", [("same.png", "f")], "line 2: file 'same.png' could be 2 files; give its folder too"),
        ("index,sex", [(6, "f")], "line 2: index '6' is no sample; the test split has 0 to 5"),
        ("index,sex", [("-1", "f")], "line 2: index '-1' is no sample"),
        ("index,sex", [(0, "f"), (1, "m"), (0, "f")], "line 4: is about the sample of line 2 again; keep one of them"),
        ("index,sex", [(0, "f")], "5 of 6 test samples have no row, the first is number 1 of the split; add them"),
        ("index,sex,sex", [(0, "f", "m")], "the column 'sex' stands twice in it"),
        ("index,sex", [(0, "f", "x")], "line 2: has 3 cells, and there are 2 columns"),
        ("index,patient", [(index, "x" * (index % 2)) for index in range(6)], "line 2: names no patient"),
        ("index,age", [(index, "old") for index in range(6)], "line 2: age 'old' is no number"),
        ("index,split", [(0, "exam")], "line 2: split 'exam' is none of train, val, test"),
        ("index,site", [(0, "a")], "has no column 'age'; its columns: index, site"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(folder: Dataset, tmp_path: Path, columns: str, rows: list[Any], said: str) -> None:
    path = write(tmp_path / "groups.csv", columns, rows)
    by = ("age",) if "age" in columns or "age" in said else ()
    with pytest.raises(InputError) as raised:
        read_patients(folder, path, by=by)
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no columns"),
        (b"index,sex\n0,\xff\n", "is not in UTF-8"),
        (b'index,sex\n0,"f\n', "is no CSV"),
    ],
)
def test_what_is_no_table_is_refused(folder: Dataset, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_patients(folder, tmp_path / "groups.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_patients(folder, tmp_path / "none.csv")


def test_a_table_may_be_parted_by_semicolons_and_ages_written_as_dicom_does(folder: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    ages = ("017Y", "18", "39.9", "064Y", "", "90")
    path.write_bytes("\ufeffindex;age\r\n".encode() + "".join(f"{n};{age}\r\n" for n, age in enumerate(ages)).encode())
    [column] = read_patients(folder, path, by=("age",)).columns
    assert column.groups == ("under 18", "18 to under 40", "40 to under 65", "65 and over", "not stated")
    assert column.member.tolist() == [0, 1, 1, 2, 4, 3]


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        ("index,rating", [(0, 1)], "has no column 'reader'"),
        ("index,reader", [(0, "a")], "has no column rating (a number) or decision (a class)"),
        ("index,reader,rating,aid", [(0, "a", 1, "maybe")], "line 2: aid 'maybe' is neither yes nor no"),
        ("index,reader,rating", [(0, "a", "high")], "line 2: rating 'high' is no number"),
        ("index,reader,decision", [(0, "a", "sick")], "line 2: decision 'sick' is no class; classes: ill, well"),
        ("index,reader,rating", [(0, "a", 1), (0, "a", 2)], "line 3: the reading of line 2 again"),
        (
            "index,reader,rating",
            [(0, "a", 1), (1, "a", 1), (1, "b", 1)],
            "reader 2 of 2 (by name) lacks 1 of 2 cases",
        ),
        ("index,reader,rating", [(0, "", 1)], "line 2: names no reader"),
        ("index,reader,rating", [], "holds no reading of a test sample"),
    ],
)
def test_a_wrong_reading_is_refused(folder: Dataset, tmp_path: Path, columns: str, rows: list[Any], said: str) -> None:
    path = write(tmp_path / "readers.csv", columns, rows)
    judged = Judged(folder, np.arange(6), folder.read("test").labels, "e" * 64)
    with pytest.raises(InputError) as raised:
        readers.readings(path, Identity(folder), judged)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--by", "sex"), "--by sex: is a column of which file? give --groups FILE"),
        (("--prevalence", "5"), "--prevalence 5.0: is no share"),
        (("--prevalence", "much"), "--prevalence much: wants shares"),
        (("--sensitivity", "0"), "--sensitivity 0.0: is no share"),
        (("--bands", "age"), "--bands age: wants a column and numbers"),
        (("--bands", "age=1,2"), "--bands age: is no column of --by"),
        (("--positive", "eleven"), "--positive eleven: is no class; classes: 0, 1, 2"),
        (("--keep-temperature",), "resnet18.torch.fp32: no temperature to keep"),
        (("--dataset", "digits,task=ordinal"), "is multi-class of 10 classes, digits,task=ordinal is ordinal of 10"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    out = tmp_path / "page.html"
    code, printed, errors = cli("validate", committed("resnet18.torch.fp32"), *given, "--work", tmp_path, "--out", out)
    assert (code, printed, out.exists()) == (2, "", False)
    assert said in errors
    assert len(errors.splitlines()) <= 3


def test_what_is_no_source_is_refused(tmp_path: Path, pair: list[Path]) -> None:
    wrong = {tmp_path: "holds neither bundle.json nor records/", pair[0] / "parity.npz": "is no bundle and no record"}
    for path, said in wrong.items():
        with pytest.raises(InputError, match=said):
            edgebench.validate([path])
    with pytest.raises(EdgebenchError, match="no record begins with"):
        edgebench.validate(["beef1234"], options=ValidateOptions(results=COMMITTED.parent.parent))
