"""The data types that flow through edgebench, and the protocols at its seams.

    profile → model → bundle → deployment → measurement → record → report

Everything is frozen, units stand in the names, and each type has one JSON form.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

RECORD_SCHEMA = 3
BUNDLE_SCHEMA = 1
METHOD = 2
"""Version of the measuring method; part of every cell's key."""

Task = Literal["multi-class", "binary", "multi-label", "ordinal"]
Role = Literal["teacher", "student", "baseline", "quantized", "pruned"]
Mode = Literal["quick", "standard", "strict", "sustained"]
Kind = Literal["single-stream", "multi-stream", "offline", "server", "paced"]
Provenance = Literal["wall", "board", "module", "soc", "estimate"]
"""How much of the device a power figure covers; different ones are never ranked together."""
Layout = Literal["nchw", "nhwc"]
VerdictWord = Literal["VALID", "UNSTABLE", "INVALID"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a model, target or profile may be called: it becomes part of file names."""


class Frozen(BaseModel):
    """A value: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


# ---------------------------------------------------------------- data and models


class DatasetRef(Frozen):
    """A data set by name, and the options that its loader takes."""

    name: str
    options: dict[str, str | int | bool] = {}

    def __str__(self) -> str:
        """Write it as the command line reads it."""
        return ",".join([self.name, *(f"{key}={value}" for key, value in sorted(self.options.items()))])


class Preprocessing(Frozen):
    """From uint8 images [n, h, w, c] to a network's input; executed by `agent/preprocess.py`."""

    height: int = Field(gt=0, description="rows after resizing")
    width: int = Field(gt=0, description="columns after resizing")
    channels: Literal[1, 3] = Field(description="grey is repeated to 3, colour is averaged to 1")
    mean: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    std: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    layout: Layout = "nchw"


class TensorSpec(Frozen):
    """One input or output of a bundle's file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = Field(None, description="real = scale × (quantized − zero_point); null for real tensors")
    zero_point: int | None = None

    @property
    def is_image(self) -> bool:
        """Say whether it is an image of whole pixels 0…255, which the file itself normalises."""
        return self.dtype == "uint8" and self.scale is None


class Lineage(Frozen):
    """How a model came to be."""

    recipe: str
    options: dict[str, Any] = {}
    parents: tuple[str, ...] = Field((), description="sha256 of the checkpoints that it was made from")
    dataset: DatasetRef | None = None
    splits: dict[str, str] = Field({}, description="sha256 of each split's images and labels")
    seed: int = 0
    tools: dict[str, str] = {}


class Model(Frozen):
    """A trained network: what it is, and the checkpoint that holds its weights."""

    name: str = Field(pattern=NAME)
    architecture: str = Field(description="a torchvision name, `package.module:factory`, or `exported-program`")
    role: Role = "baseline"
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str = Field(description="of the checkpoint file")
    parameters: int
    lineage: Lineage
    metrics: dict[str, float] = Field({}, description="on the validation split, at the chosen epoch")


# ---------------------------------------------------------------- bundles


class Calibration(Frozen):
    """Which samples set the quantization ranges."""

    split: Literal["train"] = "train"
    samples: int
    sha256: str = Field(description="of the calibration images")
    method: str = Field(description="min-max, entropy or percentile")
    percentile: float | None = Field(None, description="share of the values inside the range, in percent; null: another method")
    dataset: str | None = Field(None, description="as the command line writes it")
    excluded: int = Field(0, description="training samples left out because the evaluation split holds the same image")


class AsRun(Frozen):
    """What the runtime makes of a quantized file on the exporting host, where that is the target: kernels may be fused."""

    top1_agreement: float = Field(description="share of samples that are decided as the file itself says")
    max_abs: float = Field(description="largest difference of any output value to what the file itself says")
    metric: float | None = Field(None, description="headline metric on these samples")
    metric_drop: float | None = Field(None, description="metric of the torch model minus this one")
    saturates: bool | None = Field(None, description="whether the processor's INT8 kernels may saturate; null: not known")


class Parity(Frozen):
    """The exported file against the torch model it came from, on the same samples; operator by operator, as it is written."""

    samples: int
    source: str = Field(description="`test`, or `synthetic` where no data set was given")
    max_abs: float = Field(description="largest difference of any output value")
    cosine: float = Field(description="smallest cosine similarity of any sample's outputs")
    top1_agreement: float = Field(description="share of samples with the same decision")
    near_ties: int | None = Field(
        None, description="other decisions where the torch model's two scores lie within 1 % of their range; see `build.gate`"
    )
    metric: float | None = Field(None, description="headline metric of the file on these samples")
    runtime: str = Field("", description="what ran the file on the exporting host; empty: the bundle's own runtime")
    metric_drop: float | None = Field(None, description="metric of the torch model minus that of the file")
    as_run: AsRun | None = Field(None, description="null: the runtime has one way of running it, or the target is elsewhere")


class FileEntry(Frozen):
    """One file of a bundle."""

    sha256: str
    bytes: int


class Limits(Frozen):
    """What a target's runtime can load, and which quantized style its kernels want."""

    opset: int | None = Field(None, description="highest ONNX operator set")
    ir: int | None = Field(None, description="highest ONNX IR version")
    activations: Literal["uint8", "int8"] = Field("int8", description="signedness of ONNX INT8 activations")
    per_channel: bool = Field(True, description="one weight scale per output channel")
    weight_bits: Literal[7, 8, "auto"] = Field(
        8, description="of ONNX INT8 weights; auto: 7 on x86 without VNNI, whose kernels saturate with 8; else 8"
    )
    operators: dict[str, int] = Field(
        {}, description="highest version of each TFLite operator, 0: none; `*` stands for any end of a name; empty: no limit"
    )
    version: str | None = Field(
        None, description="what must load the file at least: TensorRT 8.2, Core ML's iOS16 or macOS13, Edge TPU runtime 14"
    )
    symmetric: bool = Field(False, description="ONNX INT8 activations have zero point 0")
    quantized: tuple[str, ...] = Field((), description="ONNX operators that INT8 quantizes; empty: all that the quantizer knows")
    explicit: bool = Field(True, description="TensorRT INT8 as Q/DQ nodes; false: a calibration cache beside the file")
    input: Literal["image", "tensor"] = Field(
        "image",
        description="Core ML: an image, or a float32 tensor [1, c, h, w] of pixels 0…255; both are normalised in the model",
    )

    @model_serializer(mode="wrap")
    def _written_only_where_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as ever: bundles made before there was a limit keep their keys."""
        later: dict[str, Any] = {"operators": {}, "version": None, "symmetric": False, "quantized": (), "explicit": True}
        later |= {"input": "image", "weight_bits": 8}
        return {name: value for name, value in write(self).items() if name not in later or getattr(self, name) != later[name]}


class Finish(Frozen):
    """What the device itself makes of the bundle, once: a TensorRT engine is tied to its GPU and version."""

    options: dict[str, Any] = Field({}, description="for the runtime's `finish`; part of what the result is cached by")
    timeout_seconds: float = Field(3600, gt=0)


class Bundle(Frozen):
    """A folder with a model file and everything needed to run it: `bundle.json`."""

    schema_version: int = Field(BUNDLE_SCHEMA, alias="schema")
    model: Model
    format: str = Field(pattern=NAME)
    precision: str = Field(pattern=NAME)
    runtime: str = Field(pattern=NAME, description="the agent's `rt_<runtime>.py`")
    entry: str = Field(description="the file that the runtime loads")
    files: dict[str, FileEntry]
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing = Field(description="the model's, in this file's layout")
    calibration: Calibration | None = None
    parity: Parity
    parity_samples: tuple[int, ...] = Field((), description="indices into the test split of the parity samples")
    macs: int | None = Field(None, description="multiply-accumulates of one inference, counted by torch")
    limits: Limits
    dynamic_batch: bool = Field(False, description="the file takes any batch size, not 1 alone")
    finish: Finish | None = Field(None, description="null: the files are run as they are")
    details: dict[str, Any] = Field({}, description="facts of the format: opset, IR version, …")
    tools: dict[str, str] = {}
    key: str = Field(description="sha256 of all that went in; the same key is never exported twice")
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @property
    def name(self) -> str:
        """Name it as tables do."""
        return f"{self.model.name}.{self.format}.{self.precision}"

    @property
    def size_bytes(self) -> int:
        """Size on disk of the file that the runtime loads, or of the whole folder where that is a package."""
        folder, package, _ = self.entry.partition("/")
        return sum(
            entry.bytes for name, entry in self.files.items() if name == self.entry or (package and name.startswith(f"{folder}/"))
        )


# ---------------------------------------------------------------- targets


class MeterSpec(Frozen):
    """A power meter that a target has: the agent's `meter_<name>.py`."""

    name: str = Field(pattern=NAME)
    rail: str | None = Field(None, description="the rail that counts; null: the meter's first")
    provenance: Provenance | None = Field(None, description="null: as the meter itself says")
    options: dict[str, Any] = Field({}, description="the meter's own options")


class Accepts(Frozen):
    """One format that a target runs."""

    format: str = Field(pattern=NAME)
    precisions: tuple[str, ...]
    runtime: str = Field(pattern=NAME)
    limits: Limits = Field(default_factory=Limits)
    refuses: dict[str, str] = Field({}, description="precisions that do not work here, and why")
    options: dict[str, Any] = Field({}, description="the runtime's own, for instance compute_units; `--option` changes them")
    meters: tuple[MeterSpec, ...] = Field((), description="instead of the target's, where another processor computes")


class Expected(Frozen):
    """What a device must be to count as its target; a device that is something else is refused."""

    machine: tuple[str, ...] = Field((), description="what `uname -m` says; empty: any")
    board: str | None = Field(None, description="regular expression within /proc/device-tree/model")
    usb: tuple[str, ...] = Field((), description="vendor:product, one of which must be plugged in")
    gpu: str | None = Field(None, description="regular expression within the name of an NVIDIA GPU's")
    os: str | None = Field(None, description="regular expression within the system's name; another is told, not refused")
    python: str | None = Field(None, description="the system's Python, for instance 3.6; another is told, not refused")


class Install(Frozen):
    """What `edgebench targets setup` brings to the device."""

    requirements: tuple[str, ...] = Field((), description="as pip reads them, for instance onnxruntime==1.10.0")
    system_site_packages: bool = Field(False, description="the environment sees what the system installed (TensorRT)")


class Cache(Frozen):
    """Where a device keeps what was pushed."""

    path: str = Field("~/.edgebench", description="absolute, or below the home folder")
    mebibytes: int = Field(4096, ge=1, description="least recently used content goes first")

    @field_validator("path")
    @classmethod
    def _is_a_folder_of_its_own(cls, path: str) -> str:
        if not re.match(r"(~/|/)[^/]", path) or ".." in path.split("/") or not path.isprintable() or len(path.encode()) > 1024:
            raise ValueError(f"{path[:300]!r} is not an absolute path or one below ~/, without .. and control characters")
        return path


HOST = re.compile(
    r"(?P<ssh>ssh://)?(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)|\[(?P<ipv6>[0-9A-Fa-f:][0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
"""How a device is addressed; nothing in it is special to a shell or looks like an option."""
PYTHON = re.compile(r"(~/)?[A-Za-z0-9_./+][A-Za-z0-9_./+-]*")
USB = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def split_host(host: str) -> tuple[str | None, str, int | None]:
    """Take an address apart into user, name (of a host, or an IPv6 address without brackets) and port.

    `user@host`, `host`, or `ssh://user@host:port`, the user and the port where
    wanted. Raises `ValueError` for everything else, hostile or not.
    """
    found = HOST.fullmatch(host) if len(host) <= 400 else None
    name = (found["name"] or found["ipv6"]) if found else ""
    port = int(found["port"]) if found and found["port"] else None
    if not found or len(name) > 253 or (port is not None and not (found["ssh"] and 0 < port < 65536)):
        shown = host if len(host) <= 80 else f"{host[:80]}…"
        raise ValueError(f"{shown!r} is not user@host, a name of ~/.ssh/config, or ssh://user@host:port (IPv6 in brackets)")
    return found["user"], name, port


class Target(Frozen):
    """A kind of device; with `host`, one device. No target of the catalogue has an address."""

    name: str = Field(pattern=NAME)
    description: str
    transport: str
    host: str | None = Field(None, description="user@host, or a name of ~/.ssh/config; in the user's own file alone")
    python: str | None = Field(None, description="interpreter on the device; null: the host's own, or python3 there")
    expects: Expected = Field(default_factory=Expected)
    setup: Install = Field(default_factory=Install)
    cache: Cache = Field(default_factory=Cache)
    accepts: tuple[Accepts, ...]
    meters: tuple[MeterSpec, ...] = Field((), description="the first that can be read gives the headline")
    tuning: dict[str, Any] = Field({}, description="what `edgebench tune` wants beyond its defaults")
    agent_plugins: tuple[str, ...] = Field((), description="own `rt_*.py` or `meter_*.py` files, beside this file")
    notes: str = ""
    sources: tuple[str, ...] = Field((), description="where the facts of this file come from")

    @field_validator("host")
    @classmethod
    def _host_is_an_address(cls, host: str | None) -> str | None:
        if host is not None:
            split_host(host)
        return host

    @field_validator("python")
    @classmethod
    def _python_is_a_plain_path(cls, python: str | None) -> str | None:
        if python is not None and (not PYTHON.fullmatch(python) or len(python) > 1024):
            raise ValueError(f"{python[:300]!r} is not an interpreter's path: letters, digits and ./+-_, ~/ at its start")
        return python

    @model_validator(mode="after")
    def _keys_go_together(self) -> Target:
        if self.transport == "local" and self.host is not None:
            raise ValueError("transport local is this computer: leave host (--host) out, or choose a target with transport ssh")
        for key in ("board", "gpu", "os"):
            try:
                re.compile(getattr(self.expects, key) or "")
            except re.error as error:
                raise ValueError(f"expects.{key}: not a regular expression: {error}") from error
        wrong = [item for item in self.expects.usb if not USB.fullmatch(item)]
        if wrong:
            raise ValueError(f"expects.usb: {wrong[0]!r} is not vendor:product, for instance 1a6e:089a")
        return self

    def accepted(self, format: str, precision: str) -> Accepts | None:
        """Find how this target runs a format in a precision, or None."""
        return next((a for a in self.accepts if a.format == format and precision in a.precisions), None)


# ---------------------------------------------------------------- profiles


class Variant(Frozen):
    """One format in several precisions."""

    format: str
    precisions: tuple[str, ...]


class ModelPlan(Frozen):
    """A model that a profile wants: made by a recipe, or read from a checkpoint."""

    name: str = Field(pattern=NAME)
    architecture: str
    role: Role = "baseline"
    recipe: str | None = Field(None, description="null where `checkpoint` names a file")
    teacher: str | None = Field(None, description="name of a model in the same profile")
    checkpoint: str | None = None
    options: dict[str, Any] = Field({}, description="the recipe's own options")


class InputPlan(Frozen):
    """What the networks of a profile see."""

    size: int = Field(gt=0)
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] | None = Field(None, description="per channel, of values 0…1; null: the training split's own")
    std: tuple[float, ...] | None = Field(None, description="likewise; what a checkpoint was trained with")

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> InputPlan:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) != self.channels or (name == "std" and min(values) <= 0)):
                raise ValueError(f"{name} wants {self.channels} values, those of std above 0")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        return self


