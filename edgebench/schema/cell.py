"""The unit that is planned, run, retried and resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from edgebench.schema.base import METHOD, NAME, Frozen, Kind, Mode
from edgebench.schema.model import DatasetRef


class Scenario(Frozen):
    """How inferences are asked for (MLPerf LoadGen's scenarios, and `paced`)."""

    kind: Kind = "single-stream"
    threads: int | None = Field(None, ge=1, description="null: every core that the agent may use")
    affinity: tuple[int, ...] | None = Field(None, description="cores that the model may use; null: as the system decides")
    warmup_seconds: float | None = Field(None, ge=0, description="null: as the mode says")
    half_width: float = Field(0.01, gt=0, lt=1, description="of the median's interval, as a share of it: a trial may stop there")
    streams: int = Field(8, ge=1, description="multi-stream: samples in one query")
    batches: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32), description="offline: batch sizes to try, where the bundle takes them")
    bound_ms: float | None = Field(None, gt=0, description="server: the bound that p99 must stay under")
    rate: float | None = Field(None, gt=0, description="paced: inferences per second")
    idle_ms: float | None = Field(None, gt=0, description="paced: pause after each inference")
    loadgen: bool = Field(False, description="let MLPerf LoadGen ask as well, as a cross-check")

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_called_before(cls, given: Any) -> Any:
        """Read `precision`, as records and profiles were written, as `half_width`."""
        if not isinstance(given, dict) or "precision" not in given:
            return given
        return {**{name: value for name, value in given.items() if name != "precision"}, "half_width": given["precision"]}

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> Scenario:
        if self.kind == "server" and self.bound_ms is None:
            raise ValueError("server wants bound_ms (--bound-ms), the time that 99 % of the answers must keep")
        if self.kind == "paced" and (self.rate is None) == (self.idle_ms is None):
            raise ValueError("paced wants either rate (--rate) or idle_ms (--idle-ms)")
        stray = [name for name, kind in _OPTIONS_OF.items() if self.kind != kind and getattr(self, name) is not None]
        if stray:
            raise ValueError(f"{stray[0]} goes with the scenario {_OPTIONS_OF[stray[0]]}, not with {self.kind}")
        if self.loadgen and self.kind not in ("single-stream", "offline"):
            raise ValueError(f"loadgen goes with single-stream and offline, not with {self.kind}")
        if (
            not self.batches
            or min(self.batches) < 1
            or (self.affinity is not None and (not self.affinity or min(self.affinity) < 0))
        ):
            raise ValueError("batches want sizes from 1, affinity wants core numbers from 0")
        return self


_OPTIONS_OF: dict[str, Kind] = {"bound_ms": "server", "rate": "paced", "idle_ms": "paced"}


class Subset(Frozen):
    """Samples of the test split in place of all of it: each class in its share, drawn by a seed."""

    samples: int = Field(ge=1)
    seed: int = Field(0, ge=0, lt=1 << 63)


class Cell(Frozen):
    """One bundle on one target in one scenario: the unit that is planned, run, retried, resumed."""

    model: str = Field(pattern=NAME)
    format: str = Field(pattern=NAME)
    precision: str = Field(pattern=NAME)
    bundle_sha256: str
    dataset: DatasetRef | None = Field(None, description="null: nothing is judged")
    evaluation_sha256: str | None = Field(None, description="of the split that accuracy is measured on; null: nothing is judged")
    subset: Subset | None = Field(None, description="which samples of the test split that is; null: all of them")
    target: str = Field(pattern=NAME)
    device: str = Field(description="hash of the facts that make two devices comparable")
    runtime: str
    runtime_version: str
    scenario: Scenario
    mode: Mode
    method: int = METHOD
    options: dict[str, Any] = Field({}, description="of the runtime; see `Accepts`")

    @property
    def ran_by(self) -> str:
        """Name the runtime, its version and the options that it was given."""
        chosen = ", ".join(f"{name} {value}" for name, value in sorted(self.options.items()))
        return self.runtime_version + (f" ({chosen})" if chosen else "")

    @model_serializer(mode="wrap")
    def _written_only_where_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out options and a subset where there are none: cells that were measured before there were any keep their keys."""
        return {name: value for name, value in write(self).items() if name not in ("options", "subset") or value}


@dataclass(frozen=True)
class ModeSpec:
    """How long a mode measures; see docs/method.md."""

    trials: int
    min_samples: int
    min_seconds: float
    cap_seconds: float
    window_seconds: float
    idle_seconds: float = 0.0
    """How long the device is left alone before and after, where it has a power meter."""
    adaptive: bool = True
    """Whether a trial goes on, up to the cap, until its median's interval is as narrow as the scenario says."""

    def seconds(self, scenario: Scenario) -> float:
        """Estimate a cell: sampling, warm-up, process starts, memory and accuracy passes."""
        each = self.min_seconds + WARMUP_SECONDS + 4 * self.window_seconds + 1.0
        if scenario.kind == "server":
            each += 3 * self.min_seconds
        sizes = len(scenario.batches) if scenario.kind == "offline" else 1
        return self.trials * sizes * each + 4.0


WARMUP_SECONDS = 0.5


MODES: dict[Mode, ModeSpec] = {
    "tiny": ModeSpec(trials=1, min_samples=16, min_seconds=0.1, cap_seconds=0.2, window_seconds=0.02),
    "quick": ModeSpec(trials=3, min_samples=64, min_seconds=0.5, cap_seconds=1, window_seconds=0.1),
    "standard": ModeSpec(trials=5, min_samples=1024, min_seconds=10, cap_seconds=60, window_seconds=1, idle_seconds=5),
    "strict": ModeSpec(trials=5, min_samples=1024, min_seconds=60, cap_seconds=600, window_seconds=1, idle_seconds=30),
    "sustained": ModeSpec(
        trials=1, min_samples=64, min_seconds=600, cap_seconds=1200, window_seconds=1, idle_seconds=30, adaptive=False
    ),
}


@dataclass(frozen=True)
class TurnSpec:
    """How long a mode compares what takes turns; see docs/method.md."""

    pairs: int
    """Fresh processes of each side: the unit of inference."""
    turns: int
    """Of each process, half of them in either direction: an even number."""
    cap_seconds: float
    """Of one pair's turns, those of all sides together."""
    seconds: float = 0.1
    """Of samples in one turn, where an inference is not longer than that."""


TURNS: dict[Mode, TurnSpec] = {
    "quick": TurnSpec(pairs=6, turns=4, cap_seconds=3),
    "standard": TurnSpec(pairs=12, turns=40, cap_seconds=50),
    "strict": TurnSpec(pairs=20, turns=140, cap_seconds=300),
}
"""A comparison takes about as long as the mode's trials of both sides would."""
