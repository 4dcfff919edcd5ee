"""Text that strangers wrote, in records, bundles, files' names and devices' answers: none of it can steer a terminal."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import html.parser
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DOUBLES, Cli
from factory import make_cell, make_measurement, make_record
from markdown_it import MarkdownIt

import edgebench.cli
from edgebench import api
from edgebench.agent.runtimes import onnxfile
from edgebench.agent.tensorrt import log as tensorrt_log
from edgebench.agent.tensorrt import trtexec_report
from edgebench.cli import console
from edgebench.errors import EdgebenchError
from edgebench.exporters._edgetpu import log as edgetpu_log
from edgebench.report.writers import csv, latex, markdown
from edgebench.schema import Record
from edgebench.store import records as records_
from edgebench.store.key import cell_key

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\x85\u2028\u202e\u2066\u200b\u200d\u2060\ufeff\U000e0041\u00adé\r\n\x00x"
CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what no screen may get: controls, formats (turns, zero widths, tags), halves, separators."""


def steering(text: str) -> list[str]:
    """List what would steer a terminal; lines and tabs are ours."""
    return [hex(ord(each)) for each in text if each not in "\n\t" and unicodedata.category(each) in CONTROLS]


def strings(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List where strings stand in a JSON value."""
    if isinstance(value, str):
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from strings(inner, (*place, key))


def leaves(value: Any) -> Iterator[str]:
    """List the strings of a JSON value."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(inner)


def poisoned(content: dict[str, Any], accepts: Any = lambda _: True) -> dict[str, Any]:
    """Make each string of a JSON value hostile, where the value is accepted with it."""
    for place in list(strings(content)):
        trial = json.loads(json.dumps(content))
        inner = trial
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] += EVIL
        content = trial if accepts(trial) else content
    return content


def valid(content: dict[str, Any]) -> bool:
    try:
        Record.model_validate(content)
    except ValueError:
        return False
    return True


def hostile(**changes: Any) -> Record:
    """Make a record in which every string that may be is hostile."""
    plain = make_record(**changes).model_dump(mode="json", by_alias=True)
    plain |= {"tools": {"torch": "2"}, "environment": {**plain["environment"], "board": "b"}}
    record = Record.model_validate(poisoned(plain, valid))
    return record.model_copy(update={"key": cell_key(record.cell)})


@pytest.fixture
def results(here: Path) -> Path:
    for place, status in itertools.product(("results", "others"), ("done", "failed")):
        cell = make_cell("net" if place == "results" else "other", status)
        record = hostile(status=status, cell=cell, median_ns=1e6)
        texts = (str(record.cell.dataset), record.cell.runtime_version, str(record.environment["cpu"]))
        assert all(EVIL in text for text in (*texts, record.failure.reason if record.failure else EVIL))
        records_.save(Path(place), record, make_measurement() if status == "done" else None)
    (here / "results/records/cpu").mkdir(parents=True, exist_ok=True)
    (here / f"results/records/cpu/a{EVIL[:-2]}.json").write_text("{")
    return here / "results"


