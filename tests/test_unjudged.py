"""Records without an evaluation: nothing was judged, and everything else is there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from factory import make_cell, make_measurement, make_record, make_tables, make_unjudged

from edgebench.analysis import summary
from edgebench.cli import execute
from edgebench.report import columns, figures, leaderboard, record_card
from edgebench.report import render as written
from edgebench.report.detail import Splits, gather
from edgebench.run import compare
from edgebench.schema import MODES, Accuracy, Memory, Record, no_progress
from edgebench.store import find, records, verify


def saved(results: Path, model: str = "brought", **changes: Any) -> Record:
    """Write a record with samples that say what it says."""
    record, measured = make_unjudged(model, **changes), make_measurement(predictions=False)
    found = summary.derived(record.cell, measured, MODES["quick"].min_samples, None, {})
    return records.save(results, record.model_copy(update=found), measured)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Lay out two records without a data set and one with."""
    for each in (saved(tmp_path / "r", "small", size=1000), saved(tmp_path / "r", "large", size=9000)):
        assert each.accuracy is None
    judged, measured = make_record(cell=make_cell("judged")), make_measurement()
    found = summary.derived(judged.cell, measured, MODES["quick"].min_samples, None, {})
    records.save(tmp_path / "r", judged.model_copy(update=found), measured)
    return tmp_path / "r"


def placed(*made: Record) -> list[tuple[Path, Record]]:
    return [(Path(f"records/cpu/{number}.json"), record) for number, record in enumerate(made)]


# ---------------------------------------------------------------- tables


def test_what_is_judged_and_what_is_not_have_tables_of_their_own_also_by_target_alone() -> None:
    both = placed(make_unjudged("a"), make_record(), make_unjudged("b", 900.0))
    for by in (("dataset", "target"), ("target",), ("model", "target")):
        for table in make_tables(both, by=by):
            assert len({row.entry.judged for row in table.rows}) == 1
    judged, other = make_tables(both)
    assert (columns.title(judged), columns.title(other)) == ("dataset digits, target cpu", "no data set, target cpu")
    assert columns.title(make_tables(both, by=("target",))[1]) == "no data set, target cpu"


@pytest.mark.parametrize(
    ("sort", "order", "ranks"),
    [
        ("latency", ["quick", "small", "lean"], [1, 2, 3, 4]),
        ("size", ["small", "quick", "lean"], [1, 2, 3, 4]),
        ("memory", ["lean", "quick", "small"], [1, 2, 2, 2]),
        ("metric", ["quick", "small", "lean"], [None] * 4),
    ],
)
def test_rows_without_a_data_set_are_ranked_by_latency_size_and_memory(
    sort: str, order: list[str], ranks: list[int | None]
) -> None:
    made = placed(
        make_unjudged("quick", 1000.0, size=2000),
        make_unjudged("small", 2000.0, size=1000),
        make_unjudged("lean", 3000.0, size=3000, memory=Memory(baseline_bytes=1, peak_bytes=2)),
        make_unjudged("beaten", 4000.0, size=4000),
    )
    [table] = make_tables(made, sort=sort)
    assert [row.entry.model for row in table.rows if row.entry.model != "beaten"] == order
    assert [row.rank for row in table.rows] == ranks
    assert {row.entry.model for row in table.rows if row.pareto} == {"quick", "small", "lean"}


def test_accuracy_is_blank_and_the_reason_stands_below() -> None:
    [table] = make_tables(placed(make_unjudged()))
    filled = {column.name: column.fill(table.rows[0]) for column in columns.chosen(table.headline)}
    assert {filled[name] for name in ("metric", "delta", "auroc", "retained")} == {""}
    assert filled["p50"] and filled["size"] and filled["memory"] and filled["verdict"] == "VALID"
    assert any(note.startswith("Accuracy is blank: no data set given") for note in columns.notes(table))
    assert not any("not defined on these labels" in note or "torch FP32" in note for note in columns.notes(table))


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_the_caption_says_that_there_is_no_data_set(form: str) -> None:
    text = written(make_tables(placed(make_unjudged(), make_record())), form)
    assert "no data set, target cpu" in text
    assert "dataset digits, target cpu" in text
    assert "no data set given" in text


def test_files_for_scripts_have_the_rows_with_blanks() -> None:
    made = make_tables(placed(make_unjudged(), make_record()))
    lines = list(csv.DictReader(io.StringIO(written(made, "csv"))))
    assert [(line["dataset"], line["metric_value"], bool(line["median_ns"])) for line in lines] == [
        ("digits", "0.9", True),
        ("", "", True),
    ]
    judged, other = json.loads(written(made, "json"))
    assert (judged["group"]["dataset"], other["group"]["dataset"]) == ("digits", "")
    assert (other["rows"][0]["metric_value"], other["rows"][0]["median_ns"]) == (None, 1000.0)


