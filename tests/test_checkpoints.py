"""Checkpoints as people have them: read with the accuracy that torch gives them, or refused in one line."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from edgebench import SourceOptions, models
from edgebench.bundle.claimed import check_accuracy
from edgebench.config import read_dataset
from edgebench.data import Dataset, _torchvision, open_images
from edgebench.errors import CheckpointError, InputError, ModelWarning
from edgebench.models.source import import_checkpoint, open_source
from edgebench.schema import Network

MEAN, STD, SIZE = 0.3, 0.4, 24
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_images(read_dataset("digits"))


def normalised(images: Any) -> torch.Tensor:
    """Take uint8 [n, h, w, 1] to what the network is trained on, without edgebench."""
    wide = torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float() / 255
    return (functional.interpolate(wide, (SIZE, SIZE), mode="bilinear") - MEAN) / STD


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> tuple[dict[str, Any], float]:
    """Return the weights of torchvision's own MobileNetV2, trained at 24 px for some seconds, and its accuracy in percent."""
    torch.manual_seed(0)
    tv = _torchvision.load_torchvision()
    network = tv.models.mobilenet_v2(num_classes=10)
    network.features[0][0] = torch.nn.Conv2d(1, 32, 3, 2, 1, bias=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.3  # its statistics have few steps
    train, test = digits.read("train"), digits.read("test")
    images, labels = normalised(train.images), torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=3 * -(-len(images) // 64))
    for _ in range(3):
        for part in torch.randperm(len(images)).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            functional.cross_entropy(network(images[part]), labels[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pace.step()
    network.eval()
    with torch.no_grad():
        right = (network(normalised(test.images)).argmax(1) == torch.from_numpy(test.labels)).float().mean()
    return {key: value.clone() for key, value in network.state_dict().items()}, 100 * float(right)


def source(path: Path, **changes: Any) -> SourceOptions:
    given = {"architecture": "mobilenet_v2:stock", "size": SIZE, "channels": 1, "mean": (MEAN,), "std": (STD,)}
    return SourceOptions(str(path), **{**given, **changes})


def accuracy(network: Network, data: Dataset) -> float:
    test = data.read("test")
    with torch.no_grad():
        return 100 * float((network.module(normalised(test.images)).argmax(1).numpy() == test.labels).mean())


def prefixed(prefix: str) -> Change:
    return lambda weights: {prefix + key: value for key, value in weights.items()}


def garbled(weights: dict[str, Any]) -> dict[str, Any]:
    return {key: torch.zeros_like(value) for key, value in weights.items()}


def with_strays(weights: dict[str, Any]) -> dict[str, Any]:
    return {**weights, "total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)}


FORMS: dict[str, Change] = {
    **{prefix: prefixed(prefix) for prefix in ("module.", "model.", "net.", "network.", "backbone.", "_orig_mod.")},
    "nested": prefixed("_orig_mod.module.model."),
    **{name: (lambda weights, name=name: {name: weights, "epoch": 1}) for name in ("net", "weights", "params", "ema")},  # type: ignore[misc]
    "state_dict_ema": lambda weights: {"state_dict_ema": weights},
    "a wrapper in a wrapper": lambda weights: {"model": {"state_dict": prefixed("module.")(weights)}},
    "averaged": lambda weights: {"model": {**prefixed("module.")(weights), "n_averaged": torch.tensor(3)}},
    "no counts": lambda weights: {key: value for key, value in weights.items() if "num_batches" not in key},
    "a profiler's": with_strays,
    "lightning": lambda weights: {
        "state_dict": {**prefixed("model.")(weights), "criterion.weight": torch.ones(10)},
        "pytorch-lightning_version": "2.6",
        "hyper_parameters": {"lr": 0.1, "arch": "mobilenet_v2"},
    },
    "settings": lambda weights: {"model": weights, "args": argparse.Namespace(lr=0.1), "best": np.float64(94.5)},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_has_the_accuracy_that_torch_gives_it(
    form: str, tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset
) -> None:
    weights, right = trained
    torch.save(FORMS[form](weights), tmp_path / "theirs.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        model, network = open_source(source(tmp_path / "theirs.ckpt"), digits)
        assert accuracy(network(), digits) == pytest.approx(right, abs=100 / len(digits.read("test")))
    assert right > 80
    assert model.architecture == "mobilenet_v2:stock"


def test_a_prefix_is_said(tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset) -> None:
    torch.save(prefixed("_orig_mod.module.")(trained[0]), tmp_path / "a.pt")
    with pytest.warns(ModelWarning, match=r"fit without the prefix '_orig_mod.module.'"):
        open_source(source(tmp_path / "a.pt"), digits)


def test_safetensors_are_read(tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(trained[0], tmp_path / "a.safetensors")
    assert accuracy(open_source(source(tmp_path / "a.safetensors"), digits)[1](), digits) == pytest.approx(trained[1], abs=0.01)
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="copy it again"):
        open_source(source(tmp_path / "a.safetensors"), digits)


@pytest.mark.parametrize("names", [("state_dict", "state_dict_ema"), ("model", "ema"), ("current_model_state", "state_dict")])
def test_of_raw_and_averaged_weights_the_user_chooses(
    names: tuple[str, str], tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset
) -> None:
    weights, right = trained
    torch.save({names[0]: garbled(weights), names[1]: weights}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"--weights ema or --weights raw"):
        open_source(source(tmp_path / "a.pt"), digits)
    model, network = open_source(source(tmp_path / "a.pt", weights="ema"), digits)
    assert accuracy(network(), digits) == pytest.approx(right, abs=0.01)
    assert model.lineage.options["weights"] == "ema"
    assert accuracy(open_source(source(tmp_path / "a.pt", weights="raw"), digits)[1](), digits) < 20
    folders = [import_checkpoint(source(tmp_path / "a.pt", name="a", weights=each), digits, tmp_path) for each in ("ema", "raw")]
    assert folders[0] != folders[1]
    assert accuracy(models.load_model(folders[0]), digits) == pytest.approx(right, abs=0.01)
    torch.save(weights, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="one set of weights"):
        open_source(source(tmp_path / "b.pt", weights="ema"), digits)


@pytest.mark.parametrize("names", [("model.", "ema."), ("online_model.", "ema_model."), ("", "model_ema.module.")])
def test_raw_and_averaged_weights_in_one_state_dict_are_told_apart(
    names: tuple[str, str], tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset
) -> None:
    weights, right = trained
    both = {**prefixed(names[0])(garbled(weights)), **prefixed(names[1])(weights), f"{names[1]}decay": torch.tensor(0.999)}
    torch.save({"state_dict": {**both, "step": torch.tensor(7)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"--weights ema or --weights raw"):
        open_source(source(tmp_path / "a.pt"), digits)
    assert accuracy(open_source(source(tmp_path / "a.pt", weights="ema"), digits)[1](), digits) == pytest.approx(right, abs=0.01)
    assert accuracy(open_source(source(tmp_path / "a.pt", weights="raw"), digits)[1](), digits) < 20


def test_a_stem_that_fits_by_shape_and_not_by_function_is_asked_for(
    tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset
) -> None:
    weights, right = trained
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"mobilenet_v2:stock.*mobilenet_v2:small") as caught:
        open_source(source(tmp_path / "a.pt", architecture="mobilenet_v2"), digits)
    assert "\n" not in str(caught.value)
    _, other = open_source(source(tmp_path / "a.pt", architecture="mobilenet_v2:small"), digits)
    assert accuracy(other(), digits) < right - 20  # the right shapes, and another function


def test_a_stem_that_shapes_tell_is_found(tmp_path: Path) -> None:
    tv = _torchvision.load_torchvision()
    theirs = tv.models.resnet18(num_classes=4).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    images = torch.rand(2, 3, SIZE, SIZE)
    given = SourceOptions(str(tmp_path / "theirs.pt"), architecture="resnet18", classes=4, size=SIZE)
    with pytest.warns(ModelWarning, match="read as resnet18:stock"):
        model, network = open_source(given, None)
    with torch.no_grad():
        assert torch.equal(network().module(images), theirs(images))
    assert model.architecture == "resnet18:stock"
    ours = models.build("resnet18", 4, 3, SIZE).eval()
    torch.save(ours.state_dict(), tmp_path / "ours.pt")
    given = SourceOptions(str(tmp_path / "ours.pt"), architecture="resnet18", classes=4, size=SIZE)
    assert open_source(given, None)[0].architecture == "resnet18"


def test_a_name_without_a_stem_is_built_as_before() -> None:
    assert models.build("mobilenet_v2", 2, 3, 32).features[0][0].stride == (1, 1)
    assert models.build("mobilenet_v2:stock", 2, 3, 32).features[0][0].stride == (2, 2)
    assert models.build("mobilenet_v2:small", 2, 3, 96).features[0][0].stride == (1, 1)
    assert models.build("mobilenet_v2", 2, 3, 96).features[0][0].stride == (2, 2)
    assert models.source_digest("mobilenet_v2:stock") is None  # no code of the user's


def test_a_claimed_accuracy_is_a_gate(tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset, here: Path) -> None:
    weights, right = trained
    torch.save(weights, tmp_path / "a.pt")
    _, network = open_source(source(tmp_path / "a.pt"), digits)
    assert check_accuracy(network(), digits, round(right, 1)) == pytest.approx(right, abs=100 / len(digits.read("test")))
    with pytest.raises(CheckpointError, match=r"90\.0? % is claimed|is claimed"):
        check_accuracy(network(), digits, right - 1)
    for wrong, data in ((0.945, digits), (94.5, None)):
        with pytest.raises(InputError, match="--expect-accuracy"):
            check_accuracy(network(), data, wrong)


def test_classes_of_a_checkpoint_are_taken_and_compared(
    tmp_path: Path, trained: tuple[dict[str, Any], float], digits: Dataset
) -> None:
    names = digits.classes
    torch.save({"model": trained[0], "class_to_idx": {f"n{index}": index for index in range(10)}}, tmp_path / "a.pt")
    assert open_source(source(tmp_path / "a.pt"), None)[0].classes == tuple(f"n{index}" for index in range(10))
    with pytest.warns(ModelWarning, match="cannot be checked"):
        open_source(source(tmp_path / "a.pt"), digits)
    torch.save({"model": trained[0], "class_to_idx": {name: 9 - index for index, name in enumerate(names)}}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="order that it was trained in"):
        open_source(source(tmp_path / "b.pt"), digits)
    torch.save({"model": trained[0], "class_to_idx": {name: index for index, name in enumerate(names)}}, tmp_path / "c.pt")
    assert open_source(source(tmp_path / "c.pt"), digits)[0].classes == names


def test_other_files_are_told_apart_by_their_content(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(layer), tmp_path / "script")
    torch.save(layer, tmp_path / "module")
    one = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [one], [one])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "onnx")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(2))
    (tmp_path / "keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    words = {
        "script": "TorchScript.*edgebench import",
        "module": r"Linear.*nothing in it was run",
        "onnx": "ONNX.*edgebench import",
        "arrays.npz": "NumPy arrays",
        "keras": "Keras.*tf2onnx",
    }
    for name, expected in words.items():
        path = (tmp_path / name).rename(tmp_path / f"{name}.pth")
        with pytest.raises(CheckpointError, match=expected) as caught:
            open_source(SourceOptions(str(path), architecture="resnet18", classes=2), None)
        assert "\n" not in str(caught.value)


def test_settings_of_a_checkpoint_name_its_network(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": {"arch": "resnet34"}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="hyper_parameters say resnet34"):
        open_source(SourceOptions(str(tmp_path / "a.ckpt"), classes=2), None)
