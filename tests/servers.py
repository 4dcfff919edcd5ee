"""Bundles served in this process or in others, a client of the standard library's, and pictures to send."""

from __future__ import annotations

import asyncio
import functools
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from edgebench.config import read_dataset
from edgebench.data import Split, open_images
from edgebench.serving.options import ServeOptions


@dataclass
class Reply:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks one server."""

    port: int
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, headers)

    def ask(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            given = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return Reply(response.status, response.read(), {key.lower(): value for key, value in response.getheaders()})
        finally:
            connection.close()

    def post(
        self, path: str, *contents: bytes, name: str = "file", fields: Mapping[str, str] | None = None, **headers: str
    ) -> Reply:
        body, kind = form([(name, each) for each in contents], fields or {})
        return self.ask("POST", path, body, {"Content-Type": kind, **headers})


def form(files: Sequence[tuple[str, bytes]], fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Write a multipart form; returns it with its content type."""
    edge, parts = uuid.uuid4().hex, []
    for name, content in files:
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    for name, text in fields.items():
        parts.append(f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode())
    return b"".join(parts) + f"--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Client]:
    """Serve a bundle in a thread of this process, with uvicorn as the command line has it."""
    from edgebench.serving import processes, server

    given = ServeOptions(port=0, **options)
    given.check()
    listener, ready = server.listen(given), threading.Event()
    settings = server.settings(folder, given)
    made = processes.Telling(uvicorn.Config(**settings), ready.set)
    thread = threading.Thread(target=functools.partial(asyncio.run, made.serve([listener])))
    thread.start()
    try:
        assert ready.wait(60)
        yield Client(listener.getsockname()[1])
    finally:
        made.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def command(*arguments: Any, env: Mapping[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Serve by the command line in a process of its own; it is ended by SIGTERM where it has not ended itself."""
    words = [sys.executable, "-m", "edgebench", "serve", *map(str, arguments), "--port", "0", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdout
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0], process.communicate()[1]
        url = json.loads("".join(lines))["url"]
        yield process, Client(int(url.rstrip("/").rpartition(":")[2]))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def png(pixels: NDArray[np.uint8], format: str = "PNG", **how: Any) -> bytes:
    """Write an image [h, w, c] or [h, w] as a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, format, **how)
    return stream.getvalue()


def digits(count: int) -> Split:
    """Return so many digits: of the test split, then of the others."""
    data = open_images(read_dataset("digits"))
    images = np.concatenate([data.read(name).images for name in ("test", "val", "train")])
    labels = np.concatenate([data.read(name).labels for name in ("test", "val", "train")])
    return Split(images[:count], labels[:count])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
