"""`torch`: the FP32 reference, as an exported program (`.pt2`)."""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from pathlib import Path

from edgebench.exporters._shared import ends
from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared.limits import SharedLimits
from edgebench.exporters._shared.tracing import Cached, exported
from edgebench.exporters._torch import reader
from edgebench.schema import Exported, ExportRequest
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32",)
CALIBRATES: dict[str, tuple[str, ...]] = {}
DYNAMIC_BATCH = True
REQUIRES = (("torch", "torch"),)


class Limits(SharedLimits):
    """None: what torch writes here, torch reads there."""


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a file is an exported program or TorchScript, by its content."""
    return head.startswith(b"PK") and reader.recognizes(path)


def read(path: Path) -> FileDescription:
    """Describe a file that somebody brought."""
    return reader.read(path)


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {"torch": importlib.metadata.version("torch")}


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` with the layer's name for what this format cannot express."""
    preflight_.check_torch(request)


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.pt2`: batch 1 or any, images channels first."""
    import torch

    program = exported(Cached(request.network), request.dynamic_batch)
    written = io.BytesIO()  # torch's own writing of files ends the process where the disk is full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, written)
    (folder / "model.pt2").write_bytes(written.getbuffer())
    return Exported(
        entry="model.pt2",
        runtime="torch",
        inputs=request.network.model.inputs,
        outputs=ends.outputs(request.network),
        details={},
    )
