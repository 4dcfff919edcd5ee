"""Options that several commands read alike, in groups: a command takes a group, and its user each option of it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from edgebench.errors import InputError

LOGS = "logs"
"""The folder in that of models and bundles in which loggers and trackers write."""

if TYPE_CHECKING:
    from edgebench.models.source import SourceOptions
    from edgebench.report.leaderboard import Tables
    from edgebench.run.options import RunOptions
    from edgebench.schema import MeterSpec, Target

Kind = Annotated[
    Literal["single-stream", "multi-stream", "offline", "server", "paced"] | None,
    typer.Option("--scenario", help="How inferences are asked for; as the profile says, or single-stream."),
]
Threads = Annotated[int | None, typer.Option(help="Threads per inference; all cores unless given.", min=1)]
Affinity = Annotated[str | None, typer.Option(help="Cores that the model may use, for instance 0,2-3.")]
HalfWidth = Annotated[
    str | None, typer.Option(help="A trial may stop once its median's 95 % interval is so narrow; 1% unless given.")
]
Rate = Annotated[float | None, typer.Option(help="paced: inferences per second.")]
IdleMs = Annotated[float | None, typer.Option(help="paced: pause after each inference.")]
BoundMs = Annotated[float | None, typer.Option(help="server: the bound that p99 must stay under.")]
Batches = Annotated[str | None, typer.Option(help="offline: batch sizes to try, for instance 1,4,16.")]
Streams = Annotated[int | None, typer.Option(help="multi-stream: samples in a query; 8 unless given.", min=1)]
LoadGen = Annotated[bool | None, typer.Option("--loadgen", help="Let MLPerf LoadGen ask as well, as a cross-check.")]
Meter = Annotated[
    list[str] | None,
    typer.Option(help="Power meter instead of the target's: rapl, ina3221, 'command:PROGRAM ARGS', csv:FILE, …; repeatable."),
]

CalibrationSamples = Annotated[int, typer.Option(help="Training samples that INT8 ranges are chosen from.", min=1)]
Calibration = Annotated[
    str | None,
    typer.Option(help="How ranges are chosen: min-max, entropy or percentile; as the format usually does unless given."),
]
Percentile = Annotated[
    float | None, typer.Option(help="percentile: of so many percent of the values the range is; 99.99 unless given.")
]
Threshold = Annotated[float | None, typer.Option(help="Refuse a file whose metric is lower, for instance 0.95.", min=0, max=1)]
MaxDegradation = Annotated[
    float | None,
    typer.Option(help="Refuse a quantized file that loses more against torch, for instance 0.01 for one point.", min=0, max=1),
]
PercentMaxDegradation = Annotated[
    float | None, typer.Option(help="The same, in percent of the torch model's metric, for instance 1.", min=0, max=100)
]
RuntimeOption = Annotated[
    list[str] | None, typer.Option("--option", help="The runtime's own option, for instance compute_units=CPU_ONLY; repeatable.")
]

By = Annotated[str, typer.Option(help="What makes a table of its own.")]
ResultsFolder = Annotated[Path, typer.Argument(help="The folder that holds records/.")]
Where = Annotated[list[str] | None, typer.Option(help="Only these rows: precision=int8,fp16 or model=resnet*; may be repeated.")]
Track = Annotated[
    list[str] | None,
    typer.Option(help="Where to: mlflow:URI, wandb:PROJECT or wandb:ENTITY/PROJECT; repeatable.", metavar="TRACKER:ADDRESS"),
]
Host = Annotated[
    str | None, typer.Option(help="The device's address: user@host, ssh://user@host:port, or a name of ~/.ssh/config.")
]
AcceptNewHostKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="Trust a device that was never seen before; its key is remembered.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let the files that are given run code: programs of others (.pt2, torch bundles) as they are, and what files name.",
    ),
]


@dataclasses.dataclass(frozen=True)
class DeviceGroup:
    """On which device."""

    target: Annotated[str, typer.Option(help="Where it runs: a target's name or YAML file.")] = "cpu"
    host: Host = None
    accept_new_host_key: AcceptNewHostKey = False
    trust: Trust = False

    def read(self) -> Target:
        """Read the target, at its address."""
        from edgebench.config import read_target

        return read_target(self.target, self.host, self.trust)


@dataclasses.dataclass(frozen=True)
class FolderGroup:
    """Where things are kept."""

    results: Annotated[Path, typer.Option(help="The folder of records, and of what is known of a target's noise.")] = Path(
        "results"
    )
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench")

    def options(self, device: DeviceGroup) -> RunOptions:
        """Collect what a verb on one device is told."""
        from edgebench.run.options import RunOptions

        return RunOptions(self.results, self.work, accept_new_host_key=device.accept_new_host_key, trust=device.trust)


@dataclasses.dataclass(frozen=True)
class CoreGroup:
    """On which cores."""

    threads: Threads = None
    affinity: Affinity = None

    def scenario(self) -> dict[str, Any]:
        """Collect what was given as changes of a scenario."""
        changes = {name: value for name, value in vars(self).items() if value is not None}
        if "affinity" in changes:
            changes["affinity"] = cores(changes["affinity"])
        if "batches" in changes:
            changes["batches"] = _numbers("--batches", changes["batches"])
        if "half_width" in changes:
            changes["half_width"] = share("--half-width", changes["half_width"])
        return changes


@dataclasses.dataclass(frozen=True)
class PaceGroup(CoreGroup):
    """How inferences are asked for, where two bundles take turns."""

    kind: Kind = None
    half_width: HalfWidth = None
    rate: Rate = None
    idle_ms: IdleMs = None
    streams: Streams = None


@dataclasses.dataclass(frozen=True)
class ScenarioGroup(PaceGroup):
    """How inferences are asked for."""

    bound_ms: BoundMs = None
    batches: Batches = None
    loadgen: LoadGen = None


Head = Annotated[str | None, typer.Option(help="What it returns: logits, softmax or sigmoid; looked at unless given.")]
ClassesFile = Annotated[
    Path | None, typer.Option(help="The classes in the order of the scores: a name a line, a JSON list, class_to_idx, data.yaml.")
]
Resize = Annotated[
    str | None,
    typer.Option(help="How images came to their size in training: stretch, fit, pad, pad:114 or shortest:256+crop:224."),
]


@dataclasses.dataclass(frozen=True)
class SourceGroup:
    """What a checkpoint does not say of itself."""

    architecture: Annotated[str | None, typer.Option(help="The network that a checkpoint belongs to.")] = None
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None
    classes: Annotated[int | None, typer.Option(help="Class count, where no data set says it.", min=1)] = None
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.", min=1)] = None
    channels: Annotated[int | None, typer.Option(help="Input channels, 1 or 3.", min=1, max=3)] = None
    mean: Annotated[str | None, typer.Option(help="What it was trained with, for instance 0.485,0.456,0.406.")] = None
    std: Annotated[str | None, typer.Option(help="Likewise; the training split's own unless given.")] = None
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Fetch torchvision's weights, or timm's.")] = False
    output: Annotated[str | None, typer.Option(help="Which output holds the scores, by name or index, if there are several.")] = (
        None
    )
    head: Head = None
    weights: Annotated[str | None, typer.Option(help="ema or raw, where a checkpoint holds averaged weights too.")] = None
    expect_accuracy: Annotated[
        float | None, typer.Option(help="Percent that a network must have on the test split, for instance 94.5.")
    ] = None
    classes_file: ClassesFile = None
    resize: Resize = None

    def dataset(self, text: str | None) -> str | None:
        """Say to a data set how its images are placed, in which order its classes are."""
        return placed(text, self.classes_file, self.resize, self.size)

    def read(self, text: str, trust: bool) -> SourceOptions:
        """Read what is said of a source; `InputError` where numbers are none."""
        from edgebench.models.source import SourceOptions

        check_head(self.head)
        if self.weights not in (None, "ema", "raw"):
            raise InputError(f"--weights {self.weights}: is ema or raw")
        numbers = {option: real_numbers(f"--{option}", vars(self)[option]) for option in ("mean", "std")}
        said = {name: value for name, value in vars(self).items() if name != "resize"}
        return SourceOptions(text, **{**said, **numbers}, trust=trust)


@dataclasses.dataclass(frozen=True)
class CalibrationGroup:
    """How INT8 ranges are chosen."""

    calibration_samples: CalibrationSamples = 256
    calibration: Calibration = None
    percentile: Percentile = None

    def read(self) -> dict[str, Any]:
        """Collect the fields of `schema.CalibrationPlan`; `InputError` where a percentile is given to another method."""
        found: dict[str, Any] = {"samples": self.calibration_samples, "method": self.calibration}
        if self.percentile is None:
            return found
        if self.calibration != "percentile":
            raise InputError(f"--percentile {self.percentile:g}: belongs to --calibration percentile; give both or neither")
        return {**found, "percentile": self.percentile}


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups: each field of a dataclass among its parameters becomes an option of the command line."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            inner = get_type_hints(groups[name], include_extras=True)
            parameters += [_option(field.name, field.default, inner[field.name]) for field in dataclasses.fields(groups[name])]
        else:
            parameters.append(_option(name, parameter.default, hints[name]))

    def command(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})
        function(**given)

    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def _option(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def check_head(head: str | None) -> None:
    """Raise `InputError` for a head that there is not."""
    if head not in (None, "logits", "softmax", "sigmoid"):
        raise InputError(f"--head {head}: is logits, softmax or sigmoid")


def placed(dataset: str | None, classes_file: Path | None, resize: str | None, size: int | None = None) -> str | None:
    """Add options to a data set that the command line has as its own; `InputError` where they cannot be told so."""
    given = {} if resize is None else {"resize": resize}
    if resize is not None and size is not None and "crop" not in resize and ",size=" not in (dataset or ""):
        given["size"] = str(size)
    if classes_file is not None and dataset is not None:
        given["classes"] = str(classes_file)
    if dataset is None:
        if resize is not None:
            raise InputError(f"--resize {resize}: is of a data set's images; give --dataset")
        return None
    for key, value in given.items():
        option = {"classes": "--classes-file", "size": "--size"}.get(key, "--resize")
        if "," in value:
            raise InputError(f"{option} {value}: no comma may stand in it; rename the file")
        if f",{key}=" in dataset:
            raise InputError(f"{option} {value}: --dataset says {key}= already; leave one of them out")
    return ",".join([dataset, *(f"{key}={value}" for key, value in given.items())])


def parts(text: str) -> list[str]:
    """Split at commas."""
    return [part for part in text.split(",") if part]


def filters(where: list[str] | None) -> dict[str, list[str]]:
    """Read `--where precision=int8,fp16`; names that are given twice add up."""
    found: dict[str, list[str]] = {}
    for text in where or ():
        name, equals, values = text.partition("=")
        if not equals or not parts(values):
            raise InputError(f"--where {text}: not name=value, for instance precision=int8")
        found.setdefault(name, []).extend(parts(values))
    return found


def tables(results: Path, *, sort: str, by: str, where: list[str] | None, **cut: int | None) -> Tables:
    """Make the tables of a folder, and say which records had to be left out."""
    chosen, patterns = parts(by), filters(where)
    from edgebench.cli import console
    from edgebench.report import leaderboard as verbs

    with console.progress() as progress:
        made = verbs.tables(results, sort=sort, by=chosen, where=patterns, progress=progress, **cut)
    for damaged in made.damaged:
        console.complain(f"left out: {damaged.reason}")
    return made


def assigned(option: list[str] | None, example: str) -> dict[str, Any]:
    """Read `--option KEY=VALUE`; values as YAML reads them."""
    import yaml

    found = {}
    for text in option or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--option {text}: not KEY=VALUE, for instance {example}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--option {text}: the value is no YAML ({str(error).splitlines()[0]}); quote it as YAML") from error
    return found


def devices(target: list[str] | None, host: list[str] | None, fleet: Path | None, trust: bool) -> list[str | Target]:
    """Read `--target`, each with its `--host` where it needs one, and `--fleet`; `InputError` where they do not pair."""
    from edgebench.config import read_fleet, read_target

    names, hosts = target or [], host or []
    if hosts and len(hosts) != len(names):
        raise InputError(f"{len(hosts)} --host for {len(names)} --target: give one for each, in the same order, or a fleet file")
    alone = [read_target(name, hosts[index] if hosts else None, trust) for index, name in enumerate(names)]
    return [*alone, *(read_fleet(fleet, trust) if fleet else ())]


def cores(text: str) -> tuple[int, ...]:
    """Read 0,2-3; `InputError` where it is none."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) - int(first) > 4096:
            raise InputError(f"--affinity {text}: {part!r} is not a core or a range of cores, for instance 0,2-3")
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: not whole numbers with commas between") from error


