"""Drive a fake RAPL tree in real time: `fake_rapl.py ROOT ZERO_NS RANGE_UJ...`, one package a range.

Power is 5 + 3 sin t watts. Counters move every 1 to 10 ms in steps of 61 uJ, as real ones do.
"""

from __future__ import annotations

import math
import random
import select
import sys
import time
from pathlib import Path

MEAN, SWING, OMEGA = 5.0, 3.0, 1.0
STEP_UJ = 61
ZONES = "sys/class/powercap"


def joules(seconds: float) -> float:
    """Integrate the power curve from 0."""
    return MEAN * seconds + SWING / OMEGA * (1 - math.cos(OMEGA * seconds))


def lay_out(root: Path, ranges: list[int]) -> list[Path]:
    """Make one zone for each range; return the counters' files."""
    counters = []
    for number, range_uj in enumerate(ranges):
        zone = root / ZONES / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"package-{number}\n")
        (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (zone / "energy_uj").write_text("0\n")
        counters.append(zone / "energy_uj")
    return counters


def main() -> int:
    """Count until standard input closes."""
    root, zero_ns, ranges = Path(sys.argv[1]), int(sys.argv[2]), [int(word) for word in sys.argv[3:]]
    counters = [root / ZONES / f"intel-rapl:{number}" / "energy_uj" for number in range(len(ranges))]
    while not select.select([sys.stdin], [], [], random.uniform(0.001, 0.01))[0]:
        counted = int(joules((time.perf_counter_ns() - zero_ns) / 1e9) * 1e6 / STEP_UJ) * STEP_UJ
        for path, range_uj in zip(counters, ranges, strict=True):
            beside = path.with_suffix(".new")
            beside.write_text(f"{counted % range_uj}\n")
            beside.replace(path)  # a reader never sees half a number, as in the kernel
    return 0


if __name__ == "__main__":
    sys.exit(main())
