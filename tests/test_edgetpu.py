"""Files for the Edge TPU: what the compiler is given, what it says, and what is made of that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import verbs
from conftest import Cli
from coral import NETS, compiler_on_path, export, exporting, program

from edgebench.bundle.goals import check_goals
from edgebench.config import read_target
from edgebench.errors import ExportError, MissingTool
from edgebench.exporters._edgetpu import compiler
from edgebench.exporters._edgetpu.classic import check, classic
from edgebench.exporters._edgetpu.graph import CUSTOM_OP, Graph, Operator, Tensor, layer_of, macs, read
from edgebench.exporters._edgetpu.log import Status, parse
from edgebench.exporters._edgetpu.versions import HIGHEST, lowest
from edgebench.schema import Goals

Case = Callable[[str], None]
HEAD = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1021 ms.

Input model: net.tflite
Input size: 3.50MiB
Output model: net_edgetpu.tflite
Output size: 3.88MiB
On-chip memory used for caching model parameters: 3.10MiB
On-chip memory remaining for caching model parameters: 74.00KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 36
Operation log: net_edgetpu.log
"""
TABLE = """
Operator                       Count      Status

CONV_2D                        20         Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
HARD_SWISH                     12         Operation is working on an unsupported data type
RESIZE_NEAREST_NEIGHBOR        2          Operation version not supported
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
Compilation child process completed within timeout period.
Compilation succeeded!
"""
COUNTS = "\nNumber of operations that will run on Edge TPU: 20\nNumber of operations that will run on CPU: 16\n"


@pytest.fixture
def double(here: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Put the compiler's double on PATH; call it to choose what goes wrong."""
    compiler_on_path(here, monkeypatch)
    return lambda case: monkeypatch.setenv("EDGETPU_DOUBLE", case)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Export the plain network once; returns its TFLite file."""
    folder = tmp_path_factory.mktemp("source")
    with exporting(folder):
        return (export("plain").folder / "model.tflite").read_bytes()


@pytest.fixture
def given(here: Path, source: bytes) -> tuple[Path, Graph]:
    """Lay the plain network's file where it can be compiled."""
    path = here / "model.tflite"
    path.write_bytes(source)
    return path, read(source)


# ---------------------------------------------------------------- the compiler's words


def test_a_network_that_maps_as_a_whole_has_no_counts() -> None:
    log = parse(HEAD + "\nCompilation succeeded!\n")
    assert (log.version, log.milliseconds, log.subgraphs, log.total, log.mapped) == ("16.0.384591198", 1021, 1, 36, 36)
    assert (log.cached_bytes, log.remaining_bytes, log.streamed_bytes) == (round(3.1 * 2**20), 74 * 1024, 0)
    assert (log.failure, log.statuses) == ("", ())


def test_one_operator_may_stand_in_several_rows() -> None:
    log = parse(HEAD + COUNTS + TABLE)
    assert (log.total, log.mapped) == (36, 20)
    assert log.statuses[:2] == (
        Status("CONV_2D", 20, "Mapped to Edge TPU"),
        Status("CONV_2D", 1, "More than one subgraph is not supported"),
    )
    assert log.statuses[-1].status == "Operation is otherwise supported, but not mapped due to some unspecified limitation"
    assert parse(HEAD + TABLE).mapped == 20
    assert parse(HEAD + COUNTS, log="Edge TPU Compiler version 16.0\nInput: net.tflite\n" + TABLE).statuses == log.statuses


def test_success_may_mean_that_nothing_maps() -> None:
    nothing = HEAD.replace("subgraphs: 1", "subgraphs: 0")
    assert parse(nothing).mapped == 0
    assert parse(nothing + COUNTS.replace("TPU: 20", "TPU: 0")).mapped == 0


@pytest.mark.parametrize(
    "line",
    [
        "Invalid model: net.tflite",
        "Model could not be parsed",
        "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'",
        "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
        "dynamic-sized tensors.",
        "ERROR: Encountered unresolved custom op: MyOp.",
        "Compilation failed: Compilation failed due to large activation tensors in model.",
        "Internal compiler error. Aborting!",
    ],
)
def test_a_failure_is_told_by_the_line_that_says_most(line: str) -> None:
    printed = f"Edge TPU Compiler version 16.0.384591198\n{line}\n\nCompilation failed! \n"
    assert parse(printed).failure == line
    assert parse(f"{printed}Model compiled successfully in 7 ms.").failure == ""  # found by searching on


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("internal", r"Internal compiler error\. Aborting!; try a smaller input"),
        ("large", r"Compilation failed due to large activation tensors in model\.; try a smaller input"),
        ("stub", "large activation tensors"),
        ("silent", "Compilation failed: exit code 3, it said nothing"),
    ],
)
def test_a_failed_compilation_says_why_and_leaves_nothing(given: tuple[Path, Graph], double: Case, case: str, says: str) -> None:
    double(case)
    path, graph = given
    with pytest.raises(ExportError, match=says):
        compiler.compile_file(path, "14", "net", graph)
    assert not list(path.parent.glob("model_edgetpu.*"))


