"""Tasks as plugins: metrics against scikit-learn itself, and what a task of one's own needs to say."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn import metrics as sklearn

from edgebench import plugins, tasks
from edgebench.analysis import metrics
from edgebench.analysis.evaluation import evaluate
from edgebench.config import read_dataset
from edgebench.data import Dataset, Split, open_dataset
from edgebench.errors import DataError, InputError, UnknownName
from edgebench.recipes import _classifier, train
from edgebench.schema import DatasetRef

Array = NDArray[Any]
ROOT = Path(__file__).parent.parent


def drawn(samples: int, classes: int, seed: int = 3) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    return labels, (draw.normal(size=(samples, classes)) + 1.2 * np.eye(classes)[labels]).astype(np.float32)


def likely(scores: Array) -> Array:
    return np.asarray(softmax(scores.astype(np.float64), axis=1))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let a test say what stands in a task file of somebody's own."""
    made: dict[str, types.ModuleType] = {}
    load = plugins.load

    def add(name: str, **parts: Any) -> None:
        made[name] = types.ModuleType(name)
        vars(made[name]).update(parts)

    monkeypatch.setattr(plugins, "load", lambda package, name, kind: made.get(name) or load(package, name, kind))
    tasks._loaded.cache_clear()
    yield add
    tasks._loaded.cache_clear()


# ---------------------------------------------------------------- values


def test_the_tasks_are_files() -> None:
    assert plugins.names("edgebench.tasks") == ("binary", "generation", "multi-class", "multi-label", "none", "ordinal")
    with pytest.raises(UnknownName, match="did you mean 'multi-class'"):
        tasks.load("multi-clas")


def test_metrics_of_one_class_of_several_are_scikit_learns() -> None:
    labels, scores = drawn(500, 5)
    found = metrics.evaluate("multi-class", labels, scores)
    decided = scores.argmax(axis=1)
    assert list(found) == ["accuracy", "f1", "auroc"]
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, decided))
    assert found["f1"] == pytest.approx(sklearn.f1_score(labels, decided, average="macro"))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, likely(scores), multi_class="ovr", average="macro"))


def test_metrics_of_two_classes_are_scikit_learns_of_the_second() -> None:
    labels, scores = drawn(400, 2)
    found = metrics.evaluate("binary", labels, scores)
    assert list(found) == ["accuracy", "f1", "auroc"]
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, scores.argmax(axis=1)))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, likely(scores)[:, 1]))


def test_metrics_of_ordered_classes_are_scikit_learns() -> None:
    labels, scores = drawn(400, 4)
    found = metrics.evaluate("ordinal", labels, scores)
    decided = scores.argmax(axis=1)
    assert list(found) == ["accuracy", "f1", "mae", "kappa", "auroc"]
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(labels, decided))
    assert found["kappa"] == pytest.approx(sklearn.cohen_kappa_score(labels, decided, weights="quadratic"))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, likely(scores), multi_class="ovr", average="macro"))


def test_metrics_of_labels_are_scikit_learns() -> None:
    draw = np.random.default_rng(4)
    labels = draw.integers(0, 2, (300, 4))
    scores = (draw.normal(size=(300, 4)) + labels).astype(np.float32)
    found = metrics.evaluate("multi-label", labels, scores)
    decided = expit(scores) > 0.5
    assert list(found) == ["accuracy", "f1", "auroc"]
    assert found["accuracy"] == pytest.approx(1 - sklearn.hamming_loss(labels, decided))
    assert found["f1"] == pytest.approx(sklearn.f1_score(labels, decided, average="macro"))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, expit(scores), average="macro"))


def test_the_areas_are_of_the_classes_that_occur_with_and_without() -> None:
    labels, scores = drawn(200, 3)
    scores = np.column_stack([scores, np.full(200, -5.0)]).astype(np.float32)
    wanted = np.mean([sklearn.roc_auc_score(labels == column, likely(scores)[:, column]) for column in range(3)])
    assert metrics.evaluate("multi-class", labels, scores)["auroc"] == pytest.approx(wanted)
    assert "auroc" not in metrics.evaluate("multi-class", np.zeros(9, np.int64), scores[:9])


def test_near_ties_are_other_decisions_within_a_hundredth_of_the_range() -> None:
    reference = np.array([[0, 1, 1.005], [0, 1, 1.02], [0, 1, 2]], np.float32)
    outputs = np.array([[0, 1.1, 1], [0, 1.1, 1], [0, 1, 2]], np.float32)
    assert metrics.near_ties("multi-class", reference, outputs) == 1
    assert metrics.near_ties("multi-label", reference, outputs) is None
    assert metrics.agreement("multi-class", reference, outputs) == pytest.approx(1 / 3)
    assert metrics.agreement("multi-label", reference - 1, outputs - 1) == pytest.approx(5 / 9)  # of each label by itself


