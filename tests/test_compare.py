"""Comparisons by running and from records, a target's noise, and ranks that ties share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import verbs
from conftest import Cli
from factory import make_cell, make_latency, make_measurement, make_record, make_tables
from test_measure import Bundles

from edgebench.errors import InputError, RecordError
from edgebench.run.interleave import interleaved
from edgebench.schema import ModeSpec, Noise, Record, Scenario
from edgebench.schema import cell as cell_
from edgebench.store.noise import noise_floor, save_noise
from edgebench.store.records import save

BRIEF = ModeSpec(trials=3, min_samples=20, min_seconds=0.1, cap_seconds=0.3, window_seconds=0.05)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the mode quick be briefer still."""
    monkeypatch.setitem(cell_.MODES, "quick", BRIEF)


def record(median_ns: float, spread: float = 0.002, **cell: Any) -> Record:
    medians = tuple(median_ns * (1 + spread * step) for step in (-2, -1, 0, 1, 2))
    return make_record(cell=make_cell(**cell), latency=make_latency(median_ns, trial_medians_ns=medians))


def saved(results: Path, *records: Record) -> list[Path]:
    before = set(results.rglob("*.json"))
    for each in records:
        save(results, each, make_measurement())
    return sorted(set(results.rglob("*.json")) - before)


def noise(floor: float, **changes: Any) -> Noise:
    cell = make_cell()
    values = {
        "target": cell.target,
        "device": cell.device,
        "mode": cell.mode,
        "bundle": "net.onnx.fp32",
        "bundle_sha256": "b" * 64,
        "scenario": Scenario(),
        "started_at": "2026-01-02T03:04:05Z",
        "ratios": (1.0, 1.0 + floor),
        "floor": floor,
    }
    return Noise(**{**values, **changes})


# ---------------------------------------------------------------- by running


def test_trials_are_interleaved_a_b_b_a() -> None:
    assert [each.cell for each in interleaved(2, 4)] == [0, 1, 1, 0, 0, 1, 1, 0]
    assert [each.trial for each in interleaved(2, 2)] == [0, 0, 1, 1]


