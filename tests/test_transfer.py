"""Transfer: what a network begins with, its new head, what learns, and what the folder says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from test_page import made_from
from torch import Tensor, nn

from edgebench import models
from edgebench.agent.runtimes import preprocess
from edgebench.config import read_dataset, read_profile
from edgebench.data import open_images
from edgebench.errors import CheckpointError, InputError, ModelWarning
from edgebench.models import heads
from edgebench.recipes import Job, _classifier, _transfer, transfer
from edgebench.report import columns, lineage
from edgebench.report.tables import Row, Table
from edgebench.report.writers import csv
from edgebench.run.options import MeasureOptions, RunOptions
from edgebench.run.prepare import Maker
from edgebench.run.session import Session
from edgebench.schema import InputPlan, Model, NewHead, no_progress
from edgebench.store.row import flatten

FAST = {"epochs": 2, "batch_size": 32, "learning_rate": 0.005, "augment": "none", "threads": 1}
BODY = ("0.", "1.", "3.", "4.", "6.", "7.", "9.", "10.", "12.", "13.", "15.", "16.")
"""Convolutions and norms of the plain network."""


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the digits 0 to 4, so few that a training takes no time: other classes than the parent's."""
    digits, arrays = open_images(read_dataset("digits")), dict[str, Any]()
    for name, count in (("train", 120), ("val", 80), ("test", 80)):
        split = digits.read(name)
        chosen = np.flatnonzero(split.labels < 5)[:count]
        arrays[f"{name}_images"] = split.images[chosen].squeeze()
        arrays[f"{name}_labels"] = split.labels[chosen].reshape(-1, 1)
    path = tmp_path_factory.mktemp("five") / "five.npz"
    np.savez(path, **arrays)
    return f"medmnist:{path}"


def transferred(dataset: str, parent: Path | None, **options: Any) -> Path:
    given: dict[str, Any] = {"dataset": dataset, "parent": parent, "recipe": "transfer", "name": "five"}
    return verbs.train("cnn", size=16, channels=1, options={**FAST, **options}, **given)


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return found


def of_body(one: dict[str, Tensor], two: dict[str, Tensor]) -> list[bool]:
    return [torch.equal(one[key], two[key]) for key in one if key.startswith(BODY)]


# ---------------------------------------------------------------- a model folder, and what can be made of it


def test_the_head_learns_other_classes_on_features_that_stay(trained: Path, five: str, here: Path) -> None:
    folder = transferred(five, trained, freeze="all", epochs=6, head="mlp:24", dropout=0.1)
    model, base = models.read_model(folder), models.read_model(trained)
    same = of_body(weights(trained), weights(folder))
    assert len(same) > 30
    assert all(same)
    assert model.new_head == NewHead(hidden=24, dropout=0.1)
    assert {key: tuple(value.shape) for key, value in weights(folder).items() if key.startswith("20.")} == {
        "20.1.weight": (24, 128),
        "20.1.bias": (24,),
        "20.4.weight": (5, 24),
        "20.4.bias": (5,),
    }
    assert model.lineage.parents == (base.sha256,)
    assert (model.preprocessing, model.classes) == (base.preprocessing, open_images(read_dataset(five)).classes)
    assert model.metrics["trainable_parameters"] == 128 * 24 + 24 + 24 * 5 + 5
    assert model.metrics["epochs_to_best"] == model.metrics["best_epoch"] + 1
    assert 0 < model.metrics["seconds"] < 600
    assert model.metrics["val_accuracy"] > 0.6
    assert model.head is None  # the option of that name says nothing of scores
    network, data = models.load_model(folder), open_images(read_dataset(five))
    images = torch.stack(
        [torch.from_numpy(each) for each in preprocess.apply(data.read("val").images, model.preprocessing.model_dump())]
    )
    decided = network.run(images)["output"].argmax(dim=1).numpy()
    assert float((decided == data.read("val").labels).mean()) == pytest.approx(model.metrics["val_accuracy"], abs=1e-6)


