"""Core ML packages: exported for real, read back, executed by the MIL interpreter, and measured on a double of a Mac."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import DOUBLES, MOBILE, TINY
from factory import parity_of

from edgebench.agent.runtimes import preprocess
from edgebench.analysis import metrics
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.device import deploy, measure
from edgebench.device import job as job_
from edgebench.errors import ExportError
from edgebench.schema import MODES, ExportRequest, Link, Measurement, Network, Scenario

pytest.importorskip("coremltools", reason="coremltools has no wheel for this computer")

FIVE = ("fp32", "fp16", "int8-weights", "palettized-6bit", "palettized-4bit")
PHONE = """
name: phone
description: a phone, for export alone
transport: local
agent_plugins: [rt_mac.py]
accepts:
  - format: coreml
    precisions: [fp32, fp16, int8-weights, palettized-6bit, palettized-4bit]
    runtime: %s
    limits: {%s}
"""
WIDE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, 8, 3, padding="same")
        self.pool = torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.slopes = torch.nn.PReLU(8)
        self.groups = torch.nn.GroupNorm(2, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = torch.nn.Linear(8, classes)

    def forward(self, x):
        f = torch.nn.functional
        x = self.slopes(self.first(f.pad(x, (1, 2, 2, 1), mode="reflect")))
        x = f.max_pool2d(self.groups(self.pool(x)), 3, 2, 1)
        one, two = x.chunk(2, dim=1)
        x = torch.cat([f.leaky_relu(one, 0.2), f.elu(two).flip(1)], dim=1)
        x = x + f.hardswish(x) - f.gelu(x, approximate="tanh") + f.softplus(x).sqrt() * f.relu6(x)
        tokens = self.norm(x.flatten(2).transpose(1, 2))[:, 1:]
        tokens = torch.cat([tokens[:, :1].expand(-1, 2, -1), tokens], dim=1)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.last(torch.stack([tokens.mean(1), tokens.amax(1), tokens[:, 0]], dim=1).sum(1))

def net(classes, channels, size):
    return Net(classes, channels)

class Stretched(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, 8, 3, 2, 1)
        self.back = torch.nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2)
        self.norm = torch.nn.InstanceNorm2d(8, affine=True)
        self.last = torch.nn.Linear(64, classes)

    def forward(self, x):
        f = torch.nn.functional
        x = f.max_pool2d(self.norm(self.back(self.first(x))), 3, 2, ceil_mode=True)
        corners = f.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = corners + f.interpolate(x, scale_factor=2, mode="bilinear") - f.interpolate(x, scale_factor=2)
        x = f.pixel_shuffle(torch.where(x > 0, f.normalize(x, dim=1), f.log_softmax(x, 1)), 2)
        return self.last(x.mean(3).cumsum(2).flatten(1))

def stretched(classes, channels, size):
    return Stretched(classes, channels)
"""
HEAVY = """
import torch

def net(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 64, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16 * size**2, 512), torch.nn.ReLU(), torch.nn.Linear(512, classes))
"""


def export(model: str = "tinynet:net", precision: str = "fp32", limits: str = "", runtime: str = "coreml", **changes: Any) -> Any:
    Path("phone.yaml").write_text(PHONE % (runtime, limits))
    Path("rt_mac.py").write_bytes((DOUBLES / "rt_mac.py").read_bytes())
    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "target": "phone.yaml"}
    return verbs.export(model, format="coreml", precision=precision, **{**given, **changes})


def package_of(result: Any) -> Any:
    from edgebench.exporters._coreml import package as package_

    return package_.read(result.folder / "model.mlpackage")


