"""What a format cannot express is said before the long work, with the layer's name in the user's model."""

from __future__ import annotations

import random
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import verbs
from conftest import Cli
from torch import Tensor, nn
from torch.nn import functional

from edgebench import plugins
from edgebench.errors import ExportError
from edgebench.exporters import onnx
from edgebench.exporters._shared import tracing
from edgebench.models.program import Program
from edgebench.schema import ExportRequest, Limits, Lineage, Model, Network, Preprocessing, image_input

Function = Callable[[Tensor], Tensor]
HERE = Path(__file__).name


class Odd(nn.Module):
    """A layer that does whatever it is told."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Doubts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


class Replaces(nn.Module):
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.last * 0.9 + x.mean()
        return x * 2


class Awake(nn.Module):
    """Keeps what it holds in training mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def train(self, mode: bool = True) -> Awake:
        return self

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.double())
        return found.float()


def network(layer: nn.Module) -> nn.Module:
    """Put a layer where it is called features.2.odd."""
    deep = nn.Sequential(OrderedDict(calm=nn.ReLU(), odd=layer))
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), deep)
    return nn.Sequential(OrderedDict(features=features, head=nn.Flatten())).eval()


def request(
    module: nn.Module,
    precision: str = "fp32",
    size: int = 16,
    dynamic_batch: bool = False,
    *,
    kind: type[Limits] = onnx.Limits,
    **limits: Any,
) -> ExportRequest[Limits]:
    model = Model(
        name="mine",
        architecture="mine:net",
        task="multi-class",
        classes=("a", "b"),
        inputs=(image_input(Preprocessing(height=size, width=size, channels=3, mean=(0, 0, 0), std=(1, 1, 1))),),
        sha256=uuid.uuid4().hex,
        parameters=0,
        lineage=Lineage(recipe="train"),
    )
    return ExportRequest(Network(model, module, None), precision, kind(**limits), None, dynamic_batch)


def preflight(format: str, *arguments: Any, **options: Any) -> str:
    """Return the refusal, or nothing."""
    try:
        plugin = plugins.load("edgebench.exporters", format, "format")
        plugin.preflight(request(*arguments, kind=plugin.Limits, **options))
    except ExportError as error:
        return str(error)
    return ""


def sampled(x: Tensor) -> Tensor:
    return functional.grid_sample(x, torch.zeros(1, 8, 8, 2), align_corners=False)


FORMS: list[tuple[str, Function, dict[str, str]]] = [
    (
        "singular values",
        lambda x: torch.linalg.svd(x)[1],
        {"onnx": "aten::linalg_svd has no ONNX form in opset 13", "tflite": "aten::linalg_svd has no TFLite form"},
    ),
    ("sampling of a grid", sampled, {"onnx": "aten::grid_sampler is known from opset 16 on, the target reads 13"}),
    (
        "odd pooling",
        lambda x: functional.adaptive_avg_pool2d(x, 5),
        {"onnx": "aten::adaptive_avg_pool2d: output size that are not factor of input size"},
    ),
    (
        "Fourier transform",
        lambda x: torch.fft.fft2(x).abs(),
        {"onnx": "aten::fft_fft2 has no ONNX form", "tflite": "aten::fft_fft2 gives complex numbers"},
    ),
    (
        "complex numbers",
        lambda x: torch.view_as_real(torch.complex(x, x)).sum(-1),
        {"onnx": "aten::complex has no ONNX form", "tflite": "aten::complex has no TFLite form"},
    ),
    ("a shape that depends on the data", lambda x: x[x > 0][None], {"tflite": "aten::index returns depends on the data"}),
    (
        "a plain number",
        lambda x: x * x.sum().item(),
        {"onnx": "takes a number out of a tensor (`", "tflite": "aten::item returns depends on the data"},
    ),
    (
        "a median",
        lambda x: x.median(1)[0],
        {"onnx": "aten::median has no ONNX form", "tflite": "aten::median has no TFLite form"},
    ),
]


