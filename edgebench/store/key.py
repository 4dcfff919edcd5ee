"""A cell's key: what it is found by, and whether a record may carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgebench.files import sha256_json
from edgebench.schema import METHOD, Cell, Record, Scenario

KEYED = (
    *("model", "format", "precision", "bundle_sha256", "dataset", "evaluation_sha256", "target", "device"),
    *("runtime", "runtime_version", "mode", "method"),
)
"""Fields of a cell that its key is made of; beside them its scenario's, and its options and subset where there are any.

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
    return sha256_json({**facts, **{name: written[name] for name in ("options", "subset") if written.get(name)}})


def belongs(record: Record, written: Mapping[str, Any]) -> bool:
    """Return whether a record's key is that of its cell; `written` is the cell as it stands in the file.

    Methods before today's hashed the cell as it was written then, with the fields that there were.
    """
    older = record.cell.method < METHOD and record.key == sha256_json(written)
    return older or record.key == cell_key(record.cell)