def test_a_checkpoint_file_of_other_classes_is_a_beginning(trained: Path, five: str, here: Path) -> None:
    given: dict[str, Any] = {"freeze": "all", "epochs": 1}
    folder = transferred(five, trained / "checkpoint.pt", **given)
    assert all(of_body(weights(trained), weights(folder)))
    model = models.read_model(folder)
    assert model.lineage.parents == (models.read_model(trained).sha256,)
    assert model.lineage.options["weights"] == str(trained / "checkpoint.pt")
    found = weights(trained)
    torch.save({"state_dict": {f"module.{key}": value for key, value in found.items() if not key.startswith("20.")}}, "bare.pt")
    assert all(of_body(found, weights(transferred(five, None, weights="bare.pt", **given))))
    torch.save({key: value for key, value in found.items() if key != "3.weight"}, "lacks.pt")
    with pytest.raises(CheckpointError, match=r"do not fit cnn: missing 3\.weight"):
        transferred(five, None, weights="lacks.pt", **given)
    torch.save({**found, "3.weight": torch.zeros(8, 8, 3, 3)}, "other.pt")
    with pytest.raises(CheckpointError, match=r"3.weight has shape \[8, 8, 3, 3\], \[32, 32, 3, 3\] is wanted"):
        transferred(five, None, weights="other.pt", **given)


