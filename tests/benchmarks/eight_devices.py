"""Eight devices on loopback, side by side, take 1.25 times as long as one of them alone at most.

Each measures the same cell. Their runtime sleeps, so that this computer's cores are not what is measured.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from boards import boards, target
from cells import arguments, bundle, progress, workplace
from figures import state

from edgebench import MeasureOptions, RunOptions, api
from edgebench.schema import Mode

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

DEVICES = 8
RATIO = 1.25


def main() -> int:
    """Print both times and their ratio."""
    parser = arguments(__doc__)
    parser.add_argument("--mode", default="quick")
    given = parser.parse_args()
    with workplace() as folder:
        made = bundle(folder, size=32)
        with boards(folder / "devices", DEVICES, EDGEBENCH_SLEEP="0.02") as devices:
            names = [target(folder, device.name, device.host) for device in devices]
            for index, name in enumerate(names):  # brings everything there
                run(folder, made, [name], "quick")
                progress(f"prepared {index + 1} of {DEVICES}")
            one = run(folder, made, names[:1], given.mode)
            progress("one is done, now all")
            every = run(folder, made, names, given.mode)
    text = f"one device {one:.1f} s, {DEVICES} devices {every:.1f} s, ratio {every / one:.2f}"
    return state(every / one <= RATIO, text, f"ratio {RATIO} at most")


def run(folder: Path, made: Path, names: Sequence[str], mode: Mode) -> float:
    """Measure a cell on each device; returns the seconds it took."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    begin = time.monotonic()
    found = api.run(
        bundle=[made], target=names, measure=MeasureOptions(mode), options=RunOptions(results, folder / "work", trust=True)
    )
    if found.failed or len(found.records) != len(names):
        sys.exit(f"failed: {found.failed}")
    return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
