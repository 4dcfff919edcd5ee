"""Why to look twice at a number: right values come from scipy, scikit-learn and counting."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from factory import make_cell
from PIL import Image
from scipy.stats import binomtest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from edgebench.analysis.chance import commonest, near_chance
from edgebench.analysis.order import better_order
from edgebench.analysis.stats import share_interval
from edgebench.bundle.doubts import of_file, of_scores
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset
from edgebench.data import Dataset, _warnings, open_images
from edgebench.data._warnings import of_data
from edgebench.errors import DataError
from edgebench.run.plan import CellJob
from edgebench.run.record import judge
from edgebench.schema import Calibration, Lineage, Model, Parity, Predictions, Preprocessing, image_input

Tiny = dict[tuple[str, str], Path]
SEEN = image_input(Preprocessing(height=8, width=8, channels=1, mean=(0,), std=(1,)))


def kinds(found: Any) -> set[str]:
    return {each.kind for each in found}


# ---------------------------------------------------------------- chance


def test_the_commonest_class_has_the_accuracy_of_a_dummy_classifier() -> None:
    rng = np.random.default_rng(0)
    nothing, labels = np.zeros((300, 1)), rng.choice(4, 300, p=[0.6, 0.2, 0.1, 0.1])
    dummy = DummyClassifier(strategy="most_frequent").fit(nothing, labels)
    assert commonest("multi-class", labels) == dummy.score(nothing, labels)
    many = (rng.random((300, 14)) < rng.uniform(0.01, 0.7, 14)).astype(np.int64)
    always = DummyClassifier(strategy="most_frequent").fit(nothing, many).predict(nothing)
    assert commonest("multi-label", many) == pytest.approx((always == many).mean(), abs=1e-12)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (5, 10), (103, 1000), (1000, 1000)])
def test_the_interval_of_a_share_is_scipys(hits: int, count: int) -> None:
    right = binomtest(hits, count).proportion_ci(method="wilson")
    found = share_interval(hits / count, count)
    assert (found.low, found.high) == pytest.approx((right.low, right.high), abs=1e-6)


def test_an_accuracy_is_near_chance_by_its_interval_and_not_by_a_bare_number() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert kinds(near_chance("binary", labels, {"accuracy": 0.93}, 2)) == {"near-chance"}
    assert not near_chance("binary", np.tile(labels, 20), {"accuracy": 0.93}, 2)
    assert "90.0 %" in near_chance("binary", labels, {"accuracy": 0.5}, 2)[0].text


@pytest.mark.parametrize("task", ["multi-label", "multi-class"])
def test_an_auroc_that_chance_gives_is_called_so_in_19_of_20_cases_at_least(task: str) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (150, 3)) if task == "multi-label" else rng.integers(0, 3, 150)
    truth = labels if labels.ndim == 2 else labels[:, None] == np.arange(3)
    by_chance = [roc_auc_score(truth, rng.random((150, 3)), average="macro") for _ in range(200)]
    called = [bool(near_chance(task, labels, {"auroc": area}, 3)) for area in by_chance]
    assert np.mean(called) >= 0.95
    assert not near_chance(task, labels, {"auroc": 0.65}, 3)


# ---------------------------------------------------------------- data


def arrays(path: Path, count: int = 240, shared: int = 0, classes: int = 3, **changes: Any) -> Dataset:
    """Write images of noise, of which some of test are train's."""
    rng = np.random.default_rng(0)
    sizes = {"train": 300, "val": 60, "test": count}
    content: dict[str, Any] = {}
    for name, size in sizes.items():
        content[f"{name}_images"] = rng.integers(0, 256, (size, 8, 8), dtype=np.uint8)
        content[f"{name}_labels"] = np.arange(size)[:, None] % classes
    content["test_images"][:shared] = content["train_images"][:shared]
    np.savez(path, **{**content, **changes})
    return open_images(read_dataset(f"medmnist:{path}"))