def real_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read 0.485,0.456,0.406; `InputError` where it is none."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: not numbers with commas between") from error


def share(option: str, text: str) -> float:
    """Read 5% or 0.05; `InputError` where it is no share of 1."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"{option} {text}: not a share between 0 and 1, for instance 5% or 0.05")
    return value


def meters(given: list[str] | None) -> list[MeterSpec]:
    """Read `--meter`; `InputError` names the meters that there are."""
    from edgebench import plugins
    from edgebench.errors import UnknownName
    from edgebench.schema import MeterSpec

    known = plugins.on_device("meters")
    found = []
    for text in given or ():
        name, _, rest = text.partition(":")
        if name not in known:
            raise UnknownName("meter", name, known)
        found.append(MeterSpec(name=name, rail=None, provenance=None, options=_options(name, rest)))
    return found


def _options(name: str, rest: str) -> dict[str, Any]:
    """Read what follows a meter's name: as its plugin does, or key=value with commas between."""
    from edgebench import plugins

    read = getattr(plugins.load_device("meters", name), "options_of", None)
    if read is not None:
        try:
            return dict(read(rest))
        except ValueError as error:
            raise InputError(f"--meter {name}: {error}") from error
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not all(equals for _, equals, _ in pairs):
        raise InputError(f"--meter {name}:{rest}: options are key=value with commas between")
    return {key: value for key, _, value in pairs}