@pytest.mark.parametrize(("function", "expected"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
@pytest.mark.parametrize("format", ["torch", "onnx", "tflite"])
def test_an_operator_that_a_format_lacks_is_named_with_its_layer(
    format: str, function: Function, expected: dict[str, str]
) -> None:
    said = preflight(format, network(Odd(function)), **({"opset": 13} if format == "onnx" else {}))
    if format not in expected:
        assert said == ""
        return
    assert said.startswith("mine: features.2.odd (Odd), ")
    assert f", {HERE}:" in said
    assert expected[format] in said
    assert any(
        remedy in said for remedy in ("; replace the layer", "; TFLite files have fixed shapes", "; compute with tensors alone")
    )
    assert "\n" not in said


def test_the_line_is_the_users_and_the_opset_that_would_do_is_told() -> None:
    wanted = next(number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "grid_sample(x" in line)
    said = preflight("onnx", network(Odd(sampled)), opset=15)
    assert f"{HERE}:{wanted}: " in said
    assert said.endswith("choose a target that reads opset 16")
    assert preflight("onnx", network(Odd(sampled)), opset=16) == ""


def through_python(x: Tensor) -> Tensor:
    """Fail below a function of Python's own library."""
    return x * random.choice([])


def test_a_line_is_never_edgebench_s_nor_python_s(here: Path) -> None:
    """A program's own wrapper runs it, and so does what makes pixels of an image for Core ML."""
    module = Program(torch.export.export(network(Odd(FORMS[0][1])), (torch.zeros(1, 3, 16, 16),)).module())
    for format, options in (("onnx", {"opset": 13}), ("tflite", {})):
        said = preflight(format, module, **options)
        assert "program.py" not in said
        assert format != "onnx" or f", {HERE}:" in said  # the program still knows its source
    said = preflight("onnx", module, size=8, opset=13)
    assert "an input of 3 × 8 × 8 does not fit it" in said
    assert ".py" not in said  # what checks its input lies in no file
    wanted = next(at for at, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "random.choice([])" in line)
    said = preflight("onnx", network(Odd(through_python)), opset=13)
    assert said.startswith(f"mine: features.2.odd (Odd), {HERE}:{wanted}: an input of 3 × 16 × 16 does not fit it")


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("/home/me/edgebench/net.py", True),
        ("/home/me/net.py", True),
        (random.__file__, False),
        (torch.nn.functional.__file__, False),
        (plugins.__file__, False),
        (tracing.__file__, False),
        ("<eval_with_key>.1", False),
    ],
)
def test_what_lies_where_is_whose(file: str, own: bool) -> None:
    assert tracing.is_own(file) == own


FORMATS = ("torch", "onnx", "tflite", "coreml", "tensorrt")


def refused(format: str, module: nn.Module) -> str:
    limits = {"version": "8.6"} if format == "tensorrt" else {}
    return preflight(format, module, **limits)


def line(text: str) -> int:
    """Find the line of this file that begins with a text."""
    return next(number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip().startswith(text))


@pytest.mark.parametrize("format", FORMATS)
def test_a_branch_on_the_data_is_refused_with_its_line(format: str) -> None:
    pytest.importorskip({"coreml": "coremltools"}.get(format, "torch"))
    said = refused(format, network(Doubts()))
    assert said.startswith(f"mine: features.2.odd (Doubts), {HERE}:{line('if x.sum() > 0:')}: ")
    assert "what it does next depends on the data (`if x.sum() > 0:`)" in said
    assert said.endswith("torch.where")


@pytest.mark.parametrize("format", FORMATS)
def test_what_no_file_can_hold_is_refused_with_its_line(format: str) -> None:
    pytest.importorskip({"coreml": "coremltools"}.get(format, "torch"))
    said = refused(format, network(Counts()))
    assert said.startswith(
        f"mine: features.2.odd (Counts), {HERE}:{line('self.count += 1')}: changes its buffer features.2.odd.count"
    )
    said = refused(format, network(Replaces()))
    assert said.startswith(f"mine: features.2.odd (Replaces), {HERE}:{line('self.last = self.last')}: changes its buffer ")
    said = refused(format, network(Odd(lambda x: functional.dropout(x, 0.5))))
    assert said.startswith(f"mine: features.2.odd (Odd), {HERE}:")
    assert "gives something else each time that it is run (`" in said
    said = refused(format, network(Awake(nn.Dropout())))
    assert said.startswith("mine: features.2.odd.inner (Dropout): is in training mode")
    said = refused(format, network(Awake(nn.BatchNorm2d(4))))
    assert said.startswith("mine: features.2.odd.inner (BatchNorm2d): is in training mode")


def test_ways_that_follow_from_shapes_weights_and_modes_alone_are_no_branches_on_the_data() -> None:
    class Calm(nn.Module):
        scale: Tensor

        def __init__(self, weighs: bool) -> None:
            super().__init__()
            self.weighs = weighs
            self.register_buffer("scale", torch.ones(1))
            self.drop, self.norm = nn.Dropout(), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Any:
            assert x.shape[1] == 4
            if len(x) == 1 and not self.training:
                x = x * self.scale
            if self.weighs and self.scale > 0:
                x = x * self.scale.item()
            for row in x:
                x = x + row.mean()
            return self.norm(self.drop(x))

    for format in ("torch", "onnx", "tflite"):
        assert refused(format, network(Calm(False))) == ""
    assert refused("onnx", network(Calm(True))) == ""


