"""One cell over SSH takes less than 2 s longer than the same cell on this computer.

The device is on loopback, and both take turns. Mode quick, a runtime that sleeps, everything on the device already; the
whole command is timed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from boards import boards, target
from cells import arguments, bundle, progress, workplace
from figures import state

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "targets/transports/",
    "tests/benchmarks/cells.py",
    "tests/benchmarks/boards.py",
    "tests/sshd.py",
    "tests/doubles/rt_sleep.py",
)

SECONDS = 2.0


def main() -> int:
    """Print both times and their difference."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    extra: list[float] = []
    times: list[tuple[float, float]] = []
    with workplace() as folder:
        made = bundle(folder, size=32)
        os.environ["EDGEBENCH_SLEEP"] = "0.005"
        with boards(folder / "devices", 1, EDGEBENCH_SLEEP="0.005") as [device]:
            there, here = target(folder, "board", device.host), target(folder, "here", None)
            for where in (there, here):
                run(folder, made, where)  # brings everything there
            for index in range(given.rounds):
                turn = [(there, run(folder, made, there)), (here, run(folder, made, here))]
                over, local = (seconds for _, seconds in turn)
                extra.append(over - local)
                times.append((over, local))
                progress(f"round {index + 1} of {given.rounds}")
    over, local = (statistics.median(side) for side in zip(*times, strict=True))
    more = statistics.median(extra)
    text = f"over SSH {over:.2f} s, here {local:.2f} s, {more:+.2f} s ({min(extra):+.2f} … {max(extra):+.2f})"
    return state(more < SECONDS, text, f"under {SECONDS:g} s more")


def run(folder: Path, made: Path, where: str) -> float:
    """Measure one cell anew with the command line; returns the seconds it took."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    command = [sys.executable, "-m", "edgebench", "run", str(made), "--target", where, "--results", str(results), "--trust"]
    begin = time.monotonic()
    subprocess.run([*command, "--work", str(folder / "work")], check=True, capture_output=True)
    return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