@pytest.mark.parametrize("limits", ["", "version: macOS15"])
@pytest.mark.parametrize("precision", FIVE)
def test_each_precision_is_exported_read_back_and_executed(here: Path, precision: str, limits: str) -> None:
    from edgebench.exporters._coreml import package as package_

    bundle = (result := export(precision=precision, limits=limits)).bundle
    package = package_of(result)
    assert package.spec.specificationVersion == (9 if limits else 7)
    bits = {weight.values: weight.bits for weight in package_.weights(package) if weight.values > 1}
    assert bits == {72: 32 if precision == "fp32" else 16, 1152: bundle.details["weight_bits"], 160: bits[72]}
    assert bundle.details["weight_bits"] == dict(zip(FIVE, (32, 16, 8, 6, 4), strict=True))[precision]
    assert (parity_of(bundle).runtime, parity_of(bundle).samples, bundle.calibration) == ("MIL interpreter", 256, None)
    assert parity_of(bundle).max_abs < {"fp32": 1e-5, "fp16": 3e-3, "int8-weights": 1e-2}.get(precision, 0.1)
    assert parity_of(bundle).top1_agreement >= 0.98
    assert export(precision=precision, limits=limits).cached


def test_the_model_takes_an_image_and_holds_its_labels(here: Path) -> None:
    from edgebench.exporters._coreml import package as package_

    bundle = (result := export(precision="fp16", channels=3)).bundle
    package = package_of(result)
    description = package.spec.description
    [image] = description.input
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", 16, 16)
    assert image.type.imageType.ColorSpace.Name(image.type.imageType.colorSpace) == "RGB"
    assert (description.predictedFeatureName, description.predictedProbabilitiesName) == ("classLabel", "classLabel_probs")
    assert [out.name for out in description.output] == ["classLabel", "classLabel_probs", "scores"]
    assert package_.labels(package) == bundle.model.classes
    assert json.loads(description.metadata.userDefined["classes"]) == list(bundle.model.classes)
    assert (bundle.image.dtype, bundle.image.takes_pixels, bundle.details["labels"]) == ("uint8", True, True)
    grey = package_of(export(precision="fp16")).spec.description.input[0].type.imageType
    assert grey.ColorSpace.Name(grey.colorSpace) == "GRAYSCALE"


def test_pixels_as_a_phone_gives_them_are_normalised_inside(here: Path) -> None:
    """Channels with unlike mean and deviation; the expected scores come from torch, by hand."""
    import torch

    from edgebench.exporters._coreml import interpreter

    mean, std = [0.1, 0.4, 0.7], [0.2, 0.5, 0.9]
    network = importlib.import_module("tinynet").net(10, 3, 16).eval()
    torch.save(network.state_dict(), "mine.pt")
    result = export("mine.pt", architecture="tinynet:net", channels=3, mean=mean, std=std)
    pixels = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(1)).float()
    normal = (pixels / 255 - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)
    with torch.no_grad():
        expected = network(normal)
    run = interpreter.Interpreter(package_of(result))
    assert torch.allclose(run(pixels, "scores"), expected, atol=1e-5)
    assert torch.allclose(run(pixels, "probabilities"), expected.softmax(1), atol=1e-5)


def test_a_tensor_of_pixels_goes_in_where_the_target_wants_one(here: Path) -> None:
    bundle = (result := export(limits="input: tensor")).bundle
    [tensor] = package_of(result).spec.description.input
    assert list(tensor.type.multiArrayType.shape) == [1, 1, 16, 16]
    assert (bundle.image.dtype, bundle.image.takes_pixels, bundle.details["input"]) == ("float32", False, "tensor")
    assert parity_of(bundle).max_abs < 1e-5
    assert bundle.key != export().bundle.key


def test_a_package_counts_with_all_its_files(here: Path) -> None:
    result = export()
    inside = [path for path in (result.folder / "model.mlpackage").rglob("*") if path.is_file()]
    assert len(inside) == 3
    assert result.bundle.size_bytes == sum(path.stat().st_size for path in inside)
    assert result.bundle.entry == "model.mlpackage/Manifest.json"
    assert {f"model.mlpackage/{path.relative_to(result.folder / 'model.mlpackage')}" for path in inside} < set(
        result.bundle.files
    )


