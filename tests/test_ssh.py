"""Devices over SSH: real OpenSSH servers on loopback, the devices' own Pythons, and faults that are injected."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxfiles
import onnxruntime
import pytest
import verbs
from conftest import Cli
from sshd import Sshd

from edgebench.bundle.import_file import FileOptions
from edgebench.errors import InputError
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


BRIEF = {"half_width": 0.5}


def measured(bundle: Path, *targets: str, **options: Any) -> list[Record]:
    return verbs.run(bundle=[bundle], target=targets, scenario=BRIEF, **options).records


class OnEvent:
    """A progress that remembers: what was done in which lane, in its order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        self.said.append((what, lane))

    def lanes(self, verb: str) -> list[str]:
        """List the lanes of everything that begins with a word."""
        return [lane for what, lane in self.said if what.startswith(verb)]


def test_a_cell_runs_over_ssh(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd("nano-on-the-desk")
    [record] = measured(tiny_bundles["onnx", "fp32"], board(device))
    assert record.failure is None, record.failure
    assert record.latency is not None
    assert not list((device.home / ".edgebench" / "runs").iterdir())
    assert device.host not in record.model_dump_json()


def test_a_model_file_runs_over_ssh_and_its_outputs_are_compared_there(here: Path, sshd: Devices) -> None:
    path, x = onnxfiles.linear(Path("net.onnx")), np.random.default_rng(0).random((2, 1, 4), np.float32)
    session = onnxruntime.InferenceSession(path)
    np.savez("right.npz", y=np.stack([session.run(None, {"x": each})[0] for each in x]))
    Path("board.yaml").write_text(
        f"name: board\ndescription: a board\ntransport: ssh\nhost: {sshd(python=sys.executable).host}\n"
        "accepts: [{format: onnx, precisions: [fp32], runtime: onnxruntime}]\n"
    )
    given = FileOptions(path, inputs={"x": x}, golden=Path("right.npz"))
    [record] = verbs.run(bundle=[given], target=["board.yaml"], scenario=BRIEF).records
    assert record.failure is None, record.failure
    [output] = record.right_outputs
    assert output.off is not None and output.off <= 1
    assert (record.cell.target, record.accuracy, record.cell.runtime) == ("board", None, "onnxruntime")


def test_a_second_run_pushes_nothing(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    target, first, second = board(sshd()), OnEvent(), OnEvent()
    measured(tiny_bundles["onnx", "fp32"], target, progress=first)
    [record] = measured(tiny_bundles["onnx", "fp32"], target, progress=second, repeat=True)
    assert record.status == "done"
    assert set(first.lanes("push")) == {"board"}
    assert second.lanes("push") == []
    assert second.lanes("measure") != []


def test_devices_are_measured_side_by_side_and_this_computer_after_them(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    heard, targets = OnEvent(), [board(sshd(name), name) for name in ("one", "two")]
    records = measured(tiny_bundles["onnx", "fp32"], "sleeper.yaml", *targets, progress=heard)
    assert [(record.cell.target, record.status) for record in records] == [
        ("sleeper", "done"),
        ("one", "done"),
        ("two", "done"),
    ]
    lanes = heard.lanes("measure")
    assert lanes.index("one") < len(lanes) - lanes[::-1].index("two") - 1
    assert lanes.index("two") < len(lanes) - lanes[::-1].index("one") - 1
    assert set(lanes[lanes.index("sleeper") :]) == {"sleeper"}


def test_a_fleet_file_names_devices_of_one_kind(here: Path, sshd: Devices, tiny_bundles: Bundles, cli: Cli) -> None:
    board(sshd("one"))
    sshd("two")
    fleet = here / "fleet.yaml"
    fleet.write_text("devices:\n  - {target: board.yaml}\n  - {target: board.yaml, host: two, name: board-2}\n")
    code, out, errors = cli("run", tiny_bundles["onnx", "fp32"], "--fleet", fleet, "--half-width", "0.5", "--json")
    assert code == 0, errors
    assert [cell["target"] for cell in json.loads(out)["cells"]] == ["board", "board-2"]


def test_two_devices_of_one_name_are_refused(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    target = board(sshd())
    with pytest.raises(InputError, match="two devices are called board"):
        measured(tiny_bundles["onnx", "fp32"], target, target)


def test_hosts_and_targets_come_in_pairs(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    bundle = tiny_bundles["onnx", "fp32"]
    code, _, errors = cli("run", bundle, "--target", "linux-ssh", "--target", "jetson-nano", "--host", "nano@jetson.local")
    assert (code, "1 --host for 2 --target" in errors) == (2, True)
    code, _, errors = cli("run", bundle, "--target", "linux-ssh")
    assert (code, "give --host user@address" in errors) == (2, True)


def test_a_device_that_is_lost_fails_its_own_cells(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    lost, well = sshd("lost"), sshd("well")
    targets = [board(lost, "lost"), board(well, "well")]
    lost.stop()
    result = verbs.run(bundle=[tiny_bundles["onnx", "fp32"]], target=targets, scenario=BRIEF)
    assert [(cell.target, cell.state) for cell in result.cells] == [("lost", "failed"), ("well", "done")]
    assert "refuses connections" in result.cells[0].reason


def test_a_device_that_is_another_is_refused_before_it_is_measured(here: Path, sshd: Devices, tiny_bundles: Bundles) -> None:
    device = sshd()
    Path("nano.yaml").write_text(f"extends: jetson-nano\nhost: {device.host}\n")
    result = verbs.run(bundle=[tiny_bundles["onnx", "int8"]], target=["nano.yaml"])
    [cell] = result.cells
    assert (cell.state, result.records) == ("failed", [])
    assert "x86_64" in cell.reason or "board" in cell.reason
    assert not (device.home / ".edgebench" / "sets").exists()


def test_bundles_are_compared_and_knobs_shown_over_ssh(here: Path, sshd: Devices, tiny_bundles: Bundles, cli: Cli) -> None:
    device = sshd(environment={"EDGEBENCH_FAULT": "quantized is slower"})
    one, other = tiny_bundles["onnx", "fp32"], tiny_bundles["onnx", "int8"]
    found = verbs.compare(one, other, target=board(device), mode="quick", scenario=BRIEF, pairs=6)
    assert found.pairs[0].latency.word == "slower"
    code, out, errors = cli("tune", "show", "--target", "board.yaml", "--json")
    assert code == 0, errors
    assert {row["name"] for row in json.loads(out)} > {"governor"}
