"""Energy of a known power curve, read in real time by the RAPL meter: within 1 % of its integral."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fake_rapl
from figures import state

from edgebench.agent.events import Events
from edgebench.agent.meters.meters import Sampler
from edgebench.analysis import energy
from edgebench.schema import Interval, PowerTrace, Window

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/energy.py",
    "edgebench/analysis/power.py",
    "tests/benchmarks/fake_rapl.py",
)

RANGES = {"package-0": 4_000_000, "package-1": 262_143_328_850}
"""Microjoules: the first wraps about every second, the second not at all."""
WITHIN = 0.01
INFERENCES = 100


class Kept(Events):
    """Keeps events instead of writing them."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        """Keep one event."""
        self.kept.append({"event": event, **fields})


def run(root: Path, trials: int, seconds: int) -> tuple[Kept, list[Window], int]:
    """Let the curve run while the meter reads it; return events, windows and the curve's zero."""
    fake_rapl.lay_out(root, list(RANGES.values()))
    zero_ns = time.perf_counter_ns()
    arguments = [sys.executable, fake_rapl.__file__, str(root), str(zero_ns), *map(str, RANGES.values())]
    events, windows = Kept(), []
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as driver:
        time.sleep(0.3)
        sampler = Sampler([{"name": "rapl", "rail": None, "provenance": None, "options": {}}], events, str(root))
        sampler.start()
        for trial in range(trials):
            begin = time.perf_counter_ns()
            time.sleep(seconds)
            windows += [Window(trial, begin + n * 10**9, begin + (n + 1) * 10**9, INFERENCES) for n in range(seconds)]
        time.sleep(0.3)
        sampler.stop()
        assert driver.stdin is not None
        driver.stdin.close()
    return events, windows, zero_ns


def trace(events: Kept, rail: str) -> PowerTrace:
    """Join the readings of one rail."""
    channels = next(event["channels"] for event in events.kept if event["event"] == "meter")
    index = [channel["rail"] for channel in channels].index(rail)
    parts = [event for event in events.kept if event["event"] == "power" and event["channel"] == index]
    times, values = ([one for part in parts for one in part[name]] for name in ("t_ns", "values"))
    return PowerTrace("rapl", rail, "soc", True, False, times, values)


def expected(windows: list[Window], zero_ns: int) -> Interval:
    """Integrate the curve over the windows that count; joules per inference."""
    values = []
    for trial in sorted({window.trial for window in windows}):
        inside = [window for window in windows if window.trial == trial][2:-2]
        begin, end = ((at - zero_ns) / 1e9 for at in (inside[0].begin_ns, inside[-1].end_ns))
        values.append((fake_rapl.joules(end) - fake_rapl.joules(begin)) / (INFERENCES * len(inside)))
    return Interval(value=sum(values) / len(values))


def main() -> int:
    """Show that energy is exact to 1 %, whether the counter wraps round or not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=12, help="length of a trial")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events, windows, zero_ns = run(Path(folder), options.trials, options.seconds)
    right = expected(windows, zero_ns).value
    short = 0
    for rail, range_uj in RANGES.items():
        read = trace(events, rail)
        found = energy.energy_of(read, windows, ())
        wraps = int((read.values[-1]) * 1e6 / range_uj)
        error = abs(found.joules.value / right - 1) if found.joules else float("inf")
        got = f"{found.joules.value:.6f} J" if found.joules else str(found.reason)
        print(
            f"{rail}, {wraps} wraps: {got} an inference, {right:.6f} J expected "
            f"({found.updates} updates, {found.rate_hz:.1f} Hz, coverage {100 * (found.coverage or 0):.1f} %)"
        )
        short += state(error <= WITHIN, f"{rail}, {wraps} wraps: {100 * error:.3f} % off", f"{100 * WITHIN:g} % at most")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
