"""Language models on ONNX Runtime GenAI: a tiny one of random weights is built, brought, measured, and put into its table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import generation as tiny
import numpy as np
import pytest
import verbs
from conftest import Cli

from edgebench.analysis import generation
from edgebench.bundle import prompts
from edgebench.bundle.import_file import FileOptions
from edgebench.device.bounds import BadEvent
from edgebench.device.collect import Collected
from edgebench.errors import InputError
from edgebench.files import seal
from edgebench.report import words
from edgebench.schema import Answer, Energy, Interval, Power, PowerTrace, Prompts, Record, Trial, Window
from edgebench.store import verify
from edgebench.store.find import find

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
PRECISIONS = ("fp32", "int8", "int4")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def answers(network: Path) -> dict[str, list[int]]:
    return tiny.greedy(network, tiny.PROMPTS)


@pytest.fixture(scope="module")
def folders(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(network, tmp_path_factory.mktemp("genai"), *PRECISIONS)


@pytest.fixture(scope="module")
def asked(network: Path, answers: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ask four prompts, of which two have the right reference, as transformers writes it, and one a wrong one."""
    right = {prompt: tiny.text(network, answers[prompt]) for prompt in tiny.PROMPTS[:2]}
    return tiny.write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", {**right, tiny.PROMPTS[3]: "no such answer"})


