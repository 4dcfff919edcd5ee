"""What is found as done: keys of cells do not change with the names of fields."""

from __future__ import annotations

from typing import Any

import pytest

from edgebench.schema import Cell, DatasetRef, Scenario
from edgebench.store.key import KEYED, KEYED_SCENARIO, cell_key

GIVEN: dict[str, Any] = {
    "model": "net",
    "format": "onnx",
    "precision": "int8",
    "bundle_sha256": "b",
    "dataset": DatasetRef(name="digits"),
    "evaluation_sha256": "e",
    "target": "cpu",
    "device": "d",
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "scenario": Scenario(),
    "mode": "quick",
    "method": 2,
}
SERVER = {"kind": "server", "bound_ms": 5.0, "threads": 2, "affinity": [0, 1]}


@pytest.mark.parametrize("name", ["half_width", "precision"])
def test_cells_keep_the_keys_that_earlier_versions_gave_them(name: str) -> None:
    """The two hashes were computed by the version that hashed whole cells, where `half_width` was called `precision`."""
    assert cell_key(Cell(**GIVEN)) == "e4afe3e4441be33de24eda2c0ebfebb8b52a4aa42f5a9ef93929d268b6184992"
    scenario = Scenario.model_validate({**SERVER, name: 0.05})
    assert scenario.half_width == 0.05
    cell = Cell(**{**GIVEN, "scenario": scenario}, options={"optimization": "none"})
    assert cell_key(cell) == "59a0776733f02a4a7f564c3a826ef5dd8944b72d4f0f897b9068045cf3daf779"


def test_whoever_adds_a_field_decides_whether_it_is_part_of_keys() -> None:
    assert set(Cell.model_fields) == {*KEYED, "scenario", "options"}
    assert set(Scenario.model_fields) == set(KEYED_SCENARIO)


@pytest.mark.parametrize("field", [*KEYED, "options"])
def test_each_field_of_a_cell_changes_its_key(field: str) -> None:
    other = {"dataset": DatasetRef(name="other"), "mode": "strict", "method": 1, "options": {"a": 1}}.get(field, "another")
    assert cell_key(Cell(**{**GIVEN, field: other})) != cell_key(Cell(**GIVEN))
