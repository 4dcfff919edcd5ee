"""Options that several commands read alike: the scenario, and the power meters."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgebench.errors import InputError
from edgebench.store import snapshot

if TYPE_CHECKING:
    from edgebench.report.leaderboard import Tables
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
Where = Annotated[list[str] | None, typer.Option(help="Only these rows: precision=int8,fp16 or model=resnet*; may be repeated.")]
Host = Annotated[
    str | None, typer.Option(help="The device's address: user@host, ssh://user@host:port, or a name of ~/.ssh/config.")
]
AcceptNewHostKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="Trust a device that was never seen before; its key is remembered.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load exported programs (.pt2, torch bundles) of others: they can run code, and you know whose."
    ),
]


def calibration(samples: int, method: str | None, percentile: float | None) -> dict[str, Any]:
    """Collect how ranges are chosen; `InputError` where a percentile is given to another method."""
    if percentile is None:
        return {"samples": samples, "method": method}
    if method != "percentile":
        raise InputError(f"--percentile {percentile:g}: belongs to --calibration percentile; give both or neither")
    return {"samples": samples, "method": method, "percentile": percentile}


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
    with snapshot.begun(str(results)) as digests:
        from edgebench.cli import console
        from edgebench.report import leaderboard as verbs

        with console.progress() as progress:
            made = verbs.tables(results, sort=sort, by=chosen, where=patterns, progress=progress, digests=digests, **cut)
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


def devices(target: list[str] | None, host: list[str] | None, fleet: Path | None) -> list[str | Target]:
    """Read `--target`, each with its `--host` where it needs one, and `--fleet`; `InputError` where they do not pair."""
    from edgebench.config import read_fleet, read_target

    names, hosts = target or [], host or []
    if hosts and len(hosts) != len(names):
        raise InputError(f"{len(hosts)} --host for {len(names)} --target: give one for each, in the same order, or a fleet file")
    alone = [read_target(name, hosts[index] if hosts else None) for index, name in enumerate(names)]
    return [*alone, *(read_fleet(fleet) if fleet else ())]


def scenario(**given: Any) -> dict[str, Any]:
    """Collect what was given on the command line as changes of a scenario."""
    overrides = {name: value for name, value in given.items() if value is not None}
    if "affinity" in overrides:
        overrides["affinity"] = cores(overrides["affinity"])
    if "batches" in overrides:
        overrides["batches"] = _numbers("--batches", overrides["batches"])
    if "precision" in overrides:
        overrides["precision"] = share("--half-width", overrides["precision"])
    return overrides


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

    known = plugins.on_device("meter")
    found = []
    for text in given or ():
        name, _, rest = text.partition(":")
        if name not in known:
            raise UnknownName("meter", name, known)
        found.append(MeterSpec(name=name, rail=None, provenance=None, options=_options(name, rest)))
    return found


def _options(name: str, rest: str) -> dict[str, Any]:
    """Read what follows a meter's name: a program, a file, or key=value with commas between."""
    if name == "command":
        arguments = shlex.split(rest)
        if not arguments:
            raise InputError("--meter command: name the program that prints watts, for instance 'command:./watts --port 3'")
        return {"arguments": arguments}
    if name == "csv":
        if not rest:
            raise InputError("--meter csv: name the file, for instance csv:/tmp/meter.csv")
        return {"path": rest}
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not all(equals for _, equals, _ in pairs):
        raise InputError(f"--meter {name}:{rest}: options are key=value with commas between")
    return {key: value for key, _, value in pairs}
