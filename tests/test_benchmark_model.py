"""Google's benchmark_model: its texts, which are read, and a program that plays its builds, run by the agent's runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import DOUBLES, Cli
from factory import make_latency
from tflitefiles import Writer

from edgebench.agent.benchmark_model import log, program
from edgebench.agent.runtimes import cut, rt_benchmark_model
from edgebench.analysis.printed import printed, program_of
from edgebench.device import deploy
from edgebench.run.runtime import chosen_runtime
from edgebench.schema import cell
from edgebench.store import verify

COMPILED = """INFO: [./litert/tools/benchmark_litert_model.h:81]
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 4.48 ms
INFO: [./litert/tools/benchmark_litert_model.h:84] Warmup (first):       1.03 ms
INFO: [./litert/tools/benchmark_litert_model.h:86] Warmup (avg):         0.47 ms (1055 runs)
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)
INFO: [./litert/tools/benchmark_litert_model.h:92] Inference (min):      0.44 ms
INFO: [./litert/tools/benchmark_litert_model.h:94] Inference (max):      0.98 ms
INFO: [./litert/tools/benchmark_litert_model.h:96] Inference (std):      0.01
INFO: [./litert/tools/benchmark_litert_model.h:103] Throughput:           525.55 MB/s
INFO: [./litert/tools/benchmark_litert_model.h:112]
Memory Usage:
INFO: [./litert/tools/benchmark_litert_model.h:114] Init footprint:       8.94 MB
INFO: [./litert/tools/benchmark_litert_model.h:116] Overall footprint:    11.51 MB
INFO: [./litert/tools/benchmark_litert_model.h:120] Peak memory:          30.25 MB
"""
"""LiteRT's build on CompiledModel, whose file and line differ from version to version."""
TEXTS = {
    "TensorFlow 2, from a shell": (
        "Initialized session in 5.617ms.\nRunning benchmark for at least 1 iterations and at least 0.5 seconds\n"
        "count=5 first=119340 curr=104501 min=102000 max=119340 avg=107466 std=6012\n\n"
        "Running benchmark for at least 50 iterations and at least 1 seconds\n"
        "count=50 first=103100 curr=102500 min=101234 max=110000 avg=102879 std=1500\n\n"
        "Inference timings in us: Init: 5617, First inference: 119340, Warmup (avg): 107466, Inference (avg): 102879\n"
        "Memory footprint delta from the start of the tool (MB): init=5 overall=11.2695\n",
        {"form": "tflite", "count": 50, "init_us": 5617, "first_us": 119340, "warmup_us": 107466, "mean_us": 102879}
        | {"min_us": 101234, "max_us": 110000, "std_us": 1500, "init_mib": 5, "overall_mib": 11.2695},
    ),
    "seconds an inference, in scientific notation": (
        "count=1 curr=1243520\ncount=50 first=1.25e+06 curr=1240000 min=1200001 max=1300000 avg=1.24e+06 std=9000\n"
        "Inference timings in us: Init: 1.1e+07, "
        "First inference: 1243520, Warmup (avg): 1.24352e+06, Inference (avg): 1.24e+06\n",
        {"form": "tflite", "count": 50, "init_us": 1.1e7, "first_us": 1243520, "warmup_us": 1243520, "mean_us": 1.24e6}
        | {"min_us": 1200001, "max_us": 1300000, "std_us": 9000},
    ),
    "LiteRT with percentiles, from logcat": (
        "07-14 13:14:52.859 22838 22838 I tflite  : count=3 first=235158 curr=200386 min=199462 max=235158 avg=211669 std=16613"
        " p5=199462 median=200386 p95=235158\n"
        "07-14 13:14:56.520 22838 22838 I tflite  : count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583"
        " p5=140545 median=141253 p95=187533\n07-14 13:14:56.521 22838 22838 I tflite  : Inference timings in us: Init: 92318,"
        " First inference: 235158, Warmup (avg): 211669, Inference (avg): 145528\n"
        "07-14 13:14:56.521 22838 22838 I tflite  : Overall peak memory footprint (MB) via periodic monitoring: 93.2383\n",
        {"form": "tflite", "count": 25, "init_us": 92318, "first_us": 235158, "warmup_us": 211669, "mean_us": 145528}
        | {"min_us": 140071, "max_us": 195121, "std_us": 13583, "p5_us": 140545, "median_us": 141253, "p95_us": 187533}
        | {"peak_mib": 93.2383},
    ),
    "all inferences as long": (
        "count=1 curr=12 p5=12 median=12 p95=12\ncount=50 curr=12(all same) p5=12 median=12 p95=12\n"
        "Inference timings in us: Init: 7, First inference: 12, Warmup (avg): 12, Inference (avg): 12\n",
        {"form": "tflite", "count": 50, "init_us": 7, "first_us": 12, "warmup_us": 12, "mean_us": 12, "min_us": 12, "max_us": 12}
        | {"std_us": 0, "p5_us": 12, "median_us": 12, "p95_us": 12},
    ),
    "TensorFlow 1": (
        "count=6 first=83300 curr=83200 min=83100 max=83300 avg=83235 std=60\n"
        "count=50 first=79449 curr=81350 min=77385 max=88213 avg=79760.9 std=1929\n"
        "Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79760.9\n",
        {"form": "oldest", "count": 50, "init_us": 38467, "first_us": 83300, "warmup_us": 83235, "mean_us": 79760.9}
        | {"min_us": 77385, "max_us": 88213, "std_us": 1929},
    ),
    "CompiledModel, hundredths of milliseconds alone": (
        COMPILED,
        {"form": "compiled", "count": 2112, "init_us": 4480, "first_us": 1030, "warmup_us": 470, "mean_us": 460, "min_us": 440}
        | {"max_us": 980, "std_us": 10, "init_mib": 8.94, "overall_mib": 11.51, "peak_mib": 30.25},
    ),
    "CompiledModel, with its microseconds before": (
        "INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478\n\n"
        "INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478\n" + COMPILED,
        {"form": "compiled", "count": 2112, "init_us": 4480, "first_us": 1030, "warmup_us": 470, "mean_us": 464.545}
        | {"min_us": 442, "max_us": 979, "std_us": 13, "p5_us": 460, "median_us": 462, "p95_us": 478}
        | {"init_mib": 8.94, "overall_mib": 11.51, "peak_mib": 30.25},
    ),
    "with a profile, whose own counts are none of the run's": (
        "count=50 first=9 curr=9 min=8 max=20 avg=10 std=1\n"
        "Timings (microseconds): count=50 first=7 curr=8 min=6 max=9 avg=7 std=1\nMemory (bytes): count=0\n"
        "Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 9, Inference (avg): 10\n",
        {"form": "tflite", "count": 50, "init_us": 1, "first_us": 9, "warmup_us": 9, "mean_us": 10, "min_us": 8, "max_us": 20}
        | {"std_us": 1},
    ),
}
"""What builds print, in the form that people have posted it in, with numbers of our own."""
TWICE = "Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 9, Inference (avg): %s\n"
RUN = "count=50 first=9 curr=9 min=8 max=20 avg=10 std=1\n"