def test_what_makes_a_data_set_doubtful_is_said_of_it_alone(tmp_path: Path) -> None:
    assert of_data(arrays(tmp_path / "good.npz")) == []
    [told] = of_data(arrays(tmp_path / "shared.npz", shared=17))
    assert told.kind == "duplicates" and told.text.startswith("17 test images stand in train too, and 0 nearly")
    assert kinds(of_data(arrays(tmp_path / "few.npz", 199))) == {"few-samples"}
    lacking = arrays(tmp_path / "lacking.npz", val_labels=np.arange(60)[:, None] % 2)
    lacking.read("val")
    assert [each.text for each in of_data(lacking)] == ["val has no sample of 2"]


def test_near_duplicates_are_not_looked_for_among_too_many_which_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_warnings, "MOST", 500)
    found = of_data(arrays(tmp_path / "many.npz", shared=2))
    assert "2 test images stand in train too" in found[0].text and "among 540 samples: `edgebench data" in found[1].text


def test_large_arrays_are_not_read_for_their_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = arrays(tmp_path / "large.npz", shared=2)
    monkeypatch.setattr(_warnings, "QUICK_BYTES", 240 * 64 - 1)
    assert "not looked at (arrays as large as these)" in of_data(data)[0].text and data.at_hand == {"test"}
    monkeypatch.setattr(_warnings, "QUICK_BYTES", 240 * 64)
    assert of_data(data)[0].text.startswith("2 test images stand in train too")


def test_a_training_split_of_many_files_is_not_read_for_its_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    monkeypatch.setattr(_warnings, "QUICKLY_READ", 3)
    data = open_images(read_dataset(f"image-folder:{tmp_path},size=8"))
    assert "not looked at (4 files)" in of_data(data)[1].text and data.at_hand == {"test"}
    data.read("train")
    assert kinds(of_data(data)) == {"few-samples"}


# ---------------------------------------------------------------- where it is shown


def test_few_parity_samples_and_calibration_that_left_some_out_are_told() -> None:
    parity = Parity(samples=63, source="test", max_abs=0, cosine=1, top1_agreement=1)
    calibration = Calibration(samples=250, sha256="", method="min-max", excluded=6)
    assert kinds(of_file(parity, None)) == {"few-parity-samples"}
    assert "left out 6 of 256 samples" in of_file(parity.model_copy(update={"samples": 64}), calibration)[0].text


@pytest.mark.usefixtures("here")
def test_an_export_shows_its_metric_beside_the_commonest_class_and_what_is_doubtful(tiny_bundles: Tiny, cli: Cli) -> None:
    bundle = read_bundle(tiny_bundles["onnx", "fp32"])
    saved = np.load(tiny_bundles["onnx", "fp32"] / "parity.npz")
    labels = open_images(read_dataset("digits")).read("test").labels[saved["indices"]]
    accuracy, share = float((saved["outputs"].argmax(axis=1) == labels).mean()), np.bincount(labels).max() / len(labels)
    assert bundle.parity is not None and bundle.parity.commonest == pytest.approx(share, abs=1e-12)
    given = ["tinynet:net", "--format", "onnx", "--dataset", "digits", "--size", "16", "--channels", "1", "--name", "tiny"]
    code, out, err = cli("export", *given, "--out", tiny_bundles["onnx", "fp32"].parent)
    assert code == 0 and f"; accuracy {100 * accuracy:.1f} % (the commonest class alone: {100 * share:.1f} %)" in out
    assert "no better than always naming the commonest class" in err and "its weights are random" in err
    assert kinds(bundle.warnings) == {"near-chance"}


def test_a_record_says_what_makes_its_accuracy_doubtful(tiny_bundles: Tiny) -> None:
    folder, data = tiny_bundles["onnx", "fp32"], open_images(read_dataset("digits"))
    test, bundle = data.read("test"), read_bundle(folder)
    bundle = bundle.model_copy(update={"parity_samples": ()})
    job: Any = CellJob(make_cell(), "", folder, bundle, data, None)  # type: ignore[arg-type]
    for scores, expected in ((np.eye(10)[test.labels], set()), (np.eye(10)[[3] * 360], {"near-chance"})):
        accuracy, warnings = judge(job, Predictions(360, 10, scores.astype("<f4").tobytes()))
        assert kinds(warnings) == expected
        assert accuracy.commonest == np.bincount(test.labels).max() / 360


