"""Networks from factories and libraries: what they are told, what goes wrong inside them, and that an edit is noticed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import verbs
from torch import nn

from edgebench import models
from edgebench.errors import CheckpointError, InputError, MissingExtra, UnknownName
from edgebench.models import factory, outputs
from edgebench.models.source import SourceOptions, open_source

EVERY = """
import torch

class Net(torch.nn.Module):
    def __init__(self, num_classes=3, in_chans=3):
        super().__init__()
        self.conv = torch.nn.Conv2d(in_chans, 4, 3)
        self.head = torch.nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

    @classmethod
    def small(cls, classes, channels=1):
        return cls(classes, channels)

def torchvisions(*, weights=None, progress=True, **kwargs):
    return Net(**kwargs)

def sized(num_classes, img_size=224, depth=2):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(img_size * img_size, num_classes))

def ours(**settings):
    return Net(settings["classes"], settings["channels"])

def deep(classes, dimensions):
    return Net(classes)

def breaks(classes, channels, size):
    return torch.nn.Linear(classes, -1) if inner(size) else None

def inner(size):
    return [1, 2][size]

def wide(classes, channels, size):
    return Net(classes + 1, channels)

def pixels():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 1))

def lraspp(classes):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)

number = 3
"""


@pytest.fixture
def every(here: Path) -> Path:
    (here / "every.py").write_text(EVERY)
    return here


@pytest.mark.parametrize("name", ["Net", "Net.small", "torchvisions", "sized", "ours"])
def test_a_factory_is_told_what_its_signature_takes(every: Path, name: str) -> None:
    channels = 3 if name == "torchvisions" else 1
    network = models.build(f"every:{name}", 5, channels, 16).eval()
    assert network(torch.zeros(2, channels, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("breaks", r"every:breaks: IndexError: list index out of range \(every\.py:\d+\); mend the factory"),
        ("deep", r"every:deep: wants dimensions, and a factory is told classes, num_classes,.* wrap it in a function"),
        ("wide", r"every:wide: has 5 classes, 4 are wanted; give the network its class count"),
        ("number", r"every:number: is a int; give package\.module:factory"),
        ("nothing", r"every:nothing: .*give package\.module:factory that Python can import from here"),
    ],
)
def test_what_goes_wrong_in_a_factory_is_one_line(every: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        models.build(f"every:{name}", 4, 1, 16)
    assert "\n" not in str(caught.value)
    line = next((number for number, text in enumerate(EVERY.splitlines(), 1) if "[1, 2][size]" in text), 0)
    assert name != "breaks" or f"(every.py:{line})" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\ndef net(:\n", r"SyntaxError: .* \(broken\.py:2\); mend the module"),
        ("import torch\n\nlimit = undefined\n", r"NameError: name 'undefined' is not defined \(broken\.py:3\); mend the module"),
        ("import torch\nimport nowhere_at_all\n", r"No module named 'nowhere_at_all' \(broken\.py:2\); give package"),
    ],
)
def test_a_module_that_does_not_import_is_said_with_its_line(here: Path, text: str, said: str) -> None:
    (here / "broken.py").write_text(text)
    sys.modules.pop("broken", None)
    with pytest.raises(InputError, match=said):
        models.build("broken:net", 4, 1, 16)


def test_a_users_module_may_import_torchvision_itself(here: Path) -> None:
    import subprocess

    (here / "mine.py").write_text(
        "import torchvision\ndef net(num_classes):\n    return torchvision.models.alexnet(num_classes=num_classes)\n"
    )
    code = "from edgebench import models; print(type(models.build('mine:net', 4, 3, 64)).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "AlexNet", done.stderr


# ---------------------------------------------------------------- what a network returns


class Returns(nn.Module):
    """A network that returns its scores in some form."""

    def __init__(self, form: Any, classes: int = 4) -> None:
        super().__init__()
        self.form, self.head = form, nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> Any:
        return self.form(self.head(x.flatten(1)), x)


FORMS: dict[str, Any] = {
    "tensor": lambda scores, _: scores,
    "tuple": lambda scores, x: (scores, x),
    "list": lambda scores, x: [x, scores],
    "dict": lambda scores, x: {"features": x, "out": scores},
    "nested": lambda scores, x: {"inner": (x, {"scores": scores})},
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_found_in_whatever_a_network_returns(form: str) -> None:
    module, image = Returns(FORMS[form]).eval(), torch.rand(1, 1, 4, 4)
    wanted = module.head(image.flatten(1))
    names = set(module.state_dict())
    assert outputs.fit(module, (image,), 4, None, "net") == 4
    assert torch.equal(module(image), wanted)
    assert set(module.state_dict()) == names
    assert torch.equal(torch.export.export(module, (image,)).module()(image), wanted)


def test_several_that_could_be_meant_are_asked_for(here: Path) -> None:
    (here / "twins.py").write_text(
        "import torch\nclass Twins(torch.nn.Module):\n"
        "    def __init__(self, classes):\n        super().__init__()\n        self.head = torch.nn.Linear(256, classes)\n"
        "    def forward(self, x):\n        found = self.head(x.flatten(1))\n        return {'main': found, 'aux': -found}\n"
        "def net(classes):\n    return Twins(classes)\n"
    )
    with pytest.raises(InputError, match=r"twins:net: returns main \[1, 10\], aux \[1, 10\]; say which .*: --output main"):
        models.build("twins:net", 10, 1, 16)
    with pytest.raises(InputError, match=r"has no output 'other'; it returns main"):
        models.build("twins:net", 10, 1, 16, output="other")
    given: dict[str, Any] = {"format": "onnx", "dataset": "digits", "size": 16, "channels": 1}
    main = verbs.export("twins:net", output="main", out=Path("one"), **given).bundle
    aux = verbs.export("twins:net", output="1", out=Path("two"), **given).bundle
    assert main.model.lineage.options == {"output": "main"}
    assert main.model.sha256 == aux.model.sha256
    assert main.key != aux.key


def test_the_width_is_checked_before_anything_is_exported(every: Path) -> None:
    (every / "fixed.py").write_text(
        "import torch\ndef net(channels, size):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 7))\n"
    )
    with pytest.raises(InputError, match="fixed:net: has 7 classes, 10 are wanted"):
        verbs.export("fixed:net", format="onnx", dataset="digits", size=16, channels=1)
    torch.save(models.build("fixed:net", 7, 1, 16).state_dict(), "seven.pt")
    with pytest.raises(InputError, match="has 7 classes, 10 are wanted"):
        verbs.export("seven.pt", architecture="fixed:net", format="onnx", dataset="digits", size=16, channels=1)
    Path("small.yaml").write_text(
        "name: small\ndataset: {name: digits}\ninput: {size: 16, channels: 1}\n"
        "models: [{name: fixed, architecture: 'fixed:net', recipe: train}]\nvariants: [{format: onnx, precisions: [fp32]}]\n"
    )
    with pytest.raises(InputError, match="has 7 classes, 10 are wanted"):
        verbs.run("small.yaml")
    assert not list(every.glob("**/model.json"))


# ---------------------------------------------------------------- an edit is noticed

STRIDED = """
import torch
from parts import stride