@pytest.mark.parametrize("name", TEXTS)
def test_every_form_of_a_summary_is_read(name: str) -> None:
    text, expected = TEXTS[name]
    assert log.summary(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("STARTING!\n", "printed no times; its output has a form that is not known here"),
        (RUN, "printed no times"),
        (RUN + TWICE % 20, "prints a mean of 20 us, and its statistics give 10 us"),
        ("count=0\n" + TWICE % 0, "counted no inference"),
        ("count=0\n" + TWICE % "-nan", "printed no times"),
    ],
)
def test_a_summary_that_says_nothing_or_contradicts_itself_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        log.summary(text)


@pytest.mark.parametrize(
    "line",
    [
        "count=1 curr=2",
        "INFO: count=1 curr=2",
        "05-30 15:16:44.857  3380  3380 I tflite  : count=1 curr=2",
        "2022-05-30 15:16:44.857  3380  3380 I tflite  : count=1 curr=2",
        "06-18 10:20:41.572  4669  4669 I tflite_BenchmarkModelActivity: INFO: count=1 curr=2",
        "I/tflite  ( 3380): count=1 curr=2",
        "05-30 15:16:44.857 I/tflite  ( 3380): count=1 curr=2",
        "I0000 00:00:1758455104.504065   62590 benchmark.cc:51] count=1 curr=2",
        "INFO: [.\\litert/tools/benchmark_litert_model.h:57] count=1 curr=2",
    ],
)
def test_what_a_log_puts_before_a_line_is_taken_off(line: str) -> None:
    assert log.bare(line + "\r\n") == "count=1 curr=2"


