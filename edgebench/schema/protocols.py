"""The seams: what exporters, tasks, and the runtimes and meters of the agent have to offer; transports are in `transport`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from edgebench.schema import bundle
from edgebench.schema.bundle import Finish, Limits, Placement
from edgebench.schema.file import FileDescription
from edgebench.schema.model import Input, Model, TensorSpec, Values

L = TypeVar("L", bound=Limits, covariant=True)


@dataclass(frozen=True)
class Network:
    """A torch network ready to export, with the model that it is."""

    model: Model
    module: Any
    macs: int | None
    source: str = ""
    """Hash of the user's own source that built it; empty: there is none."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Learned ranges of activations (low, high), by node of its `torch.fx` graph; INT8 files take these."""
    graph: Any = None
    """That graph, where there are ranges; None: as `torch.fx` traces it."""
    folder: Path = Path()
    """Its model folder, where the tokenizer of a network lies that reads text."""

    def example(self, batch: int = 1) -> tuple[Any, ...]:
        """Make a torch tensor for each of the model's inputs: zeros for images, else as their values say, by a fixed seed."""
        import torch

        random = torch.Generator().manual_seed(0)
        return tuple(_example(each, batch, random) for each in self.model.inputs)

    def run(self, *inputs: Any) -> dict[str, Any]:
        """Run it without gradients; returns its tensors by name.

        A tensor alone is `output`; others are named by key, field or index (`output_0`), nested ones with both.
        """
        import torch

        with torch.no_grad():
            return dict(named_tensors(self.module(*inputs)))


def _example(given: Input, batch: int, random: Any) -> Any:
    import torch

    shape = (batch * given.shape[0], *given.shape[1:]) if given.shape else ()
    dtype, values = getattr(torch, given.dtype), given.values or Values()
    if given.is_image or values.source == "file":
        return torch.zeros(shape, dtype=dtype)
    if values.source == "constant":
        return torch.full(shape, values.value or 0, dtype=dtype)
    low, high = values.bounds(given.dtype)
    if dtype.is_floating_point:
        return (low + (high - low) * torch.rand(shape, generator=random)).to(dtype)
    return torch.randint(int(low), int(high) + 1, shape, generator=random).to(dtype)


def named_tensors(outputs: Any, name: str = "output") -> Iterator[tuple[str, Any]]:
    """Name the tensors in what a network returned; what is no tensor is left out."""
    if hasattr(outputs, "detach"):
        yield name, outputs
        return
    inner: Mapping[Any, Any] = {}
    if isinstance(outputs, Mapping):
        inner = {str(key): value for key, value in outputs.items()}
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        inner = dict(zip(outputs._fields, outputs, strict=True))
    elif isinstance(outputs, tuple | list):
        inner = {f"{name}_{index}": value for index, value in enumerate(outputs)}
    for key, value in inner.items():
        yield from named_tensors(value, key)


