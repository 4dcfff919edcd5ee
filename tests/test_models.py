"""Networks by name, and checkpoints of every kind, good and bad."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from edgebench import models
from edgebench.architectures import ARCHITECTURES
from edgebench.data import _torchvision
from edgebench.errors import CheckpointError, InputError, UnknownName
from edgebench.models import checkpoint
from edgebench.schema import Input, Lineage, Model, Network


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, 8),
        ("resnet50", 3, 32),
        ("mobilenet_v2", 1, 16),
        ("mobilenet_v3_small", 3, 28),
        ("mobilenet_v3_large", 1, 32),
        ("efficientnet_b0", 1, 32),
        ("vgg16", 1, 28),
        ("vgg16", 3, 8),
        ("densenet121", 1, 28),
        ("vit_b_16", 1, 28),
        ("resnet18", 3, 96),
        ("mobilenet_v3_small", 1, 64),
    ],
)
def test_any_class_count_channels_and_size(name: str, channels: int, size: int) -> None:
    network = models.build(name, 7, channels, size).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_the_list_of_architectures_is_torchvisions() -> None:
    tv = _torchvision.load_torchvision().models
    known = tv.list_models(module=tv)
    assert set(ARCHITECTURES) == set(known)


def test_a_small_stem_keeps_the_resolution() -> None:
    assert models.build("resnet18", 2, 3, 63).conv1.stride == (1, 1)
    assert models.build("resnet18", 2, 3, 64).conv1.stride == (2, 2)


def test_own_factories_are_called(here: Path) -> None:
    assert models.build("tinynet:net", 4, 1, 16)(torch.zeros(1, 1, 16, 16)).shape == (1, 4)
    for name in ("tinynet:nothing", "nowhere:net"):
        with pytest.raises(InputError, match=r"package\.module:factory"):
            models.build(name, 4, 1, 16)


def test_unknown_architectures_get_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet50'"):
        models.build("resnt50", 2, 3, 32)
    with pytest.raises(InputError, match="no multiple"):
        models.build("vit_b_16", 2, 3, 30)


def test_macs_are_counted() -> None:
    model = Model(
        name="convolution",
        architecture="none",
        task="none",
        classes=(),
        inputs=(Input(name="input", shape=(1, 1, 4, 4), dtype="float32"),),
        sha256="",
        parameters=18,
        lineage=Lineage(recipe="none"),
    )
    assert models.count_macs(Network(model, torch.nn.Conv2d(1, 2, 3, padding=1, bias=False), None)) == 4 * 4 * 9 * 2


@pytest.fixture
def weights() -> dict[str, Any]:
    return dict(models.build("resnet18", 3, 1, 16).state_dict())


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_as_people_save_them(tmp_path: Path, weights: dict[str, Any], wrapper: str | None, prefix: str) -> None:
    saved: Any = {prefix + key: value for key, value in weights.items()}
    torch.save({wrapper: saved, "epoch": 3} if wrapper else saved, tmp_path / "a.pt")
    found = checkpoint.read(tmp_path / "a.pt")
    assert checkpoint.fill(models.build("resnet18", 3, 1, 16), found, "a.pt") == prefix


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("was-executed",))


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(here: Path, kind: str) -> None:
    if kind == "torch":
        torch.save({"state_dict": Evil()}, "evil.pt")
    else:
        Path("evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        checkpoint.read(Path("evil.pt"))
    assert not Path("was-executed").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "truncated or no checkpoint"), (b"PK\x03\x04 not a zip", "no checkpoint"), (b"not at all", "no checkpoint")],
)
def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        checkpoint.read(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, weights: dict[str, Any], share: float) -> None:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        checkpoint.read(tmp_path / "a.pt")


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        checkpoint.read(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "b.pt")


def test_a_wrong_class_count_is_named(weights: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="has 3 classes, 5 are wanted"):
        checkpoint.fill(models.build("resnet18", 5, 1, 16), weights, "a.pt")


def test_wrong_channels_and_other_networks_are_named(weights: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"conv1.weight has shape \[64, 1, 3, 3\], \[64, 3, 3, 3\] is wanted"):
        checkpoint.fill(models.build("resnet18", 3, 3, 16), weights, "a.pt")
    with pytest.raises(CheckpointError, match=r"keys do not fit.*missing.*unknown"):
        checkpoint.fill(models.build("mobilenet_v2", 3, 1, 16), weights, "a.pt")


def program(path: Path) -> Path:
    module = models.build("resnet18", 3, 1, 16).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 16, 16),)), path)
    return path


def rewritten(source: Path, target: Path, change: Any) -> Path:
    """Copy a zip with some members changed or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in change(None, b"").items():
            new.writestr(name, content)
    return target


def test_exported_programs_are_read_unless_they_carry_code(tmp_path: Path) -> None:
    good = program(tmp_path / "good.pt2")
    assert checkpoint.read(good, trust=True).module()(torch.zeros(1, 1, 16, 16)).shape == (1, 3)

    def pickled(name: str | None, content: bytes) -> Any:
        return content if name else {"good/data/constants/custom_obj_0": pickle.dumps(Evil())}

    with pytest.raises(CheckpointError, match="carries a pickled object"):
        checkpoint.read(rewritten(good, tmp_path / "pickled.pt2", pickled), trust=True)

    def expression(name: str | None, content: bytes) -> Any:
        if name is None:
            return {"good/models/x.json": b'{"a": [{"expr_str": "__import__(\'os\').mkdir(\'x\')"}]}'}
        return content

    with pytest.raises(CheckpointError, match="no arithmetic"):
        checkpoint.read(rewritten(good, tmp_path / "expression.pt2", expression), trust=True)
    (tmp_path / "short.pt2").write_bytes(good.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a complete exported program"):
        checkpoint.read(tmp_path / "short.pt2", trust=True)