def test_weights_shrink_as_their_bits_do(here: Path) -> None:
    Path("heavynet.py").write_text(HEAVY)
    size = {precision: export("heavynet:net", precision).bundle.size_bytes for precision in ("fp32", "int8-weights", FIVE[-1])}
    assert size["int8-weights"] / size["fp32"] == pytest.approx(1 / 4, rel=0.02)
    assert size["palettized-4bit"] / size["fp32"] == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "palettized-6bit"])
def test_a_mobilenet_is_what_torch_computes(here: Path, precision: str) -> None:
    """Its first blocks: depthwise convolutions, squeeze and excitation, Hardswish."""
    Path("mobilenet.py").write_text(MOBILE)
    bundle = export("mobilenet:net", precision, dataset=None, classes=10, size=32, channels=3, name="mobilenet").bundle
    assert parity_of(bundle).source == "synthetic"
    if precision == "fp32":
        assert parity_of(bundle).max_abs < 1e-3
    else:
        assert bundle.details["compressed"] > 0.98 * bundle.details["weights"]


@pytest.mark.parametrize(
    ("network", "precision", "allowed"),
    [
        ("net", "fp32", 5e-4),  # coremltools writes GELU's approximation as the exact one
        ("net", "fp16", 0.05),
        ("stretched", "fp32", 1e-4),
    ],
)
def test_the_interpreter_computes_what_other_layers_convert_to(here: Path, network: str, precision: str, allowed: float) -> None:
    Path("widenet.py").write_text(WIDE)
    assert parity_of(export(f"widenet:{network}", precision, channels=3, name="wide").bundle).max_abs < allowed


def test_networks_with_the_same_weights_are_judged_each_by_its_own_scores(here: Path) -> None:
    Path("twonets.py").write_text(TINY + TINY.replace("torch.nn.ReLU()", "torch.nn.Tanh()").replace("def net", "def other"))
    for name in ("net", "other"):
        assert parity_of(export(f"twonets:{name}", name="same").bundle).max_abs < 1e-4


def test_halves_that_overflow_are_not_passed_over(here: Path) -> None:
    Path("hugenet.py").write_text(
        TINY.replace("torch.nn.Flatten()", "Times(), torch.nn.Flatten()").replace(
            "def net", "class Times(torch.nn.Module):\n    def forward(self, x):\n        return x * 1e4 * (x * 1e4)\n\ndef net"
        )
    )
    assert np.isfinite(parity_of(export("hugenet:net", name="huge").bundle).max_abs)
    with pytest.raises(ExportError, match="not finite"):
        export("hugenet:net", "fp16", name="huge")


def test_an_operation_that_the_interpreter_lacks_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgebench.exporters._coreml.ops import OPERATIONS

    monkeypatch.delitem(OPERATIONS, "conv")
    with pytest.raises(ExportError, match=r"operation conv \(.*\) is not known to the MIL interpreter"):
        export()
    assert not list(Path("bundles").glob("*"))


def test_what_a_deployment_target_cannot_hold_is_refused_with_the_reason(here: Path) -> None:
    assert package_of(export(precision="fp16", limits="version: iOS15")).spec.specificationVersion == 6
    with pytest.raises(ExportError, match=r"palettized-4bit .* need iOS16 or macOS13, the target's limits.version is macOS12"):
        export(precision="palettized-4bit", limits="version: macOS12")
    with pytest.raises(ExportError, match="ML Programs need iOS15 or macOS12"):
        export(limits="version: iOS14")
    with pytest.raises(ExportError, match=r"'iOS99' is no deployment target of Core ML; limits.version takes .*iOS16"):
        export(limits="version: iOS99")


def test_a_layer_that_does_not_convert_is_named_before_the_long_work(here: Path) -> None:
    Path("oddnet.py").write_text(
        TINY.replace("torch.nn.Flatten()", "Odd(), torch.nn.Flatten()").replace(
            "def net", "class Odd(torch.nn.Module):\n    def forward(self, x):\n        return torch.digamma(x + 1)\n\ndef net"
        )
    )
    with pytest.raises(ExportError, match=r"6 \(Odd\).*coremltools has no conversion for aten::digamma"):
        export("oddnet:net", name="odd")


