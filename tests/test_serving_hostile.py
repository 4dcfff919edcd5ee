"""`edgebench serve` and those who mean it no good: refused with the right status, and everybody else is answered."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from servers import Client, command, digits, form, png, running

from edgebench import BenchOptions, bench_serve

KEY = "a-key-of-no-less-than-16"
Cli = Callable[..., tuple[int, str, str]]
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}
LONG = {"method": "lime", "evaluations": "2000"}
"""An explanation that takes a while."""


@pytest.fixture(scope="module")
def folder(tiny_bundles: dict[tuple[str, str], Path]) -> Path:
    return tiny_bundles["onnx", "fp32"]


@pytest.fixture(scope="module")
def picture() -> bytes:
    return png(digits(1).images[0])


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with running(folder, max_bytes=200_000, max_pixels=1 << 20, timeout_seconds=1.0, max_files=4) as found:
        yield found


@pytest.fixture(autouse=True)
def _goes_on(request: pytest.FixtureRequest, picture: bytes) -> Iterator[None]:
    """See that the server answers as before, whatever a test did to it."""
    yield
    if "client" in request.fixturenames:
        client: Client = request.getfixturevalue("client")
        assert client.post("/predict", picture).status == 200
        assert client.get("/health").json["status"] == "ok"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int) -> bytes:
    """Write a PNG of so many black pixels in each direction: a thousandth of what it becomes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    content = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- pictures that are none


def test_a_decompression_bomb_is_not_unpacked(client: Client) -> None:
    content = bomb(20_000)
    assert len(content) < 100_000
    began = time.monotonic()
    reply = client.post("/predict", content)
    assert (reply.status, time.monotonic() - began < 1.0) == (413, True)
    assert "1048576 pixels" in reply.json["detail"]