def test_float64_that_onnx_runtime_cannot_compute_is_refused(here: Path) -> None:
    import onnxruntime

    module = network(Doubled())
    said = preflight("onnx", module)
    assert said.startswith("mine: features.2.odd.inner (Conv2d), ")
    assert "aten::_convolution on float64" in said
    plugins.load("edgebench.exporters", "onnx", "format").export(request(module), here)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        onnxruntime.InferenceSession(here / "model.onnx")
    assert preflight("tflite", module) == ""
    assert preflight("onnx", network(Odd(lambda x: x.double().mul(2).float()))) == ""


@pytest.mark.parametrize("format", ["torch", "onnx", "tflite"])
def test_an_input_that_is_too_small_names_the_layer_that_cannot_take_it(format: str) -> None:
    module = network(nn.Sequential(nn.MaxPool2d(4), nn.MaxPool2d(4)))
    assert preflight(format, module, size=16) == ""
    said = preflight(format, module, size=8)
    assert said.startswith("mine: features.2.odd.1 (MaxPool2d): an input of 3 × 8 × 8 does not fit it: ")
    assert said.endswith("choose another input size, or mend the layer")


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_layer_that_fixes_the_batch_size_is_named_where_any_is_wanted(format: str) -> None:
    layers: dict[str, Function] = {
        "change each other's results": lambda x: x - x.mean(0),
        "images of a batch": lambda x: x.view(1, -1),
        "a batch size of its own": lambda x: x.reshape(int(x.shape[0]), -1),
        "takes one image alone": lambda x: x.view(4, 16, 16)[None],
    }
    for what, function in layers.items():
        module = network(Odd(function))
        assert preflight(format, module) == ""
        said = preflight(format, module, dynamic_batch=True)
        assert what in said
        assert said.startswith("mine: features.2.odd (Odd)") or what == "change each other's results"
        assert "leave --dynamic-batch" in said


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_attention_and_what_follows_the_batch_take_any(format: str) -> None:
    attention = nn.TransformerEncoderLayer(256, 4, 16, batch_first=True)
    assert preflight(format, network(nn.Sequential(nn.Flatten(2), attention)), dynamic_batch=True) == ""


def test_opsets_that_are_too_low_are_refused_before_anything_is_traced() -> None:
    module = network(nn.ReLU())
    assert "the target reads ONNX opset 5, torch writes 7 to 20" in preflight("onnx", module, opset=5)
    assert "int8 (per channel) needs 13" in preflight("onnx", module, "int8", opset=12)
    assert "int8 needs 10" in preflight("onnx", module, "int8", opset=9, per_channel=False)
    assert "int8-dynamic needs 11" in preflight("onnx", module, "int8-dynamic", opset=10)
    for precision, opset in (("fp32", 7), ("fp32", 25), ("int8", 13), ("int8-dynamic", 11)):
        assert preflight("onnx", module, precision, opset=opset) == ""


BROAD: dict[str, Function] = {
    "activations": lambda x: functional.gelu(functional.hardswish(functional.silu(functional.mish(functional.elu(x))))),
    "norms": lambda x: functional.group_norm(functional.layer_norm(functional.normalize(x), [16]), 2),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "shapes": lambda x: functional.pixel_shuffle(functional.pad(x, (1, 1, 1, 1)).roll(1, 2).flip(3), 2),
    "resizing": lambda x: functional.interpolate(functional.interpolate(x, scale_factor=2), scale_factor=2, mode="bilinear"),
    "choice": lambda x: torch.where(x > 0, x, x.topk(4, dim=1)[0].masked_fill(x < 1, 0.5)),
    "reductions": lambda x: x.var(1) + x.amax(1) + x.cumsum(1)[:, 0] + x.argmax(1).float(),
    "products": lambda x: torch.einsum("bchw,bdhw->bcd", x, x) @ x.flatten(2) + functional.unfold(x, 3, padding=1)[:, :4],
}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_what_can_be_exported_is_not_refused(here: Path, format: str) -> None:
    module = network(Odd(lambda x: torch.cat([function(x).flatten(1) for function in BROAD.values()], dim=1)))
    assert preflight(format, module) == ""
    plugin = plugins.load("edgebench.exporters", format, "format")
    plugin.export(request(module, kind=plugin.Limits), here)


