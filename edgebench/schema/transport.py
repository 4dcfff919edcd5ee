"""The seam to a device: what transports have to offer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgebench.schema.target import Target


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
    userland: Path | None = None
    """A folder with the packages of which a transport makes what it brings to a device; None: they are fetched."""


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


@dataclass(frozen=True)
class Brought:
    """Somebody else's work that a transport brings to a device by itself."""

    name: str
    version: str
    licence: str
    source: str
    """Where it comes from."""
    bytes: int
    """As it is fetched."""


@dataclass(frozen=True)
class Attached:
    """A device that a transport sees by itself."""

    host: str
    what: str
    remedy: str = ""
    """What to do before it can be used; empty: it can be."""


class TransportModule(Protocol):
    """A module `targets/transports/<name>.py`; all but `connect` is declared where there is such a thing."""

    NAMES_A_DEVICE: bool = False
    """Whether an address tells one device from all others for ever, as a serial number does: then it is not printed."""

    check_host: Callable[[str], None] | None = None
    """Raises `ValueError` for what is no address of this kind."""
    brings: Callable[[str], Sequence[Brought]] | None = None
    """Lists what is brought to a device of a machine (`uname -m`) before anything else."""
    remove: Callable[[Transport], int] | None = None
    """Removes from the device what the transport brought and kept there; returns the bytes that this freed."""
    attached: Callable[[], Sequence[Attached]] | None = None
    """Lists the devices that are there to be used, or nearly."""

    def connect(self, target: Target, link: Link) -> Transport:
        """Prepare a connection; it is made when something is first asked for."""