REPLACED = "VERBOSE: Replacing %s node(s) with delegate (%s) node, yielding %d partitions%s.\n"
WHOLE = "Explicitly applied %s delegate, and the model graph will be completely executed by the delegate.\n"
PART = "Explicitly applied %s delegate, and the model graph will be partially executed by the delegate w/ %d delegate kernels.\n"
GPU, XNN = "TfLiteGpuDelegateV2", "TfLiteXNNPackDelegate"


@pytest.mark.parametrize(
    ("text", "wanted", "required", "where"),
    [
        (REPLACED % ("58 out of 58", GPU, 1, " for the whole graph") + "INFO: " + WHOLE % "GPU", "GPU", False, "GPU"),
        ("05-30 15:16:44.857  3380  3380 I tflite  : " + WHOLE % "NNAPI", "NNAPI", False, "NNAPI"),
        ("Applied GPU delegate, and the model graph will be completely executed w/ the delegate.", "GPU", False, "GPU"),
        (WHOLE % "EXTERNAL", "EXTERNAL", False, "EXTERNAL"),
        (
            REPLACED % ("28 out of 31", GPU, 2, "") + PART % ("GPU", 2) + REPLACED % ("3 out of 5", XNN, 2, ""),
            "GPU",
            False,
            "GPU in part: 28 of 31 nodes in 2 kernels, the rest on the CPU",
        ),
        (PART % ("NNAPI", 44), "NNAPI", False, "NNAPI in part: some nodes in 44 kernels, the rest on the CPU"),
        (
            REPLACED % ("3", GPU, 1, "") + PART % ("GPU", 1),
            "GPU",
            False,
            "GPU in part: 3 of ? nodes in 1 kernel, the rest on the CPU",
        ),
        ("Applied GPU delegate.\n" + REPLACED % ("31 out of 31", GPU, 1, ""), "GPU", False, "GPU"),
        ("Applied GPU delegate.", "GPU", True, "GPU"),
        (REPLACED % ("31 out of 31", "LiteRtGpuDelegate", 1, " for subgraph 0"), "GPU", False, "GPU"),
        (
            REPLACED % ("9 out of 10", "DispatchDelegate", 2, " for subgraph 0") + REPLACED % ("1 out of 3", XNN, 1, ""),
            "NPU",
            False,
            "NPU in part: 9 of 10 nodes in 2 kernels, the rest on the CPU",
        ),
        (REPLACED % ("6 out of 6", XNN, 1, "") + WHOLE % "XNNPACK", "XNNPACK", False, "XNNPACK"),
    ],
)
def test_a_record_says_of_a_delegate_what_it_took(text: str, wanted: str, required: bool, where: str) -> None:
    assert rt_benchmark_model.where(log.delegation(text, wanted, required)) == where