@pytest.mark.parametrize(
    "words",
    [
        *(("leaderboard", *more) for more in ((), ("--json",), ("--by", "model,format"), ("--columns", "model,energy"))),
        *(("leaderboard", "--format", name) for name in ("markdown", "csv", "latex", "json")),
        *(("results", "list"), ("results", "list", "--json"), ("results", "clean"), ("results", "clean", "--json")),
        *(("results", "merge", "others"), ("results", "merge", "others", "--json")),
        *(("recommend", "--max-p50", "1us"), ("recommend", "--max-p50", "1s", "--json"), ("verify",)),
        *(("compare", "results", "others"), ("compare", "results", "results"), ("compare", "results", "results", "--markdown")),
        *(("results", "show", "{}"), ("results", "show", "{}", "--json"), ("results", "show", f"no{EVIL[:-2]}")),
        *(("run", f"no{EVIL[:-2]}"), ("train", f"no{EVIL[:-2]}"), ("frobnicate" + EVIL[:-2],), ("verify", f"--x{EVIL[:-2]}")),
        *(
            ("run", "golden", "--target", f"no{EVIL[:-2]}.yaml"),
            ("leaderboard", f"no{EVIL[:-2]}"),
            ("targets", "show", EVIL[:-2]),
        ),
    ],
    ids=lambda words: re.sub(r"[^!-~]+", " ", " ".join(words)),
)
def test_what_strangers_wrote_steers_no_terminal(results: Path, cli: Cli, words: tuple[str, ...]) -> None:
    [path] = [path for path in results.rglob("*.json") if "failed" in path.name]
    code, out, err = cli(*(word.replace("{}", str(path)) for word in words))
    assert code in (0, 1, 2)
    assert (out + err).strip()
    assert steering(out + err) == []
    if words[-1] == "--json" and ("show" in words or words[0] in ("leaderboard", "recommend")):
        assert any(EVIL in leaf for leaf in leaves(json.loads(out)))  # escapes read the same


