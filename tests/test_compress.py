"""`compress` and `sweep` on a device whose speed is known: what is tried, found, interrupted and continued."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kills
import pytest
import verbs
import yaml
from conftest import DOUBLES, Cli
from few import few_digits

import edgebench
from edgebench import models
from edgebench.bundle.manifest import read_bundle
from edgebench.cli.compress import recipes
from edgebench.cli.sweep import values
from edgebench.device import deploy
from edgebench.errors import ExportError, InputError, MissingExtra, TransportError
from edgebench.models.source import SourceOptions
from edgebench.run.options import CompressOptions, MeasureOptions, RunOptions
from edgebench.run.record import failed
from edgebench.schema import Failure, cell
from edgebench.search import compress as compress_
from edgebench.search import study, trial
from edgebench.search.compress import Compressed
from edgebench.store import records

TARGET = """
name: sized
description: a device on which a million bytes take 10 ms
transport: local
agent_plugins: [rt_priced.py]
accepts:
  - format: onnx
    precisions: [fp32, int8]
    runtime: priced
    limits: {opset: 17, activations: uint8}
    options: {base_ms: 1.0, mebibyte_ms: 10.48576, samples: 700}  # 10 ms for a million bytes, and enough for p99
"""
FAST = {"epochs": 1, "augment": "none", "threads": 1, "learning_rate": 0.002}
RECIPES = {"train": FAST, "distill": FAST, "prune": FAST, "qat": FAST}


def lay_out(folder: Path) -> str:
    """Put the device and a small data set into a folder; returns the data set's name."""
    (folder / "sized.yaml").write_text(TARGET)
    (folder / "rt_priced.py").write_bytes((DOUBLES / "rt_priced.py").read_bytes())
    return few_digits(folder, 120)


