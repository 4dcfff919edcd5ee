"""Heads of networks: the same metrics from logits and from probabilities, and those of three other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from edgebench import SourceOptions
from edgebench.analysis import evaluation, heads, metrics
from edgebench.bundle.claimed import check_accuracy
from edgebench.config import read_dataset
from edgebench.data import Dataset, Split, _torchvision, open_images
from edgebench.models.source import open_source

Array = np.ndarray[Any, Any]
TASKS = ("multi-class", "binary", "multi-label")


def drawn(task: str, kind: str) -> tuple[Array, Array]:
    """Draw labels and logits [n, columns], float32."""
    random, columns = np.random.default_rng(5), {"multi-class": 5, "binary": 2, "multi-label": 4}[task]
    shape = (300, columns) if task == "multi-label" else 300
    labels = random.integers(0, 2 if task == "multi-label" else columns, shape)
    wanted = labels if task == "multi-label" else np.eye(columns)[labels]
    scores = random.normal(size=(300, columns)) + wanted
    scores = {"plain": scores, "huge": scores * 8, "ties": np.round(scores)}[kind]
    return labels, scores.astype(np.float32)


def activated(task: str, scores: Array) -> Array:
    wide = scores.astype(np.float64)
    return np.asarray(expit(wide) if task == "multi-label" else softmax(wide, axis=1))


@pytest.mark.parametrize("kind", ["plain", "huge", "ties"])
@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_those_of_three_libraries(task: str, kind: str) -> None:
    labels, scores = drawn(task, kind)
    likely, found = activated(task, scores), metrics.evaluate(task, labels, scores)
    truth = labels if task == "multi-label" else np.eye(scores.shape[1])[labels]
    columns = [1] if task == "binary" else range(scores.shape[1])
    decided = (likely > 0.5).astype(int) if task == "multi-label" else scores.argmax(axis=1)
    area = float(np.mean([roc_auc_score(truth[:, column], likely[:, column]) for column in columns]))
    right = float((decided == labels).mean()) if task == "multi-label" else accuracy_score(labels, decided)
    assert found["auroc"] == pytest.approx(area, abs=1e-9)
    assert found["accuracy"] == pytest.approx(right, abs=1e-12)
    assert found["f1"] == pytest.approx(f1_score(labels, decided, average="macro"), abs=1e-12)

    _torchvision.load_torchvision()
    classification = pytest.importorskip("torchmetrics.functional.classification")
    wide, true = torch.from_numpy(likely), torch.from_numpy(labels)
    theirs = {
        "multi-class": lambda: classification.multiclass_auroc(wide, true, num_classes=5),
        "binary": lambda: classification.binary_auroc(wide[:, 1], true),
        "multi-label": lambda: classification.multilabel_auroc(wide, true, num_labels=4),
    }
    assert found["auroc"] == pytest.approx(float(theirs[task]()), abs=1e-5)  # theirs is float32

    evaluator = pytest.importorskip("medmnist.evaluator")
    names = {"multi-class": "multi-class", "binary": "binary-class", "multi-label": "multi-label, binary-class"}
    given = likely[:, 1:] if task == "binary" else likely
    assert found["auroc"] == pytest.approx(evaluator.getAUC(labels, given, names[task]), abs=1e-9)
    assert found["accuracy"] == pytest.approx(evaluator.getACC(labels, given, names[task]), abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_probabilities_are_not_activated_again(task: str) -> None:
    labels, scores = drawn(task, "plain")
    likely = activated(task, scores).astype(np.float32)
    head = "sigmoid" if task == "multi-label" else "softmax"
    assert (heads.head_of(task, scores), heads.head_of(task, likely)) == ("logits", head)
    assert metrics.evaluate(task, labels, likely) == pytest.approx(metrics.evaluate(task, labels, scores), abs=1e-6)
    names = [str(index) for index in range(scores.shape[1])]
    errors = [evaluation.evaluate(task, names, labels, each).calibration[0]["ece"] for each in (scores, likely)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-4)
    again = evaluation.evaluate(task, names, labels, likely, "logits").calibration[0]["ece"]
    assert abs(again - errors[0]) > 0.02  # as a second activation would have it


@pytest.mark.parametrize("task", ["binary", "multi-class"])
def test_one_output_is_a_head_of_two_classes(task: str) -> None:
    labels, scores = drawn("binary", "plain")
    one = scores[:, 1:] - scores[:, :1]
    for given in (one, np.asarray(expit(one), np.float32)):
        found = metrics.evaluate(task, labels, given)
        assert found["accuracy"] == accuracy_score(labels, one[:, 0] > 0)
        assert found["auroc"] == pytest.approx(roc_auc_score(labels, one[:, 0]), abs=1e-9)
        assert len(evaluation.evaluate(task, ["no", "yes"], labels, given).confusion or []) == 2
    assert metrics.agreement(task, one, expit(one)) == 1


def test_what_is_said_of_a_head_goes_before_what_is_seen() -> None:
    labels, scores = np.array([0, 1] * 10), (0.3 + np.arange(20)[:, None] / 100).astype(np.float32)
    assert metrics.evaluate("binary", labels, scores, "logits")["accuracy"] == accuracy_score(labels, np.ones(20))
    assert metrics.evaluate("binary", labels, scores, "sigmoid")["accuracy"] == accuracy_score(labels, np.zeros(20))


def test_an_area_says_how_many_classes_it_covers() -> None:
    labels, scores = drawn("multi-class", "plain")
    kept = labels != 3
    assert metrics.evaluate("multi-class", labels[kept], scores[kept])["auroc_classes"] == 4
    assert "auroc_classes" not in metrics.evaluate("multi-class", labels, scores)


def test_an_exported_network_with_one_output_is_judged_as_torch_has_it(here: Any) -> None:
    data = open_images(read_dataset("digits"))
    two = Dataset(data.ref, "binary", ("even", "odd"), lambda name: halved(data.read(name)))
    torch.manual_seed(0)
    train, test = two.read("train"), two.read("test")
    inputs, truth = pixels(train.images), torch.from_numpy(train.labels).float()[:, None]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(inputs), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        right = float(((network(pixels(test.images)) > 0).long()[:, 0] == torch.from_numpy(test.labels)).float().mean())
    assert right > 0.85
    for name, module in (("logits", network), ("sigmoid", torch.nn.Sequential(*network, torch.nn.Sigmoid()))):
        program = torch.export.export(module.eval(), (torch.zeros(1, 1, 8, 8),))
        torch.export.save(program, f"{name}.pt2")
        given = SourceOptions(f"{name}.pt2", mean=(0.0,), std=(1.0,), trust=True)
        model, built = open_source(given, two)
        assert model.classes == ("even", "odd")
        assert check_accuracy(built(), two, 100 * right) == pytest.approx(100 * right, abs=1e-3)


def halved(split: Split) -> Split:
    return Split(split.images, split.labels % 2)


def pixels(images: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float() / 255
