"""The noise of devices, as `edgebench noise` measured it: a file for each device and mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgebench.errors import RecordError
from edgebench.files import is_sealed, parse_json, seal, write_json
from edgebench.schema import Cell, Noise
from edgebench.store.layout import noise_place
from edgebench.store.records import MOST_BYTES, bytes_of


def save_noise(results: Path, noise: Noise) -> Path:
    """Write a target's own noise; a later one replaces it."""
    path = results / noise_place(noise.target, noise.device, noise.mode)
    write_json(path, seal(noise.model_dump(mode="json", by_alias=True)))
    return path


def read_noise(results: Path, target: str, device: str, mode: str) -> Noise | None:
    """Read the noise that was measured on a device in a mode, or None."""
    path = results / noise_place(target, device, mode)
    return read_noise_file(path)[1] if path.exists() else None


def read_noise_file(path: Path) -> tuple[dict[str, Any], Noise]:
    """Read one noise measurement, as it is written and as what it is, and check it against its hash."""
    try:
        content = parse_json(bytes_of(path, MOST_BYTES))
        if not isinstance(content, dict) or not is_sealed(content):
            raise ValueError("its hash differs")
        return content, Noise.model_validate(content)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable noise measurement ({error}); delete it and run `edgebench noise`") from error


def noise_floor(results: Path, cell: Cell, apart: bool = False) -> float | None:
    """Return the shift that a cell's device shows by itself, where that was measured; `apart`: between different times."""
    noise = read_noise(results, cell.target, cell.device, cell.mode)
    return None if noise is None else noise.between_records if apart else noise.floor


def meter_cost(results: Path, cell: Cell) -> float | None:
    """Return the share by which power meters lengthen an inference on a cell's device, where that was measured."""
    noise = read_noise(results, cell.target, cell.device, cell.mode)
    return None if noise is None or noise.meter_cost is None else noise.meter_cost.value
