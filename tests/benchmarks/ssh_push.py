"""A file is pushed to a device at 0.7 of the rate of `scp` at least.

The device is on loopback, and both take turns. The push also hashes the file on both sides, and writes it to the disk
before it counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from boards import boards, target
from cells import arguments, progress, workplace
from figures import state

from edgebench.config import read_target
from edgebench.device import deploy
from edgebench.schema import Link

DEPENDS = (
    "edgebench/device/deploy.py",
    "targets/transports/",
    "tests/benchmarks/cells.py",
    "tests/benchmarks/boards.py",
    "tests/sshd.py",
    "tests/doubles/rt_sleep.py",
)

SHARE = 0.7


def main() -> int:
    """Print the rates and their ratio."""
    parser = arguments(__doc__)
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    ratios: list[float] = []
    rates: list[tuple[float, float]] = []
    with workplace() as folder, boards(folder / "devices", 1) as [device]:
        source = folder / "content"
        source.write_bytes(os.urandom(given.mebibytes << 20))
        transport = deploy.connect(read_target(target(folder, "board", device.host), trust=True), Link(folder))
        transport.push(b"warm", "sets/warm", deploy.no_upload_progress)
        for index in range(given.rounds):
            begin = time.monotonic()
            there = transport.push(source, f"sets/{index}", deploy.no_upload_progress)
            ours = time.monotonic() - begin
            assert Path(there).stat().st_size == source.stat().st_size
            command = ["scp", "-q", "-F", str(device.config), str(source), f"{device.host}:copy"]
            begin = time.monotonic()
            subprocess.run(command, check=True)
            theirs = time.monotonic() - begin
            for path in (there, device.home / "copy"):
                Path(path).unlink()
            ratios.append(theirs / ours)
            rates.append((given.mebibytes / ours, given.mebibytes / theirs))
            progress(f"round {index + 1} of {given.rounds}")
        transport.close()
    ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
    text = f"push {ours:.0f} MiB/s, scp {theirs:.0f} MiB/s, ratio {ratio:.2f} ({spread})"
    return state(ratio >= SHARE, text, f"ratio {SHARE} at least")


if __name__ == "__main__":
    sys.exit(main())