def test_a_limit_of_the_metric_leaves_them_out_with_the_reason(results: Path) -> None:
    other = leaderboard.recommend(results, limits={"min_metric": "50%"})[1]
    assert other.kept == ()
    assert {reasons for _, reasons in other.excluded} == {("metric is not known: no data set given",)}
    kept = leaderboard.recommend(results, limits={"max_size": "5kB"})[1].kept
    assert [row.entry.model for row in kept] == ["small"]


# ---------------------------------------------------------------- the page, charts and one record


def test_charts_draw_size_and_latency_where_there_is_no_metric() -> None:
    [table] = make_tables(placed(make_unjudged("a", 2e6), make_unjudged("b", 1e6)))
    made = {each.name: each.spec for each in figures.figures([table], {})}
    assert "no-data-set" not in " ".join(made)
    tradeoffs = {name: spec for name, spec in made.items() if "tradeoff" in name}
    assert len(tradeoffs) >= 4
    for name, spec in tradeoffs.items():
        said = " ".join(spec["title"]["text"])
        assert said.startswith("size against" if "p50" in name or "p99" in name else "p50 latency against"), said
        assert "metric_value" not in json.dumps(spec["transform"][0])
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(made["cpu-quick-tradeoff-size"], allowed_base_urls=[])
    assert "p50 latency, ms" in drawn
    assert drawn.count("no data set given") >= 2 or drawn.count('aria-roledescription="point"') >= 2


def test_a_report_holds_them(results: Path, tmp_path: Path) -> None:
    reported = leaderboard.report(results, out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert (reported.rows, reported.left_out) == (3, ())
    assert "no data set, target cpu" in text
    assert "Accuracy is blank: no data set given" in text


def test_its_evaluation_is_missing_with_the_reason_and_the_rest_is_there(results: Path) -> None:
    path, record = find.find(results, "cpu/small")
    found = gather(path, record, *Splits().of(record))
    assert found.trials
    assert found.reasons["evaluation"] == "no data set given"
    assert found.reasons["pictures"] == "no data set given"
    card = {section.title: dict(section.lines) for section in record_card.sections(record)}
    assert card["cell"]["data set"] == "none given"
    assert card["accuracy"] == {"none, because": "no data set given"}
    assert card["model"]["task"] == "none"
    assert "evaluation split" not in card["cell"]


# ---------------------------------------------------------------- results


def test_it_is_read_listed_found_merged_cleaned_and_verified(results: Path, tmp_path: Path) -> None:
    names = {entry.model for entry in find.listing(results, {"dataset": ["no data set"]}, None, no_progress).entries}
    assert names == {"small", "large"}
    assert len(find.listing(results, {"dataset": ["digits"]}, None, no_progress).entries) == 1
    unjudged = [each for each in verify.verify(results, no_progress) if "small" in each.path.name or "large" in each.path.name]
    assert [each.wrong for each in unjudged] == [(), ()]
    assert all(each.numbers > 10 for each in unjudged)
    leaderboard.merge([results], tmp_path / "other")
    assert len(records.record_paths(tmp_path / "other")) == 3
    assert not leaderboard.clean(results).going


def test_an_accuracy_that_nothing_was_judged_on_is_found(tmp_path: Path) -> None:
    accuracy = Accuracy(samples=1, headline="accuracy", metrics={"accuracy": 1.0}, host_agreement=None)
    record, measured = make_unjudged("boasts"), make_measurement(predictions=False)
    found = summary.derived(record.cell, measured, MODES["quick"].min_samples, None, {})
    records.save(tmp_path, record.model_copy(update={**found, "accuracy": accuracy}), measured)
    [checked] = verify.verify(tmp_path, no_progress)
    assert checked.wrong == ("accuracy.accuracy: 1.0 is written, the samples give None",)


def test_records_without_a_data_set_are_compared_by_latency_alone(results: Path) -> None:
    paths = [find.find(results, f"cpu/{name}")[0] for name in ("small", "large")]
    [pair] = compare.compare_records(paths[:1], paths[1:]).pairs
    assert pair.accuracy is None
    assert (pair.latency.word, pair.latency.by) == ("inconclusive", "record")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("leaderboard {}", "no data set, target cpu (quick)"),
        ("results list {}", "no data set"),
        ("results list {} --json --where dataset=no?data?set", '"dataset": ""'),
        ("results show cpu/small --results {}", "no data set given"),
        ("verify {}", "3 of 3 records hold"),
        ("recommend {} --max-size 1GB", "Best: small onnx fp32."),
        ("recommend {} --min-metric 10%", "left out: small onnx fp32: metric is not known: no data set given"),
        ("results clean {}", ""),
    ],
)
def test_commands_show_them(results: Path, arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = execute(arguments.format(results).split(), debug=True)
    said = capsys.readouterr().out
    assert not code, said
    assert words in said
