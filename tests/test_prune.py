"""Pruning: what is left of a network, how it is read back, and what it becomes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from test_page import made_from
from torch import nn

from edgebench import models
from edgebench.config import read_dataset, read_profile, read_target
from edgebench.data import open_images
from edgebench.errors import CheckpointError, InputError, ProfileError
from edgebench.models import shapes
from edgebench.models.source import SourceOptions, open_source
from edgebench.recipes import Work, _classifier, _pruning, prune
from edgebench.report import figures
from edgebench.report.charts import pruning
from edgebench.report.tables import Row, Table
from edgebench.run.options import MeasureOptions, RunOptions
from edgebench.run.plan import slots
from edgebench.run.prepare import Maker
from edgebench.run.session import Session
from edgebench.schema import Record, no_progress
from edgebench.store.row import flatten

FAST = {"epochs": 1, "augment": "none", "threads": 1, "learning_rate": 0.002}


def pruned(parent: Path, **options: Any) -> Path:
    return verbs.train("cnn", recipe="prune", parent=parent, name="pruned", options={**FAST, "control_epochs": 1, **options})


def convolutions(folder: Path) -> list[int]:
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)
    return [len(value) for value in weights.values() if value.ndim == 4]


def step(module: nn.Module, example: torch.Tensor, **options: Any) -> nn.Module:
    made = copy.deepcopy(module)
    given = prune.Options.model_validate({"epochs": 9, **options})
    _pruning.pruner(made, example, given, lambda _: None, lambda _: 0).step()
    return made


# ---------------------------------------------------------------- in one shot


def test_half_of_the_channels_are_gone_and_the_lineage_says_from_what(trained: Path, half: Path) -> None:
    base, model = models.read_model(trained), models.read_model(half)
    assert convolutions(trained) == [32, 32, 64, 64, 128, 128]
    assert convolutions(half) == [16, 16, 32, 32, 64, 64]
    assert (model.role, model.lineage.recipe, model.lineage.parents) == ("pruned", "prune", (base.sha256,))
    assert model.architecture == base.architecture
    assert model.metrics["ratio"] == pytest.approx(0.49, abs=0.01)
    assert model.metrics["macs"] / model.metrics["parent_macs"] == pytest.approx(0.254, abs=0.001)
    assert model.metrics["parent_parameters"] == base.parameters
    assert model.metrics["parent_val_accuracy"] == pytest.approx(base.metrics["val_accuracy"], abs=1e-6)


def test_a_pruned_network_learns_and_its_control_is_shown(half: Path) -> None:
    metrics = models.read_model(half).metrics
    assert metrics["val_accuracy"] > 0.6
    assert 0 < metrics["control_val_accuracy"] < 1
    assert metrics["control_epochs"] == 1


def test_a_pruned_folder_is_read_without_pickle_and_exports(half: Path, here: Path) -> None:
    import onnxruntime

    network, base = models.load_model(half), 288170
    assert network.macs == models.read_model(half).metrics["macs"]
    made = verbs.export(str(half), format="onnx", dataset="digits", out=here / "out")
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(made.folder / "model.onnx")
    found = np.concatenate([session.run(None, {"input": image[None].numpy()})[0] for image in images])
    wanted = network.run(images)["output"].numpy()
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max() + 1e-6
    share = network.model.parameters / base
    assert (made.folder / "model.onnx").stat().st_size <= 1.1 * share * (4 * base)


def test_a_pruned_network_is_pruned_again(half: Path, here: Path) -> None:
    again = pruned(half, control=False)
    assert convolutions(again) == [8, 8, 16, 16, 32, 32]
    assert not {"control_val_accuracy", "control_epochs"} & set(models.read_model(again).metrics)


def test_an_interrupted_pruning_goes_on_where_it_stopped(
    trained: Path, half: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(module: nn.Module) -> nn.Module:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_pruning, "from_scratch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pruned(trained, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(_classifier.Classifier, "on_train_epoch_start", lambda self: seen.append(self.current_epoch))
        seen: list[int] = []
        folder = pruned(trained, epochs=2)
    assert seen == [0]  # the control's
    weights = [torch.load(each / "checkpoint.pt", weights_only=True) for each in (half, folder)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert models.read_model(folder).metrics == models.read_model(half).metrics


def test_weights_of_other_shapes_are_refused_where_nothing_says_pruned(half: Path) -> None:
    model = models.read_model(half).model_copy(update={"pruned": None})
    weights = torch.load(half / "checkpoint.pt", weights_only=True)
    with pytest.raises(CheckpointError, match="has shape"):
        models.load_network(model, weights, "half")


# ---------------------------------------------------------------- what is taken out


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "resnet18"])
def test_shapes_are_taken_from_weights_exactly(architecture: str) -> None:
    model, build = open_source(SourceOptions(architecture, classes=10, size=32, channels=3), None)
    network = build()
    [example] = network.example()
    smaller = step(network.module, example, ratio=0.5).eval()
    again = models.build(architecture, 10, 3, 32).eval()
    shapes.fit(again, smaller.state_dict(), {})
    again.load_state_dict(smaller.state_dict())
    image = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(image), smaller(image))
    assert models.count_parameters(again) < 0.6 * model.parameters
    assert all(type(a) is type(b) and repr(a) == repr(b) for a, b in zip(again.modules(), smaller.modules(), strict=True))


def test_heads_of_attention_are_kept() -> None:
    from torchvision.models import VisionTransformer

    made = VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=10).eval()
    nn.init.normal_(made.heads.head.weight)
    example = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    smaller = step(made, example, ratio=0.5, round_to=4).eval()
    again = VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=10).eval()
    shapes.fit(again, smaller.state_dict(), shapes.heads(smaller))
    again.load_state_dict(smaller.state_dict())
    assert models.count_parameters(again) < 0.8 * models.count_parameters(made)
    assert torch.equal(again(example), smaller(example))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
def test_no_layer_stays_whole_because_rounding_would_leave_nothing_of_it(scope: str, criterion: str) -> None:
    network = models.build("cnn", 10, 1, 16)
    made = step(network, torch.zeros(1, 1, 16, 16), ratio=0.9, scope=scope, criterion=criterion)
    left = [layer.out_channels for layer in made.modules() if isinstance(layer, nn.Conv2d)]
    assert all(each % 8 == 0 for each in left)
    assert max(left[:4]) <= 16


def test_l1_takes_out_the_channels_of_the_least_weights() -> None:
    network = models.build("cnn", 10, 1, 16)
    first = network[0]
    with torch.no_grad():
        for index in range(32):
            first.weight[index] = 0.001 if index % 2 else 1.0
            network[3].weight[:, index] = 0.001 if index % 2 else 1.0
    made = step(network, torch.zeros(1, 1, 16, 16), ratio=0.5)
    assert torch.equal(next(made.parameters()), torch.ones(16, 1, 3, 3))


def test_the_schedule_is_zhu_and_guptas() -> None:
    final, begin, span = 0.8, 0, 5
    wanted = [final + (0 - final) * (1 - (t - begin) / span) ** 3 for t in range(6)]
    assert _pruning.schedule(0.8, 5) == pytest.approx(wanted)


def test_iterative_pruning_keeps_to_its_multiply_accumulates(trained: Path, here: Path) -> None:
    folder = pruned(trained, macs=0.3, strategy="iterative", steps=2, epochs=3, criterion="taylor", scope="global", alpha=0.5)
    network = models.load_model(folder)
    whole = models.load_model(trained).macs
    assert network.macs is not None
    assert whole is not None
    assert 0.2 * whole < network.macs <= 0.3 * whole
    assert prune.dealt(3, 2) == [1, 2]
    assert models.read_model(folder).metrics["best_epoch"] <= 1


def test_the_work_counts_the_control_and_what_the_parent_says() -> None:
    data = open_images(read_dataset("digits"))
    count, judged = len(data.read("train")), len(data.read("val"))
    options = {"epochs": 2, "batch_size": 100}
    steps = -(-count // 100)
    alone = prune.work(prune.Options.model_validate({**options, "control": False}), data)
    both = prune.work(prune.Options.model_validate({**options, "control_epochs": 3, "alpha": 0.5}), data)
    assert alone == Work(2 * steps, 2 * count, 2 * judged)
    assert both == Work(5 * steps, 5 * count, 5 * judged, taught=2 * (count + judged))


# ---------------------------------------------------------------- zeros


def test_two_of_each_four_neighbours_stay() -> None:
    mask = _pruning.two_of_four(torch.tensor([[3.0, 1, 2, 4, 9, 8, 7, 6]]))
    assert mask.tolist() == [[1, 0, 0, 1, 1, 1, 0, 0]]
    weight = torch.rand(5, 8, 3, 3)
    kept = _pruning.two_of_four(weight)
    assert (kept.reshape(5, 2, 4, 9).sum(2) == 2).all()
    assert torch.equal(_pruning.two_of_four(torch.rand(5, 3, 3, 3)), torch.ones(5, 3, 3, 3))


@pytest.mark.parametrize("options", [{"structure": "2:4"}, {"structure": "unstructured", "ratio": 0.8, "scope": "global"}])
def test_zeros_stay_zero_while_the_others_learn(trained: Path, here: Path, options: dict[str, Any]) -> None:
    folder = pruned(trained, control=False, **options)
    before, after = (torch.load(each / "checkpoint.pt", weights_only=True) for each in (trained, folder))
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
    inner = [key for key, value in after.items() if value.ndim == 4][1:]
    share = float(sum((after[key] == 0).sum() for key in inner) / sum(after[key].numel() for key in inner))
    assert share == pytest.approx(0.5 if options["structure"] == "2:4" else 0.8, abs=0.01)
    assert models.read_model(folder).metrics["zeros"] == pytest.approx(share, abs=0.01)
    learnt = [bool((after[key] != before[key])[after[key] != 0].all()) for key in inner]
    assert all(learnt)


# ---------------------------------------------------------------- what does not fit


def test_what_does_not_fit_is_refused_in_one_line(trained: Path, here: Path) -> None:
    given: dict[str, Any] = {"recipe": "prune", "name": "p", "parent": trained, "options": FAST}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("cnn", {"parent": None}, "the recipe prune wants a parent"),
        ("cnn", {"recipe": "train"}, "a parent goes with the recipe prune"),
        ("cnn", {"teacher": trained}, "a teacher goes with the recipe distill, not with prune"),
        ("cnn_large", {}, "its parent is a cnn; give that architecture"),
        ("cnn", {"size": 32}, "its parent sees 16 × 16 × 1"),
        ("cnn", {"options": {"strategy": "iterative", "epochs": 2}}, "5 steps want an epoch each, 2 are given"),
        ("cnn", {"options": {"structure": "2:4", "ratio": 0.8}}, "structure 2:4 has the ratio 0.5"),
        ("cnn", {"options": {"structure": "unstructured", "macs": 0.5}}, "takes none out"),
        ("cnn", {"options": {**FAST, "macs": 0.001}}, "give a larger share"),
        ("cnn", {"options": {"latency": 0.5, "macs": 0.5}}, "macs and latency each choose the ratio"),
        ("cnn", {"options": {"structure": "unstructured", "p50_ms": 1}}, "p50_ms: structure unstructured takes none out"),
        ("cnn", {"options": {**FAST, "latency": 0.5, "target": "nowhere"}}, "nowhere"),
    ]
    for architecture, changes, reason in cases:
        with pytest.raises(InputError, match=reason):
            verbs.train(architecture, **{**given, **changes})


PROFILE = """
name: small
dataset: {{name: digits}}
input: {{size: 16, channels: 1}}
models:
  - {{name: base, architecture: cnn, recipe: train, options: {{epochs: 1, threads: 1}}}}
  - {{name: pruned, architecture: cnn, role: pruned, recipe: prune, parent: {parent}, options: {{epochs: 1, control: false}}}}
