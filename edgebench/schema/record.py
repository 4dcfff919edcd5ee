"""What is known of a measured cell, and its verdict."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
)

from edgebench.schema.base import NAME, RECORD_SCHEMA, Frozen, Mode, Provenance, Role, VerdictWord, Warned
from edgebench.schema.bundle import Calibration, Parity
from edgebench.schema.cell import Cell, Scenario
from edgebench.schema.model import Model


class Memory(Frozen):
    """Resident memory of a process of its own, or why there is none."""

    baseline_bytes: int | None = Field(None, description="runtime imported, one input buffer made")
    loaded_bytes: int | None = None
    peak_bytes: int | None = Field(None, description="highest while loading and inferring")
    method: str | None = Field(None, description="`VmHWM` after a reset, or `sampler` (VmRSS every 10 ms)")
    device_bytes: int | None = Field(None, description="memory of the accelerator; null: the runtime uses none")
    reason: str | None = None

    @property
    def model_bytes(self) -> int | None:
        """The model's share: peak − baseline."""
        return None if self.peak_bytes is None or self.baseline_bytes is None else self.peak_bytes - self.baseline_bytes


class Interval(Frozen):
    """A value and its 95 % confidence interval, over trials unless said otherwise."""

    value: float
    low: float | None = None
    high: float | None = None


class Energy(Frozen):
    """Energy of one inference on one rail, or why there is none."""

    joules: Interval | None = Field(None, description="gross, per inference; median of the trials")
    net_joules: Interval | None = Field(None, description="less what the idle device draws in that time")
    watts: float | None = Field(None, description="mean power while sampling")
    idle_watts: float | None = Field(None, description="mean power of the idle windows")
    provenance: Provenance | None = None
    meter: str | None = None
    rail: str | None = None
    counter: bool | None = Field(None, description="an energy counter, not sampled power")
    rate_hz: float | None = Field(None, description="distinct sensor updates per second")
    updates: int | None = Field(None, description="distinct sensor updates in the trial that has fewest")
    coverage: float | None = Field(None, description="share of the samples' time with readings, in the worst trial")
    window_seconds: float | None = Field(None, description="the shortest trial's")
    short: bool | None = Field(None, description="a window under 60 s: never ranked by energy")
    meter_cost: float | None = Field(None, description="share by which metering lengthens an inference, from `edgebench noise`")
    reason: str | None = None


class LatencySummary(Frozen):
    """Statistics of the samples; nanoseconds. Blank quantiles had too few samples."""

    trials: int
    samples: int
    median_ns: Interval = Field(description="median of the trials' medians")
    mean_ns: float = Field(description="mean of the trials' means")
    stdev_ns: float = Field(description="within trials: root of the mean of their variances")
    mad_ns: float = Field(description="median over trials of the median absolute deviation")
    min_ns: float
    max_ns: float
    p90_ns: float | None = None
    p95_ns: float | None = None
    p99_ns: float | None = None
    p999_ns: float | None = None
    outliers: int = Field(description="samples with |x − median| / MAD > 14.826; flagged, never removed")
    trial_medians_ns: tuple[float, ...]
    batch: int = Field(1, description="inferences in one sample")
    precise_trials: int | None = Field(None, description="trials that stopped at the wanted precision; the others met the cap")
    load_ns: float = Field(description="median over trials")
    first_ns: float = Field(description="median over trials of the first inference")
    prepare_ns: float = Field(description="median time to turn one uint8 image into the input tensor")
    scores_ns: float = Field(description="median time to turn one output tensor into scores")
    stages_ns: dict[str, float] = Field(
        {}, description="median over trials of each stage: host_to_device, compute, device_to_host"
    )

    @property
    def per_second(self) -> float:
        """Inferences per second, one after the other."""
        return 1e9 * self.batch / self.median_ns.value

    @property
    def variation(self) -> float:
        """Coefficient of variation: standard deviation over mean."""
        return self.stdev_ns / self.mean_ns


class BatchPoint(Frozen):
    """offline: throughput at one batch size."""

    batch: int
    per_second: Interval = Field(description="inferences per second, over trials")
    median_ns: float = Field(description="of one batch")


