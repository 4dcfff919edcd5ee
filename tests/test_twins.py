"""Bundles for old boards, on the Python and the runtime that those boards have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebench import api

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
    return {"precision": precision, "dataset": "digits", "calibration_samples": 32, **changes}


@pytest.mark.parametrize("format", TWINS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic"])
def test_the_agent_runs_a_whole_cell_on_an_old_python(here: Path, format: str, precision: str) -> None:
    target = twin(format, here)
    result = api.export("tinynet:net", format=format, target=target, size=16, channels=1, name="tiny", **given(precision))
    found = api.run(bundle=[result.folder], target=[target], scenario={"precision": 0.5})
    [record] = found.records
    assert record.failure is None, record.failure
    assert record.environment["python"].startswith(TWINS[format][1])
    assert record.cell.runtime_version == TWINS[format][2]
    assert record.accuracy is not None
    assert record.accuracy.host_agreement is not None
    assert record.accuracy.host_agreement >= 0.99
    assert record.latency is not None
    assert record.memory.peak_bytes


@pytest.mark.parametrize("format", TWINS)
def test_a_real_network_loads_and_mostly_decides_as_on_the_host(here: Path, format: str) -> None:
    """Quantized random weights leave near-ties, which another version's rounding decides otherwise."""
    target = twin(format, here)
    result = api.export("mobilenet_v3_small", format=format, target=target, size=32, channels=1, **given("int8"))
    [record] = api.run(bundle=[result.folder], target=[target], scenario={"precision": 0.5}).records
    assert record.failure is None, record.failure
    assert record.accuracy is not None
    assert (record.accuracy.host_agreement or 0) >= 0.8