def compress(base: Path, data: str, progress: Any = lambda *_: None, samples: int | None = None, **options: Any) -> Compressed:
    given: dict[str, Any] = {"ratios": (0.5,), "students": (), "recipes": RECIPES, "budget_seconds": 600.0, **options}
    run = RunOptions(work=Path("work"))
    measure = MeasureOptions(scenario={"half_width": 0.5}, samples=samples)
    wanted = CompressOptions(**given)
    return edgebench.compress(
        base, dataset=data, target="sized.yaml", options=wanted, measure=measure, run=run, progress=progress
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str, Compressed, list[str]]]:
    """Search once under three limits: interrupted while the third trial is made, then to the end, with what was said."""
    folder = tmp_path_factory.mktemp("compress")
    heard: list[str] = []

    def interrupting(what: str, done: float, total: float, lane: str = "") -> None:
        heard.append(what)
        if what.startswith("trial 2"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(compress_, "ALPHAS", (0.0,))
        patch.setitem(cell.MODES, "quick", replace(cell.MODES["quick"], trials=2))  # one pair alone decides nothing
        data = lay_out(folder)
        base = verbs.train(
            "cnn", name="base", dataset=data, size=16, channels=1, options={**FAST, "epochs": 3}, work=Path("work")
        )
        limits = {"max_p99": "5ms", "max_size": "0.4MB", "min_metric": 0.01}
        with pytest.raises(KeyboardInterrupt):
            compress(base, data, interrupting, limits=limits)
        first = json.loads(next(folder.glob("compressed/*/compress.json")).read_text())
        assert (first["ended"], [each["state"] for each in first["trials"]]) == ("it was interrupted", ["done", "done"])
        found = compress(base, data, lambda what, *_: heard.append(what), limits=limits)
        yield folder, base, data, found, heard


def test_a_search_tries_everything_once_and_goes_on_where_it_stopped(searched: Any) -> None:
    folder, _, _, found, heard = searched
    assert found.complete == "everything was tried"
    choices = [each.tried.choice for each in found.found.candidates]
    assert Counter((each.ratio, each.file.name) for each in choices) == Counter(
        (ratio, file) for ratio in (0.0, 0.5) for file in ("onnx fp32", "onnx int8", "onnx int8 qat")
    )
    labels = [each.tried.label for each in found.found.candidates if each.single]
    assert sorted(labels) == ["export onnx fp32", "export onnx int8", "prune onnx", "qat onnx"]
    assert "1 trial of an earlier process begun again" in heard
    assert any(what.startswith("train base-p0.5 (") and what.endswith(" left)") for what in heard)
    assert len(list((folder / "work" / "models").glob("base-*"))) == 4  # base, pruned, and each trained for INT8


def test_every_trial_is_a_record_of_what_the_device_said(searched: Any) -> None:
    folder, _, _, found, _ = searched
    measured = {each.tried.result["key"]: each.entry for each in found.found.candidates if each.entry is not None}
    kept = {record.key: record for _, record in records.read_all(folder / "results")}
    assert measured.keys() <= kept.keys()
    for key, entry in measured.items():
        record = kept[key]
        assert record.latency is not None and record.accuracy is not None and record.size_bytes is not None
        assert entry.median_ns == record.latency.median_ns.value == pytest.approx(1e6 + 10 * record.size_bytes, abs=2)
        assert (entry.size_bytes, entry.metric) == (record.size_bytes, record.accuracy.metrics["accuracy"])


def test_sizes_were_known_before(searched: Any) -> None:
    _, _, _, found, _ = searched
    for each in found.found.candidates:
        expected = each.tried.result["predicted"]
        assert expected["size_bytes"] == pytest.approx(each.entry.size_bytes, rel=0.005)
        assert expected["parameters"] == each.entry.parameters
    plain = next(each for each in found.found.candidates if each.tried.label == "export onnx fp32")
    assert found.found.why_not(plain).endswith("size 1.10 MiB, 0.38 MiB is the most")


def test_the_best_is_fastest_under_the_limits_and_stands_against_one_recipe(searched: Any) -> None:
    _, _, _, found, _ = searched
    best, single = found.found.best, found.found.single
    kept = [each for each in found.found.candidates if each.keeps]
    assert best in kept
    assert best.entry.median_ns == min(each.entry.median_ns for each in kept)
    assert best.tried.choice.ratio == 0.5
    assert best.tried.choice.file.precision == "int8"
    assert single.tried.label in ("export onnx int8", "qat onnx", "prune onnx")
    assert found.found.compared["latency"]["word"] == "faster"
    assert found.verdict.startswith(f"The search beat the best single recipe, {single.name} ({single.tried.label}): ")


def test_the_folder_has_bundles_a_page_and_a_profile_that_makes_the_best_again(searched: Any, cli: Cli) -> None:
    folder, _, _, found, _ = searched
    summary = json.loads((folder / found.folder / "compress.json").read_text())
    assert (summary["best"], summary["ended"]) == (found.found.best.tried.number, "everything was tried")
    rows = json.loads((folder / found.folder / "pareto" / "pareto.json").read_text())
    assert [row["trial"] for row in rows] == summary["pareto"] == [each.tried.number for each in found.found.unbeaten]
    for row in rows:
        read_bundle(folder / found.folder / "pareto" / row["bundle"])
    best = read_bundle(folder / found.folder / "best")
    assert (best.model.name, best.precision) == (found.found.best.entry.model, "int8")
    assert "<h2>Pareto set</h2>" in (folder / found.folder / "compress.html").read_text()
    profile = folder / found.folder / "best.yaml"
    assert yaml.safe_load(profile.read_text())["models"][0]["checkpoint"].startswith("work/models/base-")
    code, out, err = cli("run", profile, "--target", "sized.yaml", "--work", "work", "--json")
    assert code == 0, err
    states = {cell["model"]: cell["state"] for cell in json.loads(out)["cells"]}  # what it is made of is measured beside it
    assert states[found.found.best.entry.model] == "cached"


def test_the_same_search_again_does_nothing_and_a_lost_record_is_measured_again(searched: Any) -> None:
    folder, base, data, found, _ = searched
    limits = {"max_p99": "5ms", "max_size": "0.4MB", "min_metric": 0.01}
    heard: list[str] = []
    again = compress(base, data, lambda what, *_: heard.append(what), limits=limits)
    assert [each.tried for each in again.found.candidates] == [each.tried for each in found.found.candidates]
    assert heard == []
    lost = folder / "results" / str(found.found.best.entry.path)
    lost.unlink()
    again = compress(base, data, lambda what, *_: heard.append(what), limits=limits)
    assert lost.is_file()
    assert found.found.best.entry.key in {each.entry.key for each in again.found.candidates if each.entry is not None}
    assert not any(what.startswith("train ") for what in heard)


def test_other_limits_find_the_same_models_and_records(searched: Any) -> None:
    folder, base, data, found, _ = searched
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.json")}
    heard: list[str] = []
    looser = compress(base, data, lambda what, *_: heard.append(what), limits={"max_p99": "20ms"})
    assert looser.folder != found.folder
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert looser.found.sort == "metric"
    assert not any(what.startswith(("train base-p0.5 ", "train base-qat ")) for what in heard)
    with pytest.raises(InputError, match="holds another search"):
        compress(base, data, limits={"max_p99": "20ms"}, out=found.folder)
    over = compress(base, data, limits={"max_p99": "30ms"}, budget_seconds=0.0)
    assert (over.complete, over.found.candidates) == ("the time is over", ())


def test_latency_that_would_clearly_be_too_long_is_not_tried(searched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, base, data, _, _ = searched
    monkeypatch.setattr("edgebench.search.latency.LEAST_POINTS", 2)
    limits = {"max_p50": "1.05ms"}
    found = compress(base, data, limits=limits, ratios=(0.25, 0.5), recipes=RECIPES).found
    skipped = [each for each in found.candidates if each.tried.state == study.SKIPPED]
    assert skipped
    for each in skipped:
        assert "p50" in found.why_not(each) and "predicted, 1.05 ms is the most" in found.why_not(each)
        assert each.tried.choice.trains


def test_a_device_that_is_lost_stops_the_search_and_its_trial_is_begun_again(
    searched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base, data, _, _ = searched
    options: dict[str, Any] = {"ratios": (), "out": Path("lost"), "samples": 50}

    def lost(*_: Any) -> None:
        raise TransportError("sized: no route")

    with monkeypatch.context() as patch:
        patch.setattr(deploy, "deploy", lost)
        with pytest.raises(TransportError, match=r"no route.*the same command goes on"):
            compress(base, data, **options)
    found = compress(base, data, **options).found
    assert [each.tried.state for each in found.candidates] == ["done"] * 3
    assert "export onnx fp32" in {each.tried.label for each in found.candidates}


def test_what_fails_is_a_line_and_what_failed_while_measured_is_tried_again(
    searched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base, data, _, _ = searched
    options: dict[str, Any] = {"ratios": (), "out": Path("failing"), "samples": 60}
    prepare, measured = vars(trial)["prepare_profile"], vars(trial)["measure_all"]

    def refuse(*given: Any) -> Any:
        if given[1].variants[0].precisions == ("int8",):
            raise ExportError("no such operator")
        return prepare(*given)

    def died(*given: Any) -> Any:
        result = measured(*given)
        cells = [
            replace(each, record=each.record and failed(each.record, Failure("trial 1", "killed", "run again")))
            for each in result.cells
        ]
        return replace(result, cells=[replace(each, reason="trial 1: killed") for each in cells])

    with monkeypatch.context() as patch:
        patch.setattr(trial, "prepare_profile", refuse)
        patch.setattr(trial, "measure_all", died)
        found = compress(base, data, **options).found
    why = {each.tried.choice.file.name: found.why_not(each) for each in found.candidates}
    assert why == {
        "onnx fp32": "failed: trial 1: killed",
        "onnx int8": "failed: no such operator",
        "onnx int8 qat": "failed: no such operator",
    }
    again = compress(base, data, **options).found
    states = {each.tried.choice.file.name: each.tried.state for each in again.candidates}
    assert states == {"onnx fp32": "done", "onnx int8": "failed", "onnx int8 qat": "failed"}


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_searched_is_refused_in_a_line(searched: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _, base, data, _, _ = searched
    for given, message in (
        ({"limits": {"max_weight": "1kg"}}, "unknown limit 'max_weight'"),
        ({"sort": "beauty"}, "unknown order 'beauty'"),
        ({"ratios": (1.5,)}, "the ratio 1.5 is no share"),
        ({"recipes": {"prune": {"ratio": 0.3}}}, "prune.ratio is chosen by the search"),
        ({"recipes": {"prune": {"epochs": 0}}}, "recipe prune: epochs"),
        ({"recipes": {"grow": {}}}, "unknown recipe of a search 'grow'"),
        ({"formats": ("tflite",)}, "sized does not run tflite; it runs onnx"),
    ):
        with pytest.raises(InputError, match=message):
            compress(base, data, **given)
    with pytest.raises(InputError, match=r"resnet18: no checkpoint and no model folder"):
        compress(Path("resnet18"), data)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"edgebench\[search\]"):
        compress(base, data)


def test_options_of_recipes_are_read_with_their_recipe() -> None:
    assert recipes(["distill.epochs=30", "qat.symmetric=true", "qat.epochs=2"]) == {
        "distill": {"epochs": 30},
        "qat": {"symmetric": True, "epochs": 2},
    }
    with pytest.raises(InputError, match="of which recipe"):
        recipes(["epochs=30"])


def test_the_command_line_prints_what_was_found_and_ends_with_1_where_nothing_keeps_to_the_limits(
    searched: Any, cli: Cli
) -> None:
    _, base, data, _, _ = searched
    arguments = ["compress", base, "--dataset", data, "--target", "sized.yaml", "--work", "work"]
    arguments += ["--student", "none", "--ratio", "0.5", "--budget", "5min", "--samples", "40"]
    arguments += [
        part for name, given in RECIPES.items() for key, value in given.items() for part in ("--option", f"{name}.{key}={value}")
    ]
    code, out, err = cli(*arguments, "--max-size", "0.2MB")
    assert code == 0, err
    assert "Pareto set: beaten by nothing in metric, latency and size" in out
    assert re.search(r"not tried: size \d{6} bytes counted, 200000 are the most", out)
    assert "No single recipe keeps to all limits; base-p0.5" in out
    assert "trial 0, export onnx fp32: as it is, onnx fp32" in err
    code, out, err = cli(*arguments, "--max-size", "1kB", "--json")
    assert (code, "nothing keeps to these limits" in err) == (1, True)
    shown = json.loads(out)
    assert (shown["best"], shown["verdict"]) == (None, "Nothing that was tried keeps to all limits.")
    assert {each["state"] for each in shown["trials"]} == {"done", "skipped"}
    code, _, err = cli(*arguments, "--budget", "soon")
    assert (code, "--budget soon: not understood; write it like 20min or 2h" in err) == (2, True)


def test_a_checkpoint_is_compressed_as_a_model_folder_is(searched: Any) -> None:
    _, base, data, _, _ = searched
    given = SourceOptions(
        str(models.checkpoint_path(base, models.read_model(base))), architecture="cnn", size=16, channels=1, name="mine"
    )
    wanted = CompressOptions(ratios=(), students=(), recipes=RECIPES, formats=("onnx",), out=Path("mine"))
    run = RunOptions(work=Path("work"))
    found = edgebench.compress(
        given, dataset=data, target="sized.yaml", options=wanted, measure=MeasureOptions(samples=30), run=run
    )
    assert {each.entry.model for each in found.found.candidates if each.entry} == {"mine", "mine-qat"}


# ---------------------------------------------------------------- killed


def test_a_search_killed_at_any_moment_goes_on_without_loss(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    lay_out(tmp_path / "aside")
    data = lay_out(tmp_path)
    made = verbs.train("cnn", name="base", dataset=data, size=16, channels=1, options=FAST, work=tmp_path / "made")
    options = [part for name, value in FAST.items() for part in ("--option", f"qat.{name}={value}")]
    search = [
        "compress",
        str(made),
        "--dataset",
        data,
        "--target",
        "sized.yaml",
        "--student",
        "none",
        "--ratio",
        "none",
        *options,
    ]
    done = subprocess.run(
        [sys.executable, kills.__file__, json.dumps([["trust", "sized.yaml"], [*search, "--out", "found"]])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(kills.__file__).parent), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [codes[:2] for codes in json.loads(done.stdout)] == [[0, 0], [0, 0]], done.stdout
    here, aside = (json.loads((place / "found" / "compress.json").read_text()) for place in (tmp_path, tmp_path / "aside"))
    assert here["ended"] == aside["ended"] == "everything was tried"
    same = [
        sorted((each["single"], each["model"], each["state"], each["median_ns"]) for each in found["trials"])
        for found in (here, aside)
    ]
    assert same[0] == same[1]
    assert len(same[0]) == 3
    kept = {record.key: record for _, record in records.read_all(tmp_path / "results") if record.status == "done"}
    assert len(kept) == 3


# ---------------------------------------------------------------- sweep

GRID = """
name: grid
dataset: {name: medmnist, options: {source: DATA}}
input: {size: 16, channels: 1}
models:
  - {name: base, architecture: cnn, recipe: train, options: {epochs: 1, augment: none, threads: 1}}
  - name: half
    architecture: cnn
    role: pruned
    recipe: prune
    parent: base
    options: {epochs: 1, control: false, augment: none, threads: 1}
variants: [{format: onnx, precisions: [fp32]}]
"""


def test_a_sweep_trains_in_processes_and_does_only_what_is_missing(here: Path, cli: Cli) -> None:
    data = lay_out(here)
    Path("grid.yaml").write_text(GRID.replace("DATA", data.partition(":")[2]))
    arguments = ["sweep", "grid.yaml", "--target", "sized.yaml", "--over", "ratio=0.25,0.5"]
    code, out, err = cli(*arguments, "--dry-run")
    assert (code, "3 of 3 cells to do: 3 models to train, 3 bundles to export, 3 cells to measure" in out) == (0, True), err
    code, out, err = cli(*arguments, "--jobs", 2)
    assert code == 0, err
    assert "3 of 3 cells have a result" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("half")] == [
        ["half-ratio-0.25", "0.25"],
        ["half-ratio-0.5", "0.5"],
    ]
    assert "train 3 models side by side" in err
    fewer = [*arguments[:-1], "ratio=0.25", "--over", "half.learning_rate=1e-3,2e-3"]
    code, out, err = cli(*fewer, "--only", "format=onnx", "--json")
    cells = json.loads(out)["cells"]
    assert (code, len(cells)) == (0, 3)
    assert Counter(cell["state"] for cell in cells) == {"cached": 1, "done": 2}
    assert {"ratio": 0.25, "half.learning_rate": 0.002} in [cell["options"] for cell in cells]
    code, out, _ = cli(*arguments, "--json")
    assert {cell["state"] for cell in json.loads(out)["cells"]} == {"cached"}


def test_a_model_that_cannot_be_made_fails_its_cells_and_what_is_made_of_it(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lay_out(here)
    Path("grid.yaml").write_text(GRID.replace("DATA", data.partition(":")[2]))

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("edgebench.recipes.train.make", broken)
    code, out, _ = cli("sweep", "grid.yaml", "--target", "sized.yaml", "--over", "ratio=0.5")
    assert code == 1
    assert "failed: base onnx fp32 on sized: base: could not be made: out of memory" in out
    assert "failed: half-ratio-0.5 onnx fp32 on sized: base could not be made: base: could not be made: out of memory" in out


def test_values_of_a_sweep_are_read() -> None:
    assert values(["learning_rate=1e-3,0.01", "base.augment=none,flip"]) == {
        "learning_rate": [0.001, 0.01],
        "base.augment": ["none", "flip"],
    }
    for wrong, message in ((["ratio"], "not OPTION=VALUES"), (["ratio="], "not OPTION=VALUES"), (["a=1", "a=2"], "given twice")):
        with pytest.raises(InputError, match=message):
            values(wrong)