@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        (
            "GPU acceleration is unsupported on this platform.\n" + REPLACED % ("6 out of 6", XNN, 1, ""),
            "GPU",
            "unsupported on this",
        ),
        (
            "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
            "NNAPI",
            "processor$",
        ),
        (WHOLE % "XNNPACK", "GPU", "fell back to the processor$"),
        (
            REPLACED % ("31 out of 31", "DispatchDelegate", 1, "")
            + "ERROR: [dispatch.cc:84] Failed to initialize the dispatch API\n",
            "NPU",
            "Failed to initialize the dispatch API",
        ),
        (
            REPLACED % ("6 out of 6", GPU, 1, "")
            + "ERROR: Node number 6 (TfLiteGpuDelegateV2) failed to prepare.\n"
            + "ERROR: Restored original execution plan after delegate application failure.\n",
            "GPU",
            "failed to prepare",
        ),
        ("Applied GPU delegate.", "GPU", "does not say to how much of the model; ask with --option require_full_delegation=true"),
    ],
)
def test_a_silent_fallback_to_the_processor_is_refused(text: str, wanted: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        log.delegation(text, wanted)


HEAD = "============================== Run Order =============================="
OLD_TABLE = f"""{HEAD}
\t             [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t    0.000\t    4.269\t    4.269\t  0.107%\t  0.107%\t     0.000\t        0\t[a/Conv2d_0/Relu6]
\t                 SOFTMAX\t   79.443\t    0.029\t    0.029\t  0.001%\t  1.993%\t     0.000\t        0\t[a/Softmax]:30

============================== Top by Computation Time ==============================
"""
CSV_TABLE = f"""Profiling Info for Benchmark Initialization:
{HEAD}
node type, first, avg_ms, %, cdf%, mem KB, times called, name
AllocateTensors, 0.1, 0.029, 100%, 100%, 0, 1, AllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
{HEAD}
node type, first, avg_ms, %, cdf%, mem KB, times called, name
ELU, 0.034, 0.0300884, 14.5203%, 59.4197%, 0, 1, [sequential/Elu, other/Elu]:1
TfLiteXNNPackDelegate, 0.002, 0.25, 1%, 100%, 0, 1, [out]:2

Number of nodes executed: 2
"""
INNER_TABLE = f"""{CSV_TABLE}
Delegate internal:
{HEAD}
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0.1, 0.2, 80%, 80%, 0, 1, Delegate/Convolution (NHWC, F32) IGEMM:0
Softmax (NC, F32), 0.1, 0.05, 20%, 100%, 0, 1, Delegate/Softmax (NC, F32):1
"""


def seen(text: str) -> list[tuple[str, str, int, bool]]:
    return [(each["op"], each["name"], each["ns"], each["delegate"]) for each in log.profile(text)]


def test_operators_are_read_as_printed_and_from_csv_with_a_delegates_parts() -> None:
    old = [("CONV_2D", "a/Conv2d_0/Relu6", 4269000, False), ("SOFTMAX", "a/Softmax", 29000, False)]
    assert seen(OLD_TABLE) == old
    spaced = OLD_TABLE.replace("\t", "  ")  # as it is posted
    assert seen("\n".join("I/tflite  ( 3380): " + line for line in spaced.splitlines())) == old
    elu = ("ELU", "sequential/Elu, other/Elu", 30088, False)
    assert seen(CSV_TABLE.replace("Elu, other", "Elu\t other")) == [elu, ("TfLiteXNNPackDelegate", "out", 250000, True)]
    assert [(op, ns, delegate) for op, _, ns, delegate in seen(INNER_TABLE)] == [
        ("ELU", 30088, False),
        ("Convolution (NHWC, F32) IGEMM", 200000, True),
        ("Softmax (NC, F32)", 50000, True),
    ]
    with pytest.raises(ValueError, match="no times of operators"):
        log.profile("Number of nodes executed: 2\n")


# ---------------------------------------------------------------- the program, played


def install(folder: Path, patch: pytest.MonkeyPatch, **environment: str) -> str:
    path = folder / "benchmark_model"
    path.write_text((DOUBLES / "benchmark_model").read_text().replace("/usr/bin/env python3", sys.executable))
    path.chmod(0o755)
    for name in ("BENCHMARK", "DELEGATED", "FAULT", "LOGCAT"):
        patch.delenv(f"EDGEBENCH_DOUBLE_{name}", raising=False)
    for name, value in environment.items():
        patch.setenv(f"EDGEBENCH_DOUBLE_{name.upper()}", value)
    return str(path)


def sums(path: Path) -> Path:
    """Write y = W a and z = W b, whose inputs and outputs the file has in another order than the job."""
    made, random = Writer(), np.random.default_rng(0)
    a, b = made.tensor("a", (1, 4), "float32"), made.tensor("b", (1, 4), "float32")
    weights = made.tensor("w", (3, 4), "float32", random.normal(size=(3, 4)))
    y, z = made.tensor("y", (1, 3), "float32"), made.tensor("z", (1, 3), "float32")
    made.operator("FULLY_CONNECTED", [a, weights, -1], [y])
    made.operator("FULLY_CONNECTED", [b, weights, -1], [z])
    return made.write(path, [b, a], [z, y])


def job(**options: Any) -> dict[str, Any]:
    data = {"dtype": "float32", "shape": [4]}
    plain = {"dtype": "float32", "scale": None, "zero_point": None}
    given = [{"name": name, "shape": [1, 4], "preprocessing": None, "carry": None, "data": data, **plain} for name in "ab"]
    made = [{"name": name, "shape": [1, 3], **plain} for name in "yz"]
    return {"options": options, "inputs": given, "outputs": made, "scored": ["y"], "trial": 0}


def feed() -> list[bytes]:
    return [np.array(values, np.float32).tobytes() for values in ([1, 2, 3, 4], [5, -6, 7, -8])]


def test_outputs_of_a_process_are_the_interpreters_in_the_jobs_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = sums(tmp_path / "sums.tflite")
    assert cut.ends(path.read_bytes()) == (["b", "a"], ["z", "y"])
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    for item in interpreter.get_input_details():
        values = dict(zip("ab", feed(), strict=True))[item["name"]]
        interpreter.set_tensor(item["index"], np.frombuffer(values, np.float32).reshape(1, 4))
    interpreter.invoke()
    right = {item["name"]: interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()}
    runtime = rt_benchmark_model.Runtime(job(benchmark_model=install(tmp_path, monkeypatch)))
    runtime.load(str(path), 1)
    y, z = runtime.infer(runtime.prepare(feed(), 1))
    assert y.tobytes() == right["y"].tobytes()
    assert z.tobytes() == right["z"].tobytes()
    assert not np.array_equal(y, z)


MODE = {
    "adaptive": True,
    "min_seconds": 0.02,
    "cap_seconds": 1.0,
    "warmup_seconds": 0.0,
    "min_samples": 200,
    "window_seconds": 0.1,
}


@pytest.mark.parametrize(
    ("build", "options", "where", "statistic", "form"),
    [
        ("2.0", {}, "CPU", "mean", "tflite"),
        ("2.16", {"delegate": "gpu"}, "GPU in part: 1 of 2 nodes in 1 kernel, the rest on the CPU", "median", "tflite"),
        ("compiled", {"delegate": "npu"}, "NPU in part: 1 of 2 nodes in 1 kernel, the rest on the CPU", "median", "compiled"),
    ],
)
def test_a_trial_is_one_value_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, options: dict[str, Any], where: str, statistic: str, form: str
) -> None:
    path = install(tmp_path, monkeypatch, benchmark=build, delegated="some", logcat="1")
    runtime = rt_benchmark_model.Runtime(job(benchmark_model=path, **options))
    pids: list[int] = []
    file = sums(tmp_path / "sums.tflite")
    runtime.load(str(file), 1)
    taken = runtime.take(str(file), 1, [runtime.prepare(feed(), 1)], MODE, pids.append)
    [window], [value], facts = taken["windows"], taken["windows"][0]["ns"], taken["program"]
    assert len(pids) == 1
    assert (window["inferences"], taken["calls_per_sample"]) == (facts["run"]["count"],) * 2
    assert window["inferences"] >= 200
    assert value == round(1e3 * facts["run"]["median_us" if statistic == "median" else "mean_us"])
    assert 0 < value * 0.5 <= (window["end_ns"] - window["begin_ns"]) / window["inferences"] * 50
    assert (facts["computed_on"], facts["build"]) == (where, form)
    assert facts["statistic"] == f"the {statistic} of each process"
    assert facts["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("environment", "options", "reason"),
    [
        (
            {},
            {"delegate": "tpu"},
            r"delegate is cpu \| xnnpack \| gpu .* not 'tpu'; a library is named by external_delegate=PATH",
        ),
        ({}, {"delegate": "gpu", "external_delegate": "x.so"}, "give either delegate or external_delegate"),
        ({}, {"profile": "yes"}, "profile is true or false, not 'yes'"),
        ({}, {"delegate": "npu"}, "this benchmark_model has no --use_npu; name another program, or another delegate"),
        ({"benchmark": "2.0"}, {"delegate": "npu"}, "this benchmark_model has no --use_npu; name a newer one"),
        ({}, {"external_delegate": "/nowhere.so"}, "Failed to load external delegate /nowhere.so"),
        ({"delegated": "unsupported"}, {"delegate": "gpu"}, "nothing of the model ran on GPU: .* unsupported on this platform"),
        ({"delegated": "none"}, {"delegate": "nnapi"}, "nothing of the model ran on NNAPI: benchmark_model fell back"),
        ({"delegated": "some"}, {"delegate": "gpu", "require_full_delegation": True}, "Disallowed CPU fallback detected"),
        ({"delegated": "restored"}, {"delegate": "gpu"}, "Restored original execution plan .* Failed to apply GPU delegate"),
        ({"fault": "dies"}, {}, "benchmark_model was killed by SIGABRT: INFO: STARTING!"),
        ({"fault": "hangs"}, {}, "benchmark_model did not end within 1 s"),
        ({"fault": "says nothing"}, {}, "did not say when it began to infer"),
        ({"fault": "contradicts"}, {}, "prints a mean of"),
    ],
)
def test_what_a_program_cannot_do_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: dict[str, Any], reason: str
) -> None:
    path = install(tmp_path, monkeypatch, **environment)
    monkeypatch.setattr(rt_benchmark_model, "RUN_SECONDS", -19.0 if environment.get("fault") == "hangs" else 60.0)
    mode = {**MODE, "cap_seconds": 2.0}
    with pytest.raises(ValueError, match=reason) as caught:
        runtime = rt_benchmark_model.Runtime(job(benchmark_model=path, **options))
        runtime.take(str(sums(tmp_path / "sums.tflite")), 1, [runtime.prepare(feed(), 1)], mode, lambda _: None)
    assert "\n" not in str(caught.value)


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="option benchmark_model: /no/such is no program on this device"):
        program.find("/no/such")
    with pytest.raises(ValueError, match="no program benchmark_model; name one"):
        program.find(None)
    assert rt_benchmark_model.version() is None


