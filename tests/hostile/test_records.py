"""Records that say what was not measured: each is resealed, as somebody would who knows how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from test_measure import Bundles
from test_verify import measured, once, rewrite  # noqa: F401  fixtures

from edgebench.schema import Cell
from edgebench.store import records
from edgebench.store.key import cell_key
from edgebench.store.layout import place

GENERATED = Path(__file__).parent.parent.parent / "results"


def as_another(path: Path, **changes: Any) -> Path:
    """Let a record be one of another cell, key and place included; returns where it lies then."""
    content = json.loads(path.read_text())
    cell = {**content["cell"], **changes}
    rewrite(path, cell=cell, key=cell_key(Cell.model_validate(cell)))
    moved = Path("results") / place(records.read_record(path))
    return path.rename(moved)


def refused(cli: Cli, expected: str) -> None:
    code, out, err = cli("verify", "results")
    assert code == 1, out
    assert expected in out
    assert "Traceback" not in err


@pytest.mark.parametrize("change", [{"precision": "int8"}, {"threads": 2}, {"model": "another"}])
def test_a_record_under_the_key_of_another_cell_is_neither_found_nor_merged(measured: Path, cli: Cli, change: Any) -> None:  # noqa: F811
    wanted = records.read_record(measured).cell
    inner = {"scenario": {**wanted.scenario.model_dump(), **change}} if "threads" in change else change
    rewrite(measured, cell={**wanted.model_dump(mode="json"), **inner})
    key = records.read_record(measured).key
    assert records.find_done(Path("results"), wanted, key) is None
    refused(cli, "its key is not that of its cell; delete it and measure this cell again")
    code, out, _ = cli("results", "merge", "results", "--into", "ours")
    assert (code, "1 refused" in out) == (1, True)
    assert not list(Path("ours").rglob("*.json"))


def test_what_passes_for_another_bundle_is_told_by_the_manifest_beside_its_samples(measured: Path, cli: Cli) -> None:  # noqa: F811
    as_another(measured, precision="int8")
    refused(cli, "cell.precision: int8 is written, the samples give fp32")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size_bytes": 1}, "size_bytes: 1 is written"),
        ({"parameters": 1}, "parameters: 1 is written"),
        ({"model__parameters": 1}, "model.parameters: 1 is written"),
        ({"parity__samples": 7}, "parity.samples: 7 is written"),
    ],
)
def test_what_a_record_says_of_its_bundle_is_computed_again(measured: Path, cli: Cli, change: Any, expected: str) -> None:  # noqa: F811
    rewrite(measured, **change)
    refused(cli, expected)


def test_another_bundles_hash_is_noticed(measured: Path, cli: Cli) -> None:  # noqa: F811
    as_another(measured, bundle_sha256="0" * 64)
    refused(cli, "the bundle.json beside its samples is not of the bundle that it names")


@pytest.mark.parametrize("where", ["top", "inside"])
def test_a_key_written_twice_is_refused_by_every_reader(
    measured: Path,  # noqa: F811
    cli: Cli,
    where: str,
) -> None:
    text = measured.read_text()
    before, name = ('"status":', "status") if where == "top" else ('"median_ns":', "median_ns")
    measured.write_text(text.replace(before, f'"{name}": {{"value": 1.0}}, {before}', 1))
    refused(cli, f"the key '{name}' stands twice in it")
    assert cli("results", "list", "results")[0] == 1
    assert cli("results", "merge", "results", "--into", "ours")[0] == 1


def test_a_bundle_whose_manifest_has_a_key_twice_is_refused(here: Path, tiny_bundles: Bundles, cli: Cli) -> None:
    manifest = tiny_bundles["onnx", "fp32"] / "bundle.json"
    Path("copy").mkdir()
    text = manifest.read_text().replace('"precision":', '"precision": "int8", "precision":', 1)
    Path("copy/bundle.json").write_text(text)
    code, _, err = cli("run", "copy")
    assert (code, "the key 'precision' stands twice in it" in err) == (2, True)


def test_what_rests_on_the_submitters_word_is_named(measured: Path, cli: Cli) -> None:  # noqa: F811
    code, out, _ = cli("verify", "results")
    assert code == 0
    assert "as written by whoever measured, with nothing here to confirm it: environment, memory, tools" in out
    code, out, _ = cli("verify", GENERATED, "--json")
    rows = json.loads(out)
    assert (code, len(rows) > 10) == (0, True)
    assert all("environment" in row["as_written"] for row in rows)


def test_the_committed_records_carry_the_keys_of_their_cells() -> None:
    for path in records.record_paths(GENERATED):
        assert records.owned(path, records.read_content(path)).status == "done"
