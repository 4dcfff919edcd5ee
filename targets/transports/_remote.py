"""What the transports over a connection share: sessions of a client program, with `_device/` at their other end.

The remote command is always the same text, and everything else travels as JSON.
What was begun goes on over as many connections as it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from edgebench.errors import TransportError
from edgebench.schema import Cache, Keep, Link
from edgebench.targets.transports._channel import Channel, Client, HashDiffers, Lost
from edgebench.targets.transports._messages import Ended, told
from edgebench.targets.transports._program import ENDLESS_LINE, LONGEST_LINE, EndlessLine

T = TypeVar("T")
HELLO_SECONDS = 60.0
ANSWER_SECONDS = 60.0
STOP_SECONDS = 20.0
SILENCE_SECONDS = 25.0
"""The device gives a sign of life every 4 s; after so long without one the connection is lost."""
SLOWEST = 1 << 20
"""Bytes that a device writes in a second at least."""
SLOWEST_LINE = 1 << 16
"""Bytes of a line that arrive in a second at least."""
BLOCK = 1 << 18
SPOILT = 3
"""A file that arrives with a wrong hash so often is given up."""


class RemoteTransport:
    """Runs programs on a device and keeps its cache folder filled."""

    def __init__(self, client: Client, cache: Cache, link: Link) -> None:
        self.client = client
        self.cache = cache
        self._link = link
        self._serving: Channel | None = None
        self._detached: DetachedProgram | None = None
        self._needed: list[str] = []
        """What was pushed for the next run: the device evicts none of it."""
        self._lost: tuple[float, Lost] | None = None
        """When and why the connection was lost, until something gets through again."""
        self.answered = False
        """Whether the device has been reached, and was not given up since."""

    # ------------------------------------------------------------ the connection

    def server(self) -> Channel:
        """Return the channel that answers requests; connects where there is no connection."""
        if self._serving is not None and self._serving.ended:
            self._drop()
        if self._serving is None:
            self._serving = Channel(self.client.arguments(first=True), self.client)
            try:
                self._serving.send({"mode": "serve", "root": self.cache.path})
                self._serving.receive(HELLO_SECONDS, edgebench=int)
            except BaseException:
                self._drop()
                raise
            self.answered = True
        return self._serving

    def channel(self) -> Channel:
        """Open another session over the connection."""
        self.server()
        return Channel(self.client.arguments(first=False), self.client)

    def _drop(self) -> None:
        """Forget a connection that broke."""
        if self._serving is not None:
            self._serving.stop()
            self._serving = None
        self.client.forget()

    def retried(self, action: Callable[[], T]) -> T:
        """Do something over as many connections as it takes; `TransportError` where the device stays away."""
        while True:
            try:
                return action()
            except Lost as error:
                self._drop()
                self._pause(error)

    def _pause(self, why: Lost) -> None:
        """Wait a little for a device that was lost; `TransportError` where it was away for too long, or never there."""
        if not self.answered:
            raise TransportError(str(why)) from why
        now = time.monotonic()
        since, first = self._lost = self._lost or (now, why)
        if now - since >= self._link.reconnect_seconds:
            self.answered, self._lost = False, None
            raise TransportError(
                f"the connection was lost ({first}), and the device was not back within {self._link.reconnect_seconds:g} s "
                f"({why}); what it goes on measuring is taken up by `edgebench run --resume`"
            ) from why
        if self._link.interrupted.wait(min(2.0, 0.05 + (now - since) / 4)):
            raise KeyboardInterrupt

    def hang_up(self) -> None:
        """End the connection; the next request makes another."""
        if self._serving is not None:
            self._serving.hang_up()
        self._drop()

    def through(self) -> None:
        """Take note that something got through."""
        self._lost = None

    def close(self) -> None:
        """End the connection, and what still runs over it; a program on a device that was given up goes on."""
        if self._detached is not None:
            self._detached.stop()
        if self._serving is not None:
            self._serving.hang_up()
            self._serving = None
        self.client.close()

    # ------------------------------------------------------------ files

    def push(self, source: Path | bytes, destination: str, sent: Callable[[int, int], None]) -> str:
        """Bring a file below the cache folder; goes on where an earlier connection left off."""
        self._needed.append(destination)
        upload = Upload(source, destination, sent)
        for _ in range(SPOILT - 1):
            with contextlib.suppress(HashDiffers):
                return self.retried(lambda: self._push(upload))
        return self.retried(lambda: self._push(upload))

    def _push(self, upload: Upload) -> str:
        channel = self.server()
        channel.send({"do": "look", "name": upload.name, "size": upload.size})
        found = channel.receive(ANSWER_SECONDS, there=bool, path=str)
        if not found["there"]:
            limits = {"limit": self.cache.mebibytes << 20, "needed": self._needed}
            channel.send({"do": "push", "name": upload.name, "size": upload.size, "sha256": upload.sha256, **limits})
            self._send(channel, upload, channel.receive(ANSWER_SECONDS, offset=int)["offset"])
            found = channel.receive(ANSWER_SECONDS + upload.size / SLOWEST, path=str)
        self.through()
        path: str = found["path"]
        return path

    def _send(self, channel: Channel, upload: Upload, offset: int) -> None:
        if not 0 <= offset <= upload.size:
            raise TransportError(f"the device has {offset} bytes of a file of {upload.size}; look at its cache folder")
        if offset > upload.arrived:
            upload.arrived = offset
            self.through()
        for block in upload.blocks(offset):
            channel.write(block)
            if channel.ended:
                return
            offset += len(block)
            upload.sent(offset, upload.size)

    # ------------------------------------------------------------ programs

    def run(self, arguments: Sequence[str], stdin: str, keep: Keep | None = None) -> Channel | DetachedProgram:
        """Start the device's Python with these arguments."""
        request = {"root": self.cache.path, "arguments": list(arguments), "stdin": stdin}
        if keep is None:
            channel = self.retried(self.channel)
            channel.send({**request, "mode": "exec"})
            return channel
        if self._detached is not None:
            self._detached.stop()
        self._detached = DetachedProgram(self, {**request, "mode": "keep", "name": keep.name, "resume": keep.resume})
        self._detached.start()
        return self._detached

    def ran(self) -> None:
        """Take note that a run has ended: the next one says itself what it needs."""
        self._needed.clear()
        self._detached = None


