"""The server scenario finds the rate that queueing theory gives, within 10 %.

A runtime that sleeps a fixed time is an M/D/1 queue: Poisson arrivals, one server,
constant service. The sojourn time's distribution is Erlang's (1909); see Tijms, A First
Course in Stochastic Models, 9.2.
"""

from __future__ import annotations

import math
import os
import sys

import numpy as np
from cells import arguments, bundle, checked, session, subject, workplace
from figures import state
from scipy import optimize

from edgebench.analysis import stats
from edgebench.device.job import Pass
from edgebench.run.session import run_job
from edgebench.schema import ModeSpec, Scenario

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
    "tests/doubles/rt_sleep.py",
)
QUIET = True
"""Noise would decide it."""

MODE = ModeSpec(trials=5, min_samples=4000, min_seconds=8, cap_seconds=60, window_seconds=0.2)
"""4 000 queries a rate: with 1 000, p99 of one queue alone scatters the rate by 10 %."""


def waits_at_most(time: float, rate: float, service: float) -> float:
    """Return the probability that a query of an M/D/1 queue waits `time` at most before it is served."""
    if time < 0:
        return 0.0
    load, total = rate * service, 0.0
    for served in range(int(time / service) + 1):
        behind = rate * (served * service - time)
        total += behind**served / math.factorial(served) * math.exp(-behind)
    return (1 - load) * total


def analytic_rate(service: float, bound: float) -> float:
    """Return the highest rate at which 99 % of the queries are answered within the bound; per second."""

    def excess(load: float) -> float:
        return waits_at_most(bound - service, load / service, service) - 0.99

    return float(optimize.brentq(excess, 0.01, 0.999)) / service


def main() -> int:
    """Search on the sleeping runtime, and compare with theory."""
    parser = arguments(__doc__)
    parser.add_argument("--sleep-ms", type=float, default=1.0)
    parser.add_argument("--bound", type=float, default=5.0, help="in service times")
    given = parser.parse_args()
    os.environ["EDGEBENCH_SLEEP"] = str(given.sleep_ms / 1e3)
    with workplace() as folder:
        opened = session(folder, MODE)
        made = bundle(folder)
        plain = subject(opened, made, runtime="sleep")
        [alone] = checked(run_job(opened, [plain], [Pass("trial", 0)], lambda _: None))
        service = float(np.mean(alone.trials[0].samples_ns)) / 1e9
        bound = given.bound * service
        scenario = Scenario(kind="server", threads=1, bound_ms=bound * 1e3)
        serving = subject(opened, made, scenario, "sleep")
        passes = [Pass("trial", index) for index in range(MODE.trials)]
        [found] = checked(run_job(opened, [serving], passes, lambda _: None))
    result = stats.server(found.trials, bound * 1e9)
    wanted = analytic_rate(service, bound)
    ratio = result.per_second.value / wanted
    print(f"service {service * 1e3:.3f} ms, bound {bound * 1e3:.2f} ms on p99: theory {wanted:.1f} per second")
    print("trials: " + ", ".join(f"{trial.rate or 0:.1f}" for trial in found.trials))
    return state(abs(ratio - 1) <= 0.1, f"found {result.per_second.value:.1f} per second, {ratio:.3f} of theory", "0.9 … 1.1")


if __name__ == "__main__":
    sys.exit(main())
