"""MLPerf LoadGen asks instead of our own loop: a cross-check, where `mlcommons-loadgen` is installed."""

import importlib
import os
import re
import shutil
import tempfile
from typing import Any, Dict, List

from ..clock import now_ns
from ..facts import version

NUMBERS = {
    "median_ns": r"^50\.0+ percentile latency \(ns\)\s*:\s*(\S+)",
    "p99_ns": r"^99\.0+ percentile latency \(ns\)\s*:\s*(\S+)",
    "per_second": r"^(?:Samples per second|QPS w/o loadgen overhead)\s*:\s*(\S+)",
}


def run(worker: Any) -> None:
    """Run LoadGen's single-stream or offline on the pass's model; emit its verdict, figures and summary."""
    worker.stage = "import"
    try:
        lg = importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise ImportError("--loadgen needs it on the device: python -m pip install mlcommons-loadgen (%s)" % error)
    job, mode = worker.job, worker.job["mode"]
    worker.load()
    worker.stage = "loadgen"
    inputs = [worker.prepare(raw) for raw in worker.raw_queries()]
    infer = worker.infer
    for query in inputs[:10]:
        infer(query)
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    offline = job["scenario"]["kind"] == "offline"
    settings.scenario = lg.TestScenario.Offline if offline else lg.TestScenario.SingleStream
    settings.min_duration_ms = int(mode["min_seconds"] * 1000)
    settings.max_duration_ms = int(mode["cap_seconds"] * 1000)
    settings.min_query_count = 1 if offline else mode["min_samples"]
    if offline:
        settings.offline_expected_qps = _rate(infer, inputs) * job["batch"]
    folder = tempfile.mkdtemp(prefix="edgebench-loadgen-")
    try:
        _test(lg, settings, folder, infer, inputs, job["batch"])
        with open(os.path.join(folder, "mlperf_log_summary.txt")) as stream:
            summary = stream.read()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    worker.events.emit(
        "loadgen",
        version=version(("mlcommons-loadgen",), ("mlperf_loadgen",)),
        scenario="Offline" if offline else "SingleStream",
        summary=summary,
        **figures(summary),
    )


def _rate(infer: Any, inputs: List[Any]) -> float:
    """Estimate the queries per second, which LoadGen wants to be told."""
    begin = now_ns()
    for query in inputs:
        infer(query)
    return len(inputs) * 1e9 / max(now_ns() - begin, 1)


def _test(lg: Any, settings: Any, folder: str, infer: Any, inputs: List[Any], batch: int) -> None:
    def issue(samples: List[Any]) -> None:
        for first in range(0, len(samples), batch):
            part = samples[first : first + batch]
            infer(inputs[part[0].index])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in part])

    output = lg.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    log = lg.LogSettings()
    log.log_output = output
    log.enable_trace = False
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(len(inputs), len(inputs), lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, library, settings, log)
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)


def figures(summary: str) -> Dict[str, Any]:
    """Read the verdict and the numbers from `mlperf_log_summary.txt`; null where it does not say."""
    verdict = re.search(r"^Result is\s*:\s*(\S+)", summary, re.MULTILINE)
    found: Dict[str, Any] = {"result": verdict.group(1) if verdict else "none"}
    for name, pattern in NUMBERS.items():
        match = re.search(pattern, summary, re.MULTILINE)
        found[name] = float(match.group(1)) if match else None
    return found
