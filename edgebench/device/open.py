"""What has arrived of trials, cells and meters, until a job is over."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebench.device import messages
from edgebench.schema import Answer, PowerTrace, Predictions, Step, Trial, Window


@dataclass
class OpenTrial:
    """A trial that is still running."""

    samples: array[int] = field(default_factory=lambda: array("q"))
    windows: list[Window] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)
    warm: dict[str, Any] = field(default_factory=dict)
    timed: bool = False
    precise: bool | None = None
    rate: float | None = None
    stages: Mapping[str, list[int]] = field(default_factory=dict)
    complete: bool = False
    turns: int | None = None
    answers: list[Answer] = field(default_factory=list)

    def close(self, index: int) -> Trial:
        """Freeze what has arrived."""
        return Trial(
            index=index,
            load_ns=self.loaded.get("load_ns", 0),
            first_ns=self.loaded.get("first_ns", 0),
            warmup_ns=self.warm.get("warmup_ns", ()),
            settled=self.warm.get("settled", False),
            calls_per_sample=self.warm.get("calls_per_sample", 1),
            batch=self.warm.get("batch", 1),
            samples_ns=self.samples,
            prepare_ns=self.loaded.get("prepare_ns", ()),
            scores_ns=self.loaded.get("scores_ns", ()),
            complete=self.complete,
            precise=self.precise,
            windows=self.windows,
            steps=self.steps,
            rate=self.rate,
            turns=self.turns,
            stages=self.stages,
            answers=self.answers,
        )


@dataclass
class OpenCell:
    """What has arrived of one cell."""

    trials: list[OpenTrial] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    rows: int = 0
    threads: int | None = None
    affinity: list[int] | None = None
    loadgen: dict[str, Any] | None = None
    finish: dict[str, Any] | None = None
    outputs: list[dict[str, Any]] | None = None
    profile: list[dict[str, Any]] | None = None
    programs: list[dict[str, Any]] = field(default_factory=list)
    unpredicted: str = ""

    def predictions(self) -> Predictions | None:
        """Join the chunks."""
        values = b"".join(self.values)
        return Predictions(self.rows, len(values) // 4 // self.rows, values) if self.rows else None


@dataclass
class OpenTrace:
    """One rail of a meter."""

    meter: str
    channel: messages.Channel
    t_ns: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    note: str = ""

    def close(self) -> PowerTrace:
        """Freeze what has arrived."""
        return PowerTrace(
            meter=self.meter,
            rail=self.channel.rail,
            provenance=self.channel.provenance,
            counter=self.channel.counter,
            own_clock=self.channel.own_clock,
            t_ns=self.t_ns,
            values=self.values,
            note=self.note,
            least_updates=self.channel.least_updates,
        )
