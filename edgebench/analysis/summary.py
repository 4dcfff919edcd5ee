"""What a record says of its samples: summary, throughput, verdict. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgebench.analysis import generation, stats, verdict
from edgebench.analysis.printed import printed
from edgebench.analysis.processor import may_lose
from edgebench.schema import Cell, Measurement, Prompts, Trial


def counted(cell: Cell, trials: Sequence[Trial]) -> Sequence[Trial]:
    """Return the trials that the latency is about: offline, those of the batch size with the highest throughput."""
    return stats.fastest_batch(trials) if cell.scenario.kind == "offline" else trials


def derived(
    cell: Cell,
    measurement: Measurement,
    min_samples: int,
    host_agreement: float | None,
    details: Mapping[str, Any],
    prompts: Prompts | None = None,
    references: Sequence[str | None] = (),
) -> dict[str, Any]:
    """Compute what a record says of its samples; ValueError where they are no measurement.

    `details` are the bundle's. `prompts`: what a language model was asked; `references`: the right answers, where known.
    """
    trials = counted(cell, measurement.trials)
    summary = printed(stats.summarize(trials), [each["run"] for each in measurement.programs])
    serving = None
    if cell.scenario.bound_ms is not None:
        serving = stats.server(trials, cell.scenario.bound_ms * 1e6)
    return {
        "latency": summary,
        "generation": None if prompts is None else generation.summarize(trials, prompts, references),
        "throughput": stats.throughput(measurement.trials) if cell.scenario.kind == "offline" else (),
        "server": serving,
        "sustained": stats.sustained(trials[0]) if cell.mode == "sustained" else None,
        "verdict": verdict.judge(
            cell,
            summary,
            trials,
            measurement.conditions,
            min_samples,
            host_agreement,
            serving,
            may_lose(details, cell.runtime, measurement.environment),
        ),
    }
