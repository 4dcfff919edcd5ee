"""The limits that a choice must keep to, as options."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer


@dataclasses.dataclass(frozen=True)
class LimitGroup:
    """What must hold of a result."""

    max_p50: Annotated[str | None, typer.Option(help="Median latency, for instance 20ms.")] = None
    max_p90: Annotated[str | None, typer.Option(help="Nine of ten inferences are as fast.")] = None
    max_p99: Annotated[str | None, typer.Option(help="99 of 100 inferences are as fast.")] = None
    max_size: Annotated[str | None, typer.Option(help="Of the bundle's files: 5MB, 4MiB.")] = None
    max_memory: Annotated[str | None, typer.Option(help="Peak memory of the process.")] = None
    max_energy: Annotated[str | None, typer.Option(help="Of one inference: 3mJ.")] = None
    min_metric: Annotated[
        str | None, typer.Option("--min-metric", "--min-accuracy", help="The task's headline metric: 0.85 or 85%.")
    ] = None
    min_rate: Annotated[str | None, typer.Option(help="Inferences per second.")] = None

    def read(self) -> dict[str, float]:
        """Read those that are given, in nanoseconds, bytes, joules and shares of 1; `InputError` where one is not understood."""
        from edgebench.report import leaderboard as verbs

        return dict(verbs.read_limits({name: text for name, text in vars(self).items() if text is not None}))
