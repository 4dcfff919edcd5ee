"""Raw readings, and never a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebench.schema.base import Provenance


@dataclass(frozen=True)
class Window:
    """One stretch of samples: when it began and ended on the device's clock, and the inferences in it."""

    trial: int
    begin_ns: int
    end_ns: int
    inferences: int
    waited_ns: int | None = None
    """turns: how long the process had waited for this one."""
    waited_cpu_ns: int | None = None
    """turns: what it used of the processor in that time; it should have slept."""


@dataclass(frozen=True)
class Step:
    """One rate that a server trial tried."""

    rate: float
    queries: int
    p99_ns: float
    held: bool


@dataclass(frozen=True)
class Answer:
    """One answer of a language model: its times, and what it said."""

    prompt: int
    """Which one, in the bundle's order."""
    prompt_tokens: int
    first_ns: int
    """From the prompt's text to the first new token; of a program that has no text, the prefill alone."""
    token_ns: Sequence[int]
    """From one new token to the next; or means, see `tokens_each`."""
    tokens: Sequence[int] = ()
    """The new tokens; empty: the program does not tell."""
    text: str | None = None
    """The same as text; None: not asked for again, or not told."""
    tokens_each: int = 1
    """How many tokens each of `token_ns` is the mean of."""
    has_first: bool = True
    """Whether `first_ns` holds the first token."""

    @property
    def new_tokens(self) -> int:
        """Count what was generated."""
        return len(self.tokens) or len(self.token_ns) * self.tokens_each


@dataclass(frozen=True)
class Trial:
    """What one fresh process measured; times in nanoseconds."""

    index: int
    load_ns: int
    first_ns: int
    warmup_ns: Sequence[int]
    settled: bool
    calls_per_sample: int
    samples_ns: Sequence[int]
    prepare_ns: Sequence[int]
    scores_ns: Sequence[int]
    complete: bool
    batch: int = 1
    """Inferences in one sample: the batch, or the queries of multi-stream."""
    precise: bool | None = None
    """Whether the trial stopped because its median was known to the wanted precision; None where it was not asked."""
    windows: Sequence[Window] = ()
    steps: Sequence[Step] = ()
    rate: float | None = None
    """server: the highest rate that held the bound, queries per second."""
    turns: int | None = None
    """Number of the pass in which it took turns with others, window by window; None: it ran alone."""
    stages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Parts of inferences taken after the samples, nanoseconds: an accelerator's host_to_device, compute, device_to_host."""
    answers: Sequence[Answer] = ()
    """Of a language model, sweep by sweep; a sample is the mean time of the answers of one sweep."""


@dataclass(frozen=True)
class PowerTrace:
    """What one rail of one meter said through a whole cell, idle windows included."""

    meter: str
    rail: str
    provenance: Provenance
    counter: bool
    """Values are joules since the start, wrap-around removed; else watts."""
    own_clock: bool
    """Timestamps are another clock's: to be aligned by the marks."""
    t_ns: Sequence[int]
    values: Sequence[float]
    note: str = ""
    least_updates: int = 100
    """Fewer distinct updates in a trial carry no figure; a gauge that counts charge misses nothing between its few."""


@dataclass(frozen=True)
class Power:
    """All that meters said during a cell, on the device's clock."""

    traces: Sequence[PowerTrace] = ()
    idle: Sequence[tuple[int, int]] = ()
    """Windows in which the device did nothing for us: begin and end."""
    marks: Sequence[tuple[int, int]] = ()
    """Pulses of full load, by which a meter with a clock of its own is aligned: begin and end."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Meters that could not be read, and why."""


@dataclass(frozen=True)
class Predictions:
    """Outputs of the evaluation split, in its order: float32 values, row by row."""

    rows: int
    columns: int
    values: bytes


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    stage: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Measurement:
    """Raw readings of one cell, and never a mean."""

    environment: Mapping[str, Any]
    clock: Mapping[str, Any]
    trials: Sequence[Trial]
    memory: Mapping[str, Any]
    predictions: Predictions | None
    conditions: Sequence[Mapping[str, Any]]
    failure: Failure | None
    power: Power = field(default_factory=Power)
    loadgen: Mapping[str, Any] | None = None
    finish: Mapping[str, Any] | None = None
    """What the device said of the bundle's last step, which it did itself or had done before."""
    outputs: Sequence[Mapping[str, Any]] | None = None
    """What the device said of each output, where a pass asked for it: `output`, `shape`, `finite`, `off`, `largest`, `reason`."""
    profile: Sequence[Mapping[str, Any]] | None = None
    """Time by node, where a pass asked for it."""
    unpredicted: str = ""
    """Why no outputs came home, where few were asked for; empty: they did."""
    programs: Sequence[Mapping[str, Any]] = ()
    """For each trial that a program took: which one, what it computed on, and what it printed (`run`)."""