def request_of(result: Any, probabilities: str = "softmax", **changes: Any) -> ExportRequest[Any]:
    """Ask for a small network whose model is changed."""
    import torch

    from edgebench.exporters import coreml

    model = result.bundle.model.model_copy(update=changes)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 64, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    )
    return ExportRequest(Network(model, module.eval(), None), "fp16", coreml.Limits(), None, probabilities=probabilities)


def test_labels_must_differ_and_several_at_once_make_no_classifier(here: Path) -> None:
    import torch

    from edgebench.exporters import coreml
    from edgebench.exporters._coreml import interpreter
    from edgebench.exporters._coreml import package as package_

    result = export()
    with pytest.raises(ExportError, match="the label 'a' names two classes"):
        coreml.preflight(request_of(result, classes=("a",) * 10))
    made = coreml.export(request_of(result, probabilities="sigmoid"), here)
    package = package_.read(here / "model.mlpackage")
    assert package_.labels(package) == ()
    assert made.details["labels"] is False
    run = interpreter.Interpreter(package)
    pixels = torch.full((2, 1, 16, 16), 99.0)
    assert torch.allclose(run(pixels, "probabilities"), run(pixels, "scores").sigmoid(), atol=1e-3)


def test_a_package_that_is_not_what_was_wanted_is_refused(here: Path) -> None:
    from edgebench.exporters import coreml
    from edgebench.exporters._coreml import package as package_

    package = package_of(result := export(precision="fp16"))
    wanted = coreml.wanted(request_of(result))
    assert package_.check(package, wanted)["weights"] == 72 + 1152 + 160 + 2  # and scale and bias of the pixels
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "bits": ({"bits": 8}, "holds 16 bits a weight, 8 are wanted"),
        "size": ({"bits": 4, "smallest": 9999}, "no layer has 9999 weights or more"),
        "specification": ({"specification": 9}, "specification version 7, 9 is wanted"),
        "labels": ({"classes": ("a", "b")}, "has labels"),
        "input": ({"shape": (1, 3, 16, 16)}, "GRAYSCALE.*RGB"),
        "tensor": ({"image": False}, "FLOAT32"),
    }
    for change, message in wrong.values():
        with pytest.raises(ExportError, match=message):
            package_.check(package, dataclasses.replace(wanted, **change))
    (result.folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff\xff")
    with pytest.raises(ExportError, match="cannot be read back as an ML Program"):
        package_of(result)


def test_nothing_of_coremltools_reaches_the_screen(here: Path) -> None:
    Path("phone.yaml").write_text((PHONE % ("coreml", "")).replace("agent_plugins: [rt_mac.py]\n", ""))
    code = "from edgebench import SourceOptions, api; api.export(SourceOptions('tinynet:net', size=16, channels=1), "
    code += "format='coreml', precision='palettized-4bit', dataset='digits', target='phone.yaml')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# ---------------------------------------------------------------- on the device


def cell(result: Any, passes: list[job_.Pass], **options: Any) -> Measurement:
    """Run passes of a bundle through the agent, on what its target says; two classes of images are enough."""
    target = read_target("phone.yaml", None)
    images = images_of(result)
    transport = deploy.connect(target, Link(Path("device")))
    there = deploy.deploy(target, transport, result.folder, result.bundle, [images])
    scenario = Scenario(warmup_seconds=0.2)
    asked = job_.cell_job(result.bundle, target.accepts[0].runtime, there, [images], scenario, options)
    [found] = measure.measure(transport, there.agent, job_.job([asked], passes, MODES["quick"], scenario), lambda _: None)
    return found


def images_of(result: Any) -> Any:
    return open_images(read_dataset("digits")).read("test").images[list(result.bundle.parity_samples[:64])]


def test_a_mac_predicts_what_the_exporting_host_computed(here: Path) -> None:
    result = export(precision="fp16", runtime="mac")
    with np.load(result.folder / "parity.npz") as saved:
        expected = saved["outputs"][:64]
    found = cell(result, [job_.Pass("accuracy"), job_.Pass("profile"), job_.Pass("trial")], compute_units="CPU_AND_NE")
    assert found.failure is None
    assert found.predictions is not None
    scores = metrics.scores_of(found.predictions.values, found.predictions.columns)
    assert np.allclose(scores, expected, rtol=2e-3, atol=1e-5)  # halves, which another order of sums rounds otherwise
    [trial] = found.trials
    assert trial.complete
    assert len(trial.samples_ns) >= MODES["quick"].min_samples
    assert 0 < np.median(trial.stages["compute"]) < 2 * np.median(trial.samples_ns)
    assert found.profile is not None
    where = {node["op"]: node["where"] for node in found.profile}
    assert (where["conv"], where["linear"], where["classify"]) == ("Neural Engine", "CPU", "")
    assert "const" not in where
    assert all(node["estimate"] for node in found.profile)
    assert next(node["ns"] for node in found.profile if node["op"] == "classify") is None


def test_apples_own_benchmarker_takes_the_samples_where_that_is_wanted(here: Path) -> None:
    found = cell(export(limits="input: tensor", runtime="mac"), [job_.Pass("trial")], benchmarker=True)
    assert found.failure is None
    [trial] = found.trials
    assert len(trial.samples_ns) >= MODES["quick"].min_samples
    assert min(trial.samples_ns) > 0
    assert trial.load_ns > 0


def test_without_a_mac_a_cell_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "torch", "transformers"):  # coremltools imports them where they are, and does without
        Path(f"lean/{name}.py").parent.mkdir(exist_ok=True)
        Path(f"lean/{name}.py").write_text("raise ImportError")
    result = export()
    monkeypatch.setenv("PYTHONPATH", str(here / "lean"))
    found = cell(result, [job_.Pass("accuracy")])
    assert found.failure is not None
    assert found.failure.stage == "load"
    assert "Core ML is a part of macOS, this is linux; choose a Mac" in found.failure.reason


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there")
def test_core_ml_works_on_no_linux_however_much_coremltools_can_be_imported() -> None:
    from edgebench.device import doctor

    [row] = [row for row in doctor.check_runtimes() if row["runtime"] == "coreml"]
    assert (row["works"], row["version"]) == ("no", "")
    assert row["note"].startswith("Core ML is a part of macOS, this is linux")
    [format] = [row for row in doctor.check_formats() if row["format"] == "coreml"]
    assert format["works"] == "yes"  # it converts


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compute_units": "GPU"}, r"compute_units is ALL \| CPU_ONLY \| CPU_AND_GPU \| CPU_AND_NE, not 'GPU'"),
        ({"benchmarker": "maybe"}, "benchmarker is true or false, not 'maybe'"),
    ],
)
def test_options_that_coreml_does_not_have_are_refused(options: dict[str, Any], reason: str) -> None:
    from edgebench.agent.runtimes import rt_coreml

    with pytest.raises(ValueError, match=reason):
        rt_coreml.Runtime({"options": options, "inputs": [], "outputs": []})


def test_whole_pixels_round_halves_up_whatever_the_scale() -> None:
    spec = {"height": 2, "width": 2, "channels": 1}
    images = np.array([[[[0], [1]], [[1], [2]]]], np.uint8)
    assert preprocess.whole(images, spec).dtype == np.uint8
    assert preprocess.whole(images, spec).tolist() == images.tolist()
    assert preprocess.whole(images, {**spec, "height": 1}).reshape(-1).tolist() == [1, 2]
    assert (
        preprocess.whole(np.full((1, 1, 1, 3), [[[[0, 0, 1]]]], np.uint8), {"height": 1, "width": 1, "channels": 1}).item() == 0
    )


def test_a_mac_accepts_every_precision() -> None:
    mac = read_target("mac", None)
    for precision in FIVE:
        accepts = mac.accepted("coreml", precision)
        assert accepts is not None
        assert (accepts.runtime, accepts.limits["version"], accepts.options) == ("coreml", "macOS13", {"compute_units": "ALL"})
    assert any(requirement.startswith("coremltools") for requirement in mac.setup.requirements)