class Scenario(Frozen):
    """How inferences are asked for (MLPerf LoadGen's scenarios, and `paced`)."""

    kind: Kind = "single-stream"
    threads: int | None = Field(None, ge=1, description="null: every core that the agent may use")
    affinity: tuple[int, ...] | None = Field(None, description="cores that the model may use; null: as the system decides")
    warmup_seconds: float | None = Field(None, ge=0, description="null: as the mode says")
    precision: float = Field(0.01, gt=0, lt=1, description="half-width of the median's interval at which a trial may stop")
    streams: int = Field(8, ge=1, description="multi-stream: samples in one query")
    batches: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32), description="offline: batch sizes to try, where the bundle takes them")
    bound_ms: float | None = Field(None, gt=0, description="server: the bound that p99 must stay under")
    rate: float | None = Field(None, gt=0, description="paced: inferences per second")
    idle_ms: float | None = Field(None, gt=0, description="paced: pause after each inference")
    loadgen: bool = Field(False, description="let MLPerf LoadGen ask as well, as a cross-check")

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


class CalibrationPlan(Frozen):
    """How INT8 ranges are chosen."""

    samples: int = Field(256, ge=1, description="of the training split")
    method: str | None = Field(None, description="min-max, entropy or percentile; null: as the exporter usually does")
    percentile: float = Field(99.99, gt=50, le=100, description="for the method of that name")


