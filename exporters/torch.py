"""`torch`: the FP32 reference, as an exported program (`.pt2`)."""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from pathlib import Path

from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared.tracing import Cached, exported
from edgebench.schema import Exported, ExportRequest, TensorSpec

PRECISIONS = ("fp32",)
CALIBRATES: dict[str, tuple[str, ...]] = {}
DYNAMIC_BATCH = True
REQUIRES = (("torch", "torch"),)


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {"torch": importlib.metadata.version("torch")}


def preflight(request: ExportRequest) -> None:
    """Raise `ExportError` with the layer's name for what this format cannot express."""
    preflight_.check_torch(request)


def export(request: ExportRequest, folder: Path) -> Exported:
    """Write `model.pt2`: batch 1 or any, channels first."""
    import torch

    spec = request.network.model.preprocessing
    program = exported(Cached(request.network), request.dynamic_batch)
    written = io.BytesIO()  # torch's own writing of files ends the process where the disk is full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, written)
    (folder / "model.pt2").write_bytes(written.getbuffer())
    return Exported(
        entry="model.pt2",
        runtime="torch",
        input=TensorSpec(
            name="input", shape=(1, spec.channels, spec.height, spec.width), dtype="float32", scale=None, zero_point=None
        ),
        output=TensorSpec(
            name="output", shape=(1, len(request.network.model.classes)), dtype="float32", scale=None, zero_point=None
        ),
        layout="nchw",
        details={},
    )
