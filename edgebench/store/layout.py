"""What a folder of results holds, and under which names; nothing heavy is imported to know it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgebench.schema import Record

RESULTS = Path("results")
"""Where commands write and read when no folder is named."""
RECORDS, NOISE, EXPLANATIONS = "records", "noise", "explanations"
SAMPLES = ".samples.npz"


def is_record(file: str) -> bool:
    """Return whether a file of such a name is a record; what is hidden is only being written."""
    return file.endswith(".json") and not file.startswith(".")


def stem(record: Record) -> str:
    """Name a record's file; its cell's key tells apart what the readable part does not."""
    cell = record.cell
    parts = (cell.model, cell.format, cell.precision, cell.mode, record.key[:10])
    return f"{cell.target}/" + ".".join(parts)


def place(record: Record) -> str:
    """Say where a record belongs below the folder of results; a failure stands beside its cell's result."""
    return f"{RECORDS}/{stem(record)}{'.failed' if record.status == 'failed' else ''}.json"


def results_of(path: Path) -> Path:
    """Find the folder of results that a record stands in, at the place that `place` gives it."""
    return path.parent.parent.parent


def samples_name(record_name: str, sha256: str) -> str:
    """Name the file of a record's samples by their hash."""
    return f"{record_name.removesuffix('.json')}.{sha256[:8]}{SAMPLES}"


def noise_place(target: str, device: str, mode: str) -> str:
    """Say where the noise of a device in a mode belongs below the folder of results."""
    return f"{NOISE}/{target}.{device[:10]}.{mode}.json"
