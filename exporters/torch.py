"""`torch`: the FP32 reference, as an exported program (`.pt2`)."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path

from edgebench.schema import Exported, ExportRequest, TensorSpec

PRECISIONS = ("fp32",)
REQUIRES = (("torch", "torch"),)


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {"torch": importlib.metadata.version("torch")}


def export(request: ExportRequest, folder: Path) -> Exported:
    """Write `model.pt2`: batch 1, channels first."""
    import torch

    spec = request.network.model.preprocessing
    example = torch.zeros(1, spec.channels, spec.height, spec.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(request.network.module, (example,))
        torch.export.save(program, folder / "model.pt2")
    return Exported(
        entry="model.pt2",
        runtime="torch",
        input=TensorSpec(name="input", shape=tuple(example.shape), dtype="float32", scale=None, zero_point=None),
        output=TensorSpec(
            name="output", shape=(1, len(request.network.model.classes)), dtype="float32", scale=None, zero_point=None
        ),
        layout="nchw",
        calibration_method="",
        details={},
    )