class Goals(Frozen):
    """What a result must hold to count."""

    threshold: float | None = Field(None, ge=0, le=1, description="least headline metric, as a share of 1")
    max_degradation: float | None = Field(0.01, ge=0, le=1, description="most that the headline metric may lose against torch")
    percent_max_degradation: float | None = Field(None, ge=0, le=100, description="in percent of the torch model's metric")
    min_mapped: float = Field(0.9, ge=0, le=1, description="least share of the operators that an Edge TPU must take")


class Profile(Frozen):
    """What to build and measure."""

    name: str = Field(pattern=NAME)
    description: str = ""
    dataset: DatasetRef
    input: InputPlan
    models: tuple[ModelPlan, ...] = Field(min_length=1)
    variants: tuple[Variant, ...] = Field(min_length=1)
    targets: tuple[str, ...] = ("cpu",)
    scenario: Scenario = Field(default_factory=Scenario)
    calibration: CalibrationPlan = Field(default_factory=CalibrationPlan)
    goals: Goals = Field(default_factory=Goals)

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ModelPlan, ...]) -> tuple[ModelPlan, ...]:
        names = [model.name for model in models]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two models are called {', '.join(doubled)}")
        return models


# ---------------------------------------------------------------- cells and measurements


class Cell(Frozen):
    """One bundle on one target in one scenario: the unit that is planned, run, retried, resumed."""

    model: str = Field(pattern=NAME)
    format: str = Field(pattern=NAME)
    precision: str = Field(pattern=NAME)
    bundle_sha256: str
    dataset: DatasetRef
    evaluation_sha256: str = Field(description="of the split that accuracy is measured on")
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
        """Leave out options where there are none: cells that were measured before there were any keep their keys."""
        return {name: value for name, value in write(self).items() if name != "options" or value}


