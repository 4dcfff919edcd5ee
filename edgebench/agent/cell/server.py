"""Scenario `server`: queries arrive by chance, and a search finds the highest rate that keeps the bound."""

import gc
import math
import random
import time
from array import array
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..clock import now_ns

QUERIES = 662
"""Fewest queries that bound p99 (see `stats.eligible`)."""
STEPS = 7
SPIN_NS = 300000
"""Sleeping ends so long before an arrival; the rest is spent looking at the clock."""


class Server(object):
    """One queue in front of one model: latency counts from a query's arrival, not from when it was picked up."""

    def __init__(self, infer: Callable[[Any], Any], inputs: List[Any], seed: int) -> None:
        self._infer = infer
        self._inputs = inputs
        self._random = random.Random(seed)
        self._gaps: List[float] = []

    def serve(self, rate: float, queries: int) -> "array[int]":
        """Answer so many Poisson arrivals at `rate` per second; nanoseconds from arrival to answer.

        Every rate sees the same random gaps, scaled: a higher rate is never luckier.
        """
        while len(self._gaps) < queries:
            self._gaps.append(self._random.expovariate(1.0))
        arrivals, at = array("q", bytes(8 * queries)), 0.0
        for index in range(queries):
            at += self._gaps[index] * 1e9 / rate
            arrivals[index] = int(at)
        infer, inputs, now, count = self._infer, self._inputs, now_ns, len(self._inputs)
        start = now()
        for index in range(queries):
            due = start + arrivals[index]
            wait_until(due)
            infer(inputs[index % count])
            arrivals[index] = now() - due
        return arrivals


def wait_until(due_ns: int) -> None:
    """Return at `due_ns`, or at once where that has passed."""
    left = due_ns - now_ns()
    while left > 0:
        if left > 2 * SPIN_NS:
            time.sleep((left - SPIN_NS) / 1e9)
        left = due_ns - now_ns()


def quantile99(values: "array[int]") -> int:
    """Return p99 by nearest rank."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


Tried = Callable[[float, int, int, bool], None]
"""Takes a rate, its queries, their p99, and whether the bound was kept."""


def search(
    server: Server, service_ns: float, bound_ns: float, mode: Dict[str, Any], tried: Tried
) -> "Tuple[Optional[float], array[int], int, int]":
    """Bisect the load between none and saturation; the highest rate that kept the bound, and its latencies.

    Each rate is tried for half the mode's shortest time and with its fewest
    samples; a rate so low that this would exceed the mode's cap ends the search. Returns
    (None, …) where no rate kept the bound, and when the samples' window began and ended.
    """
    low, high = 0.0, 1.0
    best: Optional[float] = None
    samples, begin, end = array("q"), now_ns(), now_ns()
    gc.collect()
    gc.disable()
    try:
        for _ in range(STEPS):
            load = (low + high) / 2
            rate = load * 1e9 / service_ns
            queries = max(mode["min_samples"], QUERIES, int(rate * mode["min_seconds"] / 2.0))
            if len(samples) and queries / rate > mode["cap_seconds"]:
                break
            started = now_ns()
            latencies = server.serve(rate, queries)
            p99 = quantile99(latencies)
            held = p99 <= bound_ns
            tried(rate, queries, p99, held)
            if held or not len(samples):
                samples, begin, end = latencies, started, now_ns()
            if held:
                low, best = load, rate
            else:
                high = load
    finally:
        gc.enable()
    return best, samples, begin, end
