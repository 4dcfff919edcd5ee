"""What tests of the SSH transport do with a device: connect to it, and let it count aloud (`doubles/counting.py`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sshd import Sshd

from edgebench.device import deploy
from edgebench.schema import Cache, Keep, Link, Stream, Target
from edgebench.targets.transports._remote import RemoteTransport

COUNTING = (Path(__file__).parent / "doubles" / "counting.py").read_bytes()
NAME = "c0" * 16
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")


@contextmanager
def connected(
    device: Sshd, reconnect_seconds: float = 60.0, accept_new_host_key: bool = False, **changes: Any
) -> Iterator[RemoteTransport]:
    """Connect to a device; the connection ends with the block."""
    given = {"name": "board", "description": "a device", "transport": "ssh", "accepts": (), "host": device.host, **changes}
    link = Link(Path("unused"), accept_new_host_key, reconnect_seconds)
    transport = deploy.connect(Target.model_validate(given), link)
    assert isinstance(transport, RemoteTransport)
    try:
        yield transport
    finally:
        transport.close()


def cache(mebibytes: int) -> Cache:
    """Limit what a device keeps."""
    return Cache(mebibytes=mebibytes)


def pushed(transport: RemoteTransport) -> str:
    """Bring the program that counts to the device; returns its path there."""
    return transport.push(COUNTING, "agents/counting.py", deploy.no_upload_progress)


def counting(transport: RemoteTransport, resume: bool = False, name: str = NAME, **job: Any) -> Stream:
    """Start counting on the device, or take it up."""
    return transport.run([pushed(transport)], json.dumps({"lines": 100, **job}) + "\n", Keep(name, resume))


def numbers(lines: Iterator[str]) -> Iterator[int]:
    """Yield the numbers that are heard; whatever is no whole event is passed over."""
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            yield int(json.loads(line)["number"])


def starts(device: Sshd) -> int:
    """Say how often the program was started there."""
    return len((device.home / "starts").read_text().split())


def runs(device: Sshd) -> list[str]:
    """List the runs that the device keeps."""
    folder = device.home / ".edgebench" / "runs"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def fill(folder: Path) -> None:
    """Fill the disk that a folder is on."""
    with (folder / "filler").open("wb", 0) as stream, suppress(OSError):
        while stream.write(bytes(1 << 16)):
            pass