class Server(Frozen):
    """server: the highest rate of Poisson arrivals at which p99 stayed under the bound."""

    bound_ns: float
    per_second: Interval = Field(description="queries per second, over trials")
    held_trials: int = Field(description="trials in which any rate held the bound")


class Sustained(Frozen):
    """sustained: how latency develops under load."""

    burst_ns: float = Field(description="median of the first minute's windows")
    sustained_ns: float = Field(description="median of the last minute's windows")
    slowdown: float = Field(description="sustained over burst, less 1")
    onset_seconds: float | None = Field(description="when windows became 5 % slower than the burst for good; null: never")


class LoadGen(Frozen):
    """MLPerf LoadGen's own word on the same file, as a cross-check."""

    version: str
    scenario: str
    result: str = Field(description="VALID or INVALID, as its log says")
    median_ns: float | None = None
    p99_ns: float | None = None
    per_second: float | None = None
    summary: str = Field(description="its mlperf_log_summary.txt")


class Comparison(Frozen):
    """Two cells' latency: whether they differ, and by how much."""

    ratio: Interval = Field(description="second over first, with its 95 % interval over pairs of processes, or over trials")
    word: Literal["faster", "slower", "same", "inconclusive"] = Field(description="what the second is")
    threshold: float = Field(description="smaller shifts are never called different")
    floor: float | None = Field(None, description="the target's own noise, from `edgebench noise`; null: not measured")
    paired: bool = Field(description="the two ran in turn, window by window or trial by trial")
    by: Literal["window", "trial", "record"] = Field(
        "record", description="what alternated: windows of two live processes, trials, or nothing (records of their own time)"
    )
    why_by_trial: str = Field("", description="why trials alternated and not windows; empty: they did not, or nobody asked")
    pairs: int | None = Field(None, description="pairs of processes, or trials of the side that has fewer")
    detectable: float | None = Field(None, description="the shift that nine in ten such comparisons would find, a share of 1")
    more_pairs: int | None = Field(None, description="inconclusive: about how many more pairs would decide; null: too many")
    advice: str = Field("", description="inconclusive: what would decide it")


class Noise(Frozen):
    """A target's own noise, from A/A comparisons of one bundle with itself."""

    schema_version: int = Field(1, alias="schema")
    target: str = Field(pattern=NAME)
    device: str
    mode: Mode
    bundle: str
    bundle_sha256: str
    scenario: Scenario
    started_at: str
    ratios: tuple[float, ...] = Field(description="of each A/A comparison")
    floor: float = Field(description="the shift that 95 % of the comparisons stay under")
    apart: tuple[float, ...] = Field((), description="of each comparison's median over the one's before it: nothing took turns")
    apart_floor: float | None = Field(None, description="the shift that 95 % of those stay under, for records; null: not known")
    meters: tuple[str, ...] = Field((), description="power meters whose cost was measured beside it")
    meter_cost: Interval | None = Field(None, description="inference time with meters over without, less 1")
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @property
    def between_records(self) -> float:
        """The shift that counts as none between records, which were taken at times of their own."""
        return max(self.floor, self.apart_floor or 0.0)


class Reason(Frozen):
    """One reason for a verdict, and what to do about it."""

    reason: str
    recommendation: str


class Verdict(Frozen):
    """Whether a record's numbers can be relied on."""

    word: VerdictWord
    reasons: tuple[Reason, ...] = ()


class Paired(Frozen):
    """Two models' decisions on the same samples, second less first."""

    samples: int
    difference: Interval = Field(description="of the share decided rightly, with its 95 % bootstrap interval")
    gained: int = Field(description="samples that the second alone decides rightly")
    lost: int = Field(description="samples that the first alone decides rightly")
    mcnemar_p: float = Field(description="McNemar's exact test: how likely so uneven a split is by chance")
    reference: str = Field("", description="key of the record that it was compared with")