# ---------------------------------------------------------------- the order of classes


def outputs(truth: Any, right: float, means: Any, rng: Any) -> Any:
    """Decide for the true class in a share of cases, else for any; `means`: which class each output stands for."""
    decided = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, len(means), len(truth)))
    return np.argsort(means)[decided]


@pytest.mark.parametrize(("classes", "count", "right"), [(2, 60, 0.9), (10, 256, 0.4), (10, 100, 0.95), (100, 1000, 0.8)])
def test_outputs_in_another_order_than_the_classes_are_found_out(classes: int, count: int, right: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        means, truth = np.roll(rng.permutation(classes), 1), rng.integers(0, classes, count)
        if (means == np.arange(classes)).any():
            means = np.roll(np.arange(classes), 1)
        decided = outputs(truth, right, means, rng)
        found = better_order(truth, decided, classes)
        assert found is not None and found.classes == tuple(means)
        assert found.after == (means[decided] == truth).mean() and found.before == (decided == truth).mean()


@pytest.mark.parametrize(("classes", "count"), [(2, 40), (2, 400), (10, 360), (100, 1000)])
def test_decisions_that_know_nothing_of_the_labels_are_in_no_order(classes: int, count: int) -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        truth, decided = (rng.choice(classes, count, p=rng.dirichlet(np.full(classes, 0.7))) for _ in range(2))
        assert better_order(truth, decided, classes) is None


def test_a_weak_network_and_one_that_always_says_the_same_are_in_order() -> None:
    rng = np.random.default_rng(5)
    truth = rng.choice(4, 2000, p=[0.1, 0.2, 0.3, 0.4])
    assert better_order(truth, np.full(2000, 0), 4) is None
    confused = np.where((truth == 2) & (rng.random(2000) < 0.6), 3, truth)  # class 2 is mostly taken for 3, and 3 for itself
    assert better_order(truth, confused, 4) is None


def linear(path: str, weights: Any, biases: Any) -> str:
    """Save a linear network on 8 × 8 grey pixels 0…1."""
    import torch

    layer = torch.nn.Linear(64, len(biases))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))
    program = torch.export.export(torch.nn.Sequential(torch.nn.Flatten(), layer).eval(), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, float]:
    """Fit scikit-learn's logistic regression to digits; returns it, and its accuracy in percent."""
    data = open_images(read_dataset("digits"))
    pixels = {name: data.read(name).images.reshape(-1, 64) / 255 for name in ("train", "test")}
    found = LogisticRegression(max_iter=200).fit(pixels["train"], data.read("train").labels)
    return found, 100 * float(found.score(pixels["test"], data.read("test").labels))


@pytest.mark.usefixtures("here")
def test_a_checkpoint_of_another_class_order_is_told_with_the_line_that_mends_it(cli: Cli, fitted: Any) -> None:
    network, right = fitted
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    linear("net.pt2", network.coef_[order], network.intercept_[order])
    given = ["net.pt2", "--format", "onnx", "--mean", "0", "--std", "1", "--dataset", "digits", "--trust"]
    code, _, err = cli("export", *given)
    told = next(line for line in err.splitlines() if "in another order" in line)
    line = told.partition("to mend it: ")[2].partition(", then")[0]
    assert code == 0 and line == "printf '%s\\n' 3 1 4 0 5 9 2 6 8 7 > classes.txt" and "--classes-file classes.txt" in told
    subprocess.run(line, shell=True, check=True)
    code, _, err = cli("export", *given, "--classes-file", "classes.txt", "--expect-accuracy", f"{right:.1f}")
    assert code == 0 and "in another order" not in err
    code, _, err = cli("export", *given, "--expect-accuracy", f"{right:.1f}")
    assert code == 2 and f"{right:.1f} % is claimed; the outputs' classes are in another order" in err.replace(".0 %", " %")


