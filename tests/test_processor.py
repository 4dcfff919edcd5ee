"""INT8 by what the processor can multiply: probed, exported for, judged, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import verbs
from conftest import Cli
from factory import parity_of
from onnx import TensorProto, helper, numpy_helper

from edgebench.agent import facts
from edgebench.analysis import processor, verdict
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_target
from edgebench.errors import ExportError
from edgebench.exporters.onnx import Limits
from edgebench.schema import Accepts, Bundle, Goals

HERE = facts.environment()
SATURATES = processor.saturates(HERE)
EVEN = """
import torch

class Even(torch.nn.Module):
    \"\"\"Sums what is bright with equal weights: pairs of products are as large as they get.\"\"\"

    def __init__(self, classes, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 8, 5, padding=2, bias=False)
        self.head = torch.nn.Linear(8, classes)
        with torch.no_grad():
            self.conv.weight.fill_(0.02)
            self.conv.weight.mul_(torch.linspace(0.5, 1.5, 8).reshape(8, 1, 1, 1))
            self.head.weight.copy_(torch.sin(torch.arange(8.0 * classes)).reshape(classes, 8))

    def forward(self, images):
        return self.head(torch.relu(self.conv(images)).amax(dim=(2, 3)))

def net(classes, channels, size):
    return Even(classes, channels)
