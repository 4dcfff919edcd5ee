"""Profile × targets → what is to be measured: slots, then cells with their bundles and data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.errors import InputError, UnknownName
from edgebench.files import sha256_json
from edgebench.schema import Bundle, Cell, MeterSpec, PlannedCell, Profile, Scenario, Target

if TYPE_CHECKING:
    from edgebench.data import Dataset


@dataclass(frozen=True)
class CellJob:
    """What is measured: a cell, its bundle, and the data that it is judged on."""

    cell: Cell
    key: str
    folder: Path
    bundle: Bundle
    data: Dataset
    target: Target

    @property
    def meters(self) -> tuple[MeterSpec, ...]:
        """Name the power meters that its device has for what it runs on."""
        accepts = self.target.accepted(self.bundle.format, self.bundle.precision)
        return (accepts.meters if accepts is not None else ()) or self.target.meters


KEYED = (
    *("model", "format", "precision", "bundle_sha256", "dataset", "evaluation_sha256", "target", "device"),
    *("runtime", "runtime_version", "mode", "method"),
)
"""Fields of a cell that its key is made of; beside them its scenario's, and its options where there are any.

A field that comes later joins them only where it is not its default, so that cells that were measured before keep their keys.
"""
KEYED_SCENARIO = {
    **{name: name for name in ("kind", "threads", "affinity", "warmup_seconds", "streams", "batches")},
    **{name: name for name in ("bound_ms", "rate", "idle_ms", "loadgen")},
    "half_width": "precision",
}
"""Fields of a scenario, and what a key calls them."""


def scenario_facts(scenario: Scenario) -> dict[str, Any]:
    """Return what keys hold of a scenario."""
    written = scenario.model_dump(mode="json")
    return {called: written[name] for name, called in KEYED_SCENARIO.items()}


def cell_key(cell: Cell) -> str:
    """Hash everything that would make a new measurement necessary."""
    written = cell.model_dump(mode="json")
    facts = {name: written[name] for name in KEYED} | {"scenario": scenario_facts(cell.scenario)}
    return sha256_json({**facts, **({"options": written["options"]} if cell.options else {})})


def slots(profile: Profile, targets: Collection[Target], only: str | None) -> list[PlannedCell]:
    """List every model × variant × target of a profile that `only` lets through."""
    wanted = parse_only(only)
    every = [
        PlannedCell(model, variant.format, precision, target)
        for target in targets
        for model in profile.models
        for variant in profile.variants
        for precision in variant.precisions
    ]
    known = {
        "model": {slot.model.name for slot in every},
        "format": {slot.format for slot in every},
        "precision": {slot.precision for slot in every},
        "target": {slot.target.name for slot in every},
    }
    for key, values in wanted.items():
        for value in values - known[key]:
            raise UnknownName(key, value, known[key])
    return [slot for slot in every if matches(wanted, slot.model.name, slot.format, slot.precision, slot.target.name)]


def parse_only(text: str | None) -> dict[str, set[str]]:
    """Read `model=a,model=b,format=onnx`: alternatives of one key, all keys together."""
    wanted: dict[str, set[str]] = {}
    for part in (text or "").split(",") if text else []:
        key, found, value = part.partition("=")
        if not found or key not in {"model", "format", "precision", "target"}:
            raise InputError(f"--only {text}: {part!r} is not model=, format=, precision= or target= with a value")
        wanted.setdefault(key, set()).add(value)
    return wanted


def matches(wanted: dict[str, set[str]], model: str, format: str, precision: str, target: str) -> bool:
    """Return whether `--only` lets a cell through."""
    have = {"model": model, "format": format, "precision": precision, "target": target}
    return all(have[key] in values for key, values in wanted.items())