def test_a_mode_that_wants_a_series_and_an_output_that_is_fed_back_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job(benchmark_model=install(tmp_path, monkeypatch))
    with pytest.raises(ValueError, match="nothing of how it develops; choose another mode"):
        rt_benchmark_model.Runtime(asked).take("", 1, [], {**MODE, "adaptive": False}, lambda _: None)
    asked["inputs"][0]["carry"] = "y"
    with pytest.raises(ValueError, match="cannot feed an output back; use tflite"):
        rt_benchmark_model.Runtime(asked)


@pytest.mark.parametrize("build", ["2.0", "2.16"])
def test_memory_and_operators_are_the_programs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    path, file = install(tmp_path, monkeypatch, benchmark=build), str(sums(tmp_path / "sums.tflite"))
    runtime = rt_benchmark_model.Runtime(job(benchmark_model=path))
    tensors = runtime.prepare(feed(), 1)
    nodes = runtime.profile(file, 1, [tensors])
    assert [(node["op"], node["name"], node["where"], node["ns"]) for node in nodes] == [
        ("FULLY_CONNECTED", "made/of, it", "CPU", 93000)
    ] * 2
    found = runtime.footprint(file, tensors)
    assert found["peak_bytes"] > 20 << 20  # Python's own
    assert found["method"] == "VmHWM of benchmark_model"
    assert found["reason"].endswith("by its own word 11.3 MiB more than at its start")