@dataclass(frozen=True)
class Window:
    """One stretch of samples: when it began and ended on the device's clock, and the inferences in it."""

    trial: int
    begin_ns: int
    end_ns: int
    inferences: int


@dataclass(frozen=True)
class Step:
    """One rate that a server trial tried."""

    rate: float
    queries: int
    p99_ns: float
    held: bool


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
    stages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Parts of inferences taken after the samples, nanoseconds: an accelerator's host_to_device, compute, device_to_host."""


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
    profile: Sequence[Mapping[str, Any]] | None = None
    """Time by node, where a pass asked for it."""


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
    """A value and its 95 % confidence interval over trials."""

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

    ratio: Interval = Field(description="second over first, with its 95 % interval over trials")
    word: Literal["faster", "slower", "same"] = Field(description="what the second is")
    threshold: float = Field(description="smaller shifts are never called different")
    floor: float | None = Field(None, description="the target's own noise, from `edgebench noise`; null: not measured")
    paired: bool = Field(description="the trials were interleaved")


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
    meters: tuple[str, ...] = Field((), description="power meters whose cost was measured beside it")
    meter_cost: Interval | None = Field(None, description="inference time with meters over without, less 1")
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())


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
    host_agreement: float | None = Field(description="share of parity samples decided as the file was on the exporting host")
    to_fp32: Paired | None = Field(
        None, description="against the same model in FP32, measured on the same target: in torch, else ONNX or TFLite"
    )
    to_teacher: Paired | None = Field(None, description="against the teacher in FP32, likewise")


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
    throughput: tuple[BatchPoint, ...] = ()
    server: Server | None = None
    sustained: Sustained | None = None
    loadgen: LoadGen | None = None
    verdict: Verdict | None = None
    failure: Reason | None = None
    failed_stage: str | None = None
    samples: Sidecar | None = None
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @property
    def per_second(self) -> float:
        """Inferences per second as the scenario asks: at the rate that kept the bound, or one query after the other."""
        assert self.latency is not None
        return self.server.per_second.value if self.server is not None else self.latency.per_second