variants: [{{format: onnx, precisions: [fp32]}}]
"""


@pytest.mark.parametrize(("parent", "reason"), [("bass", "did you mean 'base'"), ("pruned", "is its own parent")])
def test_a_profiles_parent_is_another_model_of_it(here: Path, parent: str, reason: str) -> None:
    (here / "small.yaml").write_text(PROFILE.format(parent=parent))
    with pytest.raises(ProfileError, match=reason):
        read_profile("small.yaml")


def test_a_profiles_parent_is_made_first(here: Path) -> None:
    (here / "small.yaml").write_text(PROFILE.format(parent="base"))
    profile = read_profile("small.yaml")
    session = Session(MeasureOptions(), RunOptions(), no_progress)
    maker = Maker(profile, open_images(profile.dataset), session)
    maker.check(maker.plan("pruned"))
    assert list(maker.missing(["pruned"])) == ["base", "pruned"]
    folder = maker.folder("pruned")
    assert models.read_model(folder).lineage.parents == (models.read_model(maker.folder("base")).sha256,)
    assert maker.existing("pruned") == folder


def test_a_model_of_a_profile_may_have_variants_of_its_own(here: Path) -> None:
    own = "options: {epochs: 1, threads: 1}, variants: [{format: tflite, precisions: [int8]}]}"
    (here / "small.yaml").write_text(PROFILE.format(parent="base").replace("options: {epochs: 1, threads: 1}}", own))
    profile = read_profile("small.yaml")
    found = [(slot.model.name, slot.format, slot.precision) for slot in slots(profile, [read_target("cpu")], None)]
    assert found == [("base", "tflite", "int8"), ("pruned", "onnx", "fp32")]


# ---------------------------------------------------------------- the figure


def pruned_record(name: str, parameters: int, size: int, strategy: str | None = None, zeros: float | None = None) -> Record:
    made = made_from(name, *(["base"] if strategy else []), recipe="prune" if strategy else "train")
    assert made.model is not None
    lineage = made.model.lineage.model_copy(update={"options": {"strategy": strategy} if strategy else {}})
    more = {"lineage": lineage, "metrics": {} if zeros is None else {"zeros": zeros}}
    model = made.model.model_copy(update=more)
    return made.model_copy(update={"model": model, "parameters": parameters, "size_bytes": size})


def test_the_figure_shows_both_strategies_from_the_parent_on(tmp_path: Path) -> None:
    import vl_convert

    records = {
        "0.json": pruned_record("base", 1000, 4000),
        "1.json": pruned_record("once", 250, 1000, "one-shot"),
        "2.json": pruned_record("steps", 250, 800, "iterative"),
        "3.json": pruned_record("zeros", 1000, 4000, "iterative", zeros=0.8),
    }
    rows = [Row(n, False, flatten(path, each), None, None, None, None, None) for n, (path, each) in enumerate(records.items())]
    found = pruning.values(rows)
    label = f"{rows[0].entry.format} {rows[0].entry.precision}"
    assert [(each["series"], each["gone"], each["compression"]) for each in found] == [
        (f"one-shot, {label}", 0.0, 1.0),
        (f"one-shot, {label}", 0.75, 4.0),
        (f"iterative, {label}", 0.0, 1.0),
        (f"iterative, {label}", 0.75, 5.0),
        (f"iterative, {label}", 0.8, 1.0),
    ]
    table = Table({"dataset": "digits"}, replace(rows[0].entry, mode="quick"), tuple(rows), ())
    [spec] = [each.spec for each in figures.figures([table], {}) if each.name.endswith("pruning")]
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    assert all(word in svg for word in ("times smaller than the parent", "p50 latency, ms", "size, MiB", "iterative"))
    assert pruning.values(rows[1:]) == []
