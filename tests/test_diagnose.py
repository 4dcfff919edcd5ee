"""Where operators run, where the time goes, and why, in words."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import MOBILE, Cli
from sshd import Sshd

from edgebench.agent.runtimes import cut, onnxfile
from edgebench.analysis import processor
from edgebench.bundle.manifest import read_bundle
from edgebench.diagnose import diagnose, kernel_rules, quantization_rules
from edgebench.diagnose.findings import Case
from edgebench.diagnose.graph import Graph, Node, less_overhead, module_of
from edgebench.errors import BundleError, InputError
from edgebench.files import seal, write_json

ROOT = Path(__file__).parent.parent
Bundles = dict[tuple[str, str], Path]
BRIEF = {"half_width": 0.5, "threads": 1}
SWISH = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 3, stride=2, padding=1), torch.nn.Hardswish())
        self.left, self.right = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        x = torch.nn.functional.relu(self.left(x) + self.right(x))
        return self.head(x.mean((2, 3)))

def net(classes, channels, size):
    return Net(classes, channels)
"""
RESNET = """
from torchvision.models.resnet import BasicBlock, ResNet

def net(classes, channels, size):
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes)
"""


def exported(architecture: str, precision: str, format: str = "onnx", size: int = 32, **more: Any) -> Path:
    given = {"dataset": "digits", "size": size, "channels": 1, "calibration": {"samples": 8}, **more}
    return verbs.export(architecture, format=format, precision=precision, **given).folder


@pytest.fixture
def swish(here: Path) -> Callable[..., Path]:
    """Export a network with two branches and an activation that INT8 kernels often lack."""
    (here / "swishnet.py").write_text(SWISH)
    return lambda kind, precision: exported("swishnet:net", precision, kind, 16, name="swish")