def test_only_the_converter_of_the_format_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("litert_torch", "coremltools", "tensorrt"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("litert_torch", "coremltools", "tensorrt", "ai_edge_quantizer"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    assert preflight("onnx", network(nn.GELU())) == ""
    assert preflight("torch", network(nn.GELU())) == ""
    with pytest.raises(ImportError):
        preflight("tflite", network(nn.GELU()))


def test_any_converter_can_be_asked_what_it_knows() -> None:
    from edgebench.exporters._shared import preflight as preflight_

    def known(operator: str) -> str | None:
        return "is too new" if operator == "aten::gelu" else None

    for tracer in ("export", "jit"):
        preflight_.check(request(network(nn.ReLU())), known, tracer)
        with pytest.raises(ExportError, match=r"features\.2\.odd \(GELU\).*aten::gelu is too new; replace the layer"):
            preflight_.check(request(network(nn.GELU())), known, tracer)


# ---------------------------------------------------------------- when


SPECTRAL = """
import torch

class Spectral(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]

class Doubts(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 1e9:
            return x * 2
        return x

def net(classes, channels, size):
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), Spectral(), torch.nn.Flatten(), torch.nn.LazyLinear(classes))

def spectral(classes, channels, size):
    made = net(classes, channels, size)
    made(torch.zeros(1, channels, size, size))
    return made

def doubts(classes, channels, size):
    return torch.nn.Sequential(torch.nn.Flatten(), Doubts(), torch.nn.Linear(channels * size * size, classes))
"""
PROFILE = """
name: small
description: for tests
dataset: {name: digits}
input: {size: 16, channels: 1}
models:
  - {name: spectral, architecture: 'odd:spectral', role: teacher, recipe: train, options: {epochs: 1}}
  - {name: doubts, architecture: 'odd:doubts', recipe: train, options: {epochs: 1}}
variants:
  - {format: torch, precisions: [fp32]}
  - {format: onnx, precisions: [fp32, int8]}
targets: [cpu]
goals: {max_degradation: null}
"""


@pytest.fixture
def profile(here: Path) -> Path:
    (here / "odd.py").write_text(SPECTRAL)
    (here / "small.yaml").write_text(PROFILE)
    return here


def trained(folder: Path) -> set[str]:
    return {path.parent.name.rpartition("-")[0] for path in folder.glob(".edgebench/models/*/model.json")}


def test_a_model_none_of_whose_cells_can_be_is_not_trained(profile: Path, cli: Cli) -> None:
    code, out, err = cli("run", "small.yaml", "--only", "model=spectral,format=onnx")
    assert code == 1, err
    said = " ".join(out.replace("│", " ").split())
    assert "0 of 2 cells have a result" in said
    assert trained(profile) == set()
    records = sorted(profile.glob("results/**/*.json"))
    assert len(records) == 2
    for record in records:
        assert "spectral: 1 (Spectral), odd.py:6: aten::linalg_svd has no ONNX form in opset 17" in record.read_text()


def test_the_other_cells_go_on_and_the_refusal_comes_before_the_training(profile: Path) -> None:
    heard: list[str] = []

    def progress(what: str, done: float, total: float, lane: str = "") -> None:
        head = what.partition(" (")[0]
        if not heard or heard[-1] != head:
            heard.append(head)

    result = verbs.run("small.yaml", only="model=spectral,precision=fp32", target=["sleeper.yaml"], progress=progress)
    assert {cell.format: cell.state for cell in result.cells} == {"torch": "done", "onnx": "failed"}
    assert "1 (Spectral)" in next(cell.reason for cell in result.cells if cell.state == "failed")
    assert heard.index("check what spectral can become") < heard.index("train spectral")
    assert trained(profile) == {"spectral"}


def test_a_branch_on_the_data_ends_every_cell_before_the_training(profile: Path) -> None:
    result = verbs.run("small.yaml", only="model=doubts,precision=fp32")
    assert {(cell.state, "1 (Doubts), odd.py:10: what it does next depends" in cell.reason) for cell in result.cells} == {
        ("failed", True)
    }
    assert trained(profile) == set()


def test_a_teacher_is_trained_for_its_student_though_its_own_cells_fail(profile: Path) -> None:
    text = PROFILE.replace(
        "name: doubts, architecture: 'odd:doubts', recipe: train",
        "name: pupil, architecture: 'tinynet:net', role: student, recipe: distill, teacher: spectral",
    )
    Path("small.yaml").write_text(text)
    result = verbs.run("small.yaml", only="format=onnx,precision=fp32")
    assert {(cell.model, cell.state) for cell in result.cells} == {("spectral", "failed"), ("pupil", "done")}
    assert trained(profile) == {"spectral", "pupil"}


def test_a_dry_run_shows_what_cannot_be(profile: Path, cli: Cli) -> None:
    code, out, err = cli("run", "small.yaml", "--dry-run", "--json", "--only", "precision=fp32")
    assert "aten::linalg_svd has no ONNX form" in out, (code, out, err)
    assert not list(profile.glob("results/**/*.json"))
    assert trained(profile) == set()


def test_an_export_by_hand_is_refused_before_calibration(profile: Path) -> None:
    heard: list[float] = []

    def progress(what: str, done: float, total: float, lane: str = "") -> None:
        heard.append(done)

    with pytest.raises(ExportError, match=r"1 \(Spectral\), odd\.py:6"):
        verbs.export(
            "odd:spectral",
            format="onnx",
            precision="int8",
            dataset="digits",
            size=16,
            channels=1,
            progress=progress,
        )
    assert heard == [0]