def test_samples_of_several_labels_are_not_paired() -> None:
    labels, scores = drawn(50, 3)
    hits = metrics.hits("ordinal", labels, scores)
    assert hits is not None
    assert hits.mean() == pytest.approx(sklearn.accuracy_score(labels, scores.argmax(axis=1)))
    assert metrics.hits("multi-label", np.eye(3, dtype=np.int64), scores[:3]) is None


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("task", "labels", "classes", "words"),
    [
        ("multi-class", [0, 1, 2], 3, ""),
        ("multi-class", [0, 1, 3], 3, "labels go from 0 to 2, not from 0 to 3"),
        ("ordinal", [-1, 1], 3, "not from -1 to 1"),
        ("multi-class", [[0, 1], [1, 0]], 2, "wants one label for each image"),
        ("multi-label", [[0, 1], [1, 0]], 2, ""),
        ("multi-label", [[0, 1], [1, 0]], 3, "wants [n, 3]"),
        ("multi-label", [0, 1], 2, "wants [n, 2]"),
        ("multi-label", [[0, 2]], 2, "labels go from 0 to 1"),
    ],
)
def test_a_task_says_what_is_wrong_with_labels(task: str, labels: Any, classes: int, words: str) -> None:
    found = tasks.wrong(task, np.array(labels), classes)
    assert found == words if not words else words in found


def test_a_data_set_is_judged_as_another_task_where_its_labels_fit() -> None:
    data = open_dataset(read_dataset("digits,task=ordinal"))
    assert (data.task, len(data.read("test"))) == ("ordinal", 360)
    with pytest.raises(DataError, match="its test split is not of the task multi-label with 10 classes: wants"):
        open_dataset(read_dataset("digits,task=multi-label")).read("test")
    with pytest.raises(DataError, match="judges nothing"):
        open_dataset(read_dataset("digits,task=none"))


# ---------------------------------------------------------------- a task of one's own


def test_a_task_may_be_like_another_but_for_what_it_says(own: Any) -> None:
    own("strict", LIKE="binary", HEADLINE="half", metrics=lambda *_: {"half": 0.5})
    labels, scores = drawn(40, 2)
    assert (metrics.headline("strict"), metrics.evaluate("strict", labels, scores)) == ("half", {"half": 0.5})
    assert metrics.agreement("strict", scores, scores) == 1
    assert evaluate("strict", ["a", "b"], labels, scores) == evaluate("binary", ["a", "b"], labels, scores)


def test_what_a_task_has_no_part_for_is_left_out(own: Any) -> None:
    like = tasks.load("multi-class")
    needed = {name: getattr(like, name) for name in ("misshapen", "most", "classes_in", "decisions", "metrics")}
    own("bare", HEADLINE="accuracy", **needed)
    labels, scores = drawn(40, 3)
    found = evaluate("bare", ["a", "b", "c"], labels, scores)
    assert (found.confusion, found.roc, found.precision_recall, found.calibration, found.worst) == (None, [], [], [], [])
    assert (metrics.hits("bare", labels, scores), metrics.near_ties("bare", scores, scores)) == (None, None)
    data = Dataset(DatasetRef(name="digits"), "bare", ("a", "b", "c"), lambda _: Split(np.zeros((2, 8, 8, 1), np.uint8), labels))
    with pytest.raises(InputError, match="the task bare has no loss"):
        _classifier.label_loss(data, train.Training())


def test_tasks_that_are_like_each_other_are_refused(own: Any) -> None:
    own("hen", LIKE="egg")
    own("egg", LIKE="hen")
    with pytest.raises(InputError, match="egg is LIKE hen, which is like it"):
        tasks.load("hen")


def test_no_code_outside_the_tasks_and_data_sets_asks_for_one_by_name() -> None:
    """What a task wants done differently, it declares."""
    known = ("none", "multi-class", "generation")  # the last is also what records call a language model's figures
    words = [f'"{name}"' for name in plugins.names("edgebench.tasks") if name not in known]
    for folder in ("edgebench", "exporters", "targets"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent.name not in ("tasks", "data"):
                named = [word for word in words if word in path.read_text()]
                assert not named, f"{path.relative_to(ROOT)} names {named}"


def test_what_trains_is_loaded_only_where_something_is_trained() -> None:
    code = (
        "import sys, numpy; from edgebench.analysis import metrics;"
        "metrics.evaluate('ordinal', numpy.array([0, 1]), numpy.eye(2, dtype='f4')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