@dataclass(frozen=True)
class ExportRequest(Generic[L]):
    """All that an exporter may know."""

    network: Network
    precision: str
    limits: L
    """The exporter's own."""
    calibration: Sequence[Any] | None
    """Calibration samples for each of the network's inputs, as it takes them [n, …], or None."""
    dynamic_batch: bool = False
    calibration_method: str = "min-max"
    percentile: float | None = None
    """For the method of that name: share of the values inside the range, in percent."""
    recipe: Mapping[str, Any] | None = None
    """Mixed precision: `blocks`, each with its `nodes` and its `choice`; None: every node computes in floating point."""
    probabilities: str = ""
    """How scores become probabilities, `softmax` or `sigmoid`, for a file that gives these too; empty: they do not."""


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
    inputs: tuple[Input, ...]
    """In the order of the model's."""
    outputs: tuple[TensorSpec, ...]
    """In the order in which the network returns them; the first holds the scores where there are such."""
    details: Mapping[str, Any]
    placement: Placement | None = None
    """Where the format's compiler placed the operators, where it has one; goals and diagnoses ask for it."""
    finish: Finish | None = None
    host: tuple[str, str] | None = None
    """Runtime and file that stand in on the exporting host, where the bundle's own cannot run there."""
    evaluate: Callable[[Any], Any] | None = None
    """float32 images [n, c, h, w] → scores [n, classes], where no runtime of the agent can run the file on the host."""
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
    ROUNDS_BETWEEN: bool = False
    """Whether what runs its float16 files here always rounds results between layers, not weights alone."""
    widen: Callable[[Path, Path], None] | None = None
    """Writes a copy of a float16 file that computes in float32 with the same weights.

    For what rounds results in some networks alone: there the file is judged as with `ROUNDS_BETWEEN`, its weights in the copy.
    """
    Limits: type[bundle.Limits] = bundle.Limits
    """What a target may say of this format under `limits`; without it: nothing."""
    BROUGHT: bool = False
    """Whether its files are brought alone: no network is exported to it."""
    mixer: Callable[[ExportRequest[Any], Path], Mixer] | None = None
    """Makes what writes mixtures of precision; without it `edgebench quantize --search` has nothing to search."""
    recognizes: Callable[[bytes, Path], bool] | None = None
    """Tells from a file's beginning (empty: a folder) and its path whether it is of this format; without it none is brought."""
    read: Callable[[Path], FileDescription] | None = None
    """Describes a file that `recognizes` knows, running nothing of it; `Unreadable` says what is wrong with it."""
    beyond: Callable[[FileDescription, Mapping[str, Any]], list[str]] | None = None
    """Lists what of a file is newer than a target's limits."""
    quantize_file: Callable[[ExportRequest[Any], Path, Path], Path] | None = None
    """Writes a brought file into a folder in static INT8, with ranges from the request's calibration samples."""
    read_test_data: Callable[[Path], tuple[list[tuple[str, Any]], list[tuple[str, Any]]]] | None = None
    """Reads a folder of the format's own test data: inputs and outputs in order, each with its name or none."""

    def preflight(self, request: ExportRequest[Any]) -> None:
        """Raise `ExportError` with the layer's name for what this format cannot express, within seconds."""

    def export(self, request: ExportRequest[Any], folder: Path) -> Exported:
        """Write the model file into `folder`."""

    def tools(self) -> dict[str, str]:
        """Versions of the tools that decide what the file looks like."""

    def missing(self) -> str:
        """Say which program is not here that exporting needs besides modules; empty, as without it: none."""
        return ""


class RuntimeModule(Protocol):
    """A module `agent/runtimes/rt_<name>.py`; what runs on the device is its `Runtime`."""

    DISTRIBUTIONS: tuple[str, ...]
    """Packages of which one brings it."""
    MODULES: tuple[str, ...]
    """Modules of which one is imported."""
    PACKAGE: str
    """What pip installs; without it, one of its name."""
    INSTALL: str = ""
    """How to get it where that is not by pip."""
    OPTIONAL: bool = False
    """Whether a device that is to take its formats is whole without it."""
    OPTIONS: tuple[str, ...] = ()
    """Names of the options that it takes."""
    RUNS: tuple[str, ...] = ()
    """Options that name a program."""
    SINGLE: bool = False
    """Whether one process at a time can use its device: no two take turns on it, window by window."""
    AS_WRITTEN: Mapping[str, Any] | None = None
    """Options by which it computes a quantized file as that is written; None: it knows one way alone."""
    INSTEAD_OF: str = ""
    """The runtime that it stands in for where the option of its own name is given; empty: none."""
    PRIVATE: tuple[str, ...] = ()
    """Options that tell who somebody is: no record, table or message may hold them."""
    few: Callable[[Mapping[str, Any]], tuple[int, str] | None] | None = None
    """Says for these options how many samples it infers at most, and why it infers no whole split; None: it infers any number."""
    version_of: Callable[[Mapping[str, Any]], str] | None = None
    """Names its version where options decide which it is; `ValueError` says what is missing."""


