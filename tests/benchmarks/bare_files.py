"""`edgebench run FILE` says what a plain loop of the same runtime says of the same file, within 3 %.

In turn, each in a process of its own: a trial of the agent on the bundle that a bare file became, and beside it a loop of ONNX
Runtime as `onnxruntime_perf_test` has it, or LiteRT's own `litert-benchmark`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from cells import arguments, bundle, checked, progress, session, subject, workplace
from figures import state

from edgebench import api
from edgebench.device.job import Pass
from edgebench.run.session import run_job

DEPENDS = (
    "edgebench/agent/",
    "edgebench/bundle/",
    "tests/benchmarks/cells.py",
)
QUIET = True
"""Noise would decide it."""

LOOP = """
import sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
[given] = session.get_inputs()
feed = {given.name: numpy.random.default_rng(0).random(given.shape, numpy.float32)}
for _ in range(30):
    session.run(None, feed)
taken, end = [], time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < end:
    begin = time.perf_counter_ns()
    session.run(None, feed)
    taken.append(time.perf_counter_ns() - begin)
print(float(numpy.median(taken)))
"""


def by_loop(file: Path, seconds: float) -> float:
    """Time an ONNX file as a script would; nanoseconds."""
    command = [sys.executable, "-c", LOOP, str(file), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


def by_litert_benchmark(file: Path, seconds: float) -> float:
    """Let LiteRT's own tool time a TFLite file, about as long; nanoseconds, of which it writes two digits of a millisecond."""
    tool = shutil.which("litert-benchmark") or str(Path(sys.executable).parent / "litert-benchmark")
    out = file.with_suffix(".json")
    command = [tool, "--model", str(file), "--num_runs", str(int(100 * seconds)), "--warmup_runs", "30", "--num_threads", "1"]
    subprocess.run([*command, "--result_json", str(out)], check=True, capture_output=True, timeout=300)
    return 1e6 * float(json.loads(out.read_text())["latency"]["median_ms"])


def main() -> int:
    """Compare two networks in both formats."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    found = []
    with workplace() as folder:
        opened = session(folder)
        seconds = opened.spec.min_seconds
        for architecture, size in (("mobilenet_v2", 160), ("resnet18", 64)):
            for format, other in (("onnx", by_loop), ("tflite", by_litert_benchmark)):
                made = bundle(folder / architecture, architecture, size, format)
                file = folder / f"{architecture}.{format}"
                shutil.copyfile(made / f"model.{format}", file)
                brought = subject(opened, api.import_file(file, out=folder / "brought").folder)

                def own(brought: object = brought) -> float:
                    [measured] = checked(run_job(opened, [brought], [Pass("trial")], lambda _: None))  # type: ignore[list-item]
                    return float(np.median(measured.trials[0].samples_ns)) / measured.trials[0].calls_per_sample

                ratios = []
                for index in range(given.rounds):
                    turns = (own, lambda file=file, other=other: other(file, seconds))
                    first, second = (turn() for turn in (turns if index % 2 == 0 else turns[::-1]))
                    ratios.append(first / second if index % 2 == 0 else second / first)
                    progress(f"{architecture} {format}: {index + 1} of {given.rounds}")
                ratio, span = float(np.median(ratios)), f"{min(ratios):.3f} … {max(ratios):.3f}"
                found.append((f"{architecture} {format}", ratio))
                print(f"\n{architecture} {format}: edgebench / {other.__name__[3:]} {ratio:.3f} ({span})")
    text = "; ".join(f"{name} {100 * (ratio - 1):+.1f} %" for name, ratio in found)
    return state(all(abs(ratio - 1) <= 0.03 for _, ratio in found), text, "3 % either way")


if __name__ == "__main__":
    sys.exit(main())