@pytest.mark.parametrize("content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(99)])
def test_what_is_no_picture_is_refused(client: Client, content: bytes) -> None:
    assert client.post("/predict", content).status == 415
    assert client.post("/explain", content).status == 415


def test_a_damaged_picture_is_refused(client: Client) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    reply = client.post("/predict", whole[: len(whole) // 2])
    assert (reply.status, "not a readable image" in reply.json["detail"]) == (422, True)


def test_a_batch_with_one_wrong_file_is_refused(client: Client, picture: bytes) -> None:
    assert client.post("/predict/batch", picture, b"nothing", name="files").status == 415
    assert client.post("/predict/batch", *[picture] * 5, name="files").status == 413
    assert client.post("/predict/batch", *[picture] * 4, name="files").json["count"] == 4


# ---------------------------------------------------------------- requests that are none


def test_what_is_no_form_is_refused(client: Client, picture: bytes) -> None:
    assert client.ask("POST", "/predict", picture, {"Content-Type": "image/png"}).status == 415
    assert client.ask("POST", "/predict", b"--x--", BOUNDARY).status == 422
    assert client.ask("POST", "/predict", b"no part of it", {"Content-Type": "multipart/form-data"}).status in (400, 422)
    assert client.post("/predict", picture, name="other").status == 422
    assert client.post("/explain", picture, fields={"cells": "1000"}).status == 422
    assert client.post("/explain", picture, fields={"method": "grad-cam"}).status == 422
    assert client.post("/explain", picture, fields={"explained_class": "none of them"}).status == 422
    assert client.get("/predict").status == 405
    assert client.get("/../../etc/passwd").status == 404


def test_a_form_of_very_many_parts_is_refused(client: Client) -> None:
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(3000))
    assert client.ask("POST", "/predict", parts + b"--x--\r\n", BOUNDARY).status == 400


def test_too_many_bytes_are_refused_before_they_are_sent(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: 900000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_chunks_past_the_limit_are_refused_while_they_come(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        first = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        connection.sendall(b"%x\r\n%s\r\n" % (len(first), first))
        sent, answer, began = 0, b"", time.monotonic()
        connection.settimeout(0.001)
        part = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        while b"\r\n\r\n" not in answer and time.monotonic() - began < 10:
            try:
                sent += connection.send(part[sent % len(part) :])
                answer += connection.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 20e6


@pytest.mark.parametrize("head", [b"", b"POST /predict HT", b"GET /health HTTP/1.1\r\nX: "])
def test_a_head_that_never_ends_is_given_up(client: Client, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 5


def test_a_body_that_drips_is_given_up(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode())
        began, answer = time.monotonic(), b""
        connection.settimeout(0.1)
        while not answer and time.monotonic() - began < 5:
            connection.sendall(b"-")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_garbage_is_refused(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_many_idle_connections_are_outlived(client: Client, picture: bytes) -> None:
    idle = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(200)]
    assert client.post("/predict", picture).status == 200
    for each in idle:
        each.close()


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:PORT", "127.0.0.1", "evil.example:PORT", "[", ""])
def test_another_name_is_refused(client: Client, host: str) -> None:
    assert client.get("/health", Host=host.replace("PORT", str(client.port))).status == 421


def test_pages_of_others_may_not_ask(client: Client, picture: bytes) -> None:
    assert client.post("/predict", picture, Origin="https://evil.example").status == 403
    assert client.post("/predict", picture, Origin="null").status == 403
    reply = client.post("/predict", picture, Origin=f"http://127.0.0.1:{client.port}")
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_pages_that_are_named_may_ask(folder: Path, picture: bytes) -> None:
    with running(folder, origins=("https://viewer.example",), key=KEY) as client:
        asked = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "POST"}
        before = client.ask("OPTIONS", "/predict", None, {**asked, "Access-Control-Request-Headers": "X-API-Key"})
        assert (before.status, before.headers["access-control-allow-origin"]) == (200, "https://viewer.example")
        reply = client.post("/predict", picture, Origin="https://viewer.example", X_API_Key=KEY)
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://viewer.example")
        assert client.post("/predict", picture, Origin="https://other.example", X_API_Key=KEY).status == 403


def test_without_the_key_little_is_answered(folder: Path, picture: bytes) -> None:
    with running(folder, key=KEY) as client:
        for path in ("/model/info", "/metrics", "/openapi.json"):
            assert client.get(path).status == 401
            assert client.get(path, X_API_Key=KEY).status == 200
        assert client.post("/predict", picture).status == 401
        assert client.post("/predict", picture, X_API_Key=KEY[:-1]).status == 401
        assert client.post("/predict", picture, X_API_Key="\xff").status == 401
        assert client.post("/predict", picture, Authorization=f"Bearer {KEY}").status == 200
        assert client.get("/health").status == client.get("/").status == 200


def test_others_cannot_reach_it_unless_told(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, errors = cli("serve", folder, "--host", "0.0.0.0")
    assert (code, "set EDGEBENCH_API_KEY or give --api-key-file" in errors) == (2, True)
    monkeypatch.setenv("EDGEBENCH_API_KEY", "short")
    assert "16 printable" in cli("serve", folder, "--host", "0.0.0.0")[2]


def test_what_cannot_be_served_is_said_at_once(folder: Path, tmp_path: Path, cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, errors = cli("serve", folder, "--port", taken.getsockname()[1])
        assert (code, "cannot be listened on" in errors) == (2, True)
    assert cli("serve", tmp_path)[0] == 2
    assert cli("serve", folder, "--tls-certificate", tmp_path / "none.pem", "--tls-key", tmp_path / "none.pem")[0] == 2
    assert cli("serve", folder, "--cors-origin", "*")[0] == 2
    assert cli("serve", folder, "--api-key-file", tmp_path / "none")[0] == 2


def test_what_must_be_installed_is_said(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    code, _, errors = cli("serve", folder)
    assert (code, "pip install 'edgebench[serve]'" in errors) == (2, True)


# ---------------------------------------------------------------- more than can be done


def test_more_than_the_queue_holds_is_refused(folder: Path, picture: bytes) -> None:
    with running(folder, queue=1) as client, ThreadPoolExecutor(1) as aside:
        long = aside.submit(client.post, "/explain", picture, fields=LONG)
        begun(client)
        reply = client.post("/predict", picture)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert long.result().status == 200
        assert client.post("/predict", picture).status == 200


def test_heat_maps_are_made_one_at_a_time(folder: Path, picture: bytes) -> None:
    with running(folder) as client, ThreadPoolExecutor(1) as aside:
        long = aside.submit(client.post, "/explain", picture, fields=LONG)
        begun(client)
        reply = client.post("/explain", picture, fields={"cells": "2"})
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert client.post("/predict", picture).status == 200
        assert long.result().status == 200


def test_one_client_may_not_have_it_all(folder: Path, picture: bytes) -> None:
    body, kind = form([("file", picture)], {})
    with running(folder, per_client=1) as client, socket.create_connection(("127.0.0.1", client.port), timeout=30) as one:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        )
        one.sendall(head.encode() + b"\r\n" + body[:50])
        reply = client.get("/health")
        while reply.status != 429:
            reply = client.get("/health")
        assert reply.json["detail"].startswith("more than 1 requests")
        one.sendall(body[50:])
        assert one.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_what_takes_too_long_is_given_up(folder: Path, picture: bytes) -> None:
    with running(folder, explain_seconds=0.05) as client:
        assert client.post("/explain", picture, fields=LONG).status == 503
        assert client.post("/predict", picture).status == 200


def begun(client: Client) -> None:
    """Wait until a picture is being worked on."""
    ends = time.monotonic() + 10
    while b"edgebench_pictures_in_work 1.0" not in client.get("/metrics").body:
        assert time.monotonic() < ends


# ---------------------------------------------------------------- processes


def test_what_is_being_answered_is_finished_first(folder: Path, picture: bytes) -> None:
    with command(folder) as (process, client), ThreadPoolExecutor(1) as aside:
        long = aside.submit(client.post, "/explain", picture, fields=LONG)
        begun(client)
        process.send_signal(signal.SIGTERM)
        assert long.result().status == 200
        assert process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            client.get("/health")


def test_several_workers_answer_and_add_up(folder: Path, picture: bytes) -> None:
    with command(folder, "--workers", 2) as (process, client):
        with ThreadPoolExecutor(8) as several:
            found = list(several.map(lambda _: client.post("/predict", picture), range(40)))
        assert {each.status for each in found} == {200}
        assert len({each.json["confidence"] for each in found}) == 1
        counted = b'edgebench_requests_total{path="/predict",status="200"} 40.0'
        ends = time.monotonic() + 5
        while counted not in client.get("/metrics").body:  # an answer is counted once it has gone
            assert time.monotonic() < ends
        [killed, kept] = workers(process.pid)
        os.kill(killed, signal.SIGKILL)
        ends = time.monotonic() + 30
        while len(now := workers(process.pid)) < 2 or killed in now:
            assert time.monotonic() < ends
            time.sleep(0.1)
        assert kept in now
        assert {client.post("/predict", picture).status for _ in range(5)} == {200}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def workers(pid: int) -> list[int]:
    """List the workers of a server by their process numbers."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_tls(folder: Path, picture: bytes, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    with running(folder, certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem") as client:
        body, kind = form([("file", picture)], {})
        url = f"https://localhost:{client.port}/predict"
        request = urllib.request.Request(url, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))) as reply:
            assert json.load(reply)["prediction"]
        asked = BenchOptions(rates=(20,), seconds=0.5, authority=tmp_path / "cert.pem")
        assert bench_serve(f"https://localhost:{client.port}", options=asked).levels[0].errors == {}
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(request, context=ssl.create_default_context())