def test_a_bundle_is_faster_than_a_slower_one(
    here: Path, brief: None, tiny_bundles: Bundles, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEBENCH_FAULT", "quantized is slower")
    monkeypatch.setenv("EDGEBENCH_SLEEP", "0.003")
    fast, slow = tiny_bundles["onnx", "fp32"], tiny_bundles["onnx", "int8"]
    arguments = ("--mode", "quick", "--threads", "1", "--pairs", "6", "--target", "sleeper.yaml")
    code, out, err = cli("compare", fast, slow, *arguments, "--json", "--fail-if-slower", "5%")
    found = json.loads(out)
    assert code == 1
    assert "slower by more than 5%, beyond noise" in err
    [pair] = found["pairs"]
    assert (pair["latency"]["word"], pair["latency"]["paired"]) == ("slower", True)
    assert pair["latency"]["ratio"]["low"] > 1
    assert pair["accuracy"]["samples"] == 360
    assert found["failed"] == 1
    code, out, _ = cli("compare", slow, fast, *arguments, "--markdown", "--fail-if-slower", "5%")
    assert code == 0
    assert "| tiny.onnx.int8 |" in out
    assert "| faster |" in out
    assert "the target's noise: not measured" in out


def test_each_further_bundle_is_compared_with_the_first_in_one_run(here: Path, brief: None, tiny_bundles: Bundles) -> None:
    given = [tiny_bundles["onnx", "fp32"], tiny_bundles["onnx", "int8"], tiny_bundles["torch", "fp32"]]
    suite = verbs.compare(*given, mode="quick", pairs=2, target="sleeper.yaml", scenario={"threads": 1})
    names = [(pair.first.name, pair.second.name) for pair in suite.pairs]
    assert names == [("tiny.onnx.fp32", "tiny.onnx.int8"), ("tiny.onnx.fp32", "tiny.torch.fp32")]
    assert [pair.latency.pairs for pair in suite.pairs] == [2, 2]
    assert [pair.accuracy is not None and pair.accuracy.samples for pair in suite.pairs] == [360, 360]


def test_noise_is_measured_and_used_from_then_on(here: Path, brief: None, tiny_bundles: Bundles, cli: Cli) -> None:
    folder = tiny_bundles["onnx", "fp32"]
    meter = "command:" + str(here / "nothing")
    arguments = ("--mode", "quick", "--threads", "1", "--target", "sleeper.yaml", "--json")
    code, out, _ = cli("noise", folder, "--comparisons", "2", "--meter", meter, *arguments)
    assert code == 0
    found = json.loads(out)
    assert len(found["ratios"]) == 2
    assert found["floor"] == max(abs(ratio - 1) for ratio in found["ratios"])
    assert found["apart_floor"] == abs(found["apart"][0] - 1)
    assert found["meter_cost"] is None
    _, out, _ = cli("compare", folder, folder, *arguments)
    assert json.loads(out)["pairs"][0]["latency"]["floor"] == found["floor"]


def test_interrupted_noise_keeps_the_comparisons_that_are_done(here: Path, brief: None, tiny_bundles: Bundles) -> None:
    def interrupt(what: str, done: float, total: float, lane: str = "") -> None:
        if "comparison 3 of 9" in what:
            raise KeyboardInterrupt

    shutil.copytree(tiny_bundles["onnx", "fp32"], "bundles/tiny.onnx.fp32")
    path, found = verbs.noise(target="sleeper.yaml", mode="quick", comparisons=9, progress=interrupt)
    assert len(found.ratios) == 2
    assert (found.bundle, path.exists()) == ("tiny.onnx.fp32", True)
    with pytest.raises(KeyboardInterrupt):
        verbs.noise(target="sleeper.yaml", mode="quick", comparisons=9, progress=lambda *_: interrupt("comparison 3 of 9", 0, 0))


def test_noise_wants_a_bundle(here: Path, cli: Cli) -> None:
    code, _, err = cli("noise", "--target", "sleeper.yaml")
    assert (code, "no bundle for sleeper in bundles/" in err) == (2, True)


def test_a_meter_that_is_asked_for_is_not_answered_from_the_cache(
    here: Path, brief: None, tiny_bundles: Bundles, cli: Cli
) -> None:
    arguments = ("run", tiny_bundles["onnx", "fp32"], "--target", "sleeper.yaml", "--half-width", "50%")
    assert "done" in cli(*arguments)[1]
    assert "cached" in cli(*arguments)[1]
    (here / "watts.sh").write_text("#!/bin/sh\nwhile echo 5; do sleep 0.1; done\n")
    (here / "watts.sh").chmod(0o755)
    metered = (*arguments, "--meter", f"command:{here / 'watts.sh'}")
    assert "done" in cli(*metered)[1]
    assert "cached" in cli(*metered)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "elsewhere"), "nowhere: no such file or folder"),
        (("BUNDLE", "nowhere"), "nowhere: no bundle; compare two bundles"),
        (("BUNDLE", "BUNDLE", "--fail-if-slower", "five"), "--fail-if-slower five: not a share"),
        (("BUNDLE", "BUNDLE", "--affinity", "1-x"), "'1-x' is not a core"),
        (("BUNDLE", "BUNDLE", "--scenario", "offline"), "compare records of the scenario offline"),
        (("BUNDLE", "BUNDLE", "--scenario", "paced"), "either rate"),
        (("BUNDLE", "BUNDLE", "--half-width", "200%"), "--half-width 200%: not a share"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    here: Path, tiny_bundles: Bundles, cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    given = [str(tiny_bundles["onnx", "fp32"]) if part == "BUNDLE" else part for part in arguments]
    code, _, err = cli("compare", *given)
    assert (code, message in err, err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--meter", "rapll"), "did you mean 'rapl'?"),
        (("--meter", "command"), "name the program"),
        (("--meter", "csv:"), "name the file"),
        (("--meter", "hwmon:x"), "key=value"),
        (("--batches", "1,b"), "--batches 1,b: not whole numbers"),
        (("--rate", "5"), "rate goes with the scenario paced"),
    ],
)
def test_wrong_options_of_a_run_are_one_line(here: Path, tiny_bundles: Bundles, cli: Cli, option: Any, message: str) -> None:
    code, _, err = cli("run", tiny_bundles["onnx", "fp32"], *option)
    assert (code, message in err, err.count("\n")) == (2, True, 1)


# ---------------------------------------------------------------- from records


def test_two_records_are_a_pair_whatever_they_are_of(tmp_path: Path) -> None:
    [one] = saved(tmp_path / "a", record(1e6))
    [other] = saved(tmp_path / "b", record(1.2e6, model="other"))
    suite = verbs.compare(one, other)
    assert suite.pairs[0].latency.word == "slower"
    assert not suite.pairs[0].latency.paired
    assert suite.pairs[0].latency.ratio.value == pytest.approx(1.2)
    assert (len(suite.slower(0.1)), len(suite.slower(0.3))) == (1, 0)