def net(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 4, 3, stride=stride()), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, classes))
"""


def edit(path: Path, text: str) -> None:
    """Write a file as somebody who edits it does, seconds later."""
    later = path.stat().st_mtime + 5 if path.exists() else None
    path.write_text(text)
    if later is not None:
        os.utime(path, (later, later))


@pytest.fixture
def strided(here: Path) -> Path:
    for name in ("strided", "parts"):
        sys.modules.pop(name, None)
    edit(here / "strided.py", STRIDED)
    edit(here / "parts.py", "def stride():\n    return 1\n")
    return here


def test_an_edited_stride_is_not_served_from_the_cache(strided: Path) -> None:
    given: dict[str, Any] = {"format": "onnx", "dataset": "digits", "size": 16, "channels": 1}
    before = verbs.export("strided:net", **given)
    assert verbs.export("strided:net", **given).cached
    edit(strided / "parts.py", "def stride():\n    return 2\n")
    after = verbs.export("strided:net", **given)
    assert not after.cached
    assert after.bundle.model.sha256 == before.bundle.model.sha256
    assert after.bundle.macs is not None and before.bundle.macs is not None
    assert after.bundle.macs < before.bundle.macs / 3


def test_a_models_folder_is_keyed_by_its_factorys_source(strided: Path) -> None:
    from edgebench.config import read_dataset
    from edgebench.data import open_images
    from edgebench.recipes import Job, model_folder
    from edgebench.schema import InputPlan, no_progress

    def folder(architecture: str) -> Path:
        inputs = InputPlan(size=16, channels=1)
        given: Any = ("net", architecture, "baseline", open_images(read_dataset("digits")), inputs, {}, None, no_progress)
        return model_folder("train", Job(*given), Path())

    before, plain = folder("strided:net"), folder("cnn")
    edit(strided / "unrelated.py", "x = 1\n")
    assert folder("strided:net") == before
    edit(strided / "parts.py", "def stride():\n    return 2\n")
    assert folder("strided:net") != before
    assert folder("cnn") == plain


def test_the_source_is_what_a_module_imports_below_its_own_folder(here: Path) -> None:
    package = here / "pack" / "deep"
    package.mkdir(parents=True)
    files = {
        here / "pack/__init__.py": "",
        package / "__init__.py": "from . import blocks\n",
        package
        / "net.py": "import torch, numpy\nfrom .blocks import conv\nfrom ..top import head\nfrom pack import other as o\n",
        package / "blocks.py": "def conv(): ...\n",
        here / "pack/top.py": "def head(): ...\n",
        here / "pack/other.py": "import json\n",
        here / "beside.py": "",
    }
    for path, text in files.items():
        path.write_text(text)
    before = factory.digest("pack.deep.net:net")
    for path in files:
        text = path.read_text()
        path.write_text(text + "\n# edited\n")
        assert (factory.digest("pack.deep.net:net") == before) == (path.name == "beside.py"), path
        path.write_text(text)
    assert factory.digest("pack.deep.net:net") == before
    assert factory.digest("nowhere_at_all:net") is None
    assert "pack" not in sys.modules


# ---------------------------------------------------------------- libraries


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("squeezenet1_1", 1, 32),
        ("shufflenet_v2_x0_5", 1, 32),
        ("mnasnet0_5", 3, 32),
        ("regnet_y_400mf", 1, 32),
        ("alexnet", 1, 64),
    ],
)
def test_torchvisions_other_families_take_any_class_count_and_channels(name: str, channels: int, size: int) -> None:
    network = models.build(name, 7, channels, size).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_auxiliary_outputs_are_left_out(here: Path) -> None:
    network = models.build("googlenet", 4, 1, 32)
    assert network.aux_logits
    assert network.train()(torch.rand(2, 1, 32, 32)).shape == (2, 4)


def test_a_size_that_does_not_fit_a_network_is_said() -> None:
    with pytest.raises(InputError, match="maxvit_t: an image size of 96 does not fit it"):
        models.build("maxvit_t", 4, 3, 96)


def test_timms_networks_are_built_by_name() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    network = models.build("timm:resnet10t", 6, 1, 32).eval()
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 6)
    sized = models.build("timm:vit_tiny_patch16_224", 6, 3, 64).eval()
    assert sized(torch.zeros(1, 3, 64, 64)).shape == (1, 6)
    with pytest.raises(UnknownName, match="did you mean 'resnet10t'"):
        models.build("timm:resnet10x", 6, 1, 32)


def test_an_optional_library_that_is_missing_is_told_how_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else True)
    with pytest.raises(MissingExtra, match=r"pip install 'edgebench\[timm\]'"):
        models.build("timm:resnet10t", 6, 1, 32)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny vision transformer as Hugging Face's library does."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_channels=1,
        id2label={index: f"digit {index}" for index in range(10)},
    )
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_mean": [0.25], "image_std": [0.5], "size": {"height": 16, "width": 16}}'
    )
    return folder


def test_a_hugging_face_folder_is_a_model(here: Path, vit: Path) -> None:
    import transformers

    model, network = open_source(SourceOptions(f"hf:{vit}"), None)
    assert model.classes == tuple(f"digit {index}" for index in range(10))
    spec = model.preprocessing
    assert (spec.height, spec.channels, spec.mean, spec.std) == (16, 1, (0.25,), (0.5,))
    image = torch.rand(1, 1, 16, 16)
    reference: Any = transformers.ViTForImageClassification.from_pretrained(vit)
    wanted = reference.eval()(image).logits
    assert torch.allclose(network().module(image), wanted, atol=1e-6)
    bundle = verbs.export(f"hf:{vit}", format="onnx", dataset="digits").bundle
    assert bundle.model.lineage.recipe == "checkpoint"
    assert bundle.parity is not None and bundle.parity.cosine > 0.999


def test_of_a_hugging_face_folder_nothing_runs_and_nothing_is_guessed(here: Path, vit: Path, tmp_path: Path) -> None:
    import json
    import shutil

    def changed(name: str, change: Any) -> str:
        folder = tmp_path / name
        shutil.copytree(vit, folder)
        change(folder)
        return f"hf:{folder}"

    def remote(folder: Path) -> None:
        said = json.loads((folder / "config.json").read_text())
        said |= {"auto_map": {"AutoModelForImageClassification": "evil.Evil"}}
        (folder / "config.json").write_text(json.dumps(said))
        (folder / "evil.py").write_text("import os\nos.mkdir('was-executed')\n")

    def headless(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / "model.safetensors")
        save_file(
            {key: value for key, value in held.items() if "classifier" not in key}, folder / "model.safetensors", {"format": "pt"}
        )

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")

    for name, change, said in (
        ("remote", remote, "names code of its own"),
        ("headless", headless, "holds no weights for classifier"),
        ("pickled", pickled, r"holds pytorch_model\.bin alone; edgebench reads safetensors"),
        ("empty", lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    ):
        with pytest.raises(InputError, match=said):
            open_source(SourceOptions(changed(name, change)), None)
    assert not Path("was-executed").exists()
    with pytest.raises(CheckpointError, match="has 10 classes, 4 are wanted"):
        open_source(SourceOptions(f"hf:{vit}", classes=4), None)


@pytest.mark.parametrize(
    ("name", "format", "output", "shape"),
    [
        ("lraspp", "onnx", "out", (1, 21, 64, 64)),
        ("pixels", "tflite", None, (1, 5, 64, 64)),
    ],
)
def test_a_factorys_network_without_class_scores_has_the_task_none(
    every: Path, name: str, format: str, output: str | None, shape: tuple[int, ...]
) -> None:
    bundle = verbs.export(f"every:{name}", format=format, size=64, channels=3, output=output, name="net").bundle
    assert (bundle.model.task, bundle.model.classes, bundle.scored) == ("none", (), None)
    assert [each.shape for each in bundle.outputs] == [shape]
    assert bundle.parity is not None
    assert bundle.parity.relative_error is not None
    assert bundle.parity.relative_error < 1e-5
    assert bundle.parity.top1_agreement is None


def test_who_says_a_class_count_is_told_that_a_network_gives_no_scores(every: Path) -> None:
    with pytest.raises(InputError, match=r"returns \[1, 5, 64, 64\] for one image; a classifier returns \[1, classes\]"):
        verbs.export("every:pixels", format="onnx", size=64, channels=3, classes=5)
