"""What stands between a connection and the endpoints: who may ask, how much a request may hold, and how long it may take."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgebench.serving.options import ServeOptions

ANYBODY = ("/", "/health")
"""What is answered without a key: the page asks for it, and whoever balances loads has none."""
PICTURES = ("/predict", "/predict/batch", "/explain")
"""What takes pictures."""
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
DRAIN_SECONDS = 1.0
"""So long is read on, and thrown away, of a body that was not read to its end: else the client would not see the answer."""
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not looked at."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Limits:
    """A layer around an application; `paths` are those that figures are kept by."""

    def __init__(
        self,
        app: ASGIApp,
        options: ServeOptions,
        paths: frozenset[str],
        full: Callable[[], bool],
        answered: Callable[[str, int, float], None],
    ) -> None:
        self._app, self._options, self._paths = app, options, paths
        self._full, self._answered = full, answered
        self._clients: collections.Counter[str] = collections.Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, client = time.perf_counter(), str((scope.get("client") or ("",))[0])
        exchange = _Exchange(self._options, scope, receive, send)
        self._clients[client] += 1
        try:
            refusal = self._refusal(scope, exchange.headers, client)
            if refusal is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.refuse(refusal)
        except Exception:  # a fault of this program's, which a layer further out answers
            exchange.status = 500
            raise
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._answered(path, exchange.status, time.perf_counter() - began)

    def _refusal(self, scope: Scope, headers: Mapping[str, str], client: str) -> Refusal | None:
        options, path = self._options, scope["path"]
        if not self._named(headers.get("host", ""), (scope.get("server") or ("", None))[1]):
            return Refusal(421, "this server answers to its own names alone")
        if not self._of_own_page(scope, headers):
            return Refusal(403, "pages of other sites may not ask")
        if options.key is not None and path not in ANYBODY and not _shows(options.key, headers):
            return Refusal(401, "wants the API key: X-API-Key, or Authorization: Bearer", {"www-authenticate": "Bearer"})
        if options.per_client and self._clients[client] > options.per_client:
            return Refusal(429, f"more than {options.per_client} requests of one address at once", {"retry-after": "1"})
        return self._of_pictures(headers) if scope["method"] == "POST" and path in PICTURES else None

    def _of_pictures(self, headers: Mapping[str, str]) -> Refusal | None:
        """Refuse what need not be read to be refused."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            return Refusal(415, "wants multipart/form-data with a picture as file")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._options.max_bytes:
            return _too_large(self._options)
        if self._full():
            return Refusal(503, "as many pictures are being worked on as may be", {"retry-after": "1"})
        return None

    def _named(self, host: str, port: int | None) -> bool:
        """Return whether a request names this server: a page elsewhere that has its own name point here does not."""
        options = self._options
        if not options.names and not options.local:
            return True
        own = OWN_NAMES if options.local else ()
        if host in {f"{name}:{port}" for name in own} or (port in (80, 443) and host in own):
            return True
        return urlsplit(f"//{host}").hostname in options.names if _is_netloc(host) else False

    def _of_own_page(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Return whether no page of another site asks."""
        origin = headers.get("origin")
        if origin is None or scope["method"] in ("GET", "HEAD", "OPTIONS") or origin in self._options.origins:
            return True
        return origin.partition("://")[2] == headers.get("host")


class _Exchange:
    """One request and its answer."""

    def __init__(self, options: ServeOptions, scope: Scope, receive: Receive, send: Send) -> None:
        self._options, self._receive, self._send = options, receive, send
        self.headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        self.status = 499  # the client left, unless an answer is begun
        self._unread = self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers
        self._ends = time.monotonic() + options.timeout_seconds
        self._taken = 0
        self._begun = False

    async def receive(self) -> Message:
        """Hand on a part of the body, within its limits of bytes and time."""
        if not self._unread:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._ends - time.monotonic()))
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the request did not come in within {self._options.timeout_seconds:g} s") from None
        self._taken += len(message.get("body", b""))
        self._unread = message["type"] == "http.request" and bool(message.get("more_body", False))
        if self._taken > self._options.max_bytes and not self._begun:
            refusal = _too_large(self._options)
            raise HTTPException(refusal.status, refusal.detail)
        return message

    async def send(self, message: Message) -> None:
        """Hand on a part of the answer; the connection ends with one that came before the body's end."""
        if message["type"] == "http.response.start":
            self._begun, self.status = True, message["status"]
            more = {**HEADERS, **({"connection": "close"} if self._unread else {})}
            own = {key.lower() for key, _ in message["headers"]}
            added = [(key.encode(), value.encode()) for key, value in more.items() if key.encode() not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer without looking at the body."""
        body = json.dumps({"detail": refusal.detail}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        self._ends = time.monotonic() + DRAIN_SECONDS
        with contextlib.suppress(HTTPException):
            while self._unread:
                await self.receive()


def _too_large(options: ServeOptions) -> Refusal:
    return Refusal(413, f"a request may have {options.max_bytes} bytes")


def _shows(key: str, headers: Mapping[str, str]) -> bool:
    given: Any = headers.get("x-api-key")
    if given is None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else ""
    return hmac.compare_digest(given.encode("latin-1"), key.encode())


def _is_netloc(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").netloc == host and urlsplit(f"//{host}").hostname is not None
    except ValueError:
        return False
