"""What a device says of itself, and what it answers to a setup and to tuning: a model for each answer."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, StringConstraints

from edgebench.device.bounds import Cores, Free, Kept, Line, Natural, Number, Positive, Said, Short, Text, Word

Names = Annotated[list[Short], Field(max_length=256)]
Path = Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f-\x9f]*$", max_length=4096)]
Seconds = Annotated[float, Field(ge=0, le=1e11)]
"""Since 1970."""


def _version(text: str) -> str:
    """Check a version as markers of requirements compare it; Python's own may end in a plus sign."""
    try:
        Version(f"{text}local" if text.endswith("+") else text)
    except InvalidVersion as error:
        raise ValueError("it is no version") from error
    return text


PythonVersion = Annotated[str, StringConstraints(max_length=60), AfterValidator(_version)]


class Environment(Kept):
    """The facts that make numbers comparable."""

    board: Short | None = None
    cpu: Short | None
    machine: Short
    int8_instructions: Annotated[list[Word], Field(max_length=64)] | None = None
    cores: Cores
    memory_bytes: Natural | None = None
    system: Short
    os: Short | None = None
    kernel: Short | None = None
    virtual: bool | None = None
    python: Short | None = None
    libc: Short | None = None
    governor: Short | None = None
    load_1min: Positive | None = None
    abis: Names | None = None
    page_bytes: Natural | None = None
    cpuset: Short | None = None
    screen: Line | None = None
    """Why a phone's screen is not kept on."""


class Clock(Kept):
    """The clock by which it measures."""

    name: Short | None = None
    monotonic: bool | None = None
    resolution_ns: Natural | Positive | None = None
    cost_ns: Positive | None = None


class Identity(Kept):
    """What tells devices apart."""

    machine: Short
    bits: Annotated[int, Field(ge=8, le=1024)]
    board: Short | None
    system: Short
    os: Short | None
    python: Short
    usb: Names
    gpus: Names


class Runtime(Kept):
    """A runtime's version, or why it cannot run."""

    version: Short | None
    reason: Line | None


Runtimes = Annotated[dict[Word, Runtime], Field(max_length=256)]


class Disk(Kept):
    """The file system of the cache folder."""

    free_bytes: Natural | None
    total_bytes: Natural | None
    reason: Line | None


class Rail(Kept):
    """One rail of a meter that was tried."""

    rail: Short
    provenance: Short


class TriedMeter(Kept):
    """A meter that was tried."""

    name: Word
    wanted: bool
    rails: Annotated[list[Rail], Field(max_length=64)]
    reason: Line | None


class Phone(Kept):
    """How a phone is doing, and what it does not tell."""

    percent: Positive | None
    state: Short | None
    plugged: bool | None
    wakefulness: Short | None
    low_power: bool | None
    thermal_status: Natural | None
    missing: Annotated[list[Line], Field(max_length=16)]


class Inventory(Kept):
    """All that a device has."""

    l4t: Short | None
    jetpack: Short | None
    mendel: Short | None
    gpu_driver: Names
    governor: Short | None
    power_mode: Text | None
    khz: Positive | None
    celsius: Number | None
    throttled: Number | None
    throttled_reason: Line | None = None
    available_bytes: Natural | None
    disk: Disk
    big_cores: Annotated[list[Natural], Field(max_length=1 << 12)] | None = None
    """Of a processor whose cores are unlike."""
    phone: Phone | None = None
    meters: Annotated[list[TriedMeter], Field(max_length=256)]


class Hello(Kept):
    """`hello` of a device that is looked at."""

    protocol: Natural
    environment: Environment
    identity: Identity
    runtimes: Runtimes
    clock: Clock
    wall_s: Seconds


class Inspected(Hello):
    """The same of one that is looked at whole."""

    device: Inventory


# ---------------------------------------------------------------- setup


class Markers(Said):
    """What the markers of requirements are compared with (PEP 508)."""

    implementation_name: Short
    implementation_version: PythonVersion
    os_name: Short
    platform_machine: Short
    platform_python_implementation: Short
    platform_release: Short
    platform_system: Short
    platform_version: Short
    python_full_version: PythonVersion
    python_version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]{1,3}$")]
    sys_platform: Short


class Made(Kept):
    """The manifest of the environment in force, as an earlier setup wrote it."""

    name: Free = None


class DevicePython(Said):
    """What an environment must fit, and what is there already."""

    python: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]{1,3}\.[0-9]{1,3}$")]
    executable: Path | Literal[""]
    abi: Annotated[str, StringConstraints(pattern=r"^cp[0-9]{2,4}[a-z]{0,4}$")]
    machine: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,32}$")]
    glibc: Annotated[str, StringConstraints(pattern=r"^2\.[0-9]{1,3}(\.[0-9]{1,3})?$")] | None
    macos: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}(\.[0-9]{1,2}){0,3}$")] | None
    markers: Markers
    refused: Line | None
    root: Path
    free_bytes: Natural
    environment: Made | None
    wheels: Annotated[dict[Text, Natural], Field(max_length=10_000)]


class Installed(Said):
    """What came of an installation."""

    made: bool
    runtimes: Runtimes
    freed_bytes: Natural
    path: Path


class Removed(Said):
    """What a removal freed."""

    freed_bytes: Natural


class Failed(Said):
    """Why a setup or a tuning failed."""

    reason: Line
    privilege: bool = False


class Step(Said):
    """How far a setup is with a file."""

    file: Line
    done: Positive
    total: Positive


class Checking(Said):
    """A runtime is being tried."""

    runtime: Line


# ---------------------------------------------------------------- tuning


class Knob(Kept):
    """A knob, and what was done to it."""

    name: Short
    available: bool
    reason: Line | None
    now: Line | None
    wanted: Line | None
    changed: bool | None
    error: Line | None
    before: Line | None


class Tuned(Said):
    """Every knob."""

    knobs: Annotated[list[Knob], Field(max_length=100)]
