"""A server at 80 % of what it can hold answers for ten minutes without an error, and its memory does not grow.

`edgebench serve` in a process of its own, a small CNN of 16 px digits in ONNX on one thread. `bench-serve` finds the highest
rate whose p99 is within 50 ms, and asks at 80 % of it. Memory is the resident set after the first minute, and at the end.
`serving_load.py SECONDS` takes another time. Exits 1 where a bound is broken.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from figures import state

import edgebench
from edgebench import BenchOptions, ExportOptions, SourceOptions

DEPENDS = ("edgebench/serving/", "edgebench/bundle/predict.py", "edgebench/agent/runtimes/", "edgebench/data/_images.py")
QUIET = True

SECONDS, SHARE, BOUND_MS, ERRORS, GROWTH = 600.0, 0.8, 50.0, 0.001, 0.05
WARM, EACH = 60.0, 5.0
"""Seconds until memory is first looked at, and between two looks."""


def main() -> int:
    """Print what was found; 0 where the bounds hold."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = _bundle(Path(name))
        words = [sys.executable, "-m", "edgebench", "serve", str(folder), "--port", "0", "--threads", "1", "--json"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = json.loads("".join(process.stdout.readline() for _ in range(3)))["url"]
            return _loaded(url, process.pid, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _bundle(work: Path) -> Path:
    options = {"epochs": 1, "augment": "none", "threads": 1}
    model = edgebench.train(SourceOptions("cnn", size=16, channels=1), dataset="digits", options=options, work=work)
    return edgebench.export(model, format="onnx", dataset="digits", options=ExportOptions(out=work)).folder


def _loaded(url: str, pid: int, seconds: float) -> int:
    found = edgebench.bench_serve(url, options=BenchOptions(bound_ms=BOUND_MS))
    for level in found.levels:
        print(f"  {level.rate:.0f}/s: p50 {level.p50_ms}, p99 {level.p99_ms} ms, failed {level.errors}, held {level.holds}")
    if found.capacity is None:
        return state(False, "no rate was held, not even the lowest", "a rate that is held")
    rate, memory, done = SHARE * found.capacity, list[int](), threading.Event()

    def look() -> None:
        if not done.wait(min(WARM, seconds / 4)):
            memory.append(_resident(pid))
        while not done.wait(EACH):
            memory.append(_resident(pid))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        [level] = edgebench.bench_serve(url, options=BenchOptions(rates=(rate,), seconds=seconds, bound_ms=BOUND_MS)).levels
    finally:
        done.set()
        watch.join()
    failed, growth = sum(level.errors.values()), memory[-1] / memory[0] - 1
    text = (
        f"{level.requests} requests in {level.seconds:.0f} s at {rate:.0f}/s (80 % of {found.capacity:.0f}/s): "
        f"{failed} failed, p50 {level.p50_ms:.1f} ms, p99 {level.p99_ms or float('nan'):.1f} ms; resident {memory[0] >> 10} MiB, "
        f"{memory[-1] >> 10} MiB at the end ({growth:+.1%}), {max(memory) >> 10} MiB at most"
    )
    bound = f"{ERRORS:.1%} failed at most, memory grows by {GROWTH:.0%} at most"
    return state(failed <= ERRORS * level.requests and growth <= GROWTH, text, bound)


def _resident(pid: int) -> int:
    """Return a process' resident set in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    sys.exit(main())
