"""The events of a measuring device, a model for each kind: what `edgebench/agent` sends, and nothing beyond it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, FailFast, Field, StringConstraints, model_validator

from edgebench.device.bounds import (
    WORD,
    Cores,
    Count,
    Duration,
    Kept,
    Line,
    Natural,
    Number,
    Positive,
    Said,
    Short,
    Text,
    Word,
    plain,
)
from edgebench.device.facts import Clock, Environment
from edgebench.schema.base import Provenance

SAMPLES = 1 << 23
"""Most numbers in one list: eight windows of the agent's."""
SUMMARY = 1 << 16
TOKENS, TEXT = 1 << 13, 1 << 17
"""Of one answer: most tokens, and characters."""
Durations = Annotated[list[Duration], FailFast(), Field(max_length=SAMPLES)]
Some = Annotated[list[Duration], FailFast(), Field(min_length=1, max_length=SAMPLES)]


class Stretch(Said):
    """When something began and ended on the device's clock."""

    begin_ns: Natural
    end_ns: Natural

    @model_validator(mode="after")
    def _goes_on(self) -> Stretch:
        if self.end_ns < self.begin_ns:
            raise ValueError(f"it ends {self.begin_ns - self.end_ns} ns before it begins")
        return self


class Start(Said):
    """`hello` of a job."""

    protocol: Natural
    environment: Environment
    clock: Clock


class Resumed(Said):
    """A run that an earlier connection started is told again."""

    age_seconds: Annotated[float, Field(ge=0, le=1e8)]
    idle_seconds: Annotated[float, Field(ge=0, le=1e8)]

    @model_validator(mode="after")
    def _is_older_than_idle(self) -> Resumed:
        if self.idle_seconds > self.age_seconds:
            raise ValueError("idle for longer than it is old")
        return self


class Pass(Said):
    """Every event of a pass says which it is of."""

    name: Word
    trial: Natural
    cell: Natural


class Progress(Pass):
    """What the device does once goes on."""

    what: Line
    seconds: Positive


class Loaded(Pass):
    """The model is loaded and has answered once."""

    load_ns: Duration
    first_ns: Duration
    prepare_ns: Some
    scores_ns: Some


class Warm(Pass):
    """The warm-up is over."""

    warmup_ns: Durations
    settled: bool
    calls_per_sample: Count
    batch: Count


class Samples(Pass, Stretch):
    """A window of samples; in turns also how long was waited for it, and what that used of the processor."""

    ns: Some
    inferences: Count
    waited_ns: Duration | None = None
    waited_cpu_ns: Duration | None = None


class AnswerSaid(Said):
    """One answer of a language model."""

    prompt: Natural
    prompt_tokens: Count
    first_ns: Annotated[int, Field(ge=1, le=10**15)]
    token_ns: Annotated[list[Duration], FailFast(), Field(max_length=TOKENS)]
    tokens: Annotated[list[Natural], FailFast(), Field(default_factory=list, max_length=TOKENS)]
    text: Annotated[str, StringConstraints(max_length=TEXT)] | None = None
    tokens_each: Count = 1
    has_first: bool = True

    @model_validator(mode="after")
    def _has_a_time_for_each_token(self) -> AnswerSaid:
        if self.tokens and len(self.token_ns) != len(self.tokens) - 1:
            raise ValueError(f"{len(self.token_ns)} times between {len(self.tokens)} tokens")
        return self


class Answers(Pass):
    """The answers of one sweep."""

    answers: Annotated[list[AnswerSaid], FailFast(), Field(min_length=1, max_length=1024)]


class Stopped(Pass):
    """Whether the wanted precision was reached."""

    precise: bool


class Step(Pass):
    """server: one rate that was tried."""

    rate: Positive
    queries: Count
    p99_ns: Positive
    held: bool


class Rate(Pass):
    """server: the highest rate that held the bound."""

    rate: Positive | None


class Stages(Pass):
    """The parts of inferences."""

    stages: Annotated[dict[Word, Durations], Field(max_length=16)]


class Conditions(Pass, Kept):
    """What else went on; fields that are not known here are kept."""

    t_ns: Natural
    sampling: bool
    cpu_jiffies: Natural | None = None
    idle_jiffies: Natural | None = None
    steal_jiffies: Natural | None = None
    cpu_pressure_us: Natural | None = None
    load_1min: Positive | None = None
    worker_ns: Natural | None = None
    worker_wait_ns: Natural | None = None
    swapped_pages: Natural | None = None
    memory_pressure_us: Natural | None = None
    available_bytes: Natural | None = None
    khz: Positive | None = None
    khz_real: Positive | None = None
    khz_limit: Positive | None = None
    governor: Text | None = None
    power_mode: Text | None = None
    celsius: Number | None = None
    gpu_khz: Positive | None = None
    gpu_khz_floor: Positive | None = None
    gpu_khz_limit: Positive | None = None
    gpu_load: Positive | None = None
    throttle_events: Number | None = None
    over_current_events: Number | None = None
    throttled: Number | None = None
    throttled_since_boot: Number | None = None
    fan_rpm: Number | None = None
    battery_percent: Number | None = None
    battery_state: Text | None = None
    power_profile: Text | None = None
    cpuset: Text | None = None
    cpus: Text | None = None
    wakefulness: Text | None = None
    low_power: bool | None = None
    thermal_status: Annotated[int, Field(ge=0, le=6)] | None = None
    plugged: bool | None = None

    @model_validator(mode="after")
    def _are_columns(self) -> Conditions:
        """Check what is not known here: it becomes a column all the same, so it has a plain name and one value."""
        for name, value in (self.model_extra or {}).items():
            if not re.fullmatch(WORD, name) or isinstance(value, list | dict):
                raise ValueError(f"{name[:40]!r} is no column with one value")
        return self


