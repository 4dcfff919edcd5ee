"""Tables made from records, compared with golden files."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from factory import make_cell, make_record, make_tables, make_unjudged
from markdown_it import MarkdownIt
from scipy.stats import binomtest

from edgebench.errors import UnknownName
from edgebench.report import FORMATS, advice, columns, render, tables
from edgebench.report.writers import csv as csv_tables
from edgebench.report.writers import latex, markdown
from edgebench.schema import Accuracy, DatasetRef, Energy, Interval, Reason, Record, Scenario, Verdict

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = [
    "<script>alert(1)</script>",
    "[here](javascript:alert(1))",
    "a|b`c`*d*_e_~f~",
    "=HYPERLINK(1)",
    "line\nbreak\r\x00\x1b[31m",
    "\u202eevil\u2066",
    "שלום 🩻 日本",
    "&lt;b&gt; 100 % $x_1^2$ {#} \\input{x}",
]


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
    return make_tables(records(), **changes)


def test_the_same_cell_with_other_runtime_options_is_a_row_of_its_own() -> None:
    cells = [make_cell(options={"compute_units": units}) for units in ("CPU_ONLY", "CPU_AND_NE")]
    cells += cells[:1]
    made = [(Path(f"{index}.json"), make_record(cell=cell)) for index, cell in enumerate(cells)]
    [table] = make_tables(made)
    runtimes = sorted(row.values()["runtime"] for row in table.rows)
    assert runtimes == [f"onnxruntime 1.2 (compute_units {units})" for units in ("CPU_AND_NE", "CPU_ONLY")]


@pytest.mark.parametrize(("format", "ending"), FORMATS.items())
def test_every_format_is_its_golden_file(format: str, ending: str) -> None:
    """To accept a change: python tests/test_report.py."""
    assert render(make(), format) == (GOLDEN / f"LEADERBOARD{ending}").read_text(encoding="utf-8")


def test_the_order_of_the_records_does_not_matter() -> None:
    backwards = make_tables(reversed(records()))
    assert markdown.render(backwards) == markdown.render(make())


def test_quick_and_standard_are_never_in_one_table() -> None:
    assert [table.mode for table in make(by=("target",))][:2] == ["quick", "standard"]


def test_other_devices_and_thread_counts_are_tables_of_their_own() -> None:
    extra = [
        (Path("records/cpu/x.json"), make_record(cell=make_cell(device="f" * 64))),
        (Path("records/cpu/y.json"), make_record(cell=make_cell(scenario=Scenario(threads=1)))),
    ]
    assert len(make_tables(records() + extra)) == len(make()) + 2


def test_pareto_rows_are_those_that_none_beats() -> None:
    [table, *_] = make()
    marked = {(row.entry.model, row.entry.format): row.pareto for row in table.rows}
    assert marked == {("small", "onnx"): True, ("big", "onnx"): True, ("big", "torch"): True, ("small", "torch"): True}
    slow = [(Path("records/cpu/z.json"), make_record(cell=make_cell("bad"), median_ns=1e9, accuracy=0.5, size=10**9))]
    [table, *_] = make_tables(records() + slow)
    assert [row.pareto for row in table.rows if row.entry.model == "bad"] == [False]


def test_shares_are_counted_against_the_teacher_in_fp32() -> None:
    [table, *_] = make()
    row = next(row for row in table.rows if (row.entry.model, row.entry.precision) == ("small", "int8"))
    assert row.reduction_size == pytest.approx(1 - 2.5 / 45)
    assert row.reduction_parameters == pytest.approx(1 - 2 / 11)
    assert row.retained == pytest.approx(0.96 / 0.99)
    assert row.metric_delta == pytest.approx(-0.01)


def test_a_newer_record_of_the_same_combination_replaces_the_older() -> None:
    newer = make_record(
        cell=make_cell("big", "torch", bundle_sha256="c" * 64), median_ns=8e6, role="teacher", started_at="2027-01-01T00:00:00Z"
    )
    [table, *_] = make_tables([*records(), (Path("records/cpu/new.json"), newer)])
    found = [row.entry.median_ns for row in table.rows if (row.entry.model, row.entry.format) == ("big", "torch")]
    assert found == [8e6]


@pytest.mark.parametrize(("sort", "first"), [("latency", "small"), ("metric", "big"), ("size", "small"), ("p99", "small")])
def test_rows_are_sorted_as_asked(sort: str, first: str) -> None:
    assert make(sort=sort)[0].rows[0].entry.model == first


def test_unknown_orders_and_groups_are_named() -> None:
    with pytest.raises(UnknownName, match="'latency'"):
        make(sort="latenc")
    with pytest.raises(UnknownName, match="'target'"):
        make(by=("targt",))


def with_reasons(reasons: list[str]) -> list[tables.Table]:
    """Make a table whose verdicts and failures say these things."""
    said = tuple(Reason(reason=reason, recommendation=reason) for reason in reasons)
    made = make_record(cell=make_cell(), verdict=Verdict(word="UNSTABLE", reasons=said))
    odd = made.model_copy(update={"environment": {**made.environment, "cpu": reasons[0], "os": reasons[-1]}})
    failed = make_record(status="failed", cell=make_cell(runtime_version=reasons[0]))
    failed = failed.model_copy(update={"failure": said[0]})
    return make_tables([(Path("a.json"), odd), (Path("b.json"), failed)])


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_text_as_text(text: str) -> None:
    page = MarkdownIt("gfm-like", {"linkify": False}).render(markdown.render(with_reasons([text])))
    assert "<script" not in page
    assert "javascript" not in "".join(re.findall(r'href="([^"]*)"', page))
    shown = unicodedata.normalize("NFC", html.unescape(re.sub(r"<[^>]+>", "", page)))
    kept = columns.plain(text)
    assert shown.count(kept) >= 3
    assert page.count("<tr>") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_holds_text_as_text_and_starts_no_formula(text: str) -> None:
    one, two = csv.DictReader(io.StringIO(csv_tables.render(with_reasons([text])), newline=""))
    assert (one["status"], two["status"]) == ("done", "failed")
    assert two["runtime"].removeprefix("'") == columns.plain(text)
    assert not two["runtime"].startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_takes_no_text_for_a_command(text: str) -> None:
    made = latex.render(with_reasons([text]))
    assert "\\input" not in made.replace("\\textbackslash{}input", "")
    unescaped = re.sub(r"\\[&%$#_{}]", "", made)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0


def test_rows_are_chosen_by_patterns_and_keep_their_reference() -> None:
    [table, *_] = make(where={"precision": ["int8"], "model": ["sm*", "none"]})
    [row] = table.rows
    assert (row.entry.model, row.rank) == ("small", 1)
    assert row.metric_delta == pytest.approx(-0.01)
    assert row.reduction_size == pytest.approx(1 - 2.5 / 45)
    assert make(where={"verdict": ["INVALID"]}) == []
    with pytest.raises(UnknownName, match="did you mean 'precision'"):
        make(where={"precison": ["int8"]})


def test_columns_are_chosen_and_ordered() -> None:
    head = markdown.render(make(), ("p50", "model")).splitlines()[12]
    assert head == "| p50 ms | model |"
    assert render(make(), "csv", ("size", "model")).splitlines()[0] == (
        "dataset,target,mode,scenario,status,size_bytes,model,record,reason"
    )
    with pytest.raises(UnknownName, match="did you mean 'p50'"):
        markdown.render(make(), ("p5",))


def test_links_start_from_where_the_file_lies() -> None:
    assert "[small](../results/records/cpu/3.json)" in markdown.render(make(), base=Path("../results"))
    assert "[small](records/cpu/3.json)" in markdown.render(make())


def shaky(count: int, reasons: list[str], of: int = 4, mode: str = "quick") -> list[tables.Table]:
    """Make a table of so many rows, the first of which are UNSTABLE for these reasons."""
    said = tuple(Reason(reason=reason, recommendation=f"mend {reason.split()[-1]}") for reason in reasons)
    verdicts = [Verdict(word="UNSTABLE", reasons=said)] * count + [Verdict(word="VALID")] * (of - count)
    cells = [make_cell(f"net{number}", mode=mode) for number in range(of)]
    made = [make_record(cell=cell, verdict=verdict) for cell, verdict in zip(cells, verdicts, strict=True)]
    return make_tables([(Path(f"{number}.json"), record) for number, record in enumerate(made)])


def test_a_table_that_is_unstable_says_what_that_means_and_what_would_help() -> None:
    [table] = shaky(4, ["it waited 7 % for a core", "others used 0.4 cores"])
    assert columns.advice(table) == (
        "Every row is UNSTABLE: a repeat may order them otherwise. Most often: it waited 7 % for a core (4 of 4). What helps: "
        "mend core; mend cores; --mode standard, which measures longer; `edgebench compare A B`, which decides between two "
        "under noise."
    )
    [half], [most] = shaky(2, ["noise"]), shaky(3, ["noise"], mode="standard")
    assert columns.advice(half) == ""
    assert columns.advice(most).startswith("3 of 4 rows are UNSTABLE")
    assert "--mode" not in columns.advice(most)
    [alone] = shaky(1, [], of=1)
    assert columns.advice(alone).startswith("The only row is UNSTABLE: a repeat may give another number. What helps: --mode")


def test_reasons_that_differ_in_their_figures_are_one() -> None:
    rows = [[f"it waited {share} % of 10 s", *more] for share, more in ((7, ["2 trials"]), (31.5, []), (12, ["a1b"]))]
    verdicts = [("UNSTABLE", [{"reason": each, "recommendation": "wait"} for each in row]) for row in rows]
    told = advice.unstable(verdicts, "strict")
    assert "Most often: it waited 7 to 31.5 % of 10 s (3 of 3). What helps: wait; `edgebench compare" in told
    assert advice.unstable([], "quick") == ""
    texts = ("ab", "a1b", "1.2.3 \u0663", "4.5.6 7", *HOSTILE)
    odd = [("UNSTABLE", [{"reason": each, "recommendation": each}]) for each in texts]
    assert advice.unstable(odd, "quick")


@pytest.mark.parametrize(("format", "times"), [("markdown", 1), ("latex", 1), ("csv", 0), ("json", 0)])
def test_the_advice_stands_below_tables_that_people_read(format: str, times: int) -> None:
    assert render(shaky(4, ["noise"]), format).count("Every row is UNSTABLE") == times
    assert render(shaky(1, ["noise"]), format).count("rows are UNSTABLE") == 0


def energetic(joules: float | None, provenance: Any, short: bool = False) -> Energy:
    return Energy(
        joules=None if joules is None else Interval(value=joules, low=joules, high=joules),
        provenance=provenance,
        rail="total",
        short=short,
        reason=None if joules is not None else "no power meter",
    )


def test_energy_ranks_within_one_provenance_and_not_in_short_windows() -> None:
    given: dict[str, tuple[Any, ...]] = {
        "a": (0.2, "board"),
        "b": (0.1, "board"),
        "c": (0.01, "module"),
        "d": (None, None),
        "e": (0.05, "board", True),
    }
    made = [make_record(cell=make_cell(name)).model_copy(update={"energy": energetic(*some)}) for name, some in given.items()]
    placed = [(Path(f"{record.cell.model}.json"), record) for record in made]
    found = [[(row.entry.model, row.rank) for row in table.rows] for table in make_tables(placed, "energy", ("target",))]
    assert sorted(found) == [[("b", 1), ("a", 2), ("e", None)], [("c", 1)], [("d", None)]]
    assert "Rows without a rank" in markdown.render(make_tables(placed, "energy", ("target",)))


def test_a_row_shows_its_interval_its_multiplications_and_the_controls_of_its_recipe() -> None:
    metrics = {"val_accuracy": 0.97, "parent_val_accuracy": 0.98, "control_val_accuracy": 0.965, "macs": 1.0}
    made = make_unjudged().model
    assert made is not None
    model = made.model_copy(update={"metrics": metrics})
    given = {"pruned": make_record(cell=make_cell("pruned"), accuracy=0.975, model=model, macs=6_200_000)}
    given["plain"] = make_record(cell=make_cell("plain"))
    [table] = make_tables((Path(f"{name}.json"), record) for name, record in given.items())
    shown = {
        row.entry.model: {each.name: each.fill(row) for each in columns.chosen("accuracy", ("interval", "macs", "controls"))}
        for row in table.rows
    }
    wilson = binomtest(351, 360).proportion_ci(method="wilson")
    assert shown["pruned"]["interval"] == f"[{100 * wilson.low:.1f}, {100 * wilson.high:.1f}]"
    assert shown["pruned"]["macs"] == "6.20"
    assert shown["pruned"]["controls"] == "97.0 (parent 98.0, control 96.5)"
    assert (shown["plain"]["macs"], shown["plain"]["controls"]) == ("", "")
    values = next(row.values() for row in table.rows if row.entry.model == "pruned")
    assert (values["metric_low"], values["metric_high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
    assert values["controls"] == {"parent": 0.98, "control": 0.965}


def test_a_headline_that_is_no_share_of_samples_has_no_interval() -> None:
    judged = Accuracy(samples=100, headline="auroc", metrics={"auroc": 0.9, "accuracy": 0.8}, host_agreement=1.0)
    [table] = make_tables([(Path("a.json"), make_record().model_copy(update={"accuracy": judged}))])
    assert table.rows[0].entry.more["interval"] is None


if __name__ == "__main__":
    for name, ending in FORMATS.items():
        (GOLDEN / f"LEADERBOARD{ending}").write_text(render(make(), name), encoding="utf-8")