@pytest.mark.usefixtures("here")
def test_a_network_that_takes_pixels_from_0_to_255_is_said_to(cli: Cli, fitted: Any) -> None:
    network, right = fitted
    linear("net.pt2", network.coef_ / 255, network.intercept_ + network.coef_.sum(axis=1) * 0.4)  # of pixels − 102
    given = ["net.pt2", "--format", "onnx", "--dataset", "digits", "--trust", "--expect-accuracy", f"{right:.1f}"]
    code, _, err = cli("export", *given, "--mean", "0.4", "--std", f"{1 / 255:.9f}")
    assert code == 2 and "inputs would go from -102 to 153" in err and "--scale 0..255" in err
    code, _, err = cli("export", *given, "--mean", "102", "--std", "1", "--scale", "0..255")
    assert code == 0, err
    model = read_bundle(Path("bundles/net.onnx.fp32")).model
    assert model.preprocessing.mean == (0.4,) and model.lineage.options["scale"] == [0, 255]


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore:.*the classes are numbers in the order:edgebench.errors.DataWarning")
def test_folders_of_numbers_that_a_network_knows_by_value_are_found_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "folders"
    for split, count in (("train", 2), ("val", 1), ("test", 12)):
        for number in range(1, 11):
            (root / split / str(number)).mkdir(parents=True)
            for index in range(count):
                level = number * 24 + rng.integers(-6, 7, (8, 8))
                Image.fromarray(level.astype(np.uint8)).save(root / split / str(number) / f"{index}.png")
    Path("names.txt").write_text("\n".join(map(str, range(1, 11))))
    for option, expected in (("", {"class-order"}), (",classes=names.txt", set()), (",sort=natural", set())):
        data = open_images(read_dataset(f"image-folder:{root},size=8,channels=1{option}"))
        means = data.read("test").images.mean(axis=(1, 2, 3))
        scores = -np.abs(means[:, None] - 24 * np.arange(1, 11))  # of the classes 1, 2, … 10 by their value
        model = Model(
            name="levels", architecture="file", task="multi-class", classes=data.classes, inputs=(SEEN,), sha256="",
            parameters=0, lineage=Lineage(recipe="checkpoint"),
        )  # fmt: skip
        found = of_scores(model, data.read("test").labels, scores)
        assert kinds(found) == expected, option
        assert all("1 2 3 4 5 6 7 8 9 10 > classes.txt" in each.text for each in found)


def test_the_order_of_a_file_holds_for_every_data_set(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("9\n8\n7\n6\n5\n4\n3\n2\n1\n0\n")
    plain, turned = (open_images(read_dataset(text)) for text in ("digits", f"digits,classes={names}"))
    assert turned.classes == tuple("9876543210")
    assert (turned.read("test").labels == 9 - plain.read("test").labels).all()
    many: dict[str, Any] = {f"{name}_labels": np.eye(3, dtype=np.int64)[np.arange(60) % 3] for name in ("train", "val")}
    many = {name: np.concatenate([rows[:-1], [[1, 1, 0]]]) for name, rows in many.items()}
    path = tmp_path / "many.npz"
    arrays(path, 60, **many, test_labels=many["val_labels"], train_images=np.zeros((60, 8, 8), np.uint8))
    names.write_text("2\n0\n1\n")
    assert (open_images(read_dataset(f"medmnist:{path},classes={names}")).read("val").labels[-1] == [0, 1, 1]).all()
    names.write_text("2\n0\n5\n")
    with pytest.raises(DataError, match="'1' is not in both; it wants the names of medmnist, one a line: 0, 1, 2"):
        open_images(read_dataset(f"medmnist:{path},classes={names}"))
    with pytest.raises(DataError, match="have an order already"):
        names.write_text("\n".join("9876543210"))
        open_images(read_dataset(f"digits,task=ordinal,classes={names}"))