# ---------------------------------------------------------------- the seams


@dataclass(frozen=True)
class Network:
    """A torch network ready to export, with the model that it is."""

    model: Model
    module: Any
    macs: int | None


@dataclass(frozen=True)
class ExportRequest:
    """All that an exporter may know."""

    network: Network
    precision: str
    limits: Limits
    calibration: Any
    """float32 calibration inputs [n, c, h, w], or None."""
    dynamic_batch: bool = False
    calibration_method: str = "min-max"
    percentile: float | None = None
    """For the method of that name: share of the values inside the range, in percent."""
    recipe: Mapping[str, Any] | None = None
    """Mixed precision: `blocks`, each with its `nodes` and its `choice`; None: every node computes in floating point."""


@dataclass(frozen=True)
class Block:
    """Nodes of a graph that change precision together."""

    name: str
    operators: Mapping[str, int]
    """How many of each type."""
    nodes: tuple[str, ...]


class Mixer(Protocol):
    """Writes one network in many mixtures of precision; made by an exporter's `mixer(request, folder)`."""

    def blocks(self, by: str) -> Sequence[Block]:
        """Divide what can be quantized into blocks: by `block` (parts of the torch network) or by `node`."""

    def write(self, choices: Mapping[str, str], path: Path) -> None:
        """Write the file with a choice by node: `int8`, `int8-weights` (computes in float32) or `fp32`; else int8-weights."""