class ProgramFacts(Kept):
    """A program that took the samples: microseconds and MiB that it printed of one process."""

    name: Short
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    computed_on: Short
    statistic: Short
    run: Annotated[dict[Word, Positive], Field(max_length=64)]


class Program(Pass):
    """A program took this trial's samples."""

    facts: ProgramFacts


class MemoryBytes(Pass):
    """Resident memory."""

    baseline_bytes: Natural | None
    loaded_bytes: Natural | None
    peak_bytes: Natural | None
    device_bytes: Natural | None
    method: Short | None
    reason: Line | None


class Layers(Kept):
    """What an engine is made of."""

    count: Natural = 0
    by_precision: dict[Short, Natural] | None = None
    listed: Annotated[list[dict[Short, Text]], Field(max_length=1000)] | None = None


class FinishFacts(Kept):
    """What came of the step that a device takes once."""

    layers: Layers | None = None


class Finish(Pass):
    """The step that a device takes once is done."""

    facts: FinishFacts


class Node(Kept):
    """A node of the model, with its time."""

    name: Text
    op: Text
    where: Text
    ns: Positive | None = None
    inputs: Annotated[list[Text], Field(max_length=1000)] | None = None
    outputs: Annotated[list[Text], Field(max_length=1000)] | None = None
    dtype: Text | None = None


class Profile(Pass):
    """Some of the model's nodes."""

    nodes: Annotated[list[Node], FailFast(), Field(max_length=1000)]


class Predictions(Pass):
    """Outputs of some samples: base64 of float32."""

    first: Natural
    rows: Count
    values: str


class Unpredicted(Pass):
    """No outputs come home."""

    reason: Line


class Output(Said):
    """One output: what it is, and how far it is from a right one, where that is known."""

    output: str
    shape: Annotated[list[Natural], Field(max_length=64)]
    dtype: Short
    finite: bool
    off: Positive | None
    largest: Positive | None
    at: Natural | None = None
    reason: Line | None


class Outputs(Pass):
    """All outputs."""

    outputs: Annotated[list[Output], FailFast(), Field(max_length=1000)]


class LoadGenSaid(Pass):
    """What MLPerf LoadGen said."""

    version: Short
    scenario: Short
    result: Short
    median_ns: Positive | None = None
    p99_ns: Positive | None = None
    per_second: Positive | None = None
    summary: Annotated[str, StringConstraints(max_length=SUMMARY), AfterValidator(plain)]


class Finished(Pass):
    """A pass is over."""

    threads: Cores
    affinity: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 16)]], Field(max_length=1 << 12)] | None = None


class Channel(Said):
    """One rail of a meter."""

    rail: Short
    provenance: Provenance
    counter: bool
    own_clock: bool
    note: Line
    least_updates: Annotated[int, Field(ge=10, le=100)] = 100


class Meter(Said):
    """A meter's rails, or why there are none."""

    meter: Natural
    name: Word
    channels: Annotated[list[Channel], Field(max_length=64)]
    reason: Line | None


class Readings(Said):
    """Some of one rail's readings."""

    meter: Natural
    channel: Natural
    t_ns: Annotated[list[Natural], FailFast(), Field(max_length=SAMPLES)]
    values: Annotated[list[Number], FailFast(), Field(max_length=SAMPLES)]

    @model_validator(mode="after")
    def _are_pairs(self) -> Readings:
        if len(self.t_ns) != len(self.values):
            raise ValueError("times and values differ in number")
        return self


class Failed(Said):
    """The last event of a job that failed."""

    stage: Line
    reason: Line


class Done(Said):
    """The last event of a job."""


KINDS: dict[str, type[BaseModel]] = {
    "hello": Start,
    "resumed": Resumed,
    "started": Pass,
    "progress": Progress,
    "timing": Pass,
    "alive": Pass,
    "loaded": Loaded,
    "warm": Warm,
    "samples": Samples,
    "answers": Answers,
    "stopped": Stopped,
    "step": Step,
    "rate": Rate,
    "stages": Stages,
    "conditions": Conditions,
    "program": Program,
    "memory": MemoryBytes,
    "finish": Finish,
    "profile": Profile,
    "predictions": Predictions,
    "unpredicted": Unpredicted,
    "outputs": Outputs,
    "loadgen": LoadGenSaid,
    "finished": Finished,
    "meter": Meter,
    "power": Readings,
    "idle": Stretch,
    "mark": Stretch,
    "failed": Failed,
    "done": Done,
}


def fields(message: BaseModel, *without: str) -> dict[str, Any]:
    """Return a message's own fields, those of its place and these left out."""
    left_out = {"name", "trial", "cell", *without}
    return {name: value for name, value in message if name not in left_out}
