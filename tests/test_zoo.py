"""Large networks with random weights to every ONNX and TFLite variant, each file run in its runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_exporters import EIGHT
from test_twins import twin

from edgebench import api, build


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v3_small", "densenet121"])
def test_every_variant_passes_the_parity_gate(tmp_path: Path, architecture: str) -> None:
    for format, precision in EIGHT:
        result = api.export(
            architecture,
            format=format,
            precision=precision,
            dataset="digits",
            size=96,
            channels=3,
            calibration={"samples": 64},
            out=tmp_path,
        )
        parity = result.bundle.parity
        agreement = f"{100 * parity.top1_agreement:.1f} % and {parity.near_ties} near-ties"
        size = f"{result.bundle.size_bytes / 2**20:.1f} MiB"
        print(
            f"{result.bundle.name}: {size}, top-1 agreement {agreement}, cosine {parity.cosine:.5f}, max |Δ| {parity.max_abs:.2g}"
        )
        assert parity.samples == 256
        if precision in ("fp32", "fp16"):
            assert build.gate(result.bundle.model, parity) >= 0.995
            assert parity.cosine > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v3_small", "densenet121"])
def test_int8_within_opset_13_and_ir_7_runs_on_python_3_6_and_onnxruntime_1_10(tmp_path: Path, architecture: str) -> None:
    target = twin("onnx", tmp_path)
    given: dict[str, Any] = {"dataset": "digits", "size": 96, "channels": 3, "calibration": {"samples": 32}}
    result = api.export(architecture, format="onnx", precision="int8", target=target, out=tmp_path, **given)
    assert (result.bundle.details["opset"], result.bundle.details["ir"]) == (13, 7)
    [record] = api.run(bundle=[result.folder], target=[target], work=tmp_path, results=tmp_path / "results").records
    assert record.failure is None, record.failure
    assert record.environment["python"].startswith("3.6")