@dataclass
class Upload:
    """A file on its way."""

    source: Path | bytes
    name: str
    sent: Callable[[int, int], None]
    arrived: int = 0

    @cached_property
    def size(self) -> int:
        """Count the bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Hash the content; not needed where the device has it."""
        digest = hashlib.sha256()
        for block in self.blocks(0):
            digest.update(block)
        return digest.hexdigest()

    def blocks(self, offset: int) -> Iterator[bytes | memoryview]:
        """Yield the content from an offset on."""
        if isinstance(self.source, bytes):
            view = memoryview(self.source)[offset:]
            yield from (view[first : first + BLOCK] for first in range(0, len(view), BLOCK))
            return
        with self.source.open("rb") as stream:
            stream.seek(offset)
            yield from iter(lambda: stream.read(BLOCK), b"")


class DetachedProgram:
    """A program that outlives the connection: read over as many connections as it takes."""

    def __init__(self, transport: RemoteTransport, request: Mapping[str, Any]) -> None:
        self._transport = transport
        self._request = {**request, "token": secrets.token_hex(8)}
        self._hello: dict[str, Any] = {}
        self._offset = 0
        self._rest = bytearray()
        self._size = 0
        """Bytes of the line that has not ended yet, those that were dropped included."""
        self._quiet, self._latest = 0.0, 0.0
        """Seconds without the end of a line, each outage counted as the wait for one message; and when the latest came."""
        self._stderr = ""
        self._channel: Channel | None = None
        self._over = False

    def start(self) -> None:
        """Start it, or find what an earlier connection started; `TransportError` with the device's refusal."""
        try:
            self._hello = self._transport.retried(self._open)
        except TransportError:
            self._finish()
            raise

    def _open(self) -> dict[str, Any]:
        """Let the device tell what the program writes from here on; what runs under this token is not started again."""
        self._hang_up()
        self._channel = self._transport.channel()
        self._channel.send({**self._request, "offset": self._offset})
        hello = self._channel.receive(HELLO_SECONDS, token=str, resumed=bool, age_seconds=float, idle_seconds=float)
        self._request["token"] = hello["token"]
        return hello

    def lines(self, silence_seconds: float) -> Iterator[str]:
        """Yield its lines; `TransportError` after so long a silence, or where the device stays away."""
        if self._hello["resumed"]:
            times = {key: self._hello[key] for key in ("age_seconds", "idle_seconds")}
            yield json.dumps({"event": "resumed", **times}) + "\n"
        self._latest = time.monotonic()
        while True:
            message = told(self._transport.retried(self._message))
            now = time.monotonic()
            self._quiet, self._latest = self._quiet + min(now - self._latest, SILENCE_SECONDS), now
            if isinstance(message, Ended):
                self._transport.through()
                self._stderr = message.last_words
                yield self._rest.decode("utf-8", "replace")
                return
            if message.data:
                self._transport.through()
                if message.at != self._offset + len(message.data):
                    raise TransportError(f"the device sent bytes up to {message.at} after {self._offset}: some are missing")
                self._offset = message.at
                if lines := self._split(message.data.encode("latin-1")):
                    self._quiet = 0.0
                    yield from lines
                    self._latest = time.monotonic()  # what the reader did with them is no silence
            if self._quiet > silence_seconds + self._size / SLOWEST_LINE:
                raise TransportError(f"the agent said nothing for {silence_seconds:g} s")

    def _message(self) -> dict[str, Any]:
        if self._channel is None:
            self._open()
        assert self._channel is not None
        try:
            return self._channel.receive(SILENCE_SECONDS)
        except Lost:
            self._hang_up()
            raise

    def _split(self, data: bytes) -> list[str]:
        """Return the lines that end here, and keep the rest; a line that is too long is none."""
        *whole, last = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._rest) + whole[0]
            self._rest.clear()
            self._size = 0
        self._rest += last
        self._size += len(last)
        if len(self._rest) > LONGEST_LINE:  # no event
            self._rest.clear()
        if self._size > ENDLESS_LINE:
            raise EndlessLine
        return [line.decode("utf-8", "replace") + "\n" for line in whole]

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.hang_up()

    def stop(self) -> None:
        """End the program on the device and forget it there; where the device was given up, it goes on and can be taken up."""
        if self._over:
            return
        with contextlib.suppress(TransportError):
            try:
                self._end()
            except Lost:  # just now; its end is worth another connection
                self._hang_up()
                self._end()
        self._finish()

    def _finish(self) -> None:
        self._hang_up()
        self._over = True
        self._transport.ran()

    def _end(self) -> None:
        if self._channel is None:
            if not self._transport.answered:
                return
            self._open()
        assert self._channel is not None
        self._channel.send({"do": "stop"})
        self._channel.receive(STOP_SECONDS, stopped=bool)

    def stderr(self) -> str:
        """Return the end of what it wrote to its standard error, and how it was ended."""
        return self._stderr
