"""Devices over SSH: real OpenSSH servers on loopback, the devices' own Pythons, and faults that are injected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sshd import Sshd

from edgebench import api
from edgebench.schema import Record

Devices = Callable[..., Sshd]
Bundles = dict[tuple[str, str], Path]
SLEEPER = """
name: NAME
description: a device whose runtime sleeps
transport: ssh
host: HOST
agent_plugins: [rt_sleep.py]
accepts:
  - {format: onnx, precisions: [fp32, int8], runtime: sleep}
  - {format: torch, precisions: [fp32], runtime: sleep}
"""


def board(device: Sshd, name: str = "board") -> str:
    """Write the device's target file here; returns its path."""
    path = Path(f"{name}.yaml")
    path.write_text(SLEEPER.replace("NAME", name).replace("HOST", device.host))
    return str(path)


def measured(bundle: Path, *targets: str, **options: object) -> list[Record]:
    return api.run(bundle=[bundle], target=targets, **{"scenario": {"precision": 0.5}, **options}).records  # type: ignore[arg-type]


def test_a_cell_runs_over_ssh(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd("nano-on-the-desk")
    [record] = measured(tiny_bundles["onnx", "fp32"], board(device))
    assert record.failure is None, record.failure
    assert record.latency is not None
    assert not (device.home / ".edgebench" / "runs").exists() or not list((device.home / ".edgebench" / "runs").iterdir())
    assert device.host not in record.model_dump_json()
