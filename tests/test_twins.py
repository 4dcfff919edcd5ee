"""Bundles for old boards, on the Python and the runtime that those boards have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import MOBILE, Cli
from sshd import Sshd

from edgebench.schema import Record
from edgebench.store import records

Devices = Callable[..., Sshd]
ROOT = Path(__file__).parent.parent
TWINS = {"onnx": ("py36", "3.6", "onnxruntime 1.10.0"), "tflite": ("py37", "3.7", "tflite-runtime 2.11.0")}


def twin(format: str, here: Path) -> str:
    """Write a target whose Python is an old one; skip where `make twins` was not run."""
    python = ROOT / "build" / "twins" / TWINS[format][0] / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python.relative_to(ROOT)}: `make twins` makes it")
    path = here / "twin.yaml"
    path.write_text((Path(__file__).parent / "twin.yaml").read_text().replace("PYTHON", str(python)))
    return str(path)


def given(precision: str, **changes: Any) -> dict[str, Any]:
    return {"precision": precision, "dataset": "digits", "calibration": {"samples": 32}, **changes}


@pytest.mark.parametrize("format", TWINS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic"])
def test_the_agent_runs_a_whole_cell_on_an_old_python(here: Path, format: str, precision: str) -> None:
    target = twin(format, here)
    result = verbs.export("tinynet:net", format=format, target=target, size=16, channels=1, name="tiny", **given(precision))
    found = verbs.run(bundle=[result.folder], target=[target], scenario={"half_width": 0.5})
    [record] = found.records
    assert record.failure is None, record.failure
    assert record.environment["python"].startswith(TWINS[format][1])
    assert record.cell.runtime_version == TWINS[format][2]
    assert record.accuracy is not None
    assert record.accuracy.host_agreement is not None
    assert record.accuracy.host_agreement >= 0.99
    assert record.latency is not None
    assert record.memory.peak_bytes


@pytest.mark.parametrize(
    ("format", "network", "channels"),
    [
        ("onnx", "mobilenet_v3_small", 1),
        ("tflite", "mobilenet:net", 3),
        pytest.param("tflite", "mobilenet_v3_small", 1, marks=pytest.mark.slow),
    ],
)
def test_a_real_network_loads_and_mostly_decides_as_on_the_host(here: Path, format: str, network: str, channels: int) -> None:
    """Quantized random weights leave near-ties, which another version's rounding decides otherwise."""
    target = twin(format, here)
    (here / "mobilenet.py").write_text(MOBILE)  # the same operators in three blocks
    result = verbs.export(network, format=format, target=target, size=32, channels=channels, **given("int8"))
    [record] = verbs.run(bundle=[result.folder], target=[target], scenario={"half_width": 0.5}).records
    assert record.failure is None, record.failure
    assert record.accuracy is not None
    assert (record.accuracy.host_agreement or 0) >= 0.7


OVER_SSH = """
extends: BASE
host: HOST
expects: {machine: [x86_64], board: null, os: null}
setup: {requirements: REQUIREMENTS}
"""
"""A catalogue's target, but for the processor of this computer."""
BOARDS = {
    "jetson-nano": ("onnx", "onnxruntime==1.10.0, numpy==1.19.4"),
    "coral-dev-board": ("tflite", "tflite-runtime==2.11.0"),
    "raspberry-pi-5": ("onnx", f"onnxruntime=={version('onnxruntime')}"),
}


@pytest.mark.parametrize("base", BOARDS)
def test_a_twin_is_set_up_and_measured_over_ssh(here: Path, sshd: Devices, cli: Cli, base: str) -> None:
    """A real sshd, the device's own Python without any package, wheels brought by `targets setup`."""
    format, requirements = BOARDS[base]
    same = twin(format, here) if base != "raspberry-pi-5" else "cpu"
    python = Path(sys.executable) if same == "cpu" else ROOT / "build" / "twins" / TWINS[format][0] / "bin" / "python"
    device = sshd("desk", python=python.resolve())
    target = here / f"{base}.yaml"
    target.write_text(OVER_SSH.replace("BASE", base).replace("HOST", device.host).replace("REQUIREMENTS", f"[{requirements}]"))
    house = ROOT / "build" / "twins" / "work"  # kept, so that a later run needs no network
    code, _, errors = cli("targets", "setup", "--target", target, "--work", house)
    assert code == 0, errors
    code, out, _ = cli("targets", "probe", "--target", target, "--json")
    assert (code, json.loads(out)["refused"]) == (0, False)

    changes = given("int8", size=16, channels=1, name="tiny")
    made = verbs.export("tinynet:net", format=format, target=str(target), **changes).folder
    [there] = verbs.run(bundle=[made], target=[str(target)], scenario={"half_width": 0.5}, results=Path("there")).records
    [near] = verbs.run(bundle=[made], target=[same], scenario={"half_width": 0.5}, results=Path("near")).records
    assert there.failure is None, there.failure
    assert (there.verdict is not None, there.cell.target) == (True, base)
    assert there.cell.runtime_version == near.cell.runtime_version
    assert there.environment["python"].startswith(near.environment["python"][:4])
    assert np.array_equal(predictions(Path("there"), there), predictions(Path("near"), near))


def predictions(results: Path, record: Record) -> Any:
    [(path, found)] = records.read_all(results)
    assert found.key == record.key
    return records.read_samples(path, found)["predictions"]
