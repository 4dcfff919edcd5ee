"""A session over a connection, with `_device/` at its other end: JSON lines both ways."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

from edgebench.errors import TransportError
from edgebench.targets.transports._program import Program

LOADER = 'import base64,io,zlib;f=io.open(0,"rb",0,closefd=False);exec(zlib.decompress(base64.b64decode(f.readline())));main(f)'
MODULES = ("messages", "checks", "state", "programs", "keeper", "runs", "files", "main")
"""The files of the device's end, each after those that it imports."""
START = """\
import sys, types
def module(name, source=""):
    made = sys.modules[name] = types.ModuleType(name)
    made.__package__ = "edgebench_device"
    exec(compile(source, name, "exec"), vars(made))
    return made
module("edgebench_device")
for name, source in %s:
    main = getattr(module("edgebench_device." + name, source), "main", None)
"""
"""Makes modules of them on the device, where no file is written for it; leaves the last one's `main`."""


class Lost(TransportError):
    """The connection broke; a new one may go on where this one ended."""


class Unreachable(TransportError):
    """The device cannot be reached in a way that trying again would not change."""


class HashDiffers(TransportError):
    """A file arrived with other bytes than were sent."""


REFUSALS: dict[str, type[TransportError]] = {"gone": Unreachable, "hash": HashDiffers}
CACHE = "`cache:` in a target file of your own"
REMEDIES = {
    "space": f"free some space there, or name another folder with {CACHE}",
    "limit": f"allow more with {CACHE}",
    "write": f"name a folder that can be written with {CACHE}",
    "busy": "run again when it has ended",
}
NO_PYTHON = "the device has no such Python: install it there, or name another with `python:` in a target file"
OLD_PYTHON = "the device's Python is too old or not whole (3.6 is the least): name another with `python:` in a target file"


@lru_cache(maxsize=1)
def _program() -> bytes:
    """Pack the device's end into one line."""
    folder = resources.files("edgebench.targets.transports").joinpath("_device")
    sources = [(name, folder.joinpath(f"{name}.py").read_text("utf-8")) for name in MODULES]
    return base64.b64encode(zlib.compress((START % ascii(sources)).encode("ascii"), 9)) + b"\n"


class Client(Protocol):
    """The program of a session: what differs between the ways to a device."""

    remedy: str
    """What to do where it is not here."""
    broken: frozenset[int]
    """How it ends where the connection may be at fault, and not what ran at its other end."""

    def arguments(self, first: bool) -> list[str]:
        """Write what starts a session; the `first` of a connection makes it, and is there before all others.

        Raises `Lost` or `Unreachable` where there can be none.
        """

    def explain(self, code: int | None, stderr: str, answered: bool) -> TransportError:
        """Turn its end into an error without addresses; `answered`: the device's end had answered before."""

    def forget(self) -> None:
        """Forget a connection that broke."""

    def close(self) -> None:
        """End what is held open here."""


class Channel:
    """One session, and the device's end that answers in it; nothing happens before the first request."""

    def __init__(self, arguments: Sequence[str], client: Client) -> None:
        self._client = client
        self._program = Program(arguments, client.remedy)
        self._before = _program()
        self._heard = False
        self._broken = False

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a line of JSON; the device's end goes before the first."""
        before, self._before = self._before, b""
        self.write(before + json.dumps(request).encode("ascii") + b"\n")

    def write(self, content: bytes | memoryview) -> None:
        """Send bytes; a connection that has broken shows when its end is read. `Lost` where nothing is taken any more."""
        try:
            self._program.write(content)
        except TimeoutError as error:
            raise Lost(f"the device does not go on reading: {error}") from error
        except OSError:
            self._broken = True

    def receive(self, seconds: float, **wanted: type) -> dict[str, Any]:
        """Return the device's next message that has these fields; all else is printed by somebody else.

        Raises `Lost` or `Unreachable` where there is none, `TransportError` with the device's refusal.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._program.line(left)
            except queue.Empty:
                break
            if line is None:
                raise self._ending()
            message = _message(line)
            if "error" in message:
                raise _refusal(str(message.get("kind")), str(message["error"]))
            if message and all(isinstance(message.get(name), type_) for name, type_ in wanted.items()):
                self._heard = True
                return message
        raise Lost(f"the device did not answer for {seconds:g} s")

    @property
    def ended(self) -> bool:
        """Return whether the client has ended, or takes nothing any more: it closes its input before it is gone."""
        return self._broken or self._program.code is not None

    def _ending(self) -> TransportError:
        self._program.wait(2)
        return self._client.explain(self._program.code, self._program.stderr(), self._heard)

    def hang_up(self) -> None:
        """End the session and wait until the client is gone."""
        self._program.hang_up()
        self._program.wait(1)
        self._program.stop()

    def stop(self) -> None:
        """End the client, whatever it does."""
        self._program.stop()

    # ------------------------------------------------------------ what a program says in place of messages

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence."""
        return self._program.lines(silence_seconds)

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error, or what happened to the connection."""
        return str(self._ending()) if self._program.code in self._client.broken else self._program.stderr()


def _message(line: str) -> dict[str, Any]:
    """Read a message; empty for a sign of life, and for what is none."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            return found if isinstance(found, dict) else {}
    return {}


def _refusal(kind: str, reason: str) -> TransportError:
    reason = one_line(reason[:1000])
    return REFUSALS.get(kind, TransportError)(f"{reason}; {REMEDIES[kind]}" if kind in REMEDIES else reason)


def one_line(text: str) -> str:
    """Write a text without what is not printable."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