def diagnosed(folder: Path, **more: Any) -> diagnose.Diagnosis:
    return verbs.diagnose(folder, scenario=BRIEF, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---------------------------------------------------------------- ONNX Runtime


def test_a_plain_int8_mobilenet_names_what_is_not_fused(here: Path, cli: Cli) -> None:
    """Its first blocks: activations and gates of ten layers are Hardswish or Hardsigmoid."""
    Path("mobilenet.py").write_text(MOBILE)
    fp32, folder = (exported("mobilenet:net", precision, name="mobilenet", channels=3) for precision in ("fp32", "int8"))
    before = contents(folder)
    code, out, _ = cli("diagnose", folder, "--threads", 1)
    assert code == 0
    assert "HardSigmoid is not fused" in out
    assert "has no INT8 kernel for it: 10 times the tensor is turned into float and back" in out
    assert "features.0.2" in out
    assert "edgebench quantize --search" in out
    assert f"{folder}/model.onnx" in out
    code, out, _ = cli("diagnose", folder, "--threads", 1, "--json")
    found = json.loads(out)
    assert contents(folder) == before
    assert found["against"]["name"] == read_bundle(fp32).name
    assert found["headline"].startswith("int8 is ")
    assert "10 Q/DQ pairs are not fused" in found["fused"]
    [unfused] = [each for each in found["findings"] if each["what"] == "HardSigmoid is not fused"]
    assert len(unfused["places"]) == 10
    assert unfused["nodes"] == 3 * 10
    assert 0 < unfused["share"] < 1
    assert sum(row["share"] for row in found["operators"]) == pytest.approx(1)
    assert sum(row["count"] for row in found["operators"]) == len(found["nodes"])
    assert [row["where"] for row in found["placement"]] == ["CPUExecutionProvider"]
    assert len(found["costliest"]) == 5
    assert found["costliest"] == sorted(found["nodes"], key=lambda node: node["ns"], reverse=True)[:5]


def test_a_resnet_in_int8_is_fused_and_said_to_be(here: Path) -> None:
    Path("residual.py").write_text(RESNET)
    found = diagnosed(exported("residual:net", "int8", name="resnet10", channels=3))
    assert found.fused.startswith("everything that INT8 quantized is fused")
    assert found.graph.islands == []
    assert not [each for each in found.findings if "not fused" in each.what]
    assert found.kinds["integer"]["share"] > 0.9
    assert "give --against" in found.headline


def test_a_dynamic_int8_computes_its_ranges_each_time(here: Path, swish: Callable[..., Path]) -> None:
    found = diagnosed(swish("onnx", "int8-dynamic"))
    [finding] = [each for each in found.findings if each.what.startswith("ranges")]
    assert finding.nodes > 8
    assert finding.share is not None
    assert "--precision int8" in finding.remedy


def test_fp16_on_a_processor_is_said_to_be_computed_as_fp32(here: Path, swish: Callable[..., Path]) -> None:
    found = diagnosed(swish("onnx", "fp16"), against=swish("onnx", "fp32"))
    assert any(each.what.startswith("fp16 is computed as FP32") for each in found.findings)
    assert found.comparison is not None
    assert "fp16 is" in found.headline


def test_signed_activations_are_blamed_where_the_processor_wants_unsigned_ones(here: Path, swish: Callable[..., Path]) -> None:
    if platform.machine() not in processor.X86:
        pytest.skip("signed activations are this processor's own")
    target = here / "signed.yaml"
    target.write_text((ROOT / "targets" / "cpu.yaml").read_text().replace("uint8", "int8"))
    (here / "swishnet.py").write_text(SWISH)
    folder = exported("swishnet:net", "int8", "onnx", 16, name="swish", target=str(target))
    blamed = [each for each in diagnosed(folder, target=str(target)).findings if "these are int8" in each.why]
    assert {"Conv", "Add"} & {op for each in blamed for op in each.what.split(" is ")[0].split(", ")}
    assert all("activations: uint8" in each.remedy for each in blamed)


def test_torch_is_profiled_too(tiny_bundles: Bundles, here: Path) -> None:
    found = diagnosed(tiny_bundles["torch", "fp32"])
    assert sum(node.op == "aten::conv2d" for node in found.graph.nodes) == 2
    assert found.graph.timed


def test_an_old_python_and_onnxruntime_are_profiled(here: Path, swish: Callable[..., Path]) -> None:
    python = ROOT / "build" / "twins" / "py36" / "bin" / "python"
    if not python.exists():
        pytest.skip("no build/twins/py36/bin/python: `make twins` makes it")
    (here / "twin.yaml").write_text((ROOT / "tests" / "twin.yaml").read_text().replace("PYTHON", str(python)))
    folder = exported("swishnet:net", "int8", "onnx", 16, name="swish", target="twin.yaml")
    found = diagnosed(folder, target="twin.yaml")
    assert found.runtime == "onnxruntime 1.10.0"
    assert any(node.inputs for node in found.graph.nodes)
    assert ("HardSigmoid",) in [island.ops for island in found.graph.islands]


def test_a_device_over_ssh_is_diagnosed(here: Path, sshd: Callable[..., Sshd], tiny_bundles: Bundles) -> None:
    device = sshd("board")
    lines = (ROOT / "targets" / "cpu.yaml").read_text().replace("transport: local", "transport: ssh")
    (here / "board.yaml").write_text(
        f"{lines}\nhost: {device.host}\npython: {sys.executable}\n".replace("name: cpu", "name: board")
    )
    found = diagnosed(tiny_bundles["onnx", "int8"], target="board.yaml")
    assert found.target == "board"
    assert found.fused.startswith("everything")


# ---------------------------------------------------------------- TFLite


def test_a_tflite_int8_tells_what_stays_outside_of_xnnpack(here: Path, swish: Callable[..., Path]) -> None:
    found = diagnosed(swish("tflite", "int8"))
    where = {node.op: node.where for node in found.graph.nodes}
    assert where["HARD_SWISH"] == "plain kernels"
    assert where["CONV_2D"] == "XNNPACK"
    [finding] = [each for each in found.findings if each.what.startswith("HARD_SWISH runs in plain kernels")]
    assert "XNNPACK does not take int8 HARD_SWISH (once)" in finding.why
    assert finding.places == ("stem.1",)
    assert "times no operators" in found.method
    assert found.graph.timed


def test_a_cut_file_gives_what_the_whole_one_has_inside(here: Path, swish: Callable[..., Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = (swish("tflite", "fp32") / "model.tflite").read_bytes()
    plain = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    whole = Interpreter(model_content=content, experimental_preserve_all_tensors=True, **plain)
    whole.allocate_tensors()
    given = whole.get_input_details()[0]
    image = np.random.default_rng(0).random(given["shape"], np.float32)
    whole.set_tensor(given["index"], image)
    whole.invoke()
    operators = whole._get_ops_details()
    branches = 0
    for count in range(1, len(operators)):
        alive = cut.alive(operators, count, [whole.get_output_details()[0]["index"]])
        branches = max(branches, len(alive))
        short = Interpreter(model_content=cut.short(content, count, alive), **plain)
        short.allocate_tensors()
        assert len(short._get_ops_details()) == count
        short.set_tensor(given["index"], image)
        short.invoke()
        for tensor in alive:
            assert np.array_equal(short.get_tensor(tensor), whole.get_tensor(tensor))
    assert branches == 2


def test_what_is_no_tflite_file_is_not_cut() -> None:
    with pytest.raises(ValueError, match="no TFLite file"):
        cut.short(b"\x08\0\0\0", 1, [0])


def test_times_that_fall_are_pooled() -> None:
    assert cut.rising([1, 3, 2, 5]) == [1, 2.5, 2.5, 5]
    assert cut.rising([4, 3, 2]) == [3, 3, 3]


# ---------------------------------------------------------------- graphs


def node(op: str, name: str = "", ns: float | None = 1000.0, **more: Any) -> Node:
    return Node(name or op, op, more.pop("where", "CPUExecutionProvider"), ns, **more)


def test_module_names_are_those_of_the_torch_network() -> None:
    assert module_of(node("Conv", "/features/features.1/block/block.0/block.0.0/Conv_token_5")) == "features.1.block.0.0"
    assert module_of(node("QLinearConv", "QLinearConv", outputs=("/layer1/layer1.0/conv1/Conv",))) == "layer1.0.conv1"
    wrapped = "litert_torch._convert.Wrapper/a.b.Net_wrapped/torch.nn.modules.container.Sequential_features/t.ops.Conv2d_0"
    assert module_of(node("CONV_2D", wrapped)) == "features.0"
    assert module_of(node("Flatten", "/Flatten")) == ""


def test_the_profilers_own_cost_is_taken_off_every_kernel() -> None:
    graph = Graph([node("A", ns=4000), node("B", ns=10000)])
    lean, taken = less_overhead(graph, 8000)
    assert taken == 3000
    assert [each.ns for each in lean.nodes] == [1000, 7000]
    assert less_overhead(graph, 20000) == (Graph(graph.nodes), 0.0)
    assert less_overhead(graph, 1000)[1] == 4000  # no more than the shortest kernel has


def test_the_file_reader_finds_what_onnx_finds(tiny_bundles: Bundles, tmp_path: Path) -> None:
    import onnx

    path = tiny_bundles["onnx", "int8"] / "model.onnx"
    model = onnx.load(path)
    weights = {each.name for each in model.graph.initializer}
    expected = [
        (each.name, each.op_type, [name for name in each.input if name not in weights], list(each.output))
        for each in model.graph.node
    ]
    found = onnxfile.nodes(str(path))
    assert [(each["name"], each["op"], each["inputs"], each["outputs"]) for each in found] == expected
    (tmp_path / "short.onnx").write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="no ONNX file"):
        onnxfile.nodes(str(tmp_path / "short.onnx"))


def case(bundle: Path, nodes: list[Node], **more: Any) -> Case:
    return Case(read_bundle(bundle), Graph(nodes), "runtime 1", more.pop("machine", "x86_64"), **more)


def test_layouts_and_slower_kernels_are_named(tiny_bundles: Bundles) -> None:
    nodes = [node("ReorderInput"), node("Conv"), node("ReorderOutput"), node("QLinearConv", ns=7000)]
    given = case(tiny_bundles["onnx", "int8"], nodes, reference=Graph([node("Conv", "/c/Conv_nchwc", ns=2000)]))
    [layout] = kernel_rules.layouts(given)
    assert (layout.nodes, layout.share, "NCHWc" in layout.why) == (2, 0.2, True)
    [slower] = kernel_rules.slower_kernels(given)
    assert slower.share == 0.7
    assert "7 µs in 1 kernels against 2 µs in 1" in slower.why
    assert "1 of FP32's compute on blocks of channels" in slower.why
    assert [each.what for each in kernel_rules.more_kernels(given)] == ["4 kernels are started, 1 in FP32"]


def test_integer_kernels_with_the_wrong_sign_are_named(tiny_bundles: Bundles) -> None:
    nodes = [node("QLinearConv", ns=3000), node("Softmax", ns=1000)]
    given = case(tiny_bundles["onnx", "int8"], nodes, machine="aarch64")
    [finding] = quantization_rules.signedness(given)
    assert (finding.what, finding.share) == ("activations are uint8", 0.75)
    assert "activations: int8" in finding.remedy
    assert not list(quantization_rules.signedness(dataclasses.replace(given, machine="x86_64")))
    assert not list(quantization_rules.signedness(dataclasses.replace(given, machine="riscv64")))


def test_a_runtime_without_its_fast_kernels_is_named(tiny_bundles: Bundles) -> None:
    [finding] = kernel_rules.fallback(case(tiny_bundles["onnx", "int8"], [node("CONV_2D", where="plain kernels")]))
    assert finding.what == "no operator runs in XNNPACK"
    assert not list(kernel_rules.fallback(case(tiny_bundles["onnx", "int8"], [node("Conv", where="GPU")])))


def test_layers_of_an_engine_that_are_not_int8_are_counted(tiny_bundles: Bundles) -> None:
    layers = {"count": 9, "by_precision": {"int8": 6, "fp32": 2, "unknown": 1}, "listed": []}
    [finding] = kernel_rules.engine(case(tiny_bundles["onnx", "int8"], [], finish={"layers": layers}))
    assert finding.what == "2 of the engine's 9 layers are not int8"
    assert finding.why.startswith("2 in fp32")


# ---------------------------------------------------------------- what cannot be diagnosed


def placed(bundle: Path, folder: Path, mapped: Any = 7) -> Path:
    """Copy a bundle and say that an Edge TPU's compiler placed it."""
    folder.mkdir()
    for path in bundle.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    cpu = [{"operator": "HARD_SWISH", "count": 2, "layer": "stem.1", "status": "Operation not supported"}]
    placement = {"operators": 9, "mapped": mapped, "operators_share": 7 / 9, "cpu": cpu}
    changed = read_bundle(folder).model_copy(update={"format": "edgetpu", "details": {"placement": placement}})
    write_json(folder / "bundle.json", seal(changed.model_dump(mode="json", by_alias=True)))
    return folder


def test_a_compilers_placement_is_told_without_the_device(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    folder = placed(tiny_bundles["onnx", "int8"], here / "tiny.edgetpu.int8")
    code, out, _ = cli("diagnose", folder)
    assert code == 0
    assert "HARD_SWISH runs on the processor, not on the accelerator, 2 times" in out
    assert "Operation not supported" in out
    found = verbs.diagnose(folder)
    assert [(row["where"], row["count"]) for row in found.placement] == [("accelerator", 7), ("CPU", 2)]
    assert found.values()["median_ns"] is None


def test_a_bundle_whose_placement_cannot_be_read_is_refused(here: Path, tiny_bundles: Bundles) -> None:
    folder = placed(tiny_bundles["onnx", "int8"], here / "odd", mapped="most")
    with pytest.raises(BundleError, match=r"bundle\.json: .*placement\.mapped: Input should be a valid integer"):
        read_bundle(folder)


def test_a_runtime_without_a_profiler_says_so(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    code, _, said = cli("diagnose", tiny_bundles["onnx", "int8"], "--target", "sleeper.yaml")
    assert code == 1
    assert "sleep has no profiler that edgebench reads" in said


def test_bad_input_is_one_line(here: Path, tiny_bundles: Bundles, swish: Callable[..., Path], cli: Cli) -> None:
    code, _, said = cli("diagnose", here)
    assert (code, said.count("\n")) == (2, 1)
    assert "give the folder that `edgebench export` wrote" in said
    code, _, said = cli("diagnose", tiny_bundles["onnx", "int8"], "--target", "coral-usb")
    assert (code, "does not run onnx int8" in said) == (1, True)
    with pytest.raises(InputError, match="is another model than tiny"):
        verbs.diagnose(tiny_bundles["onnx", "int8"], against=swish("onnx", "fp32"))
    with pytest.raises(InputError, match="is int8; --against wants the fp32 one"):
        verbs.diagnose(tiny_bundles["onnx", "int8"], against=tiny_bundles["onnx", "int8"])
