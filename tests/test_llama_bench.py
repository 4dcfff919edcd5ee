"""llama.cpp's llama-bench: GGUF files are read and not run, and a program that plays two builds is driven by the agent."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import generation as tiny
import pytest
import verbs
from conftest import DOUBLES, Cli

from edgebench.agent import llama_bench
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.kinds import read_file
from edgebench.errors import InputError
from edgebench.run.outcome import RunResult
from edgebench.store import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROGRAM = str(DOUBLES / "llama-bench")
REAL = Path(__file__).parent.parent / "build" / "llama" / "llama-bench"
TEST = {"n_prompt": 8, "n_gen": 0, "samples_ns": [5, 6]}


def measured(path: Path, tmp_path: Path, program: Path | str = PROGRAM) -> RunResult:
    source = FileOptions(path, prompt_tokens=32, max_new_tokens=16)
    given = {"results": tmp_path / "results", "work": tmp_path / "work", "options": {"llama_bench": str(program)}}
    return verbs.run(bundle=[source], target=["cpu"], scenario={"threads": 1}, **given)


@pytest.mark.parametrize(("kind", "precision"), [("Q8_0", "int8"), ("Q4_0", "int4"), ("F16", "fp16")])
def test_a_file_says_what_llama_cpps_own_package_wrote(kind: str, precision: str, tmp_path: Path) -> None:
    found = read_file(tiny.write_gguf(tmp_path / "tiny.gguf", kind))
    assert (found.format, found.precision, found.parameters) == ("gguf", precision, tiny.PARAMETERS)
    assert found.details["language_model"] == "llama" and found.details["context_length"] == 128
    assert found.details["quantization"] == kind


def test_files_that_are_cut_broken_or_no_language_models_are_refused(tmp_path: Path) -> None:
    whole = tiny.write_gguf(tmp_path / "tiny.gguf").read_bytes()
    for name, content, reason in (
        ("cut", whole[:300], "cut short or broken"),
        ("bare", whole[:20], "cut short or broken"),
        ("version", whole[:4] + b"\1" + whole[5:], "GGUF version 1"),
        ("keys", whole[:16] + b"\xff" * 8 + whole[24:], "more than any model's"),
        ("other", whole.replace(b"llama.context_length", b"llama.contexx_length"), "is no language model's"),
    ):
        (tmp_path / f"{name}.gguf").write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_file(tmp_path / f"{name}.gguf")
    with pytest.raises(InputError, match="is one part of several"):
        read_file(tiny.write_gguf(tmp_path / "part.gguf", split__count=2))


@pytest.mark.parametrize("build", ["1500", "6500"])
def test_each_build_gives_a_record_that_holds(build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setenv("EDGEBENCH_DOUBLE_LLAMA", build)
    [record] = measured(tiny.write_gguf(tmp_path / "tiny.gguf"), tmp_path).records
    found = record.generation
    assert record.status == "done" and found is not None, record.failure
    assert 1e9 / found.decode_per_second.median.value == pytest.approx(200e3, rel=0.5)  # the double's sleep for a token
    assert found.decode_per_second.median.value < 5001 and found.prefill_per_second.median.value < 50001
    assert found.first_token_ns is None and "no first token's" in found.unknown["first_token_ns"]
    assert found.exact_match is None and found.token_ns.p99 is None and found.prompts_sha256 is None
    assert record.program is not None and record.program["build"].startswith(build) and record.program["computed_on"] == "CPU"
    assert record.memory.peak_bytes is not None and record.memory.method == "VmHWM of llama-bench"
    assert [each.wrong for each in verify.verify(tmp_path / "results", lambda *_, **__: None)] == [()]
    printed = cli("leaderboard", tmp_path / "results", "--task", "generation", "--json")[1]
    [table] = json.loads(printed)["tables"]
    assert table["prompt_tokens"] == 32 and table["rows"][0]["first_token_ns"] is None


@pytest.fixture
def real() -> Path:
    if not (REAL.parent / ".done").exists():
        pytest.skip(f"no llama-bench in {REAL.parent}; make llama")
    return REAL


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_record_has_what_the_real_program_printed(kind: str, real: Path, tmp_path: Path) -> None:
    printed, heard = tmp_path / "printed", tmp_path / "llama-bench"
    heard.write_text(f"#!/bin/bash\nset -o pipefail\n'{real}' \"$@\" | tee -a '{printed}'\n")
    heard.chmod(0o755)
    [record] = measured(tiny.write_gguf(tmp_path / "tiny.gguf", kind), tmp_path, heard).records
    found, said = record.generation, record.program
    assert record.status == "done" and found is not None and said is not None, record.failure
    tests = [json.loads(line) for line in printed.read_text().splitlines() if line.startswith("{")]
    assert all((run["model_n_params"], run["n_threads"]) == (tiny.PARAMETERS, 1) for run in said["runs"])
    assert said["computed_on"] == "CPU" and kind in said["model"]
    for rate, count in ((found.prefill_per_second, "n_prompt"), (found.decode_per_second, "n_gen")):
        trials = [median(test["samples_ts"]) for test in tests if test[count] and len(test["samples_ts"]) > 1]
        assert rate.median.value == pytest.approx(median(trials), rel=0.01)  # whole nanoseconds a token
    assert [each.wrong for each in verify.verify(tmp_path / "results", lambda *_, **__: None)] == [()]


def test_the_real_program_says_what_is_wrong_with_a_model(real: Path, tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.0.ffn_down", b"blk.0.ffn_dawn"))
    [cell] = measured(path, tmp_path, real).failed
    assert "error: failed to load model" in cell.reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("load", "error: failed to load model"),
        ("memory", "failed to create context"),
        ("killed", "was killed by SIGKILL"),
        ("text", "printed no results"),
        ("short", "printed other than the"),
        ("depth", "no result of 32 prompt and 0 generated tokens"),
    ],
)
def test_what_goes_wrong_is_a_failed_cell(fault: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBENCH_DOUBLE_FAULT", fault)
    [cell] = measured(tiny.write_gguf(tmp_path / "tiny.gguf"), tmp_path).failed
    assert reason in cell.reason


def test_without_the_program_it_is_said_how_to_get_it(tmp_path: Path, cli: Cli) -> None:
    path = tiny.write_gguf(tmp_path / "tiny.gguf")
    code, printed, errors = cli(
        "run", path, "--results", tmp_path / "results", "--work", tmp_path / "work", "--option", "llama_bench=/no/such"
    )
    assert code != 0 and "is no program on this device" in printed + errors
    (tmp_path / "p.txt").write_text("a\n")
    assert "makes random tokens itself" in cli("import", path, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")[2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "printed no results"),
        ("{", "no JSON"),
        ('{"n_prompt": 8}', "without n_gen"),
        ('{"n_prompt": 8, "n_gen": 0, "samples_ns": [0]}', "without the times"),
        ('{"n_prompt": 8, "n_gen": 0, "samples_ns": [true]}', "without the times"),
        ("[\n3\n]", "no object"),
    ],
)
def test_results_that_are_none_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        llama_bench.tests(text)


def test_both_forms_of_results_are_read_among_what_else_is_printed() -> None:
    line = json.dumps(TEST)
    found = [llama_bench.tests(text) for text in (f"warning: x\n{line}\n", f"warning: x\n[\n{line}\n]\nbye\n")]
    assert found == [[TEST], [TEST]]
    with pytest.raises(ValueError, match="no result of 8 prompt and 1 generated"):
        llama_bench.of([TEST], 8, 1)