def test_an_internal_error_is_tried_again_with_a_search(given: tuple[Path, Graph], double: Case) -> None:
    path, graph = given
    assert compiler.compile_file(path, "14", "net", graph)[2] is False
    double("internal-once")
    written, log, searched = compiler.compile_file(path, "14", "net", graph)
    assert (searched, log.mapped, read(written.read_bytes()).operators[0].name) == (True, len(graph.operators), CUSTOM_OP)


def test_an_operator_that_the_compiler_does_not_find_is_given_its_layers(given: tuple[Path, Graph], double: Case) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path, graph = given
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for code in model.operatorCodes:
        code.version = 99
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ExportError, match=r"opcode '\w+' version '99' \(at [\w., ]+\); a newer compiler may know it"):
        compiler.compile_file(path, "14", "net", graph)


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(given: tuple[Path, Graph], double: Case) -> None:
    double("hang")
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="not done after 2 s"):
        compiler.find().run(given[0].parent, ["-s", "model.tflite"], 1.5)
    assert time.monotonic() - begin < 10
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=10).stdout
    assert str(given[0].parent / "bin" / "edgetpu_compiler") not in running


# ---------------------------------------------------------------- where it is found


def test_without_a_compiler_the_error_says_what_to_install(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("coralnets.py").write_text(NETS)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, _, said = cli("export", "coralnets:plain", "--format", "edgetpu", "--precision", "int8", "--target", "coral-usb",
                        "--dataset", "digits", "--size", 16, "--channels", 1)  # fmt: skip
    assert code == 2
    assert "no edgetpu_compiler on PATH" in said
    assert "apt-get install edgetpu-compiler" in said
    assert "docker://IMAGE" in said
    rows = {row["format"]: row for row in json.loads(cli("formats", "--json")[1])}
    assert (rows["edgetpu"]["works"], rows["tflite"]["works"]) == ("no", "yes")
    for wrong in ("docker://--privileged", "ftp://image", "docker://", "/nowhere/edgetpu_compiler"):
        monkeypatch.setenv(compiler.VARIABLE, wrong)
        with pytest.raises(MissingTool, match=compiler.VARIABLE):
            compiler.find()
    monkeypatch.setenv(compiler.VARIABLE, str(program(here / "bin" / "mute", "")))
    with pytest.raises(MissingTool, match=r"does not say its version \(exit code 0: nothing\)"):
        compiler.version(compiler.find())


MIXED = """
name: mixed
dataset: {name: digits}
input: {size: 16, channels: 1}
models: [{name: tiny, architecture: 'tinynet:net', checkpoint: tiny.pt}]
variants: [{format: edgetpu, precisions: [int8]}, {format: torch, precisions: [fp32]}]
scenario: {half_width: 0.5}
"""
BOTH = """
name: both
description: this computer
transport: local
accepts:
  - {format: edgetpu, precisions: [int8], runtime: edgetpu}
  - {format: torch, precisions: [fp32], runtime: sleep}
agent_plugins: [rt_sleep.py]
"""


@pytest.mark.parametrize(
    ("case", "says"),
    [(None, "no edgetpu_compiler on PATH"), ("wrong-count", r"% of the operators run on .*, 90 are wanted \(min_mapped\)")],
)
def test_without_a_compiler_or_with_too_little_mapped_the_rest_of_a_run_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, case: str | None, says: str
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if case is not None:
        compiler_on_path(here, monkeypatch)
        monkeypatch.setenv("EDGETPU_DOUBLE", case)
    import torch

    from edgebench import models

    torch.save(models.build("tinynet:net", 10, 1, 16).state_dict(), "tiny.pt")
    Path("mixed.yaml").write_text(MIXED)
    Path("both.yaml").write_text(BOTH)
    found = verbs.run("mixed.yaml", target=["both.yaml"])
    states = {cell.format: (cell.state, cell.reason) for cell in found.cells}
    assert states["torch"][0] == "done"
    assert states["edgetpu"][0] == "failed"
    assert re.search(says, states["edgetpu"][1])


ENGINE = """
import os, subprocess, sys
arguments = sys.argv[1:]
with open(os.path.join(os.path.dirname(sys.argv[0]), "calls"), "a") as stream:
    stream.write(repr(arguments) + "\\n")
mount = dict(part.split("=", 1) for part in arguments[arguments.index("--mount") + 1].split(","))
assert (arguments[0], mount["target"], arguments[arguments.index("--workdir") + 1]) == ("run", "/work", "/work")
program = os.path.join(os.path.dirname(sys.argv[0]), arguments[arguments.index("--entrypoint") + 1])
given = arguments[arguments.index("example.org/coral:16") + 1 :]
sys.exit(subprocess.run([program, *given], cwd=mount["source"]).returncode)
"""


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_compiler_runs_in_a_container_that_the_user_names(
    given: tuple[Path, Graph], double: Case, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    path, graph = given
    program(path.parent / "bin" / engine, ENGINE)
    monkeypatch.setenv(compiler.VARIABLE, f"{engine}://example.org/coral:16")
    assert compiler.version(compiler.find()) == "16.0.384591198"
    _, log, _ = compiler.compile_file(path, "14", "net", graph)
    assert log.mapped == len(graph.operators)
    call = (path.parent / "bin" / "calls").read_text().splitlines()[-1]
    assert f"'--user', '{os.getuid()}:{os.getgid()}'" in call
    assert ("'--userns', 'keep-id'" in call) == (engine == "podman")
    assert "'--network', 'none'" in call
    assert call.endswith("'-s', '-m', '14', '-t', '600', '-o', '.', 'model.tflite']")


# ---------------------------------------------------------------- the file


def test_a_bundle_is_int8_classic_and_placed(here: Path, double: Case) -> None:
    result = export("plain")
    bundle, graph = result.bundle, read((result.folder / "model.tflite").read_bytes())
    assert (bundle.runtime, bundle.entry, bundle.parity.runtime) == ("edgetpu", "model_edgetpu.tflite", "tflite")
    assert (bundle.inputs[0].dtype, bundle.outputs[0].dtype, bundle.inputs[0].shape) == ("int8", "int8", (1, 16, 16, 1))
    placement = bundle.details["placement"]
    assert (placement["operators_share"], placement["macs_share"], placement["cpu"]) == (1.0, 1.0, [])
    assert placement["macs"] == bundle.macs
    assert (bundle.details["compiler"], bundle.tools["edgetpu_compiler"]) == ("16.0.384591198",) * 2
    assert (placement["cached_bytes"] > 0, placement["streamed_bytes"], placement["subgraphs"]) == (True, 0, 1)
    assert_classic((result.folder / "model.tflite").read_bytes())
    assert {operator.name for operator in graph.operators} >= {"CONV_2D", "MEAN", "FULLY_CONNECTED"}
    assert {(o.name, o.version) for o in graph.operators} >= {("CONV_2D", 3), ("MEAN", 2), ("FULLY_CONNECTED", 4)}
    assert [operator.name for operator in read((result.folder / bundle.entry).read_bytes()).operators] == [CUSTOM_OP]
    assert (bundle.parity.top1_agreement > 0.8, bundle.parity.cosine > 0.9) == (True, True)
    check_goals(bundle, Goals())
    assert export("plain").cached


def assert_classic(content: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    assert not [buffer for buffer in model.buffers if buffer.offset or buffer.size]
    assert (model.signatureDefs, model.metadata, model.externalBuffers, len(model.subgraphs)) == (None, None, None, 1)
    assert all(code.deprecatedBuiltinCode == min(code.builtinCode, 127) for code in model.operatorCodes)
    graph = read(content)
    assert all(operator.version <= HIGHEST[operator.name] for operator in graph.operators)
    dense = [operator.inputs[1] for operator in graph.operators if operator.name == "FULLY_CONNECTED"]
    assert all(weights is not None and len(weights.scales) == 1 for weights in dense)
    assert classic(content) == content


def test_versions_are_the_lowest_that_the_data_needs(here: Path, double: Case) -> None:
    result = export("many", size=32)
    content = (result.folder / "model.tflite").read_bytes()
    assert_classic(content)
    found = {operator.name: operator.version for operator in read(content).operators}
    wanted = {"CONV_2D": 3, "MEAN": 2, "FULLY_CONNECTED": 4, "MAX_POOL_2D": 2, "LOGISTIC": 2, "TRANSPOSE_CONV": 3, "TANH": 2}
    wanted |= {"SOFTMAX": 2, "AVERAGE_POOL_2D": 2, "RELU": 2, "SUB": 2}
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["MUL"] in (2, 3)
    assert set(found) <= set(HIGHEST)


def test_what_came_after_tensorflow_2_5_gets_a_version_that_the_compiler_does_not_know() -> None:
    def made(name: str, shapes: list[tuple[int, ...]], **options: Any) -> Operator:
        tensors = [Tensor("x", shape, "int8", (0.1,), 0, False, False) for shape in shapes]
        return Operator(name, 1, (*tensors,), (tensors[0],), SimpleNamespace(**options))

    image = (1, 8, 8, 4)
    assert lowest(made("CONV_2D", [image, (8, 3, 3, 4)])) == 3
    assert lowest(made("CONV_2D", [image, (8, 3, 3, 2)])) > HIGHEST["CONV_2D"]
    assert [lowest(made("TRANSPOSE", [(1,) * rank])) for rank in (4, 5, 6)] == [2, 4, 6]
    assert lowest(made("TRANSPOSE_CONV", [(4,), (8, 2, 2, 4), image], fusedActivationFunction=0)) == 2
    assert lowest(made("TRANSPOSE_CONV", [(4,), (8, 2, 2, 4), image], fusedActivationFunction=1)) > HIGHEST["TRANSPOSE_CONV"]
    usual = {"ellipsisMask": 0, "newAxisMask": 0}
    assert lowest(made("STRIDED_SLICE", [image], offset=False, **usual)) == 2
    assert lowest(made("STRIDED_SLICE", [image], offset=True, **usual)) > HIGHEST["STRIDED_SLICE"]


# ---------------------------------------------------------------- what stays on the processor


def test_what_stays_on_the_processor_is_counted_and_named(here: Path, double: Case, cli: Cli) -> None:
    result = export("swish", goals={"min_mapped": 0})
    placement = result.bundle.details["placement"]
    graph = read((result.folder / "model.tflite").read_bytes())
    names = [operator.name for operator in graph.operators]
    mapped = names.index("HARD_SWISH")
    assert (placement["operators"], placement["mapped"]) == (len(names), mapped)
    assert placement["operators_share"] == mapped / len(names)
    convolutions = sum(macs(operator) for operator in graph.operators if operator.name.endswith("CONV_2D"))
    assert placement["macs_mapped"] == convolutions == 8 * 8 * 8 * 9 + 8 * 8 * 8 * 9 * 8
    assert placement["macs"] == convolutions + 8 * 10
    assert placement["cpu"][0] == {"operator": "HARD_SWISH", "count": 1, "layer": "1.1", "status": "Operation not supported"}
    assert {row["status"] for row in placement["cpu"][1:]} == {"More than one subgraph is not supported"}
    code, _, said = cli("export", "coralnets:swish", "--format", "edgetpu", "--precision", "int8", "--target", "coral-usb",
                        "--dataset", "digits", "--size", 16, "--channels", 1, "--name", "swish")  # fmt: skip
    assert code == 1
    assert "90 are wanted (min_mapped); HARD_SWISH at 1.1: Operation not supported" in said


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("gelu", r"1\.1 \(GELU\).*aten::gelu becomes GELU, which is no operator that the Edge TPU's compiler knows; train"),
        ("grouped", r"1\.2 \(Conv2d\).*conv2d in groups becomes CONV_2D version 6, beyond .*; train it with one group"),
        ("layernorm", r"1\.1 \(LayerNorm\).*becomes SQUARED_DIFFERENCE"),
        ("leaky", r"1\.1 \(LeakyReLU\).*the quantizer has no int8 form of LEAKY_RELU"),
        ("floor", r"1\.1 \(Floor\), coralnets\.py:\d+: aten::floor becomes FLOOR"),
        ("erf", r"erf: 1.[01]: MINIMUM version 1 computes in floating point, .*; 2 more, the next DEQUANTIZE at 1"),
    ],
)
def test_what_the_compiler_would_refuse_is_refused_before_it_is_called(here: Path, double: Case, network: str, says: str) -> None:
    double("internal")
    with pytest.raises(ExportError, match=says):
        export(network)
    assert not list(Path("bundles").glob("*"))


LOWER = """
extends: coral-usb
name: lower
accepts: [{format: edgetpu, precisions: [int8], runtime: edgetpu, limits: {version: "%s", operators: {"*": 9, CONV_2D: 2}}}]
"""


def test_the_targets_own_table_counts(here: Path, double: Case) -> None:
    Path("lower.yaml").write_text(LOWER % "14")
    with pytest.raises(ExportError, match=r"1\.0: CONV_2D version 3 .*which knows version 2 at most"):
        export("plain", target="lower.yaml")
    Path("lower.yaml").write_text(LOWER % "iOS16")
    with pytest.raises(ExportError, match=r"limits\.version of the target is 'iOS16'"):
        export("plain", target="lower.yaml")
    for name in ("coral-usb", "coral-dev-board"):
        accepts = read_target(name).accepted("edgetpu", "int8")
        assert accepts is not None
        assert {key: value for key, value in accepts.limits["operators"].items() if key != "*"} == HIGHEST


def test_shapes_types_and_subgraphs_are_looked_at(source: bytes) -> None:
    from dataclasses import replace

    graph = read(source)
    [tensor], first = graph.inputs, graph.operators[0]
    dynamic = replace(first, outputs=(replace(first.outputs[0], dynamic=True),))
    floating = replace(first, outputs=(replace(first.outputs[0], dtype="float32"),))
    dense = graph.operators[-1]
    assert dense.inputs[1] is not None
    scaled = replace(dense, inputs=(dense.inputs[0], replace(dense.inputs[1], scales=(0.1, 0.2))))
    wrong = {
        "2 subgraphs": replace(graph, subgraphs=2),
        "its input is float32": replace(graph, inputs=(replace(tensor, dtype="float32"),)),
        r"shape \[2, 16, 16, 1\]": replace(graph, inputs=(replace(tensor, shape=(2, 16, 16, 1)),)),
        "size that is not fixed": replace(graph, operators=(dynamic,)),
        "computes in floating point": replace(graph, operators=(floating,)),
        "a scale for each channel": replace(graph, operators=(scaled,)),
    }
    for says, other in wrong.items():
        with pytest.raises(ExportError, match=says):
            check("net", other, {})
    check("net", graph, {})


def test_layers_are_found_in_the_names_of_tensors() -> None:
    wrapped = "litert_torch._convert.to_channel_last_io.ChannelLastIOWrapper/torchvision.models.resnet.ResNet_wrapped/"
    conv = (
        wrapped
        + "torch.nn.modules.container.Sequential_layer1/torchvision.models.resnet.BasicBlock_0/torch.nn.modules.conv.Conv2d_conv1"
    )
    assert layer_of(conv + ";") == layer_of(f"{wrapped}torch.nn.modules.batchnorm.BatchNorm2d_bn1;;{conv};1") == "layer1.0.conv1"
    assert layer_of("serving_default_output_0_output") == layer_of("arith.constant") == layer_of("") == ""


# ---------------------------------------------------------------- odd successes


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("zero", r"maps no operator to the Edge TPU \("),
        ("garbage", "wrote no TFLite file"),
    ],
)
def test_a_success_that_is_none_is_a_failure(here: Path, double: Case, case: str, says: str) -> None:
    double(case)
    with pytest.raises(ExportError, match=says):
        export("plain")


def test_a_log_that_disagrees_with_the_file_gives_no_share_of_macs(here: Path, double: Case) -> None:
    double("wrong-count")
    placement = export("plain", goals={"min_mapped": 0}).bundle.details["placement"]
    assert placement["macs_share"] is None
    assert "leaves 0 operators to the processor" in placement["macs_reason"]
    assert placement["operators_share"] < 1
    double("no-table")
    found = export("swish", goals={"min_mapped": 0}).bundle.details["placement"]
    assert found["macs_share"]
    assert found["cpu"][0]["status"] == "Operation not supported"