@pytest.fixture(scope="module")
def results(folders: Path, asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    sources = [FileOptions(folders / each, name="tiny", prompts=asked, max_new_tokens=tiny.NEW_TOKENS) for each in PRECISIONS]
    for source in sources:
        done = verbs.run(bundle=[source], target=["cpu"], results=root / "results", work=root / "work")
        assert [cell.state for cell in done.cells] == ["done"], done.cells
    return root / "results"


def record_of(results: Path, precision: str) -> tuple[Path, Record]:
    [path] = (results / "records" / "cpu").glob(f"tiny.genai.{precision}.*.json")
    return find(results, str(path))


def said(path: Path) -> list[dict[str, Any]]:
    [samples] = path.parent.glob(f"{path.name.removesuffix('.json')}.*.samples.npz")
    with np.load(samples) as arrays:
        found: list[dict[str, Any]] = json.loads(str(arrays["trial0.answers"]))
        return found


def test_greedy_tokens_equal_those_of_transformers(results: Path, answers: dict[str, list[int]]) -> None:
    path, _ = record_of(results, "fp32")
    found = said(path)
    assert [each["tokens"] for each in found[: len(tiny.PROMPTS)]] == [answers[prompt] for prompt in tiny.PROMPTS]
    assert sum(map(len, answers.values())) >= 2 * len(tiny.PROMPTS)  # else equality would say little


def test_a_record_holds_what_its_raw_times_give(results: Path) -> None:
    path, record = record_of(results, "fp32")
    found, raw = record.generation, said(path)
    assert found is not None and found.first_token_ns is not None
    first, between = np.array([each["first_ns"] for each in raw]), np.concatenate([each["token_ns"] for each in raw])
    assert found.first_token_ns.median.value == np.median(first)
    assert found.decode_per_second.median.value == pytest.approx(1e9 / np.median(between))
    rates = np.array([each["prompt_tokens"] / each["first_ns"] for each in raw])
    assert found.prefill_per_second.median.value == pytest.approx(
        1e9 * np.median(rates), rel=0.05
    )  # a median of times turned over
    assert (found.prompts, found.max_new_tokens, found.sweeps) == (4, tiny.NEW_TOKENS, len(raw) // 4)
    assert found.exact_match == pytest.approx(2 / 3) and found.references == 3 and found.same_answers
    assert found.token_joules is None and "rapl" in found.unknown["token_joules"]
    assert record.accuracy is None and record.verdict is not None and record.memory.peak_bytes is not None
    assert record.model is not None and record.model.task == "generation"


def test_int8_and_int4_are_named_by_their_weights(results: Path) -> None:
    sizes = {}
    for precision in PRECISIONS:
        _, record = record_of(results, precision)
        sizes[precision] = record.size_bytes or 0
        assert record.cell.precision == precision and record.generation is not None
        assert ("int4-weights" in record.bundle_details["kinds"]) is (precision == "int4")
    assert sizes["int4"] < sizes["int8"] < sizes["fp32"]


def test_language_models_have_a_table_of_their_own(results: Path, cli: Cli, tmp_path: Path) -> None:
    code, printed, _ = cli("leaderboard", results, "--task", "generation")
    assert code == 0 and "first token ms" in printed and "66.7 of 3" in printed
    assert all(f"genai   {precision}" in printed for precision in PRECISIONS) and "metric %" not in printed
    code, printed, _ = cli("leaderboard", results, "--task", "generation", "--json")
    [table] = json.loads(printed)["tables"]
    rates = [row["decode_per_second"]["median"]["value"] for row in table["rows"]]
    assert len(rates) == 3 and rates == sorted(rates, reverse=True) and table["prompts"] == 4
    code, printed, _ = cli("leaderboard", results, "--task", "generation", "--out", tmp_path / "table.md")
    assert code == 0 and (tmp_path / "table.md").read_text().count("| genai |") == 3
    code, printed, _ = cli("leaderboard", results)
    assert code == 0 and "tiny" not in printed and "No records here" in printed
    assert json.loads(cli("leaderboard", results, "--json")[1]) == []
    assert cli("leaderboard", results, "--task", "generation", "--format", "csv")[0] == 2


def test_verify_finds_a_number_that_the_answers_do_not_give(results: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(results, tmp_path / "results")
    assert [each.wrong for each in verify.verify(copied, lambda *_, **__: None)] == [()] * 3
    path, _ = record_of(copied, "fp32")
    content = json.loads(path.read_text())
    content["generation"]["exact_match"] = 1.0
    path.write_text(json.dumps(seal({name: value for name, value in content.items() if name != "sha256"})))
    [wrong] = [each.wrong for each in verify.verify(copied, lambda *_, **__: None) if each.wrong]
    assert len(wrong) == 1 and wrong[0].startswith("generation.exact_match: 1.0 is written")


def test_a_prompt_that_does_not_fit_is_a_failed_cell_with_its_reason(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("The heart beats. " * 300)
    source = FileOptions(folders / "fp32", name="tiny", prompts=tmp_path / "long.txt", max_new_tokens=8)
    done = verbs.run(bundle=[source], target=["cpu"], results=tmp_path / "results", work=tmp_path / "work")
    [cell] = done.failed
    assert "are more than the model's 1024" in cell.reason


# ---------------------------------------------------------------- folders and prompts that are refused


def config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "genai_config.json").read_text())
        change(content)
        (folder / "genai_config.json").write_text(json.dumps(content))

    return spoil


def linked(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "elsewhere.json")


def nested(content: dict[str, Any]) -> None:
    content["model"]["decoder"]["session_options"]["provider_options"] = [{"cpu": {"custom_ops_library": "./evil.so"}}]


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a library": (
        config(lambda found: found["model"]["decoder"]["session_options"].update(custom_ops_library="ops.so")),
        "custom_ops_library names a library, which is code and is not loaded",
    ),
    "a library deep inside": (config(nested), "custom_ops_library names a library"),
    "a path": (
        config(lambda found: found["model"]["decoder"].update(filename="../model.onnx")),
        "'../model.onnx', not the name of a",
    ),
    "an absolute path": (
        config(lambda found: found["model"]["decoder"].update(filename="/etc/passwd")),
        "not the name of a file",
    ),
    "another kind of filename": (
        config(lambda found: found["model"].update(adapter_filename="/a/b")),
        "model.adapter_filename is",
    ),
    "no text": (config(lambda found: found["model"].update(vision={"filename": "v.onnx"})), "model.vision takes more than text"),
    "no decoder": (config(lambda found: found["model"].pop("decoder")), "names no model.decoder"),
    "no JSON": (lambda folder: (folder / "genai_config.json").write_text("{"), "genai_config.json is no JSON"),
    "no model": (lambda folder: (folder / "model.onnx").unlink(), "'model.onnx', which is not in the folder"),
    "no weights": (lambda folder: (folder / "model.onnx.data").unlink(), "which is not beside it"),
    "cut weights": (lambda folder: (folder / "model.onnx.data").write_bytes(b"\0" * 99), "which ends too early"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "a link": (linked, "tokenizer.json is a link"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wrong_or_hostile_folder_is_refused_in_one_line(
    name: str, folders: Path, asked: Path, tmp_path: Path, cli: Cli
) -> None:
    spoil, reason = HOSTILE[name]
    folder = shutil.copytree(folders / "fp32", tmp_path / "model")
    spoil(folder)
    code, _, errors = cli("import", folder, "--prompts", asked, "--out", tmp_path / "bundles")
    assert code == 2 and reason in errors and len(errors.strip().splitlines()) == 1, errors


def test_what_the_folder_holds_besides_is_not_taken(folders: Path, asked: Path, tmp_path: Path, cli: Cli) -> None:
    folder = shutil.copytree(folders / "fp32", tmp_path / "phi-3.5")
    for name in ("modeling.py", "weights.pkl", "ops.so"):
        (folder / name).write_bytes(b"\x80\x04.")
    code, printed, errors = cli("import", folder, "--prompts", asked, "--out", tmp_path / "bundles", "--json")
    assert code == 0, errors
    manifest = json.loads(printed)
    assert manifest["model"]["name"] == "phi-3.5" and manifest["prompts"]["count"] == 4
    taken = {Path(name).name for name in manifest["files"]}
    assert {"genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "prompts.jsonl"} <= taken
    assert not taken & {"modeling.py", "weights.pkl", "ops.so"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.jsonl", '{"prompt": 3}', "line 1: other keys or values"),
        ("p.jsonl", '{"prompt": "a", "system": "b"}', "line 1: other keys"),
        ("p.jsonl", '{"prompt": "a"}\n[', "line 2: "),
        ("p.jsonl", '{"prompt": "a\\u0000b"}', "no zero among them"),
        ("p.jsonl", '{"prompt": "\\ud800"}', "line 1: "),
        ("p.txt", "\n\n", "no prompts, 1 to 256 are taken"),
        ("p.txt", "a\n" * 300, "300 prompts"),
        ("p.txt", "a" * 70000, "a prompt has 1 to 65536 bytes"),
    ],
)
def test_prompts_that_are_none_are_refused(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason):
        prompts.read(tmp_path / name)


def test_prompts_are_asked_for_and_go_with_language_models_alone(folders: Path, asked: Path, tmp_path: Path, cli: Cli) -> None:
    assert "needs something to answer: --prompts FILE" in cli("import", folders / "fp32", "--out", tmp_path)[2]
    golden = Path(__file__).parent / "golden/tiny.onnx.fp32/model.onnx"
    assert "goes with a language model" in cli("import", golden, "--prompts", asked, "--out", tmp_path)[2]


# ---------------------------------------------------------------- numbers


def answer(prompt: int, first_ns: int, token_ns: Sequence[int], text: str | None = None) -> Answer:
    return Answer(prompt, 4, first_ns, token_ns, tuple(range(len(token_ns) + 1)), text)


def trial(index: int, answers: Sequence[Answer], seconds: float = 100.0) -> Trial:
    windows = [Window(index, 0, int(seconds * 1e9), len(answers))]
    return Trial(index, 1, 1, (1,), True, 1, (1,), (1,), (1,), True, windows=windows, answers=answers)


def test_the_energy_of_a_token_is_the_windows_energy_over_their_tokens() -> None:
    t_ns = [int(1e8 * each) for each in range(1001)]
    trace = PowerTrace("scripted", "board", "board", False, False, t_ns, [5.0 + (each % 2) for each in range(1001)])
    headline = Energy(joules=Interval(value=1), meter="scripted", rail="board", counter=False, provenance="board")
    windows = [Window(0, int(begin * 1e9), int((begin + 10) * 1e9), 2) for begin in range(0, 100, 10)]
    answers = [answer(number % 2, 10, [1] * (3 + 2 * (number % 2))) for number in range(20)]
    one = replace(trial(0, answers), windows=windows)
    found = generation.with_energy(
        generation.summarize([one], Prompts(count=2, max_new_tokens=8), ()), Power([trace]), headline, [one]
    )
    assert found.token_joules is not None
    assert found.token_joules.value == pytest.approx(5.5 * 10 / 10, rel=0.01)  # 5.5 W for 10 s, 4 and 6 tokens


def test_no_meter_is_a_reason_and_no_number() -> None:
    one = trial(0, [answer(0, 10, [1, 2, 3])])
    found = generation.summarize([one], Prompts(count=1, max_new_tokens=8))
    found = generation.with_energy(found, Power(), Energy(reason="no power meter"), [one])
    assert found.token_joules is None and found.unknown["token_joules"] == "no power meter"
    assert found.exact_match is None and found.unknown["exact_match"] == "no prompt has a reference"


def test_sweeps_with_other_tokens_are_told_and_trials_make_the_interval() -> None:
    asked = Prompts(count=1, max_new_tokens=8)
    trials = [trial(number, [answer(0, 10, [100 + number] * 9)] * 2) for number in range(3)]
    found = generation.summarize(trials, asked, ["yes"])
    assert found.token_ns.median.value == 101 and found.token_ns.median.low is not None and found.token_ns.median.low < 100
    assert found.same_answers and found.exact_match == 0
    other = replace(trials[2], answers=[replace(trials[2].answers[0], tokens=(7,) * 10)])
    assert generation.summarize([*trials[:2], other], asked).same_answers is False
    with pytest.raises(ValueError, match="nothing is known of decoding"):
        generation.summarize([trial(0, [answer(0, 10, [])])], asked)
    with pytest.raises(ValueError, match="no whole sweep of 4 prompts"):
        generation.summarize(trials[:1], Prompts(count=4, max_new_tokens=8))


# ---------------------------------------------------------------- what a device may say

PLACE = {"name": "trial", "trial": 0, "cell": 0}
SAID = {"prompt": 0, "prompt_tokens": 3, "first_ns": 5, "token_ns": [2, 2], "tokens": [1, 2, 3], "text": "abc"}


def begun() -> Collected:
    cell = {"scenario": {"kind": "single-stream"}, "prompts": {"count": 1, "max_new_tokens": 3}, "outputs": [], "samples": 1}
    each = {**PLACE, "batch": 1, "cells": (), "turns": None}
    collected = Collected({"cells": [cell], "passes": [each], "meters": []})
    collected._environment = {}
    for event in ({"event": "started"}, {"event": "loaded", "load_ns": 1, "first_ns": 1, "prepare_ns": [1], "scores_ns": [1]}):
        collected.take({**PLACE, **event})
    collected.take({**PLACE, "event": "warm", "warmup_ns": [1], "settled": True, "calls_per_sample": 1, "batch": 1})
    return collected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": 1}, "prompt 1, which is not due"),
        ({"tokens": [1, 2, 3, 4], "token_ns": [1, 1, 1]}, "an answer of 4 tokens"),
        ({"token_ns": [2]}, "1 times between 3 tokens"),
        ({"tokens": [-1, 2, 3]}, "tokens"),
        ({"first_ns": 0}, "first_ns"),
        ({"text": "a" * 200000}, "text"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(change: dict[str, Any], reason: str) -> None:
    collected = begun()
    collected.take({**PLACE, "event": "answers", "answers": [SAID]})
    with pytest.raises(BadEvent, match=reason):
        collected.take({**PLACE, "event": "answers", "answers": [{**SAID, **change}]})


def test_a_trial_must_have_the_answers_that_it_was_timed_for() -> None:
    collected = begun()
    collected.take({**PLACE, "event": "samples", "ns": [9], "begin_ns": 0, "end_ns": 9, "inferences": 1})
    with pytest.raises(BadEvent, match="0 answers where 1 were timed"):
        collected.take({**PLACE, "event": "finished", "threads": 1})


# ---------------------------------------------------------------- in words


def test_a_record_in_words_has_its_own_numbers_and_is_marked(cli: Cli) -> None:
    shipped = Path(__file__).parent.parent / "results"
    path = next(iter(sorted((shipped / "records").glob("*/*.int8.*.json"))))
    code, printed, errors = cli("results", "show", path, "--results", shipped, "--in-words")
    assert code == 0, errors
    record = json.loads(path.read_text())
    accuracy = record["accuracy"]["metrics"][record["accuracy"]["headline"]]
    assert f"{100 * accuracy:.1f} %" in printed and f"{record['latency']['median_ns']['value'] / 1e6:.3g}"[:4] in printed
    assert f"The verdict is {record['verdict']['word']}" in printed and "[generated from the record by a template]" in printed


def test_a_local_model_says_it_again_marked_and_its_strange_numbers_are_named(results: Path, folders: Path, cli: Cli) -> None:
    path, record = record_of(results, "fp32")
    code, printed, errors = cli("results", "show", path, "--in-words", "--model", folders / "fp32", "--json")
    assert code == 0, errors
    found = json.loads(printed)
    assert record.generation is not None and "66.7 % of 3 prompts" in " ".join(found["sentences"])
    assert found["model"]["text"] and found["model"]["by"].startswith("[generated by the language model fp32; not checked")
    code, printed, _ = cli("results", "show", path, "--in-words", "--model", folders / "fp32")
    assert code == 0 and printed.count("[generated ") == 2


def test_numbers_that_no_fact_holds_are_strange() -> None:
    facts = ["Its accuracy is 94.2 %.", "One inference takes 1.23 ms."]
    assert words.strange_numbers("It is right in 94.2 of 100 cases, in 1.23 ms; 1.2 is wrong", facts) == ["100", "1.2"]


def test_a_folder_that_is_none_says_nothing(results: Path, tmp_path: Path, cli: Cli) -> None:
    path, _ = record_of(results, "fp32")
    gguf = tiny.write_gguf(tmp_path / "tiny.gguf")
    code, _, errors = cli("results", "show", path, "--in-words", "--model", gguf)
    assert code == 2 and "is gguf, and genai is wanted here" in errors
    assert "goes with --in-words" in cli("results", "show", path, "--model", gguf)[2]