@dataclass(frozen=True)
class Exported:
    """What an exporter wrote into the folder it was given."""

    entry: str
    runtime: str
    input: TensorSpec
    output: TensorSpec
    layout: Layout
    details: Mapping[str, Any]
    finish: Finish | None = None
    host: tuple[str, str] | None = None
    """Runtime and file that stand in on the exporting host, where the bundle's own cannot run there."""
    evaluate: Callable[[Any], Any] | None = None
    """float32 inputs [n, c, h, w] → scores [n, classes], where no runtime of the agent can run the file on the host."""
    evaluator: str = ""
    """What `evaluate` is."""


class Exporter(Protocol):
    """A module `exporters/<format>.py`."""

    PRECISIONS: tuple[str, ...]
    REQUIRES: tuple[tuple[str, str], ...]
    """(module, extra) pairs that must be importable."""
    CALIBRATES: Mapping[str, tuple[str, ...]]
    """Precisions that want calibration samples, and the methods that choose their ranges, the usual one first."""
    DYNAMIC_BATCH: bool
    """Whether its files can take any batch size."""

    def preflight(self, request: ExportRequest) -> None:
        """Raise `ExportError` with the layer's name for what this format cannot express, within seconds."""

    def export(self, request: ExportRequest, folder: Path) -> Exported:
        """Write the model file into `folder`."""

    def tools(self) -> dict[str, str]:
        """Versions of the tools that decide what the file looks like."""


class Stream(Protocol):
    """A running program on a device: lines out, one job in."""

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence."""

    def stop(self) -> None:
        """End the program and everything that it started."""

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error."""


@dataclass(frozen=True)
class Link:
    """How to connect to devices."""

    root: Path
    """Cache folder of a local device."""
    accept_new_host_key: bool = False
    """Trust a device that was never seen before; a changed key is refused all the same."""
    reconnect_seconds: float = 60.0
    """How long to look for a device that was lost."""
    interrupted: threading.Event = field(default_factory=threading.Event)
    """Set where nobody waits any longer."""


@dataclass(frozen=True)
class Keep:
    """Asks that a program outlives the connection: it goes on, and its output is kept on the device."""

    name: str
    """The same program has the same name: hexadecimal."""
    resume: bool = False
    """Take up what an earlier connection started under this name, if there is anything."""


class Transport(Protocol):
    """A way to a device: `targets/transports/<name>.py` makes one with `connect(target, link)`."""

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Stream:
        """Start the device's Python with these arguments; an environment made by `setup` goes first."""

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        """Bring a file below the device's cache folder, whole or not at all; returns its path there.

        Names carry the hash of the content: a file that is there is not sent
        again. `sent` hears of bytes sent and bytes in all.
        """

    def close(self) -> None:
        """End the connection; programs that are kept go on."""


class Progress(Protocol):
    """Hears how long work goes on."""

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        """Take what is being done, how much of it is done, how much there is; lanes go on side by side.

        What stands in brackets at the end of `what` changes as it goes on. Where there is nothing to do (0 of 0), `what`
        says something of all that follows.
        """
