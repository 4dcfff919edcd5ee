"""The forms of what TensorRT and trtexec say, and the doubles that say it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorrt_board import RELEASES, Board, compiled

from edgebench.agent.tensorrt import engines, trtexec, trtexec_report
from edgebench.agent.tensorrt import log as tensorrt_log


@pytest.fixture
def board(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """Make a device; CUDA must have nothing to complain about at the end."""
    made = Board(tmp_path, compiled(tmp_path_factory.getbasetemp()), monkeypatch)
    yield made
    assert made.mistakes() == ""


# ---------------------------------------------------------------- forms of what TensorRT says


def test_a_node_is_found_in_what_a_parser_of_8_2_says() -> None:
    lines = """[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:791: While parsing node number 0 [Identity]:
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:792: --- Begin node ---
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:793: input: "q_429"
output: "q_491"
name: "Identity_0"
op_type: "Identity"

[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:794: --- End node ---
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:796: ERROR: ModelImporter.cpp:179 In function parseGraph:
[6] Invalid Node - Identity_0
q_429: invalid weights type of Int8
[07/15/2022-05:26:40] [E] Failed to parse onnx file
[07/15/2022-05:26:40] [E] Parsing model failed
[07/15/2022-05:26:40] [E] Engine set up failed"""
    errors = tensorrt_log.entries(lines)
    said = tensorrt_log.reason(errors, lines, (8, 2, 5), "building the engine")
    assert said.startswith("reading the ONNX file at node Identity_0 (Identity): ")
    assert said.endswith("q_429: invalid weights type of Int8")


STAMP = "[09/01/2025-21:22:14] [E] "
ATTRIBUTES = """attribute {
  name: "axis"
  i: 0
  type: INT
}
attribute {
  name: "note"
  s: "say \\"}\\" and {"
  type: STRING
}
attribute {
  name: "then_branch"
  g {
    node {
      output: "one"
      name: "Constant_in_a_branch"
      op_type: "Constant"
    }
    name: "branch"
  }
  type: GRAPH
}
"""
SHOWN = 'input: "conv.weight"\noutput: "/quant/QuantizeLinear_output_0"\n%sop_type: "QuantizeLinear"\n' + ATTRIBUTES
PARSED = """{0}[TRT] ModelImporter.cpp:771: While parsing node number 417 [QuantizeLinear -> "/quant/QuantizeLinear_output_0"]:
{0}[TRT] ModelImporter.cpp:772: --- Begin node ---
{0}[TRT] ModelImporter.cpp:773: {1}
{0}[TRT] ModelImporter.cpp:774: --- End node ---
{0}[TRT] ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:1197 In function QuantDequantLinearHelper:
[6] Assertion failed: scaleAllPositive && "Scale coefficients must all be positive"
{0}Failed to parse onnx file
[09/01/2025-21:22:14] [I] Finished parsing network model. Parse time: 0.241168
{0}Parsing model failed
{0}Failed to create engine from model or file.
{0}Engine set up failed"""
NAMED = SHOWN % 'name: "/quant/QuantizeLinear"\n'


@pytest.mark.parametrize(
    ("said", "node"),
    [
        (PARSED.format(STAMP, NAMED), "/quant/QuantizeLinear (QuantizeLinear)"),
        (PARSED.format("[E] ", NAMED), "/quant/QuantizeLinear (QuantizeLinear)"),
        (
            PARSED.format(STAMP, NAMED).replace("Begin node ---\n" + STAMP + "[TRT] ModelImporter.cpp:773: ", "Begin node ---\n"),
            "/quant/QuantizeLinear (QuantizeLinear)",
        ),
        (PARSED.format(STAMP, SHOWN % ""), "number 417 (QuantizeLinear)"),
    ],
    ids=["8.6", "8.4", "10.3", "without a name"],
)
def test_a_node_with_attributes_is_named_and_none_of_them(said: str, node: str) -> None:
    found = tensorrt_log.reason(
        [one for one in tensorrt_log.entries(said) if "[E]" in one], said, (8, 6, 1), "building the engine"
    )
    assert found.startswith(f"reading the ONNX file at node {node}: ModelImporter.cpp:777: ERROR: ")
    assert found.endswith('Assertion failed: scaleAllPositive && "Scale coefficients must all be positive"')


AFTERWARDS = ["Building engine failed", "Failed to create engine from model or file.", "Engine set up failed"]
NO_INPUT = (
    'Cannot find input tensor with name "hidden" in the network inputs! Please make sure the input tensor names are correct.'
)
NO_KERNEL = (
    "Error[10]: [optimizer.cpp::computeCosts::3728] Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[177...Reshape_81]}.)"
)
NULL = "Error[2]: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([NO_INPUT, "Network And Config setup failed", *AFTERWARDS], NO_INPUT),
        ([NO_KERNEL, NULL, "Engine could not be created from network", *AFTERWARDS], NO_KERNEL),
        (["Engine deserialization failed", "Engine set up failed"], "Engine set up failed"),
    ],
    ids=["an input that is not there", "no kernel", "nothing more"],
)
def test_of_what_trtexec_says_the_line_that_says_most_is_told(lines: list[str], told: str) -> None:
    said = "\n".join(f"{STAMP}{line}" for line in lines)
    assert told in tensorrt_log.reason(tensorrt_log.entries(said), said, (8, 6, 1), "building the engine")


PASSED = "&&&& PASSED TensorRT.trtexec [TensorRT v8001] # trtexec --loadEngine=net.plan\n"
GIVEN_BACK = (
    "[05/25/2022-14:48:53] [I] [TRT] [MemUsageChange] Init cuBLAS/cuBLASLt: CPU +0, GPU +0, now: CPU 904, GPU 3639 (MiB)\n"
)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (PASSED, True),
        (PASSED + GIVEN_BACK, True),
        (PASSED.replace("PASSED", "FAILED"), False),
        (PASSED.replace("PASSED", "FAILED") + GIVEN_BACK, False),
        (PASSED.replace("PASSED", "RUNNING"), False),
        (GIVEN_BACK, False),
    ],
)
def test_a_run_passed_where_it_says_so_last_of_all_verdicts(text: str, passed: bool) -> None:
    assert trtexec.passed("&&&& RUNNING TensorRT.trtexec [TensorRT v8001] # trtexec\n" + text) == passed


def test_a_good_run_of_8_0_is_good(board: Board, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    board.has("8.0", program=True, cuda=False, module=False)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    found = trtexec.Program(str(tmp_path / "programs" / "trtexec"))
    assert found.version == "8.0.1"
    said = found.run(["--onnx=net.onnx", "--saveEngine=net.plan"], str(tmp_path), 60, "building the engine")
    assert said.text.splitlines()[-1].endswith("(MiB)")
    assert (tmp_path / "net.plan").is_file()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[E] 2: [x.cpp::y::1] Error Code 2: OutOfMemory (no further information)", "the GPU's memory ran out"),
        ("[E] [TRT] 1: Error Code 1: Cuda Runtime (out of memory)", "the GPU's memory ran out"),
        ("[E] 6: The engine plan file is not compatible with this version of TensorRT, expecting", "another TensorRT or GPU"),
        ("[E] Error[10]: Could not find any implementation for node {Conv_3}.", "built: Error[10]: Could not find any"),
        ("", "built: TensorRT gave no reason"),
    ],
)
def test_reasons_are_put_into_words(line: str, said: str) -> None:
    assert said in tensorrt_log.reason([line], line, (8, 6, 1), "built")


def test_the_banner_tells_the_version_in_either_counting() -> None:
    found = [trtexec.decoded(number) for number in (8203, 8502, 8602, 100300, 101602, 110000)]
    assert found == [(8, 2, 3), (8, 5, 2), (8, 6, 2), (10, 3, 0), (10, 16, 2), (11, 0, 0)]


SUMMARY = """%s[I] Timing trace has 3 queries over 1.5 s
%s[I] Latency: min = 3.1 ms, max = 1.2e+08 ms, mean = 4e+07 ms, median = 3.2 ms, percentile(99%%) = 1.2e+08 ms
%s[I] End-to-End Host Latency: min = 1 ms, max = 1 ms, mean = 1 ms, median = 1 ms, percentile(99%%) = 1 ms"""


@pytest.mark.parametrize("stamp", ["", "[05/25/2022-14:48:53] "])
def test_a_summary_is_read_with_times_and_without(stamp: str) -> None:
    said = trtexec_report.summary(SUMMARY % (stamp, stamp, stamp))
    assert said == {"min": 3.1, "max": 1.2e8, "mean": 4e7, "median": 3.2, "queries": 3.0}
    rows = [{"latencyMs": value} for value in (3.2, 1.2e8, 3.1)]
    trtexec_report.checked(rows, said)
    with pytest.raises(ValueError, match="says 3 queries, and its times file has 2"):
        trtexec_report.checked(rows[:2], said)
    with pytest.raises(ValueError, match=r"a median latency of 3\.2 ms, and its times give 3\.3 ms"):
        trtexec_report.checked([{"latencyMs": value} for value in (3.3, 1.2e8, 3.1)], said)
    with pytest.raises(ValueError, match="no summary"):
        trtexec_report.summary("&&&& PASSED TensorRT.trtexec [TensorRT v8203] # trtexec")


def test_a_times_file_that_is_none_is_said() -> None:
    for content in ("", "{}", '[{"latencyMs": 1}]'):
        with pytest.raises(ValueError, match="--exportTimes is not as trtexec writes it"):
            trtexec_report.times(content or "?")
    row = {"startComputeMs": 5.0, "latencyMs": 1.0, "h2dMs": 0.1, "computeMs": 0.8, "d2hMs": 0.1}
    with pytest.raises(ValueError, match="no sample after the warm-up of 10 ms"):
        trtexec_report.trial([row, {**row, "startComputeMs": 6.0}], 10.0, 1, 0, 100.0)


def test_times_become_windows_that_hold_what_the_host_does_between_queries() -> None:
    row = {"latencyMs": 1.0, "h2dMs": 0.1, "computeMs": 0.8, "d2hMs": 0.1}
    rows = [{**row, "startComputeMs": start} for start in (0.5, 2.5, 4.5, 6.5, 14.5)]
    found = trtexec_report.trial(rows, 2.0, 7, 1_000_000_000, 4.0)
    assert found["warmup_ns"] == [1_000_000]
    assert found["windows"] == [
        {"ns": [1_000_000] * 2, "begin_ns": 1_002_500_000, "end_ns": 1_006_500_000, "inferences": 2},
        {"ns": [1_000_000], "begin_ns": 1_006_500_000, "end_ns": 1_014_500_000, "inferences": 1},
        {"ns": [1_000_000], "begin_ns": 1_014_500_000, "end_ns": 1_015_500_000, "inferences": 1},
    ]
    assert found["stages"]["compute"] == [800_000] * 4


def test_layers_of_every_inspector_have_a_precision() -> None:
    def layer(described: str) -> dict[str, Any]:
        return {"Name": "x", "LayerType": "y", "Outputs": [{"Format/Datatype": described}]}

    said = [
        "Row major linear FP16 format",
        "Thirty-two wide channel vectorized row major Int8 format.",
        "Float",
        "Half",
        "BFloat16",
    ]
    found = tensorrt_log.layers(json.dumps({"Layers": [*map(layer, said), "conv1 + relu1"]}))
    assert [one["precision"] for one in found] == ["fp16", "int8", "fp32", "fp16", "bf16", "unknown"]
    [joined] = tensorrt_log.layers('{"Layers": [{"Name": "a\x1eb", "LayerType": "Conv"}]}')
    assert joined == {"name": "a\x1eb", "type": "Conv", "precision": "other"}
    assert engines.summary(tensorrt_log.layers('{"Layers": [{"Name": "say "x""}]}')) is None
    many = engines.summary([{"name": "n" * 500, "type": "Conv", "precision": "fp16"}] * 300)
    assert many is not None
    assert (many["count"], many["by_precision"], len(many["listed"])) == (300, {"fp16": 300}, 40)
    assert len(json.dumps(many)) < 8000


# ---------------------------------------------------------------- the doubles are strict


def on_board(code: str) -> str:
    """Run Python with what the board has; returns what it prints, or its error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr.strip()


LACKS = {
    "8.2": ["MemoryPoolType", "TensorIOMode", "ICudaEngine.num_io_tensors", "IExecutionContext.execute_async_v3"],
    "8.6": ["NetworkDefinitionCreationFlag.STRONGLY_TYPED", "ParserError.node_name"],
    "10.3": ["ICudaEngine.num_bindings", "IExecutionContext.execute_async_v2", "IBuilderConfig.max_workspace_size"],
    "11.0": ["BuilderFlag.FP16", "IInt8EntropyCalibrator2", "IBuilderConfig.int8_calibrator", "Builder.platform_has_fast_int8"],
}


@pytest.mark.parametrize("version", LACKS)
def test_the_double_lacks_what_its_version_lacks(board: Board, version: str) -> None:
    board.has(version)
    names = json.dumps(LACKS[version])
    code = f"""
import functools, tensorrt
for name in {names}:
    try:
        print(name, functools.reduce(getattr, name.split("."), tensorrt))
    except AttributeError:
        pass
try:
    tensorrt.IBuilderConfig().max_workspace = 1
except AttributeError as error:
    print(error)
"""
    release = RELEASES[version]
    assert on_board(code) == f"TensorRT {release}: 'IBuilderConfig' has no attribute 'max_workspace'"


MISTAKES = {
    "a copy from or to host memory that is not pinned": "cuda.to_device(device, id(b'x' * 64), 8, stream)",
    "a copy beyond the end of memory": "cuda.to_device(device, host, 65, stream)",
    "memory was freed before the copy was done": "cuda.to_device(device, host, 8, stream); cuda._call('cudaFree', device); "
    "cuda.synchronize(stream)",
    "the time of an event that was not recorded": "cuda.elapsed_ns(cuda.event(), cuda.event())",
    "1 device allocations were not given back": "",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_cuda_double_notes_every_mistake(board: Board, mistake: str) -> None:
    board.has("10.3")
    code = "from edgebench.agent.tensorrt.cuda import reach; cuda = reach('ctypes'); "
    code += "device, host = cuda.allocate(64), cuda.pinned(64); "
    on_board(f"{code}stream = cuda.stream(); {MISTAKES[mistake]}")
    noted = board.mistakes()
    board.log.unlink()
    assert f"mistake: {mistake}" in noted


def test_memory_is_really_copied_and_a_full_gpu_says_so(board: Board) -> None:
    board.has("10.3", gpu="Orin:8.7:1:1")
    code = """
import ctypes
from edgebench.agent.tensorrt.cuda import reach, CudaError
cuda = reach("ctypes")
device, there, back, stream = cuda.allocate(4), cuda.pinned(4), cuda.pinned(4), cuda.stream()
ctypes.memmove(there, b"abcd", 4)
cuda.to_device(device, there, 4, stream)
cuda.to_host(back, device, 4, stream)
early = ctypes.string_at(back, 4)
cuda.synchronize(stream)
print(early != b"abcd", ctypes.string_at(back, 4), cuda.free_bytes(), cuda.device())
try:
    cuda.allocate(1 << 20)
except CudaError as error:
    print(error)
cuda.close()
"""
    said = on_board(code).splitlines()
    assert said[0] == f"True b'abcd' {(1 << 20) - 4} {{'name': 'Orin', 'capability': '8.7', 'integrated': True}}"
    assert said[1] == "cudaMalloc: out of memory (2)"
