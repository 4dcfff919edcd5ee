"""Tables made from records, compared with golden files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factory import make_cell, make_record

from edgebench.errors import UnknownName
from edgebench.report import markdown, tables
from edgebench.schema import DatasetRef, Reason, Record, Scenario, Verdict

GOLDEN = Path(__file__).parent / "golden" / "LEADERBOARD.md"


def records() -> list[tuple[Path, Record]]:
    made = [
        make_record(
            cell=make_cell("big", "torch", runtime_version="torch 2"),
            median_ns=9e6,
            accuracy=0.99,
            size=45_000_000,
            parameters=11_000_000,
            role="teacher",
        ),
        make_record(
            cell=make_cell("big", "onnx", "int8"),
            median_ns=2e6,
            accuracy=0.985,
            size=11_000_000,
            parameters=11_000_000,
            role="teacher",
        ),
        make_record(cell=make_cell("small", "torch"), median_ns=3e6, accuracy=0.97, size=9_000_000, parameters=2_000_000),
        make_record(
            cell=make_cell("small", "onnx", "int8"),
            median_ns=1e6,
            accuracy=0.96,
            size=2_500_000,
            parameters=2_000_000,
            verdict=Verdict(word="UNSTABLE", reasons=(Reason(reason="noisy", recommendation="be quiet"),)),
        ),
        make_record(status="failed", cell=make_cell("small", "tflite")),
        make_record(cell=make_cell("small", "onnx", "int8", mode="standard"), median_ns=1.1e6, accuracy=0.96),
        make_record(
            status="failed", cell=make_cell("lost", dataset=DatasetRef(name="medmnist", options={"source": "pathmnist"}))
        ),
    ]
    return [(Path(f"records/cpu/{index}.json"), record) for index, record in enumerate(made)]


def make(**changes: Any) -> list[tables.Table]:
    return tables.make(records(), **{"sort": "latency", "by": ("dataset", "target"), **changes})


def test_the_same_cell_with_other_runtime_options_is_a_row_of_its_own() -> None:
    cells = [make_cell(options={"compute_units": units}) for units in ("CPU_ONLY", "CPU_AND_NE")]
    cells += cells[:1]
    made = [(Path(f"{index}.json"), make_record(cell=cell)) for index, cell in enumerate(cells)]
    [table] = tables.make(made, "latency", ("dataset", "target"))
    runtimes = sorted(row.values()["runtime"] for row in table.rows)
    assert runtimes == [f"onnxruntime 1.2 (compute_units {units})" for units in ("CPU_AND_NE", "CPU_ONLY")]


def test_the_leaderboard_is_the_golden_file() -> None:
    assert markdown.render(make()) == GOLDEN.read_text()


def test_the_order_of_the_records_does_not_matter() -> None:
    backwards = tables.make(reversed(records()), "latency", ("dataset", "target"))
    assert markdown.render(backwards) == GOLDEN.read_text()


def test_quick_and_standard_are_never_in_one_table() -> None:
    assert [table.mode for table in make(by=("target",))][:2] == ["quick", "standard"]


def test_other_devices_and_thread_counts_are_tables_of_their_own() -> None:
    extra = [
        (Path("records/cpu/x.json"), make_record(cell=make_cell(device="f" * 64))),
        (Path("records/cpu/y.json"), make_record(cell=make_cell(scenario=Scenario(threads=1)))),
    ]
    assert len(tables.make(records() + extra, "latency", ("dataset", "target"))) == len(make()) + 2


def test_pareto_rows_are_those_that_none_beats() -> None:
    [table, *_] = make()
    marked = {(row.record.cell.model, row.record.cell.format): row.pareto for row in table.rows}
    assert marked == {("small", "onnx"): True, ("big", "onnx"): True, ("big", "torch"): True, ("small", "torch"): True}
    slow = [(Path("records/cpu/z.json"), make_record(cell=make_cell("bad"), median_ns=1e9, accuracy=0.5, size=10**9))]
    [table, *_] = tables.make(records() + slow, "latency", ("dataset", "target"))
    assert [row.pareto for row in table.rows if row.record.cell.model == "bad"] == [False]


def test_shares_are_counted_against_the_teacher_in_fp32() -> None:
    [table, *_] = make()
    row = next(row for row in table.rows if (row.record.cell.model, row.record.cell.precision) == ("small", "int8"))
    assert row.reduction_size == pytest.approx(1 - 2.5 / 45)
    assert row.reduction_parameters == pytest.approx(1 - 2 / 11)
    assert row.retained == pytest.approx(0.96 / 0.99)
    assert row.metric_delta == pytest.approx(-0.01)


def test_a_newer_record_of_the_same_combination_replaces_the_older() -> None:
    newer = make_record(
        cell=make_cell("big", "torch", bundle_sha256="c" * 64), median_ns=8e6, role="teacher", started_at="2027-01-01T00:00:00Z"
    )
    [table, *_] = tables.make([*records(), (Path("records/cpu/new.json"), newer)], "latency", ("dataset", "target"))
    found = [row.record.latency for row in table.rows if (row.record.cell.model, row.record.cell.format) == ("big", "torch")]
    assert [latency.median_ns.value for latency in found if latency] == [8e6]


@pytest.mark.parametrize(("sort", "first"), [("latency", "small"), ("metric", "big"), ("size", "small")])
def test_rows_are_sorted_as_asked(sort: str, first: str) -> None:
    assert make(sort=sort)[0].rows[0].record.cell.model == first


def test_unknown_orders_and_groups_are_named() -> None:
    with pytest.raises(UnknownName, match="'latency'"):
        make(sort="latenc")
    with pytest.raises(UnknownName, match="'target'"):
        make(by=("targt",))


def test_names_cannot_break_the_table() -> None:
    assert markdown.escape("a|b\n<script>") == "a\\|b &lt;script>"