class Runtime(Protocol):
    """What runs a bundle's file on a device: the class of this name in a `RuntimeModule`, one for each pass."""

    OFFERS: tuple[str, ...]
    """Which of the methods of `OptionalRuntime` there are."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        """Take the job: `inputs` and `outputs` (name, dtype, shape, …), `scored`, `options`; import the library here."""

    def load(self, path: str, threads: int) -> None:
        """Open the file."""

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn so many samples, those of each input one after the other, into what `infer` takes, outside of what is timed."""

    def infer(self, feed: Any) -> Any:
        """Run one inference; return its outputs, in the order of the job's, once they are in the host's memory."""

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as little-endian float32, those of each sample one after the other."""

    def tensors(self, outputs: Any) -> Sequence[Any]:
        """Return every output as a numpy array, in the order of the job's, real where the file quantizes."""


class OptionalRuntime(Protocol):
    """What a runtime may do besides."""

    def finish(self, path: str) -> Mapping[str, Any]:
        """Make of the file what only this device can, once, and return facts of it; with it goes `abandon()`, which ends it."""

    def device_bytes(self) -> int | None:
        """Return the memory that the loaded model takes on an accelerator; None where it does not tell."""

    def stages(self, inputs: Sequence[Any]) -> Mapping[str, list[int]]:
        """Time the parts of inferences, nanoseconds each."""

    def profile(self, path: str, threads: int, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Load the file and time its nodes: `name`, `op`, `where`, `ns` of one inference each, and what else is known."""

    def take(self, path: str, threads: int, feeds: Sequence[Any], mode: Mapping[str, Any], begun: Callable[[int], None]) -> Any:
        """Take the samples by a clock of its own; `begun` is told the process id that infers.

        Returns `load_ns`, `first_ns`, a list `warmup_ns`, `windows` (`ns`, `begin_ns`, `end_ns`, `inferences`) and `stages`;
        of a program that prints no samples besides `calls_per_sample` and `program` (`name`, `sha256`, `run`: what it printed).
        """

    def unpredicted(self) -> str | None:
        """Say why no outputs come home, where that shows on the device alone and few samples are asked for; None: they do."""

    def generate(self, feed: Any) -> Mapping[str, Any]:
        """Let a language model answer one prompt: `prompt_tokens`, `first_ns`, `token_ns` of the others, and the new `tokens`.

        With it goes `text(tokens)`, which writes them out. A `take` returns answers as `answers` of its windows.
        """

    def footprint(self, path: str, feed: Any) -> Mapping[str, Any]:
        """Return the fields of a `memory` event, where another process than the agent's holds the model."""


class MeterModule(Protocol):
    """A module `agent/meters/meter_<name>.py`."""

    PERIOD_S: float
    """Seconds between readings."""
    NEEDS: str
    """What `--meter` takes, where it must be told something; then it has `options_of`."""
    RUNS: tuple[str, ...] = ()
    """Options that name a program."""

    def options_of(self, text: str) -> Mapping[str, Any]:
        """Read what follows `--meter NAME:`; `ValueError` says what to write."""


class Meter(Protocol):
    """What reads power: the class of this name in a `MeterModule`."""

    def __init__(self, options: Mapping[str, Any], root: str = "/") -> None:
        """Take the target's options; below `root` lies the file system that is read."""

    def start(self) -> list[dict[str, Any]]:
        """Return a `channel(…)` for each rail, or raise `Unavailable` with what is missing and what to do."""

    def read(self) -> list[tuple[int, int, float]]:
        """Return what is new: channel, nanoseconds of the agent's clock, and watts (a counter: joules since the start)."""

    def stop(self) -> None:
        """End what it started."""


class Progress(Protocol):
    """Hears how long work goes on."""

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        """Take what is being done, how much of it is done, how much there is; lanes go on side by side.

        What stands in brackets at the end of `what` changes as it goes on. Where there is nothing to do (0 of 0), `what`
        says something of all that follows.
        """


def no_progress(what: str, done: float, total: float, lane: str = "") -> None:
    """Report nothing: the `Progress` of those who do not watch."""
