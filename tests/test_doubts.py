"""Why to look twice at a number: right values come from scipy, scikit-learn and counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from PIL import Image
from scipy.stats import binomtest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score

from edgebench.analysis.chance import commonest, near_chance, proportion
from edgebench.bundle.doubts import of_file
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset
from edgebench.data import Dataset, _warnings, open_images
from edgebench.data._warnings import of_data
from edgebench.run.plan import CellJob
from edgebench.run.record import judge
from edgebench.schema import Calibration, Parity, Predictions

Tiny = dict[tuple[str, str], Path]


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
    assert proportion(hits, count) == pytest.approx((right.low, right.high), abs=1e-6)


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
    job: Any = CellJob(None, "", folder, bundle, data, None)  # type: ignore[arg-type]
    for scores, expected in ((np.eye(10)[test.labels], set()), (np.eye(10)[[3] * 360], {"near-chance"})):
        accuracy, warnings = judge(job, Predictions(360, 10, scores.astype("<f4").tobytes()))
        assert kinds(warnings) == expected
        assert accuracy.commonest == np.bincount(test.labels).max() / 360
