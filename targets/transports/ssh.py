"""`ssh`: a device that is reached by the system's OpenSSH client, with the user's own configuration, keys and jump hosts.

One multiplexed connection a device. What runs at its other end is `_device.py`;
the remote command is always the same text, and everything else travels as JSON.
`EDGEBENCH_SSH` names another client or adds options: `ssh -F lab.config`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import queue
import re
import shlex
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from edgebench.errors import TransportError
from edgebench.schema import Keep, Link, Target, split_host
from edgebench.targets.transports._program import Program

CONNECT_SECONDS = 10
HELLO_SECONDS = 60.0
ANSWER_SECONDS = 60.0
ALIVE = ("ServerAliveInterval=5", "ServerAliveCountMax=3")
SILENCE_SECONDS = 25.0
"""The device gives a sign of life every 4 s; after so long without one the connection is lost."""
SLOWEST = 1 << 20
"""Bytes that a device writes in a second at least."""
LOADER = 'import base64,io,zlib;f=io.open(0,"rb",0,closefd=False);exec(zlib.decompress(base64.b64decode(f.readline())));main(f)'
BLOCK = 1 << 18


class Lost(TransportError):
    """The connection broke; a new one may go on where this one ended."""


class Gone(TransportError):
    """The device cannot be reached in a way that trying again would not change."""


@lru_cache(maxsize=1)
def _program() -> bytes:
    """Pack the device's end into one line."""
    source = resources.files("edgebench.targets.transports").joinpath("_device.py").read_bytes()
    return base64.b64encode(zlib.compress(source, 9)) + b"\n"


