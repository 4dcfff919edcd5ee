"""The agent's loop costs 1 % at most for models of 1 ms and more, and 3 µs at most for one of about 20 µs.

It alternates with a bare loop of the same runtime, window by window in one process. Beside it, what MLPerf LoadGen and
`litert-benchmark` say of the same files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cells import TINY, arguments, bundle, checked, session, subject, workplace
from figures import state

from edgebench.agent.cell.loop import Loop, calls_per_sample, warm_up
from edgebench.agent.runtimes import rt_onnxruntime, rt_tflite
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.samples import samples
from edgebench.device.job import Pass
from edgebench.run.session import run_job
from edgebench.schema import Scenario

DEPENDS = (
    "edgebench/agent/",
    "tests/benchmarks/cells.py",
)
QUIET = True
"""Noise would decide it."""

RUNTIMES: dict[str, Any] = {"onnx": rt_onnxruntime, "tflite": rt_tflite}


def bare(infer: Callable[[Any], Any], inputs: list[Any], seconds: float) -> float:
    """Time single inferences as a script would; returns the median in nanoseconds."""
    samples, end, index = [], time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        tensor = inputs[index % len(inputs)]
        begin = time.perf_counter_ns()
        infer(tensor)
        samples.append(time.perf_counter_ns() - begin)
        index += 1
    return float(np.median(samples))


def interleaved(folder: Path, format: str, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Alternate windows of the agent's loop and of the bare loop; medians in nanoseconds."""
    made = read_bundle(folder)
    images, spec = samples(made.inputs, folder, None), made.inputs[0].model_dump(mode="json")
    data = {"dtype": "uint8", "shape": list(images[0].shape[1:]), "count": len(images[0])}
    outputs = [each.model_dump(mode="json") for each in made.outputs]
    job = {"inputs": [{**spec, "data": data}], "outputs": outputs, "scored": [made.scored], "options": {}}
    runtime = RUNTIMES[format].Runtime(job)
    runtime.load(str(folder / made.entry), 1)
    inputs = [runtime.prepare([image.tobytes()], 1) for image in images[0]]
    loop = Loop(runtime.infer, inputs)
    warm, _ = warm_up(loop, 0.1)
    loop.calls = calls_per_sample(warm, 60.0)
    own, theirs = [], []
    for index in range(rounds):
        turns: list[Callable[[], None]] = [
            lambda: own.append(float(np.median(loop.window(seconds)))),
            lambda: theirs.append(bare(runtime.infer, inputs, seconds)),
        ]
        for turn in turns if index % 2 == 0 else turns[::-1]:
            turn()
    return own, theirs


def by_loadgen(folder: Path, made: Path) -> str:
    """Let LoadGen ask through the agent."""
    opened = session(folder)
    cell = subject(opened, made, Scenario(threads=1, loadgen=True))
    [found] = checked(run_job(opened, [cell], [Pass("trial"), Pass("loadgen")], lambda _: None))
    agent = float(np.median(found.trials[0].samples_ns)) / 1e3
    assert found.loadgen is not None
    return (
        f"agent in its own process {agent:.1f} µs; LoadGen {found.loadgen['median_ns'] / 1e3:.1f} µs ({found.loadgen['result']})"
    )


def by_litert_benchmark(made: Path) -> str:
    """Let LiteRT's own tool time the same file, where it is installed."""
    tool = shutil.which("litert-benchmark") or str(Path(sys.executable).parent / "litert-benchmark")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [tool, "--model", str(made / "model.tflite"), "--num_runs", "500", "--warmup_runs", "100"]
        try:
            subprocess.run(
                [*command, "--num_threads", "1", "--result_json", str(out)], check=True, capture_output=True, timeout=300
            )
            content = json.loads(out.read_text())
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return f"litert-benchmark: not to be had ({str(error)[:80]})"
    found = content["latency"]
    return f"litert-benchmark: median {found['median_ms']} ms, mean {found['avg_ms']} ms (it prints two digits)"


def main() -> int:
    """Compare three models in both runtimes."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.3)
    given = parser.parse_args()
    short, costs = [], []
    with workplace() as folder:
        for architecture, size, least_ns in ((TINY, 88, 0.0), ("mobilenet_v2", 160, 1e6), ("resnet18", 64, 1e6)):
            for format in ("onnx", "tflite"):
                made = bundle(folder / architecture.partition(":")[0], architecture, size, format)
                own, theirs = interleaved(made, format, given.rounds, given.seconds)
                extra = float(np.median(np.array(own) - np.array(theirs)))
                share = extra / float(np.median(theirs))
                holds = share <= 0.01 if np.median(theirs) >= least_ns > 0 else extra <= 3000
                short += [] if holds else [f"{architecture} {format}"]
                print(
                    f"{architecture} {format}: bare {np.median(theirs) / 1e3:.1f} µs, agent {np.median(own) / 1e3:.1f} µs "
                    f"({extra / 1e3:+.2f} µs, {100 * share:+.2f} %)"
                )
                costs.append(f"{architecture} {format} {extra / 1e3:+.2f} µs, {100 * share:+.2f} %")
                print(f"    {by_loadgen(folder, made)}")
                if format == "tflite":
                    print(f"    {by_litert_benchmark(made)}")
    text = "; ".join(costs) + (f"; too slow: {', '.join(short)}" if short else "")
    return state(not short, text, "3 µs at most for the smallest, 1 % at most for the others")


if __name__ == "__main__":
    sys.exit(main())
