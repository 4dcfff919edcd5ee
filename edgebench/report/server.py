"""Serve a report on this computer alone: made anew when the records have changed, their files beside it, nothing written."""

from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes, urlsplit

from edgebench.errors import EdgebenchError, InputError
from edgebench.files import inside
from edgebench.schema import Progress, no_progress
from edgebench.store.layout import RECORDS

LOOPBACK = "127.0.0.1"
ALLOWED = ("GET", "HEAD")
DRAIN_SECONDS = 1.0
KINDS = {".json": "application/json; charset=utf-8", ".npz": "application/octet-stream"}
"""What is served of a folder of records."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass
class Site:
    """A page that keeps up with its records."""

    results: Path
    make: Callable[[Progress], str]
    """Makes the page."""
    stamp: Callable[[], object]
    """Says something else when the records are not the same any more."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: tuple[object, bytes] | None = None

    def page(self, progress: Progress = no_progress) -> bytes:
        """Return the page, made anew where the records have changed; one request makes it, others wait."""
        with self._lock:
            now = self.stamp()
            if self._made is None or self._made[0] != now:
                self._made = (now, self.make(progress).encode(errors="replace"))
            return self._made[1]

    def file(self, name: str) -> Path | None:
        """Find a record or its samples by its path below the folder of results; None for anything else."""
        try:
            place = inside(self.results, name).resolve()
        except (InputError, OSError, ValueError):
            return None
        inner = (self.results / RECORDS).resolve()
        return place if place.is_relative_to(inner) and place.suffix in KINDS and place.is_file() else None


def open_server(site: Site, port: int) -> ThreadingHTTPServer:
    """Listen on the loopback interface; port 0: any that is free. `InputError` where the port cannot be had."""
    handler = type("Handler", (_Handler,), {"site": site})
    try:
        return _Server((LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be listened on ({error}); choose another, or 0 for any that is free") from error


class _Server(ThreadingHTTPServer):
    """Goes on whatever a client does."""

    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves in the midst of an answer is no fault of this server."""


class _Deadline(io.RawIOBase):
    """Reads from a connection until a time that the handler sets, however slowly what it reads arrives."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.until = 0.0
        self._connection = connection

    def readable(self) -> bool:
        """Return that it gives bytes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived; `TimeoutError` when the time is over."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page, a record, or why not."""

    site: Site
    server_version, sys_version = "edgebench", ""
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = 60
    """Seconds in which a request must have come in whole, and in which some of an answer must be taken."""

    def setup(self) -> None:
        """Give each request a time by which it must have come."""
        super().setup()
        self._deadline = _Deadline(self.connection)
        self.rfile = io.BufferedReader(self._deadline)

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self._deadline.until = time.monotonic() + self.timeout
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the rest of a request; False where it has been refused."""
        if not super().parse_request():
            return False
        self.connection.settimeout(self.timeout)
        refusal = self._refusal()
        if refusal is not None:
            self.send_error(refusal)
        return refusal is None

    def _refusal(self) -> HTTPStatus | None:
        """Say why a request is not answered: another method, a body, or an address that is none."""
        if self.request_version == self.default_request_version:  # of 1991, without a word of who is asked
            return HTTPStatus.BAD_REQUEST
        if self.command not in ALLOWED:
            return HTTPStatus.METHOD_NOT_ALLOWED
        hosts, length = self.headers.get_all("Host", []), self.headers.get("Content-Length", "0")
        if len(hosts) > 1 or length != "0" or "Transfer-Encoding" in self.headers:
            return HTTPStatus.BAD_REQUEST
        try:
            asked = urlsplit(self.path)
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        if self.path.startswith("/"):
            return None
        if asked.scheme != "http":
            return HTTPStatus.BAD_REQUEST
        return None if asked.netloc in self._names() else HTTPStatus.MISDIRECTED_REQUEST

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request in one line, repeat nothing of it, and end the connection."""
        status = HTTPStatus(code)
        self.close_connection, self.request_version = True, self.protocol_version
        self._send(status, f"{status.phrase}\n".encode(), "text/plain", self.command != "HEAD")
        self._drain()

    def _drain(self) -> None:
        """Read what the client still sends, for a moment: an end with something unread would take the answer with it."""
        self._deadline.until = time.monotonic() + DRAIN_SECONDS
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        while self.rfile.read1(1 << 16):
            pass

    def do_GET(self) -> None:
        """Answer with content."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without it."""
        self._answer(body=False)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: what is asked for is nobody's business."""

    def _answer(self, body: bool) -> None:
        if self.headers.get("Host") not in self._names():
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"this server answers to its own address alone\n", "text/plain", body)
            return
        name = os.fsdecode(unquote_to_bytes(urlsplit(self.path).path)).lstrip("/")
        if name in ("", "index.html"):
            self._page(body)
            return
        place = self.site.file(name)
        if place is None:
            self._none(body)
        else:
            self._file(place, body)

    def _names(self) -> set[str]:
        """List what this server may be called; a page elsewhere that has a name point here is refused."""
        port = self.connection.getsockname()[1]
        names = {LOOPBACK, "localhost"}
        return {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    def _none(self, body: bool) -> None:
        self._send(HTTPStatus.NOT_FOUND, b"no such record\n", "text/plain", body)

    def _page(self, body: bool) -> None:
        try:
            self._send(HTTPStatus.OK, self.site.page(), "text/html; charset=utf-8", body)
        except EdgebenchError as error:
            text = f"{error}\n".encode(errors="replace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, text, "text/plain; charset=utf-8", body)

    def _file(self, place: Path, body: bool) -> None:
        try:
            stream = place.open("rb")
        except OSError:  # gone since it was found, or not to be read
            self._none(body)
            return
        with stream:
            self._head(HTTPStatus.OK, os.fstat(stream.fileno()).st_size, KINDS[place.suffix])
            if body:
                shutil.copyfileobj(stream, self.wfile)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, body: bool) -> None:
        self._head(status, len(content), kind)
        if body:
            self.wfile.write(content)

    def _head(self, status: HTTPStatus, length: int, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(ALLOWED))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