class Channel:
    """One session over the connection, and the device's end that answers in it."""

    def __init__(self, arguments: Sequence[str], request: Mapping[str, Any]) -> None:
        self._ssh = Program(arguments, "install OpenSSH's client")
        self.send(request, _program())

    @property
    def program(self) -> Program:
        """Return the client's process."""
        return self._ssh

    def send(self, request: Mapping[str, Any], before: bytes = b"") -> None:
        """Send a line of JSON."""
        self.write(before + json.dumps(request).encode("ascii") + b"\n")

    def write(self, content: bytes | memoryview) -> None:
        """Send bytes; what happens where the connection has broken shows when its end is read."""
        with contextlib.suppress(OSError):
            self._ssh.write(content)

    def receive(self, seconds: float) -> dict[str, Any]:
        """Return the device's next message; `Lost` or `Gone` where there is none, `TransportError` with its refusal."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._ssh.line(end - time.monotonic())
            except queue.Empty as error:
                raise Lost(f"the device did not answer for {seconds:g} s") from error
            if line is None:
                self._ssh.wait(2)
                raise explain(self._ssh.stderr())
            message = _message(line)
            if message is None:
                continue  # a login script that prints
            if "error" in message:
                raise REFUSALS.get(message["kind"], TransportError)(_remedied(message["kind"], message["error"]))
            return message

    def close(self) -> None:
        """Hang up and wait until the client is gone."""
        self._ssh.hang_up()
        self._ssh.wait(1)
        self._ssh.stop()


class HashDiffers(TransportError):
    """A file arrived with other bytes than were sent."""


REFUSALS: dict[str, type[TransportError]] = {"gone": Gone, "hash": HashDiffers}
REMEDIES = {"space": "free some space there, or give another folder with `cache:` in a target file of your own"}


def _remedied(kind: str, reason: str) -> str:
    return f"{reason}; {REMEDIES[kind]}" if kind in REMEDIES else reason


def _message(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


SAID: tuple[tuple[str, type[TransportError], str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        Gone,
        "the device's host key is not the one that was known: somebody may be in between, or the device was set up anew; "
        "if it was, remove the old key with ssh-keygen -R and the device's name",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        Gone,
        "the device's host key is not known: compare it on the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        "then connect once with ssh, or give --accept-new-host-key",
    ),
    (r"Permission denied", Gone, "the device refuses the login: bring it your key with ssh-copy-id; passwords are not asked for"),
    (r"Could not resolve hostname", Gone, "the device's name is not known to the network: correct --host, or give its address"),
    (r"Connection refused", Lost, "the device refuses connections: is it on, and does its SSH server run?"),
    (
        r"timed out|Timeout, server|No route to host|Network is unreachable",
        Lost,
        "the device does not answer: is it on and connected?",
    ),
    (r"not found|No such file or directory", Gone, "the device has no such Python: name it with `python:` in a target file"),
    (r"SyntaxError|ModuleNotFoundError", Gone, "the device's Python is too old (3.6 is the least): name another with `python:`"),
)


def explain(stderr: str) -> TransportError:
    """Turn what the client said when it ended into an error without addresses."""
    for pattern, kind, text in SAID:
        if re.search(pattern, stderr):
            return kind(text)
    last = stderr.splitlines()[-1] if stderr else ""
    return Lost("the connection broke" + (f" ({_scrubbed(last)})" if last else ""))


def _scrubbed(line: str) -> str:
    """Remove what may be an address: records carry reasons, and are published."""
    return re.sub(r"\S*(@|\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F:]+)\S*|(?<=to |by )\S+", "…", line)[:200]


class SshTransport:
    """Runs programs on a device and keeps its cache folder filled."""

    def __init__(self, target: Target, link: Link) -> None:
        assert target.host is not None
        self._user, self._host, self._port = split_host(target.host)
        self._python = _quoted(target.python or "python3")
        self._cache = target.cache
        self._link = link
        self._folder = tempfile.TemporaryDirectory(prefix="edgebench-", dir=_short_folder())
        self._serving: Channel | None = None
        self._root = ""

    # ------------------------------------------------------------ the connection

    def _arguments(self, master: bool) -> list[str]:
        policy = "accept-new" if self._link.accept_new_host_key else "yes"
        options = [
            "BatchMode=yes",
            f"ConnectTimeout={CONNECT_SECONDS}",
            *ALIVE,
            f"StrictHostKeyChecking={policy}",
            f"ControlPath={self._folder.name}/s",
            f"ControlMaster={'yes' if master else 'no'}",
            "ControlPersist=no",
            "LogLevel=ERROR",
            "ForwardX11=no",
            "ForwardAgent=no",
            "RequestTTY=no",
            "RemoteCommand=none",
            "Compression=no",
        ]
        client = shlex.split(os.environ.get("EDGEBENCH_SSH", "ssh"))
        chosen = [part for option in options for part in ("-o", option)]
        login = ["-l", self._user] if self._user else []
        port = ["-p", str(self._port)] if self._port else []
        return [*client, *chosen, *login, *port, "--", self._host, f"exec {self._python} -c {shlex.quote(LOADER)}"]

    def _server(self) -> Channel:
        """Return the channel that answers requests; connects where there is none."""
        if self._serving is None:
            channel = Channel(self._arguments(master=True), {"mode": "serve", "root": self._cache.path})
            try:
                self._root = str(channel.receive(HELLO_SECONDS)["root"])
            except BaseException:
                channel.close()
                raise
            self._serving = channel
        return self._serving

    def _drop(self) -> None:
        """Forget a connection that broke."""
        if self._serving is not None:
            self._serving.program.stop()
            self._serving = None

    def _again(self, why: Lost) -> None:
        """Connect anew, for as long as the link allows; `TransportError` where the device stays away."""
        end = time.monotonic() + self._link.reconnect_seconds
        pause, last = 0.2, why
        while True:
            self._drop()
            try:
                self._server()
                return
            except Lost as error:
                last = error
            if time.monotonic() + pause > end:
                raise TransportError(
                    f"the connection was lost ({why}), and the device was not back within {self._link.reconnect_seconds:g} s "
                    f"({last}); what it goes on measuring is taken up by `edgebench run --resume`"
                ) from last
            time.sleep(pause)
            pause = min(2.0, 2 * pause)

    # ------------------------------------------------------------ files

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        """Bring a file below the cache folder; goes on where an earlier connection left off."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        digest, spoilt = "", 0
        while True:
            try:
                channel = self._server()
                channel.send({"do": "look", "name": destination, "size": size})
                found = channel.receive(ANSWER_SECONDS)
                if found["there"]:
                    return str(found["path"])
                digest = digest or _sha256(source)
                return self._send(channel, source, destination, size, digest, sent)
            except Lost as error:
                self._again(error)
            except HashDiffers:
                spoilt += 1
                if spoilt > 2:
                    raise

    def _send(
        self, channel: Channel, source: Path | bytes, name: str, size: int, digest: str, sent: Callable[[int, int], None]
    ) -> str:
        limit = self._cache.mebibytes << 20
        channel.send({"do": "push", "name": name, "size": size, "sha256": digest, "limit": limit})
        offset = int(channel.receive(ANSWER_SECONDS)["offset"])
        for block in _blocks(source, offset):
            if channel.program.wait(0):
                break
            channel.write(block)
            offset += len(block)
            sent(offset, size)
        return str(channel.receive(ANSWER_SECONDS + size / SLOWEST)["path"])

    # ------------------------------------------------------------ programs

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Program | Kept:
        """Start the device's Python with these arguments."""
        request = {"root": self._cache.path, "arguments": list(arguments), "stdin": stdin}
        if keep is not None:
            return Kept(self, {**request, "mode": "keep", "name": keep.name}, "resume" if keep.resume else "new")
        self.connect()
        return self.channel({**request, "mode": "exec"}).program

    def connect(self) -> None:
        """Connect where there is no connection, or it broke meanwhile."""
        if self._serving is not None and self._serving.program.wait(0):
            self._drop()
        try:
            self._server()
        except Lost as error:
            raise TransportError(str(error)) from error

    def channel(self, request: Mapping[str, Any]) -> Channel:
        """Open a session over the connection."""
        return Channel(self._arguments(master=False), request)

    def reconnect(self, why: Lost) -> None:
        """Connect anew after the connection broke; `TransportError` where the device stays away."""
        self._again(why)

    def stop(self, name: str) -> None:
        """End a kept program on the device, and forget it there."""
        try:
            channel = self._server()
            channel.send({"do": "stop", "name": name})
            channel.receive(ANSWER_SECONDS)
        except Lost as error:
            self._drop()
            raise TransportError(str(error)) from error

    def close(self) -> None:
        """End the connection; programs that are kept go on."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        self._folder.cleanup()


class Kept:
    """A program that outlives the connection: read over as many connections as it takes."""

    def __init__(self, transport: SshTransport, request: Mapping[str, Any], start: str) -> None:
        self._transport = transport
        self._request = request
        self._offset = 0
        self._stderr = ""
        self._rest = ""
        self._channel: Channel | None = None
        self._lost = False
        transport.connect()
        self._hello = self._open(start)

    def _open(self, start: str) -> dict[str, Any]:
        channel = self._transport.channel({**self._request, "start": start, "offset": self._offset})
        try:
            hello = channel.receive(HELLO_SECONDS)
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        return hello

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence, or where the device stays away."""
        if not self._hello["fresh"]:
            yield json.dumps({"event": "resumed", "age_seconds": self._hello["age_seconds"]}) + "\n"
        heard = time.monotonic()
        while True:
            try:
                assert self._channel is not None
                message = self._channel.receive(SILENCE_SECONDS)
            except Lost as error:
                self._reattach(error)
                heard = time.monotonic()
                continue
            if "ended" in message:
                self._take(message["ended"])
                if self._rest:
                    yield self._rest
                return
            if "data" in message:
                heard = time.monotonic()
                self._offset = int(message["at"])
                *whole, self._rest = (self._rest + message["data"]).split("\n")
                for line in whole:
                    yield line + "\n"
            elif time.monotonic() - heard > silence_seconds:
                raise TransportError(f"the agent said nothing for {silence_seconds:g} s")

    def _reattach(self, why: Lost) -> None:
        """Find the program again over a new connection."""
        self._lost = True
        while True:
            self._hang_up()
            self._transport.reconnect(why)
            try:
                self._open("attach")
            except Lost as error:
                why = error
                continue
            self._lost = False
            return

    def _take(self, ended: Mapping[str, Any]) -> None:
        self._stderr = "\n".join(part for part in (ended["stderr"].strip(), ended["reason"]) if part)

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def stop(self) -> None:
        """End the program on the device and forget it there; where the device is lost, it goes on and can be taken up."""
        self._hang_up()
        if not self._lost:
            with contextlib.suppress(TransportError):
                self._transport.stop(str(self._request["name"]))

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error, and how it was ended."""
        return self._stderr


def _short_folder() -> str | None:
    """Choose where the connection's socket lies: its path may have 107 bytes."""
    return "/tmp" if len(tempfile.gettempdir()) > 40 and os.path.isdir("/tmp") else None  # noqa: S108


def _quoted(python: str) -> str:
    """Write an interpreter's path as every login shell reads it; `Target` has let plain characters through alone."""
    return f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)


def _sha256(source: Path | bytes) -> str:
    digest = hashlib.sha256()
    for block in _blocks(source, 0):
        digest.update(block)
    return digest.hexdigest()


def _blocks(source: Path | bytes, offset: int) -> Iterator[bytes | memoryview]:
    """Yield the content from an offset on."""
    if isinstance(source, bytes):
        view = memoryview(source)[offset:]
        yield from (view[first : first + BLOCK] for first in range(0, len(view), BLOCK))
        return
    with source.open("rb") as stream:
        stream.seek(offset)
        yield from iter(lambda: stream.read(BLOCK), b"")


def connect(target: Target, link: Link) -> SshTransport:
    """Prepare a connection; it is made when something is first asked for."""
    if target.host is None:
        raise TransportError(f"{target.name}: no address; give --host user@address, or a target file with `host:`")
    return SshTransport(target, link)