class Accuracy(Frozen):
    """Measured from the device's own outputs."""

    samples: int
    headline: str = Field(description="which of the metrics ranks models of this task")
    metrics: dict[str, float]
    commonest: float | None = Field(None, description="accuracy of always deciding for the commonest class of these samples")
    interval: Interval | None = Field(
        None, description="of the metric accuracy where a subset was judged, by the number of its samples (Wilson 1927)"
    )
    shuffled_text: float | None = Field(
        None, description="the headline metric where each sample gets another's text, by a seed; null: it reads no text"
    )
    host_agreement: float | None = Field(description="share of parity samples decided as the file was on the exporting host")
    to_fp32: Paired | None = Field(
        None, description="against the same model in FP32, measured on the same target: in torch, else ONNX or TFLite"
    )
    to_teacher: Paired | None = Field(None, description="against the teacher in FP32, likewise")


class FewSamples(Frozen):
    """What was compared where a runtime cannot infer the whole split: no accuracy, and never ranked."""

    samples: int
    reason: str = Field(description="why so few")
    host_agreement: float | None = Field(description="share decided as the file was on the exporting host; null: not known there")
    max_abs: float | None = Field(description="|device − exporting host| of the scores at most; null: not known there")
    metrics: dict[str, float] = Field({}, description="the task's metrics on these samples alone")


class RightOutput(Frozen):
    """How far the device's output is from the right one that somebody gave."""

    output: str
    off: float | None = Field(description="|other − right| over what it may be, where that is largest: 1 at most is near enough")
    largest: float | None = Field(description="|other − right| at most")
    at: int | None = Field(None, description="which element is furthest off, counted along the flat tensor")
    reason: str | None = Field(None, description="why it cannot be compared")


class Sidecar(Frozen):
    """The compressed file with the raw samples (`.npz`), beside its record."""

    file: str
    sha256: str
    bytes: int


class Record(Frozen):
    """One cell's result: all that the tables are made from."""

    schema_version: int = Field(RECORD_SCHEMA, alias="schema")
    key: str = Field(description="sha256 of the cell")
    status: Literal["done", "failed"]
    cell: Cell
    model: Model | None = Field(description="null where the bundle could not be made")
    role: Role
    size_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    calibration: Calibration | None = None
    parity: Parity | None = None
    bundle_details: dict[str, Any] = {}
    finish: dict[str, Any] | None = Field(None, description="what the device built of the bundle, and how long that took")
    program: dict[str, Any] | None = Field(
        None, description="the program that took the samples: its hash, what it computed on, and what it printed of each trial"
    )
    tools: dict[str, str] = {}
    started_at: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(description="wall time of the whole cell")
    environment: dict[str, Any] = {}
    clock: dict[str, Any] = {}
    latency: LatencySummary | None = None
    memory: Memory = Field(default_factory=Memory)
    energy: Energy = Field(default_factory=Energy)
    rails: tuple[Energy, ...] = Field((), description="every other rail that was read")
    accuracy: Accuracy | None = None
    few_samples: FewSamples | None = Field(
        None, description="in place of an accuracy; null: the whole split is judged, or nothing"
    )
    right_outputs: tuple[RightOutput, ...] = Field((), description="empty: none were given")
    throughput: tuple[BatchPoint, ...] = ()
    server: Server | None = None
    sustained: Sustained | None = None
    loadgen: LoadGen | None = None
    verdict: Verdict | None = None
    warnings: tuple[Warned, ...] = Field((), description="why to look twice at what was measured")
    failure: Reason | None = None
    failed_stage: str | None = None
    samples: Sidecar | None = None
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @property
    def ran_by(self) -> str:
        """Name the runtime, its version and options, and what computed, where that is not the runtime's own choice alone."""
        return self.cell.ran_by + ("" if self.program is None else f", computed on {self.program['computed_on']}")

    @property
    def host_agreement(self) -> float | None:
        """Share of the parity samples that were inferred which it decides as the exporting host did; None: not known."""
        judged = self.accuracy or self.few_samples
        return None if judged is None else judged.host_agreement

    @property
    def per_second(self) -> float:
        """Inferences per second as the scenario asks: at the rate that kept the bound, or one query after the other."""
        assert self.latency is not None
        return self.server.per_second.value if self.server is not None else self.latency.per_second
