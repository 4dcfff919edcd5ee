"""A kind of device, or one device."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from edgebench.schema.base import NAME, Frozen, Provenance


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
    limits: dict[str, Any] = Field({}, description="what the runtime can load of the format; see its exporter's `Limits`")
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


ADDRESS = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:@%/\[\]-]*")
"""What an address is written with, of whatever kind: nothing in it is special to a shell or looks like an option."""


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
    host: str | None = Field(None, description="as the transport takes it, for instance user@host; in the user's own file alone")
    python: str | None = Field(None, description="interpreter on the device; null: the host's own, or python3 there")
    expects: Expected = Field(default_factory=Expected)
    setup: Install = Field(default_factory=Install)
    cache: Cache = Field(default_factory=Cache)
    cores: Literal["all", "big"] = Field(
        "all", description="big: of unlike cores the big ones alone, unless --affinity names some"
    )
    accepts: tuple[Accepts, ...]
    meters: tuple[MeterSpec, ...] = Field((), description="the first that can be read gives the headline")
    tuning: dict[str, Any] = Field({}, description="what `edgebench tune` wants beyond its defaults")
    agent_plugins: tuple[str, ...] = Field((), description="own `rt_*.py` or `meter_*.py` files, beside this file")
    notes: str = ""
    sources: tuple[str, ...] = Field((), description="where the facts of this file come from")

    @field_validator("host")
    @classmethod
    def _host_is_an_address(cls, host: str | None) -> str | None:
        if host is not None and (not ADDRESS.fullmatch(host) or len(host) > 400):
            raise ValueError(f"{host[:80]!r} is not user@host, ssh://user@host:port, a phone's serial, or another plain address")
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
