"""The report's server is asked for nonsense, by clients that lie, dawdle and leave; it refuses, and goes on serving."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebench.report.server import LOOPBACK, Site, open_server

SECONDS = 0.5
"""How long a request may take to come."""
PAGE = "<p>the page</p>"


@pytest.fixture
def port(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[int]:
    """Serve a page; at the end it must still be served, and nothing may have been said."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text("{}")
    (tmp_path / "records" / "big.json").write_bytes(bytes(20_000_000))
    (tmp_path / "secret.json").write_text("secret")
    server = open_server(Site(tmp_path, lambda _: PAGE, lambda: 0), 0)
    setattr(server.RequestHandlerClass, "timeout", SECONDS)  # noqa: B010  mypy knows no such attribute of the base
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    number = server.server_address[1]
    yield number
    assert said(number, f"GET / HTTP/1.1\r\nHost: {LOOPBACK}:{number}\r\n\r\n".encode())[0] == 200
    server.shutdown()
    thread.join()
    server.server_close()
    assert capfd.readouterr().err == ""


def said(port: int, request: bytes, finish: bool = True) -> tuple[int, bytes]:
    """Send bytes as they are; returns the status of the answer and all that came, 0 where nothing did."""
    with socket.create_connection((LOOPBACK, port), timeout=20) as connection:
        connection.sendall(request)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        came = b""
        while part := connection.recv(1 << 16):
            came += part
    return int(came.split()[1]) if came.startswith(b"HTTP/") else 0, came


def lines(port: int, first: str, *more: str) -> bytes:
    return "\r\n".join([first, f"Host: {LOOPBACK}:{port}", *more, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("first", "more", "status"),
    [
        ("GET /../secret.json HTTP/1.1", (), 404),
        ("GET /records/../secret.json HTTP/1.1", (), 404),
        ("GET /records/%2e%2e/secret.json HTTP/1.1", (), 404),
        ("GET /records/%00 HTTP/1.1", (), 404),
        ("GET /records/a.json%00.npz HTTP/1.1", (), 404),
        ("GET /records/\x00 HTTP/1.1", (), 404),
        ("GET /" + "a" * 5000 + ".json HTTP/1.1", (), 404),
        ("GET /" + "a/" * 5000 + "b.json HTTP/1.1", (), 404),
        ("GET http://evil.example/ HTTP/1.1", (), 421),
        ("GET http://[ HTTP/1.1", (), 400),
        ("GET file:///etc/passwd HTTP/1.1", (), 400),
        ("GET secret.json HTTP/1.1", (), 400),
        ("GET * HTTP/1.1", (), 400),
        ("GET /", (), 400),
        ("GET / HTTP/1.1", ("Host: evil.example",), 400),
        ("GET / HTTP/1.1", ("Content-Length: 5",), 400),
        ("GET / HTTP/1.1", ("Content-Length: -1",), 400),
        ("GET / HTTP/1.1", ("Transfer-Encoding: chunked",), 400),
        ("GET / HTTP/9.9", (), 505),
        ("GET / HTTP/x", (), 400),
        ("GET / / HTTP/1.1", (), 400),
        ("\x16\x03\x01\x02", (), 400),
        ("\x00\x01\x02", (), 400),
        ("GET / HTTP/1.1", ("X: " + "a" * 70_000,), 431),
        ("GET / HTTP/1.1", ("X: a",) * 200, 431),
        ("GET /" + "a" * 70_000 + " HTTP/1.1", (), 414),
        *((f"{method} / HTTP/1.1", (), 405) for method in ("POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "\x1b[2J")),
        ("HEAD / HTTP/1.1", (), 200),
        ("GET http://{host}/ HTTP/1.1", (), 200),
        ("GET //index.html?x#y HTTP/1.1", (), 200),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_nonsense_is_refused_and_it_goes_on_serving(port: int, first: str, more: tuple[str, ...], status: int) -> None:
    found, came = said(port, lines(port, first.replace("{host}", f"{LOOPBACK}:{port}"), *more))
    assert b"secret" not in came
    assert b"Traceback" not in came
    assert found == status, came[:300]
    head, _, body = came.partition(b"\r\n\r\n")
    assert b"X-Content-Type-Options: nosniff" in head
    assert status == 200 or len(body) < 100  # and repeats nothing of what was asked
    assert status != 405 or b"Allow: GET, HEAD" in head


def test_a_body_is_no_second_request(port: int) -> None:
    smuggled = lines(port, "GET /records/a.json HTTP/1.1")
    _, came = said(port, lines(port, "GET / HTTP/1.1", f"Content-Length: {len(smuggled)}") + smuggled)
    assert came.count(b"HTTP/1.1 ") == 1
    assert b"{}" not in came


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=repr)
def test_a_request_that_never_ends_is_ended(port: int, begun: bytes) -> None:
    begin = time.monotonic()
    said(port, begun, finish=False)
    assert time.monotonic() - begin < 10


def test_a_request_that_comes_byte_by_byte_is_ended(port: int) -> None:
    begin = time.monotonic()
    with socket.create_connection((LOOPBACK, port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        try:
            while time.monotonic() - begin < 15:
                connection.sendall(b"a")
                time.sleep(0.05)
        except OSError:
            pass
    assert time.monotonic() - begin < 10


def test_clients_that_leave_or_do_not_listen_disturb_nobody(port: int) -> None:
    held = [socket.create_connection((LOOPBACK, port), timeout=20) for _ in range(30)]
    for connection in held[:15]:
        connection.sendall(lines(port, "GET /records/big.json HTTP/1.1"))
    for connection in held[:10]:
        connection.close()
    assert said(port, lines(port, "GET /records/a.json HTTP/1.1"))[0] == 200
    time.sleep(2 * SECONDS)
    for connection in held:
        connection.close()


def test_requests_on_one_connection_are_answered_in_turn(port: int) -> None:
    _, came = said(port, lines(port, "GET / HTTP/1.1") + lines(port, "GET /records/a.json HTTP/1.1"))
    assert came.count(b"HTTP/1.1 200") == 2
