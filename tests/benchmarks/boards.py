"""What the SSH benchmarks share: devices on loopback, each a real OpenSSH server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import sshd

TARGET = """
name: NAME
description: a device whose runtime sleeps
transport: TRANSPORT
agent_plugins: [PLUGIN]
accepts:
  - {format: onnx, precisions: [fp32], runtime: sleep}
"""
SLEEP = Path(__file__).parent.parent / "doubles" / "rt_sleep.py"


@contextmanager
def boards(folder: Path, count: int, **environment: str) -> Iterator[list[sshd.Sshd]]:
    """Start devices; ends the benchmark where OpenSSH's server is not installed, or something is left running."""
    if reason := sshd.missing():
        sys.exit(reason)
    folder.mkdir(parents=True)
    os.environ["EDGEBENCH_SSH"] = f"ssh -F {sshd.combined(folder)}"
    devices: list[sshd.Sshd] = []
    strays = []
    try:
        for index in range(count):
            devices.append(sshd.serve(folder / f"board{index}", f"board{index}", environment=environment))
        yield devices
    finally:
        strays = [left for device in devices for left in device.close()]
    if strays:
        sys.exit(f"left running on the devices: {strays}")


def target(folder: Path, name: str, host: str | None) -> str:
    """Write a target whose runtime sleeps, at an address or on this computer; returns its path."""
    text = TARGET.replace("NAME", name).replace("TRANSPORT", "ssh" if host else "local").replace("PLUGIN", SLEEP.name)
    (folder / SLEEP.name).write_bytes(SLEEP.read_bytes())
    path = folder / f"{name}.yaml"
    path.write_text(text + (f"host: {host}\n" if host else ""))
    return str(path)
