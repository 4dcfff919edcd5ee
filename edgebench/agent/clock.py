"""The monotonic clock, and what reading it costs."""

import time
from typing import Any, Callable, Dict

if hasattr(time, "perf_counter_ns"):
    now_ns: Callable[[], int] = time.perf_counter_ns
else:  # Python 3.6

    def now_ns() -> int:
        """Read the clock in nanoseconds."""
        return int(time.perf_counter() * 1e9)


def describe() -> Dict[str, Any]:
    """Measure the smallest step of the clock and the cost of one reading, in nanoseconds."""
    steps = []
    for _ in range(200):
        first = now_ns()
        second = now_ns()
        while second == first:
            second = now_ns()
        steps.append(second - first)
    begin = now_ns()
    for _ in range(10000):
        now_ns()
    cost = (now_ns() - begin) / 10000.0
    info = time.get_clock_info("perf_counter")
    return {"name": info.implementation, "monotonic": info.monotonic, "resolution_ns": min(steps), "cost_ns": cost}
