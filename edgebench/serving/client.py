"""A client that asks as often as it is told: HTTP/1.1 on connections that are kept, and nothing between it and the socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgebench.errors import InputError

CLOSE_SECONDS = 1.0
MOST_BYTES = 1 << 24
"""Of an answer."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and what it wants to be shown."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    headers: str

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        """Write a request."""
        more = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\n{self.headers}{more}\r\n".encode("ascii") + body


def server_at(url: str, key: str | None, authority: Path | None) -> Server:
    """Read an address like http://127.0.0.1:8000; `InputError` where it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in ("http", "https") or parts.path not in ("", "/") or not url.isascii():
        raise InputError(f"{url}: no server's address; give one like http://127.0.0.1:8000")
    try:
        tls = ssl.create_default_context(cafile=authority) if parts.scheme == "https" else None
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"--ca {authority}: no certificates ({error}); give a PEM file") from error
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InputError("the API key: wants printable ASCII characters")
    headers = f"Host: {parts.netloc.rpartition('@')[2]}\r\n" + (f"X-API-Key: {key}\r\n" if key else "")
    return Server(host, port or (443 if tls else 80), tls, headers)


def form(content: bytes) -> tuple[bytes, str]:
    """Write a picture as a multipart form; returns it with its content type."""
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n\r\n'.encode()
    return head + content + f"\r\n--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


class Line:
    """One connection, opened when it is first needed and again where it was closed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Ask, and return the status and the body; `OSError`, `EOFError` or `ValueError` where no whole answer comes."""
        kept = self._ends is not None
        try:
            return await self._once(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            await self.close()
            if not kept:
                raise
        return await self._once(request)  # the server has closed what was idle

    async def _once(self, request: bytes) -> tuple[int, bytes]:
        if self._ends is None:
            server = self._server
            self._ends = await asyncio.open_connection(server.host, server.port, ssl=server.tls)
        reader, writer = self._ends
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        length = int(fields.get("content-length", "0"))
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        body = await reader.readexactly(length)
        if fields.get("connection", "").lower() == "close":
            await self.close()
        return int(head[0].split()[1]), body

    async def close(self) -> None:
        """Close it."""
        if self._ends is not None:
            (_, writer), self._ends = self._ends, None
            writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):  # the other side may be gone, or say nothing
                await asyncio.wait_for(writer.wait_closed(), CLOSE_SECONDS)