def test_published_weights_are_a_beginning(five: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    stock = torchvision.models.resnet18(weights=None).state_dict()
    asked: list[str] = []

    def published(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        asked.append(url)
        return dict(stock)

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", published)
    given = Job("five", "resnet18", "baseline", open_images(read_dataset(five)), InputPlan(size=64), {}, None, no_progress)
    network, spec, _ = _transfer.beginning(given, transfer.Options(pretrained=True))
    assert asked == [torchvision.models.ResNet18_Weights.DEFAULT.url]
    found = network.state_dict()
    assert all(torch.equal(found[key], stock[key]) for key in stock if not key.startswith("fc."))
    assert spec.mean == (0.485, 0.456, 0.406)
    small = replace(given, input=InputPlan(size=32))
    with pytest.warns(ModelWarning, match=r"conv1.weight has another shape .* resnet18:stock has torchvision's own stem"):
        _transfer.beginning(small, transfer.Options(pretrained=True))


def test_what_is_made_of_a_transfer_keeps_its_head(trained: Path, five: str, here: Path) -> None:
    first = transferred(five, trained, freeze="all", epochs=1, head="mlp:24")
    again = transferred(five, first, freeze="last:1", epochs=1)
    assert models.load_model(again).model.new_head == NewHead(hidden=None, dropout=0.2)
    assert weights(again)["20.1.weight"].shape == (5, 128)
    options = {**FAST, "epochs": 1, "control": False}
    smaller = verbs.train("cnn", recipe="prune", parent=first, dataset=five, name="smaller", options=options)
    model = models.read_model(smaller)
    assert model.new_head == NewHead(hidden=24, dropout=0.2)
    assert weights(smaller)["20.1.weight"].shape == (8, 64)
    network = models.load_model(smaller)
    assert network.model.parameters == models.count_parameters(network.module)
    made = verbs.export(str(smaller), format="onnx", dataset=five, out=here / "out")
    assert made.folder.is_dir()


def test_a_pruned_parent_stays_as_narrow(half: Path, five: str, here: Path) -> None:
    folder = transferred(five, half, freeze="none", epochs=1)
    assert weights(folder)["20.1.weight"].shape == (5, 64)
    assert models.load_model(folder).model.pruned is not None


def test_gradual_unfreezing_begins_with_the_last_block(
    trained: Path, five: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def note(self: Any) -> None:
        seen.append({key: value.clone() for key, value in self.network.state_dict().items()})

    monkeypatch.setattr(_classifier.Classifier, "on_train_epoch_start", note)
    transferred(five, trained, freeze="gradual", epochs=7, backbone_rate=0.5)
    assert len(seen) == 7

    def moved(key: str) -> int:
        return next((epoch for epoch in range(1, 7) if not torch.equal(seen[0][key], seen[epoch][key])), 7)

    assert {layer: moved(f"{layer}.weight") for layer in (15, 12, 9, 6, 3, 0)} == {15: 2, 12: 3, 9: 4, 6: 5, 3: 6, 0: 7}
    assert {layer: moved(f"{layer}.running_var") for layer in (16, 13, 10, 7, 4, 1)} == {16: 2, 13: 3, 10: 4, 7: 5, 4: 6, 1: 7}


# ---------------------------------------------------------------- heads and blocks of architectures


@pytest.mark.parametrize(
    ("architecture", "head", "features", "count"),
    [
        ("vgg16", "classifier.0", 512, 13),
        ("resnet50", "fc", 2048, 5),
        ("efficientnet_b4", "classifier.1", 1792, 9),
        ("densenet121", "classifier", 1024, 8),
        ("mobilenet_v3_small", "classifier.0", 576, 13),
        ("timm:vit_tiny_patch16_224", "head", 192, 13),
    ],
)
def test_architectures_get_heads_on_their_features_and_fall_into_blocks(
    architecture: str, head: str, features: int, count: int
) -> None:
    new, image = NewHead(hidden=16, dropout=0.3), torch.rand(1, 3, 32, 32)
    network = models.build(architecture, 10, 3, 32)
    made = heads.replace(network, new, image, 4)
    assert network.get_submodule(head) is made
    assert [tuple(layer.weight.shape) for layer in made if isinstance(layer, nn.Linear)] == [(16, features), (4, 16)]
    assert [layer.p for layer in made if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    assert network.eval()(image).shape == (1, 4)
    found = _transfer.blocks(network, made, image)
    assert len(found) == count
    parts = [parameter for block in found for parameter in block.parameters] + list(made.parameters())
    assert len(parts) == len({id(part) for part in parts})
    assert {id(part) for part in parts} == {id(part) for part in network.parameters()}
    norms = [norm for block in found for norm in block.norms]
    assert len(norms) == sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "timm:vit_tiny_patch16_224"])
def test_a_network_is_built_again_with_its_head(architecture: str) -> None:
    image, made = torch.rand(1, 3, 32, 32), [models.build(architecture, 10, 3, 32) for _ in range(2)]
    for network in made:
        heads.replace(network, NewHead(hidden=16), torch.zeros(1, 3, 32, 32), 4)
    made[1].load_state_dict(made[0].state_dict())
    assert torch.equal(made[1].eval()(image), made[0].eval()(image))


def test_three_dense_layers_on_a_grid_become_a_head_on_its_mean() -> None:
    layers = [nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(6 * 49, 8), nn.ReLU(), nn.Dropout()]
    network, image = nn.Sequential(*layers, nn.Linear(8, 10)).eval(), torch.rand(2, 3, 16, 16)
    features = network[0](image).mean(dim=(2, 3))
    head = heads.replace(network, NewHead(), torch.zeros(1, 3, 16, 16), 4).eval()
    assert [type(layer).__name__ for layer in network] == ["Conv2d", "AdaptiveAvgPool2d", "Flatten", "Head"]
    assert torch.allclose(network(image), head(features), atol=1e-6)


def test_a_network_without_a_dense_layer_at_its_end_gets_no_head() -> None:
    with pytest.raises(InputError, match="SqueezeNet: does not end in a dense layer"):
        heads.replace(models.build("squeezenet1_1", 10, 3, 32), NewHead(), torch.zeros(1, 3, 32, 32), 4)


@pytest.mark.parametrize(
    ("freeze", "begins"),
    [
        ("all", [0, None, None]),
        ("none", [0, None, 0]),
        ("last:2", [0, None, 0]),
        ("gradual", [0, 5, 4, 3, 2, 1, 1]),
    ],
)
def test_what_learns_and_when_is_what_freeze_says(freeze: str, begins: list[int | None]) -> None:
    network, image = models.build("cnn", 10, 1, 16), torch.zeros(1, 1, 16, 16)
    head = heads.replace(network, NewHead(), image, 5)
    options = transfer.Options(epochs=6, freeze=freeze)
    found = _transfer.groups(network, head, image, options, "x")
    assert [group.begins for group in found] == (begins if freeze == "gradual" else [0, None, 0])
    assert [group.rate for group in found] == [1.0, *[0.1] * (len(found) - 1)]
    learns = {id(parameter) for group in found if group.begins is not None for parameter in group.parameters}
    names = {name.partition(".")[0] for name, parameter in network.named_parameters() if id(parameter) in learns}
    body = ["0", "1", "3", "4", "6", "7", "9", "10", "12", "13", "15", "16"]
    assert names == {"20", *{"all": [], "last:2": body[-4:]}.get(freeze, body)}


# ---------------------------------------------------------------- what does not fit


def test_what_does_not_fit_is_refused_in_one_line(trained: Path, five: str, here: Path) -> None:
    cases: list[tuple[Path | None, dict[str, Any], str]] = [
        (None, {}, "wants one beginning .* none is given"),
        (trained, {"pretrained": True}, "wants one beginning .* two are given"),
        (trained, {"weights": "x.pt"}, "wants one beginning .* two are given"),
        (None, {"weights": "x.pt"}, "x.pt: no such checkpoint"),
        (None, {"weights": "x.pt", "pretrained": True}, "two beginnings"),
        (trained, {"freeze": "last:0"}, "freeze"),
        (trained, {"freeze": "last:7"}, "has 6 blocks beside its head, and freeze last:7 wants more"),
        (trained, {"freeze": "gradual", "epochs": 1}, "wants 2 epochs"),
        (trained, {"head": "mlp"}, "head"),
        (trained, {"imagenet": True}, "belongs to weights"),
        (trained / "model.json", {}, "no checkpoint"),
    ]
    for parent, options, reason in cases:
        with pytest.raises(InputError, match=reason) as caught:
            transferred(five, parent, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="a parent goes with the recipe prune or qat or transfer, not with train"):
        verbs.train("cnn", parent=trained, name="x", options=FAST)


# ---------------------------------------------------------------- strategies side by side

PROFILE = """
name: strategies
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: base, architecture: cnn, recipe: train, options: {epochs: 1, threads: 1}}
  - {name: head, architecture: cnn, recipe: transfer, parent: base, options: {freeze: all, epochs: 1, threads: 1}}
  - {name: whole, architecture: cnn, recipe: transfer, parent: base, options: {freeze: none, epochs: 1, threads: 1}}
variants: [{format: onnx, precisions: [fp32]}]
"""


def test_a_profile_has_a_strategy_a_model(here: Path) -> None:
    (here / "strategies.yaml").write_text(PROFILE)
    profile = read_profile("strategies.yaml")
    maker = Maker(profile, open_images(profile.dataset), Session(MeasureOptions(), RunOptions(), no_progress))
    for plan in profile.models:
        maker.check(plan)
    assert list(maker.missing(["head", "whole"])) == ["base", "head", "whole"]
    assert maker.training_seconds(maker.plan("head"), {}) > 0


def strategy(name: str, freeze: str, metrics: dict[str, float]) -> Row:
    made = made_from(name, "base", recipe="transfer")
    assert made.model is not None
    given = made.model.lineage.model_copy(update={"options": {"freeze": freeze}})
    model: Model = made.model.model_copy(update={"lineage": given, "metrics": metrics})
    return Row(1, False, flatten(f"{name}.json", made.model_copy(update={"model": model})), None, None, None, None, None)


def test_a_table_shows_what_each_strategy_trained_and_cost() -> None:
    plain = made_from("base", recipe="train")
    rows = [
        Row(1, False, flatten("base.json", plain), None, None, None, None, None),
        strategy("head", "all", {"trainable_parameters": 1290.0, "epochs_to_best": 4.0, "seconds": 12.34}),
        strategy("whole", "none", {"trainable_parameters": 288170, "epochs_to_best": 9, "seconds": 40.0}),
    ]
    names = ("model", "freeze", "trainable", "epochs", "seconds")
    wanted = columns.chosen("accuracy", names)
    assert [[column.fill(row) for column in wanted] for row in rows] == [
        ["base", "", "", "", ""],
        ["head", "all", "1290", "4", "12.3"],
        ["whole", "none", "288170", "9", "40.0"],
    ]
    table = Table({"dataset": "digits"}, rows[0].entry, tuple(rows), ())
    lines = csv.render([table], names).splitlines()
    assert lines[0].split(",")[-7:-2] == ["model", "freeze", "trainable_parameters", "epochs_to_best", "seconds"]
    assert lines[2].split(",")[-7:-2] == ["head", "all", "1290.0", "4.0", "12.34"]
    assert "trainable" not in {column.name for column in columns.chosen("accuracy")}
    told = {member.name: member.made for member in lineage.members(table)}
    assert told["base"] == "train"
    assert told["head"].endswith("(freeze all, 1290 parameters trained, best after 4 epochs, 12 s)")