def test_a_device_s_answers_steer_no_terminal(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, rows = api.probe("cpu"), api.tune()
    told = poisoned(json.loads(json.dumps(seen.found)))
    assert EVIL in told["environment"]["cpu"] or EVIL in told["identity"]["machine"]
    monkeypatch.setattr(api, "probe", lambda *_, **__: dataclasses.replace(seen, found=told))
    monkeypatch.setattr(api, "tune", lambda *_, **__: [poisoned(row) for row in json.loads(json.dumps(rows))])
    for words in (("targets", "probe", "--target", "cpu"), ("tune", "show")):
        for json_ in ((), ("--json",)):
            _, out, err = cli(*words, *json_)
            assert out
            assert steering(out + err) == []


def test_what_a_runtime_says_while_it_fails_steers_no_terminal(here: Path, cli: Cli) -> None:
    source = (DOUBLES / "rt_sleep.py").read_text().replace("class Runtime:", f"class Runtime:\n    version = {EVIL!r}\n")
    begin, failing = "    def load(self, path, threads):", f"    def load(self, *_):\n        raise ValueError({EVIL!r})\n\n"
    Path("rt_evil.py").write_text(source.replace(begin, f"{failing}    def loaded(self, path, threads):"))
    target = "name: evil\ndescription: d\ntransport: local\nagent_plugins: [rt_evil.py]\naccepts:\n"
    Path("evil.yaml").write_text(target + "  - {format: onnx, precisions: [fp32], runtime: evil}\n")
    golden = Path(__file__).parent.parent / "golden" / "tiny.onnx.fp32"
    code, out, err = cli("run", golden, "--target", "evil.yaml")
    assert (code, "owned" in out) == (1, True)
    assert steering(out + err) == []
    assert steering(cli("leaderboard")[1]) == []
    assert steering("".join(cli("diagnose", golden, "--target", "evil.yaml")[1:])) == []


def test_progress_and_warnings_and_tracebacks_steer_no_terminal(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with console.progress() as report:
        report(f"train {EVIL} (about 3 s left)", 1, 2)
        report(EVIL, 0, 0)
    edgebench.cli._show(UserWarning(EVIL), UserWarning, "file", 1)
    edgebench.cli._show_traceback(ValueError, ValueError(EVIL), None)
    shown = capfd.readouterr().err
    assert shown.count("owned") == 4
    assert steering(shown) == []
    assert warnings.showwarning is not edgebench.cli._show  # `main` alone puts it there


TERMINAL = """
import sys
from edgebench.cli import console
evil = sys.stdin.read()
with console.progress() as report:
    for what in (evil, "[/no markup] [red]" + evil, evil):
        report(what, 1, 2)
    report(evil, 0, 0)
console.print_table(evil, [{evil: evil, "[/x]": "[red]" + evil}])
"""


def test_bars_and_tables_on_a_terminal_hold_text_as_text(here: Path) -> None:
    screen, end = os.openpty()
    command = [sys.executable, "-c", TERMINAL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=end, stderr=end, text=True, encoding="utf-8") as process:
        os.close(end)
        assert process.stdin
        process.stdin.write(EVIL)
        process.stdin.close()
        shown = b""
        try:
            while part := os.read(screen, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(screen)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "[red]" in text
    assert "owned" in text
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)  # what rich writes itself, to colour and to move
    assert "\x1b[2J" not in text
    assert steering(bare.replace("\r", "")) == []


def test_no_command_prints_past_the_console() -> None:
    folder = Path(edgebench.cli.__file__).parent
    for path in folder.rglob("*.py"):
        if path.name == "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"), path


def test_plain_text_keeps_its_spaces_and_its_scripts() -> None:
    assert console.plain("  a  b µs") == "  a  b µs"
    assert console.plain("a\r\n   b\tc\x00") == "a b c"
    assert console.plain("שלום 🩻 日本 \udc80") == "שלום 🩻 日本 \\udc80"
    assert console.plain("a\U000e0041\u200bb\ufe0f") == "ab"


# ---------------------------------------------------------------- what is written


class Texts(html.parser.HTMLParser):
    """The texts of a page, as GitHub looks for links in them: what comments and tags part stays apart."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


LINKS = re.compile(
    r"(?:https?|ftp)://|www\.\S|[\w.+-]+@[\w-]+\.\w|(?<![\w`])@\w|(?<!\w)(?:[\w.-]+/[\w.-]+)?#\d|\bgh-\d|\$[^$]+\$",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "text",
    [
        *("http://evil.example/x", "see https://evil.example", "www.evil.example", "WWW.evil.example", "ftp://evil.example"),
        *("@octocat", "mail me@evil.example now", "fixes #12", "GH-12", "owner/repo#12", "&#35;12", "gh-7", "x(@team/all)"),
        *("$x^2$", "$`x`$", "$$x$$", "costs 5 $ or 6 $", "a\u200bb", "a\U000e0041b", "mailto:me@evil.example"),
        *("# head", "- item", "+ item", "1. item", "7) item", "---", "#\u200b12", "@\u200boctocat", "ht\u200btp://evil.example"),
    ],
)
def test_markdown_makes_no_link_no_name_and_no_formula_of_text(text: str) -> None:
    written = markdown.escape(text)
    page = MarkdownIt("gfm-like", {"linkify": False}).render(f"- {written}\n\n| a |\n|-|\n| {written} |\n\n{written}\n")
    texts = Texts()
    texts.feed(page)
    whole = "".join(texts.found)
    shown = re.sub(r"[\u200b\U000e0041]", "", text)
    assert whole.count(shown) == 3, page
    assert not [each for each in texts.found if LINKS.search(each.strip())]
    assert page.count("<li>") == 1
    assert not re.search(r"<a |<h\d|<hr", page)


def test_a_heading_of_a_record_is_text_in_every_table(results: Path, cli: Cli) -> None:
    record = make_record(cell=make_cell("net", "torch"))
    assert record.accuracy
    odd = record.accuracy.model_copy(update={"headline": "a|b](x)\\", "metrics": {"a|b](x)\\": 0.5}})
    records_.save(Path("own"), record.model_copy(update={"accuracy": odd}), make_measurement())
    page = MarkdownIt("gfm-like", {"linkify": False}).render(cli("leaderboard", "own", "--format", "markdown")[1])
    assert '<th style="text-align:right">a|b](x)\\ %</th>' in page
    assert page.count("<tr>") == 2


def test_no_cell_is_an_option_of_latex_and_no_wide_sign_a_formula() -> None:
    assert latex._line(["[9cm] x", "y"]) == r"{}[9cm] x & y \\"
    assert latex._line(["*", "y"]) == r"{}* & y \\"
    assert csv._cell("\u200b＝1+1") == "'＝1+1"
    assert csv._cell("a\U000e0041\x1b[2Jb") == "a [2Jb"


# ---------------------------------------------------------------- what is read


KILOBYTES = 250
"""What takes a quarter of a second where it is linear takes a quarter of an hour where it is not."""


def repeated(text: str) -> str:
    return text * (KILOBYTES * 1000 // len(text))


@pytest.mark.parametrize(
    "text",
    [
        repeated("["),
        repeated("[\n"),
        repeated("[a] "),
        repeated("TensorRT-managed allocation in "),
        repeated("TensorRT-managed allocation in now: CPU 1, GPU "),
        repeated('name: "\n'),
        repeated("Opset version:  "),
        repeated("x\n"),
        "Opset version: " + repeated("9"),
        "Latency: min = " + repeated("1"),
        "Operator Count Status\nA 1 x" + repeated(" ") + "y",
        "Operator" + repeated(" "),
        "Operator Count Status\n" + repeated("A 1 x\n"),
        "Operator Count Status\nA " + repeated("1") + " x",
        repeated("On-chip memory used for caching model parameters: "),
        "On-chip memory used for caching model parameters: " + repeated(".") + "MiB",
        "Number of Edge TPU subgraphs: " + repeated("1"),
        repeated("ERROR: "),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_logs_of_any_form_are_read_in_linear_time(text: str) -> None:
    begin = time.process_time()
    edgetpu_log.parse(text, text)
    tensorrt_log.reason(tensorrt_log.entries(text), text, (8, 6, 1), "built")
    tensorrt_log.allocated_bytes(text)
    for read in (trtexec_report.summary, lambda text: trtexec_report.load_ns(text, 1, 1.0)):
        with contextlib.suppress(ValueError):
            read(text)
    assert time.process_time() - begin < 5


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["", "{", DEEP, "[1]", '{"Layers": 3}', "null", '[{"name": "x", "values": [1e999, "a"]}]'])
@pytest.mark.parametrize("more", ["", "[3]", "Infinity", "1e999", '"x"', "{}"])
def test_a_report_of_another_form_is_one_kind_of_error(text: str, more: str) -> None:
    row = '{"startComputeMs": 1, "latencyMs": %s, "h2dMs": 1, "computeMs": 1, "d2hMs": 1}' % (more or "null")
    profile = '[{"name": "x", "averageMs": %s}]' % (more or "null")
    for content in (text, f"[{row}]", profile, text + more):
        for read in (trtexec_report.times, trtexec_report.profile, lambda text: trtexec_report.outputs(text, "x")):
            with contextlib.suppress(ValueError):
                read(content)
    layers = ('{"Layers": [%s]}' % (more or "null"), '{"Layers": [{"Outputs": %s}]}' % (more or "null"))
    assert all(isinstance(tensorrt_log.layers(content), list) for content in (text, *layers))


def test_a_broken_onnx_file_is_one_kind_of_error_and_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    begin = time.process_time()
    for content in (b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x09", b"\x80" * 1000, b"\x3a\x04\x0a\x02\x0a\xff"):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            onnxfile.nodes(str(path))
    path.write_bytes(b"\x08\x01" * 500_000)
    assert onnxfile.nodes(str(path)) == []
    assert time.process_time() - begin < 10


def test_a_compiler_s_odd_figures_are_not_known() -> None:
    said = edgetpu_log.parse(
        "On-chip memory used for caching model parameters: 1.2.3MiB\nTotal number of operations: " + "9" * 5000
    )
    assert (said.cached_bytes, said.operations) == (None, None)


def test_an_error_is_one_line_on_a_stream_that_knows_no_unicode(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "edgebench", "leaderboard", "nö"], capture_output=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr.count(b"\n"), b"n\\xf6" in done.stderr) == (2, 1, True)
    assert issubclass(EdgebenchError, Exception)
    assert isinstance(sys.stdout, io.TextIOBase)
