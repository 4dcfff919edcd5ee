"""The report served on loopback: the page keeps up with the records, and nothing else is given away."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli
from factory import make_cell, make_measurement, make_record

from edgebench.report import leaderboard as verbs
from edgebench.report.server import LOOPBACK, open_server
from edgebench.store import records as records_

pytest.importorskip("vl_convert")


def save(name: str) -> str:
    """Save a record below results/; returns its samples' path there."""
    saved = records_.save(Path("results"), make_record(cell=make_cell(name)), make_measurement())
    assert saved.samples
    return f"records/cpu/{saved.samples.file}"


@pytest.fixture
def port(here: Path) -> Iterator[int]:
    (here / "results" / "records").mkdir(parents=True)
    server = open_server(verbs.site(Path("results")), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    """Ask for a path exactly as it is written."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    found = (response.status, response.read(), dict(response.getheaders()))
    connection.close()
    return found


def test_the_page_keeps_up_with_the_records(port: int) -> None:
    assert b"No records yet" in ask(port, "/")[1]
    save("first")
    status, body, headers = ask(port, "/?x=1")
    assert (status, b'data-open="0">first</a>' in body) == (200, True)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    again = ask(port, "/")[1]
    assert again == body
    save("second")
    assert b">second</a>" in ask(port, "/")[1]


def test_records_and_samples_are_served_as_they_are(port: int) -> None:
    samples = save("net")
    status, body, _ = ask(port, f"/{samples}")
    assert (status, body) == (200, Path("results", samples).read_bytes())
    [record] = Path("results/records/cpu").glob("*.json")
    status, body, headers = ask(port, f"/records/cpu/{record.name}")
    assert (status, json.loads(body)["cell"]["model"]) == (200, "net")
    status, body, headers = ask(port, f"/records/cpu/{record.name}", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(record.stat().st_size))


def test_nothing_else_is_given_away(port: int, here: Path) -> None:
    (here / "secret.json").write_text("{}")
    (here / "results" / "notes.json").write_text("{}")
    records = here / "results" / "records"
    (records / "a.txt").write_text("x")
    (records / "link.json").symlink_to(here / "secret.json")
    for path in (
        *("/../secret.json", "/records/../../secret.json", "/records/%2e%2e/%2e%2e/secret.json", "//etc/passwd"),
        *("/notes.json", "/records/a.txt", "/records/link.json", "/records/", "/records", "/records/none.json"),
        *("/records/%00.json", "/records/%ff.json", "/records\\..\\..\\secret.json", f"/{here}/secret.json"),
    ):
        assert ask(port, path)[0] == 404, path
    for method in ("POST", "DELETE"):
        status, _, headers = ask(port, "/", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:PORT", "127.0.0.1.evil.example:PORT", ""])
def test_another_name_is_refused(port: int, host: str) -> None:
    status, body, _ = ask(port, "/", host=host.replace("PORT", str(port)))
    assert (status, body) == (421, b"this server answers to its own address alone\n")


def test_a_damaged_record_is_named_and_does_not_stop_it(port: int, here: Path) -> None:
    (here / "results" / "records" / "odd.json").write_text("{")
    status, body, _ = ask(port, "/")
    assert (status, b"odd.json: not a readable record" in body) == (200, True)
    os.rename(here / "results", here / "gone")
    status, body, _ = ask(port, "/")
    assert (status, b"no such folder" in body) == (500, True)


def test_ctrl_c_ends_it(here: Path) -> None:
    (here / "results" / "records").mkdir(parents=True)
    command = [sys.executable, "-m", "edgebench", "report", "--serve", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3)]
    url = json.loads("".join(lines))["url"]
    port = int(url.rsplit(":", 1)[1].strip("/"))
    assert ask(port, "/")[0] == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (0, "edgebench: the report is served no longer")


def test_a_port_that_is_taken_is_one_clear_line(cli: Cli, here: Path) -> None:
    (here / "results" / "records").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        number = taken.getsockname()[1]
        code, _, err = cli("report", "--serve", "--port", number)
    assert code == 2
    assert f"--port {number}: cannot be listened on" in err
