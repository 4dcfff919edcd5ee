"""Training and distillation on real digits, briefly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import verbs
from test_data import write_npz
from torch.nn import functional

from edgebench import models
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import InputError
from edgebench.recipes import _classifier
from edgebench.tasks import multi_class, multi_label

FAST = {"epochs": 2, "batch_size": 64, "learning_rate": 0.01, "augment": "none"}


def train(**changes: Any) -> Path:
    return verbs.train("tinynet:net", **{"options": FAST, "size": 16, "name": "tiny", **changes})


def test_training_writes_a_model_with_its_lineage_and_history(here: Path) -> None:
    folder = train(options={**FAST, "epochs": 6})
    model = models.read_model(folder)
    assert model.lineage.recipe == "train"
    assert model.lineage.splits == open_images(read_dataset("digits")).hashes()
    assert model.lineage.options["epochs"] == 6
    assert model.lineage.tools["torch"].startswith("2.")
    assert model.metrics["val_accuracy"] > 0.5
    history = json.loads((folder / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == list(range(6))
    assert max(entry["val_metric"] for entry in history) == pytest.approx(model.metrics["val_accuracy"], abs=1e-6)
    assert {"loss", "val_loss", "learning_rate"} <= set(history[0])
    assert models.load_model(folder).module(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    assert not list(Path(".edgebench/models").glob(".training*"))


def test_the_same_training_is_not_done_twice_and_other_options_are(here: Path) -> None:
    first = train()
    stamp = (first / "checkpoint.pt").stat().st_mtime_ns
    assert train() == first
    assert (first / "checkpoint.pt").stat().st_mtime_ns == stamp
    assert train(options={**FAST, "seed": 1}) != first


def test_the_same_seed_gives_the_same_weights(here: Path) -> None:
    one, two = (models.read_model(train(work=Path(name))).sha256 for name in ("one", "two"))
    weights = [torch.load(next(Path(name).rglob("checkpoint.pt")), weights_only=True) for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert one == two


@pytest.mark.parametrize(("learning_rate", "best"), [(1e-5, 3), (1e-9, 0)])
def test_of_epochs_with_one_metric_the_first_with_the_lowest_loss_is_kept(here: Path, learning_rate: float, best: int) -> None:
    options = {**FAST, "schedule": "constant", "learning_rate": learning_rate, "threads": 1}
    folder, until = (train(options={**options, "epochs": epochs}) for epochs in (4, best + 1))
    history = json.loads((folder / "history.json").read_text())
    assert len({entry["val_metric"] for entry in history}) == 1
    assert min(history, key=lambda entry: entry["val_loss"])["epoch"] == best
    assert models.read_model(folder).metrics["best_epoch"] == best
    assert models.read_model(folder).sha256 == models.read_model(until).sha256


@pytest.mark.parametrize(("learning_rate", "best"), [(0.01, 3), (1e-9, 0)])
def test_an_interrupted_training_goes_on_where_it_stopped(
    here: Path, monkeypatch: pytest.MonkeyPatch, learning_rate: float, best: int
) -> None:
    options = {**FAST, "epochs": 4, "learning_rate": learning_rate, "threads": 1}

    def interrupt(self: Any) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    whole = train(options=options, work=Path("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(_classifier.Classifier, "on_train_epoch_start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(options=options)
    assert not list(Path(".edgebench/models").glob("*/model.json"))
    assert list(Path(".edgebench/models").glob(".training*/resume.ckpt"))
    resumed = train(options=options)
    histories = [json.loads((folder / "history.json").read_text()) for folder in (whole, resumed)]
    assert [entry["epoch"] for entry in histories[1]] == [0, 1, 2, 3]
    assert histories[1][:2] == histories[0][:2]
    assert [models.read_model(folder).metrics["best_epoch"] for folder in (whole, resumed)] == [best, best]


def test_patience_ends_a_training_that_no_longer_improves(here: Path) -> None:
    options = {**FAST, "epochs": 50, "patience": 2, "schedule": "constant", "learning_rate": 1e-9}
    folder = train(options=options)
    assert len(json.loads((folder / "history.json").read_text())) < 50


@pytest.mark.parametrize("augment", ["affine", "flip"])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_the_other_options_run(here: Path, augment: str, schedule: str) -> None:
    options = {**FAST, "epochs": 1, "augment": augment, "schedule": schedule, "class_weights": "balanced"}
    assert (train(options=options) / "model.json").exists()


def test_distillation_names_its_teacher(here: Path) -> None:
    teacher = train()
    folder = train(recipe="distill", teacher=teacher, name="student", options={**FAST, "temperature": 4.0})
    model = models.read_model(folder)
    assert model.lineage.parents == (models.read_model(teacher).sha256,)
    assert (model.lineage.recipe, model.role) == ("distill", "student")


def test_multi_label_trains_and_distils(here: Path) -> None:
    data = f"medmnist:{write_npz(here / 'own.npz', labels=4, shape=(16, 16, 1))}"
    options = {**FAST, "class_weights": "balanced"}
    teacher = train(dataset=data, options=options)
    student = train(dataset=data, recipe="distill", teacher=teacher, name="student", options=options)
    assert "val_auroc" in models.read_model(student).metrics


def test_the_soft_loss_is_hintons() -> None:
    student, teacher, temperature = torch.randn(5, 4), torch.randn(5, 4), 3.0
    p, q = functional.softmax(teacher / temperature, dim=1), functional.softmax(student / temperature, dim=1)
    expected = temperature**2 * (p * (p / q).log()).sum(dim=1).mean()
    assert multi_class.soft_loss(student, teacher, temperature) == pytest.approx(float(expected), rel=1e-5)
    p, q = torch.sigmoid(teacher / temperature), torch.sigmoid(student / temperature)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = multi_label.soft_loss(student, teacher, temperature)
    assert found == pytest.approx(float(temperature**2 * kl.mean()), rel=1e-4)
    assert multi_class.soft_loss(teacher, teacher, 4.0) == pytest.approx(0, abs=1e-6)


def test_recipes_refuse_what_does_not_fit(here: Path) -> None:
    teacher = train()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "../../x"}, "letters, digits"),
        ({"name": "a b;rm -rf ~"}, "letters, digits"),
        ({"recipe": "trian"}, "did you mean 'train'"),
        ({"options": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"options": {"epochs": 0}}, "epochs"),
        ({"recipe": "distill"}, "wants a teacher"),
        ({"teacher": teacher}, "a teacher goes with"),
        ({"recipe": "distill", "teacher": teacher, "size": 8, "name": "s"}, "give both the same input"),
    ]
    for changes, reason in cases:
        with pytest.raises(InputError, match=reason):
            train(**changes)


@pytest.mark.parametrize(
    ("momentum", "steps", "wanted"), [(0.01, 20, 0.1), (0.01, 100, 0.02), (0.01, 9000, 0.01), (0.1, 9000, 0.1)]
)
def test_running_statistics_follow_within_an_epoch(momentum: float, steps: int, wanted: float) -> None:
    import torch

    from edgebench.recipes._trainer import quicken

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2, momentum=momentum))
    quicken(network, steps)
    assert network[1].momentum == pytest.approx(wanted)