def test_the_option_of_its_name_chooses_the_runtime() -> None:
    assert chosen_runtime("tflite", {"benchmark_model": "/x"}) == "benchmark-model"
    assert chosen_runtime("tflite", {"delegate": "gpu"}) == "tflite"
    assert chosen_runtime("onnxruntime", {"benchmark_model": "/x"}) == "onnxruntime"
    assert chosen_runtime("benchmark-model", {"benchmark_model": "/x"}) == "benchmark-model"


def test_what_was_printed_of_processes_fills_in_what_one_value_cannot_tell() -> None:
    latency = make_latency(p95_ns=None)
    runs = [
        {"count": 200, "mean_us": mean, "std_us": std, "min_us": 1, "max_us": 9, "p95_us": 8} for mean, std in ((2, 3), (4, 4))
    ]
    found = printed(latency, runs)
    assert (found.mean_ns, found.min_ns, found.max_ns) == (3000, 1000, 9000)
    assert found.stdev_ns == pytest.approx(12.5**0.5 * 1000)
    assert (found.p95_ns, found.p99_ns, found.median_ns) == (8000, latency.p99_ns, latency.median_ns)
    assert printed(latency, [{**runs[0], "count": 129}, runs[1]]).p95_ns is None  # too few to bound it
    assert printed(latency, [{"count": 200}, *runs]).mean_ns == latency.mean_ns
    assert printed(latency, []) is latency
    first = {"name": "benchmark_model", "sha256": "a", "computed_on": "GPU", "statistic": "mean", "run": {"count": 1}}
    joined = program_of([first, first])
    assert joined is not None
    assert joined["runs"] == [{"count": 1}] * 2
    assert program_of([]) is None
    with pytest.raises(ValueError, match="one trial has another processor than the first: CPU, not GPU"):
        program_of([first, {**first, "computed_on": "CPU"}])


