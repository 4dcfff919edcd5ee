"""The trainer that all recipes share, each part against plain torch or scikit-learn."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from few import few_digits
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import Tensor, nn
from torch.nn import functional

from edgebench import models
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import EdgebenchError, ExportError, InputError
from edgebench.models.normalization import preprocessing
from edgebench.recipes import Job, _classifier, _losses, _order, _processes, _trainer, model_folder, train
from edgebench.recipes._classifier import Found
from edgebench.recipes._groups import Group
from edgebench.run.forecast import with_time_left
from edgebench.schema import InputPlan, no_progress
from edgebench.tasks import multi_class, multi_label

COUNT = 96
"""Digits in each split."""
FAST = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "augment": "none", "threads": 1}
PLAIN = """
import torch

def net(classes, channels, size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size * size, classes))
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    return few_digits(tmp_path_factory.mktemp("few"), COUNT)


def job(few: str) -> Job:
    data = open_images(read_dataset(few))
    return Job("tiny", "cnn", "baseline", data, InputPlan(size=8, channels=1), {}, None, no_progress)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def normed() -> nn.Sequential:
    """Make a network of a part with a batch norm and a head."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(body, nn.Linear(4 * 36, 10))


def norm_of(network: nn.Sequential) -> nn.Module:
    """Return the batch norm of such a network."""
    body = network[0]
    assert isinstance(body, nn.Sequential)
    return body[1]


def learn(few: str, network: nn.Module, folder: Path, groups: Sequence[Group] = (), **options: Any) -> Found:
    made, wanted = job(few), train.Options.model_validate({**FAST, **options})
    loss, spec = _losses.label_loss(made.dataset, wanted), preprocessing(made.dataset, made.input, False)
    with _classifier.quietly(wanted, folder):
        return _classifier.learn(made, wanted, network, loss, spec, folder, groups)


def state(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def equal(one: dict[str, Tensor], two: dict[str, Tensor], *prefixes: str) -> bool:
    keys = [key for key in one if key.startswith(prefixes or "")]
    return bool(keys) and all(torch.equal(one[key], two[key]) for key in keys)


# ---------------------------------------------------------------- losses


def scores(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(rows, classes, generator=random), torch.randint(classes, (rows,), generator=random)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    logits, truth = scores(40, 3)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    expected = functional.cross_entropy(logits, truth, weight=torch.tensor(wanted, dtype=torch.float32))
    assert multi_class.loss(labels, 3, True)(logits, truth) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_focal_loss_is_lins(balanced: bool) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    logits, truth = scores(40, 3)
    likely = functional.softmax(logits.double(), dim=1)[torch.arange(40), truth]
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels) if balanced else np.ones(3)
    own = torch.tensor(weights)[truth]
    expected = (own * -((1 - likely) ** 2) * likely.log()).sum() / own.sum()
    assert multi_class.loss(labels, 3, balanced, gamma=2.0)(logits, truth) == pytest.approx(float(expected), rel=1e-5)
    almost = multi_class.loss(labels, 3, balanced, gamma=1e-9)(logits, truth)
    assert almost == pytest.approx(float(multi_class.loss(labels, 3, balanced)(logits, truth)), rel=1e-5)


def test_the_focal_loss_of_labels_is_torchvisions() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, _ = scores(40, 5)
    truth = (torch.rand(40, 5, generator=torch.Generator().manual_seed(1)) > 0.7).long()
    expected = sigmoid_focal_loss(logits, truth.float(), alpha=-1, gamma=2.0, reduction="mean")
    assert multi_label.loss(truth.numpy(), 5, False, gamma=2.0)(logits, truth) == pytest.approx(float(expected), rel=1e-5)


def test_smoothed_labels_are_dealt_out_to_all_classes() -> None:
    logits, truth = scores(40, 4)
    soft = 0.9 * functional.one_hot(truth, 4).float() + 0.1 / 4
    expected = functional.cross_entropy(logits, soft)
    assert multi_class.loss(truth.numpy(), 4, False, smoothing=0.1)(logits, truth) == pytest.approx(float(expected), rel=1e-6)
    several = (torch.rand(40, 4, generator=torch.Generator().manual_seed(1)) > 0.5).long()
    wanted = torch.where(several > 0, 0.95, 0.05)
    expected = functional.binary_cross_entropy_with_logits(logits, wanted)
    found = multi_label.loss(several.numpy(), 4, False, smoothing=0.1)(logits, several)
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_mixed_images_have_the_loss_of_mixed_labels(few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, options = job(few), train.Options.model_validate({**FAST, "mixup": 0.4})
    classifier = _classifier.Classifier(plain(), _losses.label_loss(made.dataset, options), made.dataset, options)
    monkeypatch.setattr(classifier, "log", lambda *_, **__: None)
    images, labels = torch.rand(32, 1, 8, 8), torch.arange(32) % 10
    torch.manual_seed(5)
    found = classifier.training_step((images, labels), 0)
    torch.manual_seed(5)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    others = torch.randperm(32)
    inputs = share * images + (1 - share) * images[others]
    soft = share * functional.one_hot(labels, 10) + (1 - share) * functional.one_hot(labels[others], 10)
    assert found.item() == pytest.approx(float(functional.cross_entropy(classifier.network(inputs).detach(), soft)), rel=1e-5)
    shares = [_losses.mixed(images, 0.4)[2] for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)


def test_a_task_whose_loss_takes_no_shape_refuses_the_option(few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(labels: Any, classes: int, balanced: bool) -> Any:
        return functional.cross_entropy

    monkeypatch.setattr(_losses, "learnt", lambda *_: make)
    with pytest.raises(InputError, match="the loss of the task multi-class has no smoothing"):
        _losses.label_loss(job(few).dataset, train.Options(label_smoothing=0.1))
    with pytest.raises(InputError, match="has no gamma"):
        _losses.label_loss(job(few).dataset, train.Options(loss="focal"))


# ---------------------------------------------------------------- the order of samples


def test_weighted_samples_are_scikit_learns_and_each_class_comes_as_often() -> None:
    labels = np.repeat([0, 1, 3], [700, 200, 100])
    weights = _order.evenly(labels, "tiny")
    expected = compute_sample_weight("balanced", labels)
    assert (weights / weights.sum()).numpy() == pytest.approx(expected / expected.sum())
    drawn = labels[list(_order.Order(3000, 0, weights))]
    assert np.bincount(drawn) / 3000 == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.03)
    with pytest.raises(InputError, match="wants one label an image"):
        _order.evenly(np.zeros((4, 2), np.int64), "tiny")


def test_each_epoch_has_its_own_order_whatever_was_drawn_before() -> None:
    order = _order.Order(50, seed=3)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    torch.rand(7)
    again = _order.Order(50, seed=3)
    again.set_epoch(1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert list(again) == second


@pytest.mark.parametrize(
    ("count", "world", "leave_out"), [(96, 1, True), (97, 1, True), (50, 2, True), (51, 2, False), (49, 3, False)]
)
def test_processes_share_the_batches_that_one_would_see(count: int, world: int, leave_out: bool) -> None:
    def batches(rank: int, world: int, least: int = 2) -> list[list[int]]:
        given: dict[str, Any] = {"least": least, "leave_out": leave_out, "rank": rank, "world": world}
        found = _order.Batches(_order.Order(count, 0), count, 24, **given)
        assert len(found) == len(list(found))
        return list(found)

    shares = [batches(rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(batch) >= 2 for share in shares for batch in share)
    together = sorted(index for share in shares for batch in share for index in batch)
    left_out = {97: 1, 50: 2}.get(count, 0) if leave_out else 0
    assert len(together) == len(set(together)) == count - left_out
    alone = batches(0, 1, least=2 * world)
    for number, batch in enumerate(alone):
        assert sorted(index for share in shares for index in share[number]) == sorted(batch)


# ---------------------------------------------------------------- steps


class Rates:
    """Notes the learning rates of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[float]] = []

        def note(classifier: Any, *_: Any) -> None:
            self.seen.append([group["lr"] for group in classifier.trainer.optimizers[0].param_groups])

        monkeypatch.setattr(_classifier.Classifier, "on_train_batch_start", note)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_groups_follow_torchs_schedules_to_their_own_peaks(
    few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    network, rates = normed(), Rates(monkeypatch)
    groups = [
        Group(tuple(network[1].parameters())),
        Group(tuple(network[0].parameters()), rate=0.1, begins=1),
    ]
    learn(few, network, tmp_path / "t", groups, schedule=schedule, epochs=3)
    optimizer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "lr": peak} for peak in (0.01, 0.001)])
    steps = 3 * 6
    schedules: dict[str, Callable[[], Any]] = {
        "one-cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.01, 0.001], total_steps=steps + 1),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    }
    reference = schedules[schedule]()
    expected = []
    for _ in range(steps):
        expected.append(reference.get_last_lr())
        optimizer.step()
        reference.step()
    assert np.array(rates.seen) == pytest.approx(np.array(expected))


def test_what_never_learns_stays_as_it_is_bit_for_bit(few: str, tmp_path: Path) -> None:
    network = normed()
    before = state(network)
    waiting = Group(tuple(network[0].parameters()), norms=(norm_of(network),), begins=None)
    learn(few, network, tmp_path / "t", [Group(tuple(network[1].parameters())), waiting])
    after = state(network)
    assert equal(before, after, "0.")  # the statistics of the norm among them
    assert not equal(before, after, "1.weight")
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_that_was_judged_before_learns_as_one_that_was_not(few: str, tmp_path: Path) -> None:
    network, other = normed(), normed().eval()
    for number, each in enumerate((network, other)):
        learn(few, each, tmp_path / str(number))
    assert equal(state(network), state(other), "")
    assert not equal(state(normed()), state(other), "0.1.running_mean")


def test_what_waits_learns_from_its_epoch_on(few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = normed(), list[dict[str, Tensor]]()
    monkeypatch.setattr(_classifier.Classifier, "on_train_epoch_start", lambda self: seen.append(state(self.network)))
    waiting = Group(tuple(network[0].parameters()), norms=(norm_of(network),), rate=0.5, begins=2)
    learn(few, network, tmp_path / "t", [Group(tuple(network[1].parameters())), waiting], epochs=4)
    assert len(seen) == 4
    assert equal(seen[0], seen[2], "0.")
    assert not equal(seen[0], seen[1], "1.weight")
    for key in ("0.0.weight", "0.1.weight", "0.1.running_mean", "0.1.num_batches_tracked"):
        assert not equal(seen[2], seen[3], key)


def test_two_batches_of_sixteen_make_the_step_of_one_of_thirty_two(few: str, tmp_path: Path) -> None:
    one, two, other = plain(), plain(), plain()
    learn(few, one, tmp_path / "one", batch_size=32)
    learn(few, two, tmp_path / "two", batch_size=16, accumulate=2)
    learn(few, other, tmp_path / "other", batch_size=16)
    for key, value in one.state_dict().items():
        assert torch.allclose(value, two.state_dict()[key], atol=2e-5), key
        assert not torch.allclose(value, other.state_dict()[key], atol=1e-3), key


def test_gradients_are_clipped_as_torch_clips_them(few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[Tensor]] = []

    def note(classifier: Any, *_: Any) -> None:
        found.append([parameter.grad.clone() for parameter in classifier.network.parameters()])

    monkeypatch.setattr(_classifier.Classifier, "on_train_batch_end", note)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 96}
    learn(few, plain(), tmp_path / "whole", **options)
    learn(few, plain(), tmp_path / "clipped", clip=0.25, **options)
    whole, clipped = found
    assert torch.cat([each.flatten() for each in whole]).norm() > 0.5
    for each in whole:
        each.requires_grad_(False)
    parameters = [nn.Parameter(torch.zeros_like(each)) for each in whole]
    for parameter, gradient in zip(parameters, whole, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 0.25)
    for parameter, gradient in zip(parameters, clipped, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", 16])
def test_lower_precision_learns_as_much_and_is_judged_as_it_is_kept(few: str, tmp_path: Path, precision: str | int) -> None:
    whole, half = normed(), normed()
    options: dict[str, Any] = {"epochs": 8, "batch_size": 32}
    expected = learn(few, whole, tmp_path / "whole", **options).metrics["val_accuracy"]
    found = learn(few, half, tmp_path / "half", precision_train=precision, **options).metrics["val_accuracy"]
    assert expected > 0.6
    assert found == pytest.approx(expected, abs=0.1)
    assert not equal(state(whole), state(half), "1.weight")
    assert all(value.dtype == torch.float32 for value in half.parameters())
    made = job(few)
    assert _classifier.judge(made, half, preprocessing(made.dataset, made.input, False)) == found


# ---------------------------------------------------------------- interrupted, and continued


@pytest.mark.parametrize(
    "options",
    [
        {"augment": "affine", "mixup": 0.3, "sampler": "weighted", "clip": 1.0},
        {"schedule": "cosine", "precision_train": 16, "accumulate": 2, "label_smoothing": 0.1, "patience": 3},
        {"schedule": "constant", "loss": "focal", "class_weights": "balanced", "precision_train": "bf16"},
    ],
)
def test_a_continued_training_has_the_weights_of_one_that_was_not_interrupted(
    few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def trained(folder: Path) -> tuple[dict[str, Tensor], Found]:
        network = normed()
        network.insert(1, nn.Dropout(0.3))
        waiting = Group(tuple(network[0].parameters()), norms=(norm_of(network),), rate=0.1, begins=2)
        found = learn(few, network, folder, [Group(tuple(network[2].parameters())), waiting], epochs=5, **options)
        return state(network), found

    def interrupt_at(epoch: int) -> Any:
        def interrupt(self: Any, *_: Any) -> None:
            if (self.current_epoch, self.trainer.global_step % 2) == (epoch, 1):
                raise KeyboardInterrupt

        return interrupt

    whole, told = trained(tmp_path / "whole")
    for epoch in (1, 3):
        with monkeypatch.context() as patch:
            patch.setattr(_classifier.Classifier, "on_train_batch_start", interrupt_at(epoch))
            with pytest.raises(KeyboardInterrupt):
                trained(tmp_path / "parts")
    parts, again = trained(tmp_path / "parts")
    assert equal(whole, parts)
    assert again.metrics == told.metrics
    assert again.history == told.history
    last = [torch.load(tmp_path / name / _trainer.RESUME, weights_only=True) for name in ("whole", "parts")]
    assert equal(last[0]["state_dict"], last[1]["state_dict"], "network.")
    assert last[0]["optimizer_states"][0]["param_groups"] == last[1]["optimizer_states"][0]["param_groups"]
    moments = [each["optimizer_states"][0]["state"] for each in last]
    assert moments[0].keys() == moments[1].keys()
    assert all(torch.equal(moments[0][key]["exp_avg_sq"], moments[1][key]["exp_avg_sq"]) for key in moments[0])


def test_seconds_before_an_interruption_count(few: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Any, *_: Any) -> None:
        if self.current_epoch == 0:
            time.sleep(0.1)
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_classifier.Classifier, "on_train_batch_start", slow)
        with pytest.raises(KeyboardInterrupt):
            learn(few, plain(), tmp_path / "t", epochs=3)
    assert 0.6 <= learn(few, plain(), tmp_path / "t", epochs=3).seconds < 20


# ---------------------------------------------------------------- several processes


def test_two_processes_come_to_what_one_does(here: Path, few: str) -> None:
    (here / "plainnet.py").write_text(PLAIN)
    heard: list[str] = []
    given: dict[str, Any] = {"size": 8, "channels": 1, "dataset": few, "name": "plain"}
    alone = verbs.train("plainnet:net", options=FAST, **given)
    both = verbs.train(
        "plainnet:net", options={**FAST, "devices": 2}, progress=lambda what, *_: heard.append(what.partition(" (")[0]), **given
    )
    weights = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (alone, both)]
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=2e-5), key
    model, other = models.read_model(both), models.read_model(alone)
    assert model.lineage.options == {**other.lineage.options, "devices": 2}
    assert model.metrics == pytest.approx(other.metrics, abs=0.011)
    histories = [json.loads((folder / "history.json").read_text()) for folder in (alone, both)]
    assert [entry["epoch"] for entry in histories[1]] == [0, 1]
    for entry, expected in zip(histories[1], histories[0], strict=True):
        assert entry["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
        assert entry["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert sorted(path.name for path in Path(".edgebench/models").iterdir()) == sorted([alone.name, both.name])
    assert "train plain" in heard


def test_what_a_process_raises_is_raised(few: str, tmp_path: Path) -> None:
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    logs[0].write_text('some warning\n{"error": "StorageError", "text": "no room; free some"}\nprocess group was not destroyed\n')
    logs[1].write_text("Traceback\nRuntimeError: Connection closed by peer\n")
    found = _processes._reason(job(few), {1: 1, 0: 1}, logs)
    assert (type(found).__name__, str(found)) == ("StorageError", "no room; free some")
    found = _processes._reason(job(few), {1: -9}, logs)
    assert isinstance(found, ExportError)
    assert str(found) == "tiny: process 1 of 2 ended with -9: RuntimeError: Connection closed by peer"
    logs[1].write_text('{"error": "open", "text": "x"}\n')
    assert isinstance(_processes._reason(job(few), {1: 1}, logs), EdgebenchError)


def test_processes_that_are_not_as_many_as_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _processes.place.cache_clear()
    monkeypatch.setattr(os, "environ", {**os.environ, "LOCAL_RANK": "1", "WORLD_SIZE": "4"})
    try:
        assert not _processes.is_first()
        with pytest.raises(InputError, match=r"4 processes were started for it .*, and devices is 2"):
            _processes.check("tiny", 2)
    finally:
        _processes.place.cache_clear()


# ---------------------------------------------------------------- options and names


def test_models_keep_the_names_that_they_had(here: Path) -> None:
    made = job("digits")
    assert model_folder("train", made, Path()).name == "tiny-3d6b5cdd0abf"
    changed = Job(**{**vars(made), "options": {"precision_train": 32, "devices": 1, "mixup": 0}})
    assert model_folder("train", changed, Path()).name == "tiny-3d6b5cdd0abf"
    other = Job(**{**vars(made), "options": {"mixup": 0.2}})
    assert model_folder("train", other, Path()).name != "tiny-3d6b5cdd0abf"


@pytest.mark.parametrize(
    ("recipe", "options", "reason"),
    [
        ("train", {"batch_size": 15, "devices": 2}, "batch_size 15 is not so many images for each of 2 devices"),
        ("train", {"loss": "focal", "label_smoothing": 0.1}, "do not go together"),
        ("train", {"precision_train": 8}, "precision_train"),
        ("train", {"parallel": "fsdp"}, "parallel"),
        ("train", {"clip": 0}, "clip"),
        ("train", {"devices": 9999, "batch_size": 99990}, "give fewer devices|give as many"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    few: str, here: Path, recipe: str, options: dict[str, Any], reason: str
) -> None:
    if "9999" in str(options.get("devices")):
        made = job(few)
        samples = _classifier.Samples(made.dataset.read("val"), preprocessing(made.dataset, made.input, False))
        with pytest.raises(InputError, match=reason):
            _trainer._loaders(train.Options.model_validate(options), "tiny", samples, samples, 0, 9999)
        return
    with pytest.raises(InputError, match=reason) as caught:
        verbs.train("cnn", recipe=recipe, dataset=few, size=8, channels=1, options=options)
    assert "\n" not in str(caught.value)


def test_a_training_says_how_long_it_still_takes() -> None:
    now, heard = [0.0], list[str]()
    told = with_time_left(lambda what, *_: heard.append(what), lambda: now[0])
    for done in (1, 2, 20, 50):
        told("train x (epoch 1 of 4)", done, 100)
        now[0] += 30
    for done in (1, 50):
        told("train x (epoch 1 of 2)", done, 100)
        now[0] += 49
    assert heard == [
        "train x (epoch 1 of 4)",
        "train x (epoch 1 of 4)",
        "train x (epoch 1 of 4; about 5 min left)",
        "train x (epoch 1 of 4; about 2 min left)",
        "train x (epoch 1 of 2)",
        "train x (epoch 1 of 2; about 50 s left)",
    ]
