"""The report's page as text: what it holds, that it is one file, and which model was made from which."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from factory import make_cell, make_latency, make_measurement, make_record, make_tables

from edgebench.report import columns, content, lineage, page
from edgebench.report.tables import SORTS, Table
from edgebench.schema import DatasetRef, Lineage, Model, Preprocessing, Record, Role, image_input
from edgebench.store import records as records_

COMMITTED = Path(__file__).parent.parent / "results"


def made_from(name: str, *parents: str, role: Role = "student", recipe: str = "distill", **changes: Any) -> Record:
    """Make a record of a model whose checkpoint hashes to its name."""
    model = Model(
        name=name,
        architecture="net",
        role=role,
        task="multi-class",
        classes=("a", "b"),
        inputs=(image_input(Preprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))),),
        sha256=name,
        parameters=1000,
        lineage=Lineage(recipe=recipe, parents=parents),
    )
    return make_record(**{"cell": make_cell(name), "model": model, "role": role, **changes})


def tables(*records: Record, **changes: Any) -> list[Table]:
    return make_tables([(Path(f"records/cpu/{place}.json"), record) for place, record in enumerate(records)], **changes)


def lines(*records: Record) -> list[tuple[int, str, str]]:
    [table] = tables(*records)
    return [(member.depth, member.name, member.made) for member in lineage.members(table)]


# ---------------------------------------------------------------- families


def test_a_family_is_told_from_its_teacher_down() -> None:
    found = lines(
        made_from("pruned", "student", role="pruned", recipe="prune"),
        made_from("alone", role="baseline", recipe="train"),
        made_from("student", "teacher"),
        made_from("teacher", role="teacher", recipe="train"),
    )
    assert found == [
        (0, "teacher", "train"),
        (1, "student", "distill from teacher"),
        (2, "pruned", "prune from student"),
        (0, "alone", "train"),
    ]


def test_a_parent_that_is_not_here_is_named_by_its_hash() -> None:
    assert lines(made_from("student", "0123456789abcdef")) == [
        (0, "student", "distill from a model that is not here (0123456789)")
    ]


def test_a_model_made_from_several_stands_once() -> None:
    found = lines(made_from("a", role="teacher"), made_from("b", role="teacher"), made_from("c", "b", "a"))
    assert found == [(0, "a", "distill"), (0, "b", "distill"), (1, "c", "distill from b, a")]


def test_a_ring_of_parents_ends() -> None:
    found = lines(made_from("a", "b"), made_from("b", "a"), made_from("self", "self"))
    assert sorted(name for _, name, _ in found) == ["a", "b", "self"]


def test_formats_and_precisions_stand_beneath_their_model() -> None:
    variants = [("onnx", "int8"), ("torch", "fp32"), ("onnx", "fp32")]
    [table] = tables(*(made_from("net", role="teacher", cell=make_cell("net", *variant)) for variant in variants))
    [member] = lineage.members(table)
    assert [(row.entry.format, row.entry.precision) for row in member.rows] == [
        ("torch", "fp32"),
        ("onnx", "fp32"),
        ("onnx", "int8"),
    ]


# ---------------------------------------------------------------- the page


def rendered(*records: Record, **changes: Any) -> str:
    pytest.importorskip("vl_convert")
    return page.render(content.Page({sort: tables(*records, sort=sort) for sort in SORTS}, **changes))


def held(text: str, name: str) -> Any:
    """Read what a page holds under a name."""
    found = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found is not None, name
    return json.loads(found[1] if name == "data" else gzip.decompress(base64.b64decode(found[1])))


def test_the_same_records_give_the_same_bytes() -> None:
    assert rendered(made_from("a"), made_from("b")) == rendered(made_from("a"), made_from("b"))


def test_nothing_is_fetched_and_only_its_own_programs_may_run() -> None:
    text = rendered(made_from("a"))
    policy = html.unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0])
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert re.findall(r"<script[^>]*\ssrc|<link|@import|url\(", text.replace("data-", "")) == []
    [program] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    vega = gzip.decompress(base64.b64decode(re.findall(r'id="vega">(.*?)</script>', text)[0]))
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in (program.encode(), vega)]
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';" in policy


def shown_text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).strip()


def test_tables_have_the_columns_and_the_text_of_the_leaderboard() -> None:
    records = [made_from("teacher", role="teacher"), made_from("student", "teacher", latency=make_latency(2e6, p99_ns=None))]
    text = rendered(*records)
    [table] = tables(*records)
    board = text[text.index('id="table-0"') : text.index('id="families"')]
    lines = re.findall(r'<tr data-row="\d+">(.*?)</tr>', board, re.DOTALL)
    shown = [[shown_text(cell) for cell in re.findall(r"<t[dh]\b.*?</t[dh]>", line, re.DOTALL)] for line in lines]
    assert shown == [[column.fill(row) for column in columns.chosen(table.headline)] for row in table.rows]
    for note in columns.notes(table):
        assert f"<li>{note}</li>" in board


def test_text_cannot_leave_its_place() -> None:
    hostile = '</script><script>alert("1")</script>\u202e\u2028&amp;\x00'
    cell = make_cell("net", dataset=DatasetRef(name="medmnist", options={"source": hostile}), runtime_version=hostile)
    text = rendered(made_from("net", cell=cell), results=hostile, left_out=[(hostile, hostile)], where={"model": [hostile]})
    assert "alert(" not in re.sub(r"alert\(&#34;1|alert\(\\\"1", "", text)
    assert len(re.findall("</script>", text)) == len(re.findall("<script", text))
    assert "\u202e" not in text
    data = held(text, "data")
    assert data["rows"][0]["dataset"].startswith('medmnist,source=</script><script>alert("1")</script>')
    assert data["command"]["where"] == {"model": [hostile.replace("\u202e", "")]}


def test_links_lead_from_the_page_to_the_records() -> None:
    assert 'href="../a%20b%3F/records/cpu/0.json"' in rendered(made_from("net"), base=Path("../a b?"))


def test_a_metric_that_is_no_number_is_not_known() -> None:
    record = made_from("net")
    assert record.accuracy
    blank = record.model_copy(update={"accuracy": record.accuracy.model_copy(update={"metrics": {}})})
    [row] = held(rendered(blank), "data")["rows"]
    assert "metric_value" not in row


# ---------------------------------------------------------------- the command


def test_the_report_holds_everything_and_says_what_it_wrote(cli: Cli, here: Path) -> None:
    pytest.importorskip("vl_convert")
    code, out, _ = cli("report", COMMITTED, "--where", "model=mobilenetv2*", "--where", "format=onnx")
    text = (here / "report.html").read_text()
    assert (code, out) == (0, f"report.html: 4 rows, 0 failed cells, {round(len(text.encode()) / 1e3)} kB\n")
    evidence = held(text, "evidence-0")
    assert [len(each["trials"]) for each in evidence] == [5, 5, 5, 5]
    assert all(each["evaluation"]["worst"] for each in evidence)
    assert {len(pictures) > 3 for pictures in held(text, "pictures").values()} == {True}
    assert held(text, "data")["command"] == {
        "results": str(COMMITTED),
        "by": "",
        "where": {"model": ["mobilenetv2*"], "format": ["onnx"]},
    }


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(cli: Cli, here: Path) -> None:
    pytest.importorskip("vl_convert")
    for name in ("fine", "broken"):
        saved = records_.save(Path("results"), make_record(cell=make_cell(name)), make_measurement())
    assert saved.samples
    (here / "results/records/cpu" / saved.samples.file).write_bytes(b"nothing")
    (here / "results/records/cpu/odd.json").write_text("{")
    code, out, err = cli("report", "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["out"]) == (1, 2, "report.html")
    assert [each["record"] for each in found["left_out"]] == ["records/cpu/odd.json"]
    assert "odd.json: not a readable record" in err
    text = (here / "report.html").read_text()
    reasons = {entry["trials"] is None: entry["reasons"] for entry in held(text, "evidence-0")}
    assert "changed" in reasons[True]["trials"]
    assert "not a readable record" in text


def test_figures_alone_write_no_page(cli: Cli, here: Path) -> None:
    pytest.importorskip("vl_convert")
    records_.save(Path("results"), make_record(), make_measurement())
    code, out, _ = cli("report", "--figures", "drawn")
    assert code == 0
    assert {Path(line).suffix for line in out.split()} == {".svg", ".png"}
    assert all((here / line).stat().st_size for line in out.split())
    assert not (here / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["--where", "colour=red"], "unknown filter 'colour'"),
        (["--by", "colour"], "unknown group 'colour'"),
        (["--port", "80"], "--port 80: goes with --serve"),
        (["--out", "records"], "records"),
    ],
)
def test_bad_input_is_one_clear_line(cli: Cli, here: Path, arguments: list[str], message: str) -> None:
    pytest.importorskip("vl_convert")
    (here / "results" / "records").mkdir(parents=True)
    (here / "records").mkdir()
    code, _, err = cli("report", *arguments)
    assert (code, message in err, err.count("\n")) == (2, True, 1)
