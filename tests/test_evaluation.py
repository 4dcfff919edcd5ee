"""Curves, confusion and calibration against scikit-learn's own numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn import metrics as sklearn
from sklearn.calibration import calibration_curve

from edgebench.analysis import curves, evaluation
from edgebench.analysis.evaluation import Evaluation, evaluate
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.store import records

Array = NDArray[Any]
RECORDS = Path(__file__).parent.parent / "results" / "records" / "cpu"
DIGITS = ("resnet18.torch.fp32", "mobilenetv2.tflite.int8", "mobilenetv2-distilled.onnx.int8")
ROUNDED = 6e-6


@pytest.fixture(scope="module")
def labels() -> Array:
    return open_images(read_dataset("digits")).read("test").labels


@pytest.fixture(scope="module", params=DIGITS)
def scores(request: pytest.FixtureRequest) -> Array:
    """Give what a device really answered."""
    (path,) = RECORDS.glob(f"{request.param}.standard.*.json")
    return records.read_samples(path, records.read_record(path))["predictions"]


@pytest.fixture
def digits(labels: Array, scores: Array) -> Evaluation:
    return evaluate("multi-class", list("0123456789"), labels, scores)


def lines(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line["curve"]: line for line in found}


def drawn_area(line: dict[str, Any]) -> float:
    return float(sklearn.auc(line["x"], line["y"]))


def noisy(samples: int, classes: int, seed: int = 0, skill: float = 1.5) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    return labels, (draw.normal(size=(samples, classes)) + skill * np.eye(classes)[labels]).astype(np.float32)


# ---------------------------------------------------------------- real predictions of digits


def test_the_confusion_matrix_of_digits_is_scikit_learns(digits: Evaluation, labels: Array, scores: Array) -> None:
    wanted = sklearn.confusion_matrix(labels, scores.argmax(axis=1))
    assert digits.confusion is not None
    assert [line["count"] for line in digits.confusion] == wanted.tolist()
    assert [line["total"] for line in digits.confusion] == wanted.sum(axis=1).tolist()
    assert [line["true"] for line in digits.confusion] == digits.confusion[0]["predicted"] == list("0123456789")


def test_the_areas_of_digits_are_scikit_learns(digits: Evaluation, labels: Array, scores: Array) -> None:
    likely, truth = softmax(scores.astype(np.float64), axis=1), np.eye(10)[labels]
    roc, recall = lines(digits.roc), lines(digits.precision_recall)
    for average in ("micro", "macro"):
        area = sklearn.roc_auc_score(truth, likely, average=average)
        precision = sklearn.average_precision_score(truth, likely, average=average)
        assert roc[f"{average}-average"]["area"] == pytest.approx(area, abs=ROUNDED)
        assert recall[f"{average}-average"]["area"] == pytest.approx(precision, abs=ROUNDED)
    for digit in range(10):
        area = sklearn.roc_auc_score(labels == digit, likely[:, digit])
        precision = sklearn.average_precision_score(labels == digit, likely[:, digit])
        assert roc[str(digit)]["area"] == pytest.approx(area, abs=ROUNDED)
        assert recall[str(digit)]["area"] == pytest.approx(precision, abs=ROUNDED)
    assert [line["average"] for line in digits.roc] == [True, True] + [False] * 10


def test_the_calibration_of_digits_is_scikit_learns(digits: Evaluation, labels: Array, scores: Array) -> None:
    likely = softmax(scores.astype(np.float64), axis=1)
    right, confidence = likely.argmax(axis=1) == labels, likely.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    (line,) = digits.calibration
    assert line["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert line["confidence"] == pytest.approx(mean, abs=1e-4)
    expected = 0.0
    for number, begin in enumerate(np.arange(15) / 15):  # the definition, bin by bin
        inside = (confidence > begin) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert line["ece"] == pytest.approx(expected, abs=ROUNDED)
    assert sum(line["count"]) == 360
    assert all(begin < mean <= end for begin, mean, end in zip(line["begin"], line["confidence"], line["end"], strict=True))


def test_the_worst_samples_are_those_of_the_highest_loss(digits: Evaluation, labels: Array, scores: Array) -> None:
    likely = softmax(scores.astype(np.float64), axis=1)
    loss = np.array([sklearn.log_loss([label], [row], labels=range(10)) for label, row in zip(labels, likely, strict=True)])
    order = np.argsort(-loss)[:12]
    assert [line["index"] for line in digits.worst] == order.tolist()
    for line in digits.worst:
        row = likely[line["index"]]
        assert line["truth"] == str(labels[line["index"]])
        assert line["decision"] == str(row.argmax())
        assert line["confidence"] == pytest.approx(row.max(), abs=1e-4)
        assert line["loss"] == pytest.approx(loss[line["index"]], abs=1e-3)


# ---------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("skill", [0.0, 0.5, 1.5, 4.0])
def test_thinned_curves_are_short_and_keep_their_areas_and_ends(skill: float) -> None:
    found = evaluate("multi-class", list("abcdef"), *noisy(5000, 6, skill=skill))
    for line in found.roc + found.precision_recall:
        assert drawn_area(line) == pytest.approx(line["area"], abs=0.0022)
        assert len(line["x"]) <= (100 if line["average"] else 60)
        assert (line["x"][0], line["x"][-1]) == (0.0, 1.0)
        assert all(before <= after for before, after in itertools.pairwise(line["x"]))
    assert all((line["y"][0], line["y"][-1]) == (0.0, 1.0) for line in found.roc)


def test_thinned_curves_of_digits_keep_their_areas(digits: Evaluation) -> None:
    for line in digits.roc + digits.precision_recall:
        assert drawn_area(line) == pytest.approx(line["area"], abs=0.0022)


def test_a_curve_that_thinning_would_bend_keeps_more_corners() -> None:
    x = np.linspace(0, 1, 2000)
    kept = curves.thinned(x, x**0.1, 3)
    assert len(kept) > 3
    assert curves.area(x[kept], x[kept] ** 0.1) == pytest.approx(curves.area(x, x**0.1), abs=curves.AREA_ERROR)


def test_a_straight_line_needs_its_ends_alone() -> None:
    x = np.linspace(0, 1, 50)
    assert curves.thinned(x, 2 * x, 60).tolist() == [0, 49]


def test_an_averaged_curve_runs_between_its_curves() -> None:
    low = curves.Curve("low", np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.2, 0.2, 1.0]), 0.4)
    high = curves.Curve("high", np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), 1.0)
    found = curves.mean("mean", [low, high])
    assert found.area == pytest.approx(0.7)
    assert curves.area(found.x, found.y) == pytest.approx(0.7)
    assert (found.x[0], found.y[0]) == (0.0, 0.0)
    assert np.interp(0.75, found.x, found.y) == pytest.approx(0.8)


# ---------------------------------------------------------------- other tasks


def test_two_classes_have_the_curve_of_the_second() -> None:
    labels, scores = noisy(300, 2)
    found = evaluate("binary", ["well", "ill"], labels, scores)
    likely = softmax(scores.astype(np.float64), axis=1)[:, 1]
    (line,) = found.roc
    assert (line["curve"], line["average"]) == ("ill", False)
    assert line["area"] == pytest.approx(sklearn.roc_auc_score(labels, likely), abs=ROUNDED)
    assert found.precision_recall[0]["area"] == pytest.approx(sklearn.average_precision_score(labels, likely), abs=ROUNDED)
    assert found.notes == ("Curves are those of ill, which counts as positive.",)
    assert [line["count"] for line in found.confusion or ()] == sklearn.confusion_matrix(labels, scores.argmax(axis=1)).tolist()


def test_labels_that_go_together_are_each_told_apart() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, (400, 3))
    scores = (draw.normal(size=(400, 3)) + 2 * labels - 1).astype(np.float32)
    found = evaluate("multi-label", ["oedema", "mass", "nodule"], labels, scores)
    likely = expit(scores)
    roc, recall = lines(found.roc), lines(found.precision_recall)
    for average in ("micro", "macro"):
        assert roc[f"{average}-average"]["area"] == pytest.approx(
            sklearn.roc_auc_score(labels, likely, average=average), abs=ROUNDED
        )
        precision = sklearn.average_precision_score(labels, likely, average=average)
        assert recall[f"{average}-average"]["area"] == pytest.approx(precision, abs=ROUNDED)
    wanted = sklearn.multilabel_confusion_matrix(labels, scores > 0).reshape(-1, 2)
    assert [line["count"] for line in found.confusion or ()] == wanted.tolist()
    assert [line["true"] for line in found.confusion or ()][:2] == ["oedema: absent", "oedema: present"]
    accuracy, mean = calibration_curve(labels.ravel(), likely.ravel(), n_bins=15)
    assert found.calibration[0]["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert found.calibration[0]["confidence"] == pytest.approx(mean, abs=1e-4)


def test_the_worst_of_labels_is_the_one_that_is_most_wrong() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]])
    scores = np.array([[4, -4, 3], [-9, 6, -9], [2, 2, -2]], np.float32)
    first = evaluate("multi-label", ["a", "b", "c"], labels, scores).worst[0]
    assert (first["index"], first["truth"], first["decision"]) == (1, "none", "b")
    assert first["confidence"] == pytest.approx(expit(6.0), abs=1e-4)
    assert first["loss"] == pytest.approx(6.0025, abs=1e-3)


def test_ordered_classes_are_drawn_like_others() -> None:
    labels, scores = noisy(200, 4)
    names = ["none", "mild", "moderate", "severe"]
    ordinal, others = (evaluate(task, names, labels, scores) for task in ("ordinal", "multi-class"))
    assert replace(ordinal, statistics=[]) == replace(others, statistics=[])
    assert ordinal.statistics[1:] == others.statistics[1:]
    kappa = sklearn.cohen_kappa_score(labels, scores.argmax(axis=1), weights="quadratic")  # for which the order counts
    assert ordinal.statistics[0]["value"] == pytest.approx(kappa, abs=ROUNDED)


# ---------------------------------------------------------------- what has no curve


def test_a_class_that_never_occurs_has_no_curve_and_the_note_says_so() -> None:
    labels, scores = noisy(200, 3)
    scores = np.column_stack([scores, np.full(200, -9.0)]).astype(np.float32)
    found = evaluate("multi-class", ["a", "b", "c", "d"], labels, scores)
    assert found.notes == ("No curve of d: no sample is of it.",)
    assert set(lines(found.roc)) == {"micro-average", "macro-average", "a", "b", "c"}
    assert (found.confusion or [])[3] == {"true": "d", "total": 0, "predicted": ["a", "b", "c", "d"], "count": [0, 0, 0, 0]}


def test_one_class_alone_has_no_curve_at_all() -> None:
    found = evaluate("multi-class", ["a", "b"], np.zeros(5, np.int64), np.tile([[2.0, 1.0]], (5, 1)).astype(np.float32))
    assert (found.roc, found.precision_recall) == ([], [])
    assert found.notes == ("No curve of a: every sample is of it.", "No curve of b: no sample is of it.")
    assert found.calibration[0]["accuracy"] == [1.0]


def test_of_many_classes_the_least_well_told_apart_are_drawn() -> None:
    labels, scores = noisy(3000, 30, skill=2.0)
    scores[:, 7] = np.random.default_rng(5).normal(size=3000)
    found = evaluate("multi-class", [f"c{index}" for index in range(30)], labels, scores)
    assert len(found.roc) == 22
    assert found.roc[2]["curve"] == "c7"
    assert "Of 30 classes the 20 with the smallest areas" in found.notes[0]
    likely = softmax(scores.astype(np.float64), axis=1)
    wanted = sklearn.roc_auc_score(np.eye(30)[labels], likely, average="macro")
    assert lines(found.roc)["macro-average"]["area"] == pytest.approx(wanted, abs=ROUNDED)
    assert max(len(line["x"]) for line in found.roc[2:]) <= 30


def test_a_confusion_matrix_that_nobody_can_read_is_left_out() -> None:
    labels, scores = noisy(1500, 101)
    found = evaluate("multi-class", [str(index) for index in range(101)], labels, scores)
    assert found.confusion is None
    assert "No confusion matrix of 101 classes" in found.notes[0]


def test_what_is_too_much_to_pool_has_no_micro_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "POOLED", 500)
    found = evaluate("multi-class", ["a", "b", "c"], *noisy(200, 3))
    assert [line["curve"] for line in found.roc if line["average"]] == ["macro-average"]
    assert found.notes == ("No micro-average: 200 samples of 3 classes are too many to pool.",)


def test_equal_names_are_told_apart() -> None:
    assert evaluation.distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        (np.zeros(3, np.int64), np.zeros((4, 2), np.float32), "do not fit 2 classes"),
        (np.zeros(3, np.int64), np.zeros((3, 3), np.float32), "do not fit 2 classes"),
        (np.zeros((3, 2), np.int64), np.zeros((3, 2), np.float32), "do not fit 2 classes"),
        (np.zeros(0, np.int64), np.zeros((0, 2), np.float32), "do not fit 2 classes"),
        (np.zeros(3, np.int64), np.full((3, 2), np.nan, np.float32), "not finite"),
        (np.array([0, 1, 2]), np.zeros((3, 2), np.float32), "labels run from 0 to 2, and there are 2 classes"),
    ],
)
def test_what_does_not_fit_together_is_refused(labels: Array, scores: Array, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate("multi-class", ["a", "b"], labels, scores)
