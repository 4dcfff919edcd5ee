"""What a program printed of its own runs, where it gives no samples: it fills in what one value a process cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgebench.analysis.stats import eligible
from edgebench.schema import LatencySummary

TAIL = 0.95
"""The one quantile that rankings show and such a program may print."""


def printed(summary: LatencySummary, runs: Sequence[Mapping[str, Any]]) -> LatencySummary:
    """Take mean, deviation, extremes and p95 from what was printed of each process (microseconds), where all say it.

    The quantile only with as many inferences as bound one.
    """
    if not runs:
        return summary
    found: dict[str, float] = {}
    for name, field, joined in (
        ("mean_us", "mean_ns", np.mean),
        ("std_us", "stdev_ns", lambda values: np.sqrt(np.mean(np.square(values)))),
        ("min_us", "min_ns", np.min),
        ("max_us", "max_ns", np.max),
        ("p95_us", "p95_ns", np.median),
    ):
        values = [1e3 * float(run[name]) for run in runs if name in run]
        if len(values) == len(runs):
            found[field] = float(joined(values))
    if "p95_ns" in found and not eligible(int(min(run["count"] for run in runs)), TAIL):
        del found["p95_ns"]
    return summary.model_copy(update=found)


def program_of(programs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Join what was said of each trial; ValueError where another program took one, or another processor computed it."""
    if not programs:
        return None
    first = programs[0]
    for name, what in (("sha256", "program"), ("computed_on", "processor"), ("statistic", "statistic")):
        other = next((each[name] for each in programs if each[name] != first[name]), None)
        if other is not None:
            raise ValueError(f"one trial has another {what} than the first: {other}, not {first[name]}")
    return {**{name: value for name, value in first.items() if name != "run"}, "runs": [dict(each["run"]) for each in programs]}