def test_folders_are_matched_cell_by_cell_and_summarised(tmp_path: Path, cli: Cli) -> None:
    saved(tmp_path / "a", record(1e6, model="x"), record(1e6, model="y"), record(1e6, model="gone"))
    saved(tmp_path / "b", record(2e6, model="x"), record(0.5e6, model="y"))
    suite = verbs.compare(tmp_path / "a", tmp_path / "b")
    assert [pair.latency.word for pair in suite.pairs] == ["slower", "faster"]
    assert suite.geometric_mean == pytest.approx(1)
    assert [name.split()[0] for name in suite.alone] == ["gone"]
    code, out, _ = cli("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "Geometric mean of 2 ratios: 1.000" in out
    assert "only on one side: gone" in out


def test_records_are_compared_two_at_a_time(tmp_path: Path) -> None:
    one, two, three = saved(tmp_path, record(1000), record(1100, model="b"), record(900, model="c"))
    with pytest.raises(InputError, match="two at a time"):
        verbs.compare(one, two, three)


def test_folders_without_a_common_cell_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", record(1e6, model="x"), record(1e6, model="y"))
    saved(tmp_path / "b", record(1e6, model="z"))
    with pytest.raises(InputError, match="no cell in common"):
        verbs.compare(tmp_path / "a", tmp_path / "b")
    saved(tmp_path / "c", make_record(status="failed"))
    with pytest.raises(InputError, match="no finished record"):
        verbs.compare(tmp_path / "a", tmp_path / "c")


def test_a_shift_within_the_target_s_noise_is_none(tmp_path: Path) -> None:
    [one] = saved(tmp_path, record(1e6, model="x"))
    [other] = saved(tmp_path, record(1.05e6, model="y"))
    assert verbs.compare(one, other).pairs[0].latency.word == "slower"
    save_noise(tmp_path, noise(0.06))
    assert verbs.compare(one, other).pairs[0].latency.word == "same"
    save_noise(tmp_path, noise(0.01, apart=(1.06,), apart_floor=0.06))  # in turn they would differ; these are apart
    assert verbs.compare(one, other).pairs[0].latency.word == "same"
    save_noise(tmp_path, noise(0.04, apart=(1.01,), apart_floor=0.01))
    assert verbs.compare(one, other).pairs[0].latency.word == "slower"


def test_records_that_cannot_be_told_apart_are_inconclusive_and_fail_only_where_that_is_asked(tmp_path: Path, cli: Cli) -> None:
    [one] = saved(tmp_path / "a", record(1e6, spread=0.03))
    [other] = saved(tmp_path / "b", record(1.02e6, spread=0.03, model="other"))
    code, out, _ = cli("compare", one, other, "--fail-if-slower", "5%")
    assert (code, "inconclusive" in out) == (0, True)
    assert "records of their own time cannot decide it; let `edgebench compare` run the two bundles in turn" in out
    code, out, err = cli("compare", one, other, "--fail-if-slower", "5%", "--inconclusive", "fail", "--json")
    assert (code, "1 of 1 may be slower by more than 5%: inconclusive" in err) == (1, True)
    assert (json.loads(out)["failed"], json.loads(out)["undecided"]) == (1, 1)
    code, _, _ = cli("compare", one, other, "--fail-if-slower", "50%", "--inconclusive", "fail")
    assert code == 0  # whatever it is, it is not that much


def test_a_changed_noise_is_found(tmp_path: Path) -> None:
    path = save_noise(tmp_path, noise(0.06))
    assert noise_floor(tmp_path, make_cell()) == 0.06
    assert noise_floor(tmp_path, make_cell(mode="standard")) is None
    path.write_text(path.read_text().replace("0.06", "0.01"))
    with pytest.raises(RecordError, match="its hash differs"):
        noise_floor(tmp_path, make_cell())


# ---------------------------------------------------------------- ranks


def ranks(*records: Record, floor: float | None = None) -> list[tuple[str, int | None]]:
    placed = [(Path(f"records/cpu/{index}.json"), each) for index, each in enumerate(records)]
    [table] = make_tables(placed, by=("target",), floor=lambda _: floor)
    return [(row.entry.model, row.rank) for row in table.rows]


def test_rows_that_do_not_differ_share_a_rank() -> None:
    rows = [record(1e6, model="a"), record(1.01e6, model="b"), record(1.05e6, model="c"), record(2e6, model="d")]
    assert ranks(*rows) == [("a", 1), ("b", 1), ("c", 3), ("d", 4)]
    assert ranks(*rows, floor=0.1) == [("a", 1), ("b", 1), ("c", 1), ("d", 4)]


def test_a_row_of_wide_spread_ties_with_what_it_overlaps() -> None:
    assert ranks(record(1e6, model="a"), record(1.05e6, spread=0.04, model="b")) == [("a", 1), ("b", 1)]