def test_what_setup_says_of_a_program_that_is_not_there_names_it_and_no_module(tmp_path: Path) -> None:
    agent = tmp_path / "agent.pyz"
    agent.write_bytes(deploy.pack_agent())
    words = [sys.executable, str(agent), "setup", "--import", "benchmark_model"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    assert "no program benchmark_model" in said
    assert "module" not in said


def test_a_bundle_is_measured_by_the_program_compared_on_few_samples_and_told_apart(
    here: Path, tiny_tflite: dict[str, Path], monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setattr(rt_benchmark_model, "FEW", (3, rt_benchmark_model.FEW[1]))
    monkeypatch.setitem(cell.MODES, "quick", dataclasses.replace(cell.MODES["quick"], trials=2))
    path = install(here, monkeypatch)

    def measured(precision: str, **options: Any) -> Any:
        [outcome] = verbs.run(bundle=[tiny_tflite[precision]], options={"benchmark_model": path, **options}).cells
        return outcome

    record = measured("int8", delegate="gpu", profile=True).record
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert record.cell.runtime == "benchmark-model"
    assert record.cell.runtime_version == f"benchmark_model sha256:{sha256[:12]}"
    assert (record.program["sha256"], record.program["computed_on"], len(record.program["runs"])) == (sha256, "GPU", 2)
    assert record.program["nodes"]
    assert record.accuracy is None
    assert (record.few_samples.samples, record.few_samples.host_agreement, record.few_samples.max_abs) == (3, 1.0, 0.0)
    assert record.few_samples.reason.startswith("benchmark_model infers one sample a process: accuracy is not measured")
    assert (record.latency.samples, record.latency.p99_ns) == (2, None)
    assert [checked.wrong for checked in verify.verify(Path("results"), lambda *_: None)] == [()]
    assert measured("int8", delegate="gpu", profile=True).state == "cached"
    code, out, _ = cli("leaderboard", "--columns", "model,runtime,p50,p99")
    assert code == 0
    assert f"benchmark_model sha256:{sha256[:12]}" in out
    assert "computed on GPU" in out
    code, out, _ = cli("results", "show", record.key[:12])
    assert code == 0
    assert "a value each: the median of each process of benchmark_model" in out
    assert "100.0 % of 3 samples, scores 0 apart at most" in out

    with Path(path).open("a") as stream:
        stream.write("# another build\n")
    monkeypatch.setenv("EDGEBENCH_DOUBLE_BENCHMARK", "compiled")
    other = measured("int8", delegate="gpu").record  # another program: measured anew
    assert other.few_samples.samples == 0
    assert "takes no inputs from files" in other.few_samples.reason
    assert other.program["sha256"] != sha256
    monkeypatch.setenv("EDGEBENCH_DOUBLE_DELEGATED", "unsupported")
    failed = measured("fp32", delegate="gpu")
    assert failed.state == "failed"
    assert "nothing of the model ran on GPU" in failed.reason
    missing = verbs.run(bundle=[tiny_tflite["fp32"]], options={"benchmark_model": "/no/such"}).cells[0]
    assert "cpu has no runtime benchmark-model: option benchmark_model: /no/such is no program on this device" in missing.reason