"""
DIGITS: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1}


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni hypervisor\n", ["avx512_vnni"]),
        ("flags\t\t: fpu avx2 avx_vnni\n", ["avx_vnni"]),
        ("flags\t\t: fpu avx512_vnni avx_vnni amx_int8\n", ["avx512_vnni", "avx_vnni", "amx_int8"]),
        ("flags\t\t: fpu avx2 vaes vpclmulqdq\n", []),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm asimdhp asimddp i8mm\n", ["asimddp", "i8mm"]),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\n", []),
        ("cpu\t: POWER9\n", None),
    ],
)
def test_the_kernels_names_of_integer_instructions_are_read(tmp_path: Path, cpuinfo: str, found: list[str] | None) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert facts.environment(str(tmp_path))["int8_instructions"] == found


@pytest.mark.parametrize(
    ("machine", "instructions", "expected"),
    [
        ("x86_64", [], True),
        ("x86_64", ["avx_vnni"], False),
        ("AMD64", ["avx512_vnni"], False),
        ("x86_64", None, None),
        ("aarch64", [], False),
        ("arm64", None, False),
        ("riscv64", [], None),
    ],
)
def test_x86_without_vnni_may_saturate(machine: str, instructions: list[str] | None, expected: bool | None) -> None:
    assert processor.saturates({"machine": machine, "int8_instructions": instructions}) is expected


def accepts(bits: Any = "auto") -> Accepts:
    return Accepts(format="onnx", precisions=("int8",), runtime="onnxruntime", limits={"weight_bits": bits})


def test_the_processor_chooses_the_weights_bits_and_one_that_is_not_known_gets_7() -> None:
    plain, vnni = {"machine": "x86_64", "int8_instructions": []}, {"machine": "x86_64", "int8_instructions": ["avx_vnni"]}
    bits = [processor.fitted(accepts(), each).limits["weight_bits"] for each in (plain, vnni, {"machine": "aarch64"}, None)]
    assert bits == [7, 8, 8, 7]
    assert processor.fitted(accepts(8), plain).limits["weight_bits"] == 8


def test_8_bits_are_as_before_in_every_key() -> None:
    assert "weight_bits" not in Limits().model_dump()
    assert Limits(weight_bits=7).model_dump()["weight_bits"] == 7


@pytest.mark.parametrize("name", ["cpu", "linux-ssh", "nvidia-gpu"])
def test_targets_that_may_be_such_a_processor_leave_the_bits_to_it(name: str) -> None:
    found = read_target(name).accepted("onnx", "int8")
    assert found is not None
    assert found.limits["weight_bits"] == "auto"


# ---------------------------------------------------------------- the arithmetic, by ONNX Runtime itself


def brightest(weight: int) -> onnx.ModelProto:
    """Make a quantized product of 64 inputs whose exact result is 64 × 255 × weight."""
    names = {"a": np.uint8(0), "b": np.int8(0), "c": np.uint8(0)}
    scales = {"a": np.float32(1), "b": np.float32(1), "c": np.float32(64 * 255 * 127 / 255)}
    constants = [numpy_helper.from_array(np.full((64, 16), weight, np.int8), "weights")]
    for name in names:
        constants += [numpy_helper.from_array(np.array(scales[name]), f"{name}_scale")]
        constants += [numpy_helper.from_array(np.array(names[name]), f"{name}_zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "a_scale", "a_zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "a_scale", "a_zero"], ["a_real"]),
        helper.make_node("DequantizeLinear", ["weights", "b_scale", "b_zero"], ["b_real"]),
        helper.make_node("MatMul", ["a_real", "b_real"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "c_scale", "c_zero"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "c_scale", "c_zero"], ["output"]),
    ]
    real = helper.make_tensor_value_info("input", TensorProto.FLOAT, [16, 64])
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [16, 16])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [real], [out], constants), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    return model


def computed(model: onnx.ModelProto, fused: bool) -> float:
    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"input": np.full((16, 64), 255, np.float32)})
    return float(found[0, 0])


@pytest.mark.parametrize(("weight", "fits"), [(127, False), (64, True)])
def test_8_bits_saturate_without_vnni_and_7_never_do(weight: int, fits: bool) -> None:
    exact = 64 * 255 * weight
    assert computed(brightest(weight), fused=False) == pytest.approx(exact, rel=0.01)
    if fits or SATURATES is False:
        assert computed(brightest(weight), fused=True) == pytest.approx(exact, rel=0.01)
    else:
        assert computed(brightest(weight), fused=True) == pytest.approx(32 * 32767, rel=0.01)


# ---------------------------------------------------------------- export, goals, run, diagnose


@pytest.fixture
def eight(here: Path) -> str:
    """Write a target of this computer that wants 8-bit weights whatever its processor, and the network that shows it."""
    (here / "evennet.py").write_text(EVEN)
    text = (Path(__file__).parent.parent / "targets" / "cpu.yaml").read_text()
    (here / "eight.yaml").write_text(text.replace("name: cpu", "name: eight").replace("weight_bits: auto", "weight_bits: 8"))
    return str(here / "eight.yaml")


def exported(target: str, **more: Any) -> Bundle:
    return verbs.export("evennet:net", format="onnx", precision="int8", target=target, name="even", **DIGITS, **more).bundle


def largest_weight(folder: Path) -> int:
    model = onnx.load(folder / "model.onnx")
    weights = [numpy_helper.to_array(value) for value in model.graph.initializer if value.data_type == TensorProto.INT8]
    return max(int(np.abs(each.astype(int)).max()) for each in weights if each.ndim > 1)


def test_parity_judges_the_file_and_the_runtime_apart(eight: str) -> None:
    found = exported(eight)
    assert (found.details["weight_bits"], largest_weight(Path("bundles/even.onnx.int8"))) == (8, 127)
    parity, run = parity_of(found), parity_of(found).as_run
    assert run is not None
    assert parity.top1_agreement > 0.9
    assert parity.cosine > 0.99
    if SATURATES:
        assert run.max_abs > 10 * parity.max_abs
        assert run.saturates
    else:
        assert run.max_abs < parity.max_abs
    with np.load("bundles/even.onnx.int8/parity.npz") as saved:
        assert float(np.abs(saved["reference"] - saved["outputs"]).max()) == pytest.approx(parity.max_abs)


def test_a_goal_that_the_runtime_alone_misses_is_said_to_be_the_runtimes(eight: str) -> None:
    bundle = exported(eight)
    run = parity_of(bundle).as_run
    assert run is not None
    lost = run.model_copy(update={"metric": 0.5, "metric_drop": 0.3, "saturates": True})
    parity = parity_of(bundle).model_copy(update={"metric": 0.8, "metric_drop": 0.0, "as_run": lost})
    with pytest.raises(ExportError, match=r"as onnxruntime runs it on this processor, while the file itself has accuracy 80.0 %"):
        check_goals(bundle.model_copy(update={"parity": parity}), Goals())


def test_7_bits_are_written_where_the_processor_wants_them_and_said(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "evennet.py").write_text(EVEN)
    monkeypatch.setattr(facts, "int8_instructions", lambda _: [])
    given = (
        "--format",
        "onnx",
        "--precision",
        "int8",
        "--dataset",
        "digits",
        "--size",
        "16",
        "--channels",
        "1",
        "--name",
        "even",
    )
    code, _, err = cli("export", "evennet:net", *given)
    assert code == 0, err
    assert "INT8 weights have 7 bits" in err or HERE["machine"] not in processor.X86
    found = read_bundle(Path("bundles/even.onnx.int8"))
    assert found.limits["weight_bits"] == found.details["weight_bits"] == 7
    assert largest_weight(Path("bundles/even.onnx.int8")) <= 64
    run = parity_of(found).as_run
    assert run is not None
    assert run.max_abs <= 2 * parity_of(found).max_abs


def test_a_bundle_on_a_processor_without_what_it_assumes_gets_a_reason(eight: str, cli: Cli) -> None:
    exported(eight)
    code, out, err = cli("run", "bundles/even.onnx.int8", "--target", eight, "--half-width", "50%", "--json")
    assert code == 0, err
    [record] = json.loads(out)["records"]
    reasons = " ".join(each["reason"] + each["recommendation"] for each in record["verdict"]["reasons"])
    assert ("saturate" in reasons and "7-bit weights" in reasons) == bool(SATURATES)
    assert (record["verdict"]["word"] == "VALID") <= (not SATURATES)
    assert cli("verify", "results")[0] == 0


def test_the_reason_stands_with_the_decisions_where_those_differ() -> None:
    found = verdict._agreement(0.97, True)
    assert "3.0 % of the parity samples are decided otherwise than on the host: without VNNI" in found[0].reason
    assert verdict._saturated(0.97, True) == []
    assert "assumes other INT8 instructions" in verdict._saturated(1.0, True)[0].reason
    assert verdict._saturated(1.0, False) == []
    assert processor.may_lose({"weight_bits": 8}, "onnxruntime", {"machine": "x86_64", "int8_instructions": []})
    assert not processor.may_lose({}, "onnxruntime", {"machine": "x86_64", "int8_instructions": []})
    assert not processor.may_lose({"weight_bits": 8}, "tensorrt", {"machine": "x86_64", "int8_instructions": []})


def test_diagnose_names_saturation_and_its_remedy(eight: str) -> None:
    exported(eight)
    found = verbs.diagnose(Path("bundles/even.onnx.int8"), target=eight)
    said = [each for each in found.findings if "computes otherwise than the file says" in each.what]
    assert bool(said) == bool(SATURATES)
    if SATURATES:
        assert "saturate" in said[0].why
        assert "7-bit weights" in said[0].remedy
