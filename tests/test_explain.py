"""`edgebench explain`: planted evidence is found by files on devices, cheats are seen, and what was compared stands in tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import planted as planting
import pytest
import torch
import verbs
from conftest import TINY, Cli, Devices
from few import few_digits
from planted import Planted
from scipy.stats import spearmanr

from edgebench import api
from edgebench.analysis import saliency
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import GoalMissed, InputError, MeasureError, RecordError, UnknownName
from edgebench.explain._work import Result
from edgebench.files import seal
from edgebench.models.source import SourceOptions
from edgebench.report import build, explained
from edgebench.report import leaderboard as report
from edgebench.run.options import ExplainOptions, MeasureOptions, RunOptions
from edgebench.schema.explanation import Explanation
from edgebench.store import explanations as store
from edgebench.store import records

BOARD = """
name: board
description: a board
transport: ssh
host: HOST
accepts: [{format: onnx, precisions: [fp32, int8], runtime: onnxruntime}]
"""
Bundles = dict[str, Path]


@dataclass(frozen=True)
class Sets:
    """Data sets with evidence in known places, and the bundles of networks that learned them, by precision."""

    folder: Path
    scattered: Planted
    cheat: Planted
    honest: Planted

    def export(self, of: Planted, precision: str) -> Path:
        given: dict[str, Any] = {"architecture": "tinynet:net", "dataset": of.dataset, "size": 16, "channels": 1}
        given |= {**planting.NORMALISED, "out": self.folder / "bundles", "name": of.weights.stem}
        return verbs.export(of.weights, format="onnx", precision=precision, **given).folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sets]:
    """Plant the evidence and train on it, once."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "tinynet.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        made = (planting.scattered(folder), planting.cheating(folder), planting.cheating(folder, honest=True))
        yield Sets(folder, *made)


@pytest.fixture(scope="module")
def scattered(sets: Sets) -> Bundles:
    return {precision: sets.export(sets.scattered, precision) for precision in ("fp32", "int8")}


@pytest.fixture(scope="module")
def digits(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Export the network that was trained on digits."""
    out = tmp_path_factory.mktemp("digits")
    given: dict[str, Any] = {"format": "onnx", "dataset": "digits", "out": out}
    return {precision: verbs.export(trained, precision=precision, **given).folder for precision in ("fp32", "int8")}


GIVEN: dict[str, Any] = {"samples": 40, "worst": 0, "cells": 4}


def explain(sources: Sequence[Path | str], folder: Path, target: str = "cpu", **given: Any) -> Result:
    run = RunOptions(folder / "results", folder / "work", repeat=given.pop("repeat", False))
    about = {name: given.pop(name) for name in ("dataset", "progress") if name in given}
    return api.explain(list(sources), target=target, options=ExplainOptions(**given), run=run, **about)


@dataclass(frozen=True)
class Both:
    """Where FP32 and INT8 were measured and explained, and what was found."""

    folder: Path
    result: Result

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def copied(self, folder: Path) -> Path:
        """Copy all that was written, to be changed."""
        return Path(shutil.copytree(self.folder, folder / "copy"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, scattered: Bundles) -> Both:
    folder = tmp_path_factory.mktemp("both")
    options = {"results": folder / "results", "work": folder / "work", "scenario": {"half_width": 0.5}}
    verbs.run(bundle=[scattered["fp32"], scattered["int8"]], **options)
    return Both(folder, explain([scattered["fp32"], scattered["int8"]], folder, **GIVEN))


def pointed(result: Result, place: int = 0) -> np.ndarray[Any, Any]:
    """Name the cell that each map is highest in."""
    found = result.found[place]
    return np.asarray(found.maps.reshape(len(found.maps), -1).argmax(axis=1))


# ---------------------------------------------------------------- what is found


def check_planted(result: Result, data: Planted) -> None:
    """Expect the planted cell in 95 % of the samples, and curves that show it."""
    for index, each in enumerate(result.found):
        places = data.places[list(each.explanation.samples)]
        assert (pointed(result, index) == places).mean() >= 0.95, each.explanation.file.name
        curves = each.explanation.curves
        assert curves.deletion < curves.random_deletion - 0.1, each.explanation.file.name
        assert curves.insertion > curves.random_insertion + 0.05, each.explanation.file.name


def test_planted_evidence_is_found_by_the_deployed_files(sets: Sets, both: Both) -> None:
    check_planted(both.result, sets.scattered)
    [first, last] = [each.explanation for each in both.result.found]
    assert [each.file.precision for each in (first, last)] == ["fp32", "int8"]
    assert len(first.samples) == 40
    drift = last.drift
    assert first.drift is None and drift is not None
    assert drift.same_model and drift.reference == "planted.onnx.fp32"
    assert drift.found.correlation is not None and drift.other.correlation is not None and drift.own.correlation is not None
    assert drift.other.correlation + 0.3 < drift.found.correlation <= drift.own.correlation == 1.0
    assert both.result.sheet.read_bytes().startswith(b"\x89PNG")
    assert not list((both.folder / "work" / "device" / "cpu" / "sets").glob("*.f*"))


def test_drift_is_scipys_median_of_the_files_maps(both: Both) -> None:
    first, last = both.result.found
    drift, pairs = last.explanation.drift, list(zip(first.maps, last.maps, strict=True))
    assert drift is not None
    values = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in pairs]
    assert last.explanation.correlations == pytest.approx(values)
    assert drift.found.correlation == pytest.approx(np.median(values))
    others = [spearmanr(one.ravel(), last.maps[index - 1].ravel()).statistic for index, one in enumerate(first.maps)]
    assert drift.other.correlation == pytest.approx(np.median(others))
    top = [len(set(np.argsort(-a.ravel())[:2]) & set(np.argsort(-b.ravel())[:2])) for a, b in pairs]
    assert drift.found.overlap == pytest.approx(np.median([each / (4 - each) for each in top]))


def test_planted_evidence_is_found_over_ssh(here: Path, sets: Sets, both: Both, scattered: Bundles, sshd: Devices) -> None:
    Path("board.yaml").write_text(BOARD.replace("HOST", sshd(python=sys.executable).host))
    result = explain([scattered["fp32"], scattered["int8"]], here, target="board.yaml", **GIVEN)
    check_planted(result, sets.scattered)
    for local, remote in zip(both.result.found, result.found, strict=True):
        assert remote.explanation.file.target == "board"
        assert np.abs(local.maps - remote.maps).max() < 1e-4  # the same file on the same processor


def test_sampled_methods_find_it_too_and_say_how_far_seeds_agree(here: Path, sets: Sets, scattered: Bundles) -> None:
    result = explain([scattered["fp32"]], here, methods=["lime", "kernel-shap"], evaluations=120, **GIVEN)
    for index, each in enumerate(result.found):
        places = sets.scattered.places[list(each.explanation.samples)]
        assert (pointed(result, index) == places).mean() >= 0.95
        own = each.explanation.own
        assert own == saliency.compare(each.maps, each.again).agreement()
        assert own.samples == 40 and own.correlation is not None and own.correlation < 1


def test_gradients_of_the_network_find_it_too(here: Path, sets: Sets) -> None:
    given: dict[str, Any] = {"architecture": "tinynet:net", "name": "planted", "size": 16, "channels": 1}
    source = SourceOptions(str(sets.scattered.weights), **given, **planting.NORMALISED)
    methods = ["grad-cam", "grad-cam++", "integrated-gradients", "occlusion"]
    run = RunOptions(here / "results", here / "work")
    options = ExplainOptions(methods, samples=20, worst=0, cells=4)
    result = api.explain([source], dataset=sets.scattered.dataset, options=options, run=run)
    assert [each.explanation.method for each in result.found] == methods
    for index, method in enumerate(methods):
        explanation = result.found[index].explanation
        assert explanation.file.target == "host" and explanation.file.format == "network"
        places = sets.scattered.places[list(explanation.samples)]
        assert (pointed(result, index) == places).mean() >= 0.9, method
    assert result.found[0].explanation.settings["layer"] == "4"


def test_a_model_that_cheats_is_seen_to_look_at_the_corner(here: Path, sets: Sets) -> None:
    for data, looks_at_the_corner in ((sets.cheat, True), (sets.honest, False)):
        result = explain([sets.export(data, "fp32")], here, of_class="true", **GIVEN)
        corner = float((pointed(result) == planting.CORNER).mean())
        evidence = float((pointed(result) == data.places[list(result.found[0].explanation.samples)]).mean())
        assert (corner >= 0.95, evidence >= 0.95) == (looks_at_the_corner, not looks_at_the_corner)


def test_deletion_is_below_a_random_order_on_trained_digits(here: Path, digits: Bundles) -> None:
    result = explain([digits["fp32"], digits["int8"]], here)
    for each in result.found:
        curves = each.explanation.curves
        assert curves.deletion < curves.random_deletion - 0.1
        assert each.explanation.infidelity is not None and 0 < each.explanation.infidelity < 1
    explanation = result.found[0].explanation
    assert explanation.chosen == ("random",) * 16 + ("worst",) * 8
    scores = scores_of(here, digits["fp32"])
    loss = -torch.log_softmax(torch.from_numpy(scores), 1).numpy()[np.arange(360), labels()]
    assert list(explanation.samples[16:]) == np.argsort(-loss, kind="stable")[:8].tolist()
    assert explanation.predicted == tuple(scores.argmax(axis=1)[list(explanation.samples)])


def labels() -> Any:
    return open_images(read_dataset("digits")).read("test").labels


def scores_of(folder: Path, bundle: Path) -> np.ndarray[Any, Any]:
    """Score the test split with ONNX Runtime directly."""
    import onnxruntime

    from edgebench.agent.runtimes import preprocess
    from edgebench.bundle.manifest import read_bundle

    read = read_bundle(bundle)
    session = onnxruntime.InferenceSession(bundle / read.entry)
    images = open_images(read_dataset("digits")).read("test").images
    inputs = preprocess.apply(images, read.model.preprocessing.model_dump())
    return np.concatenate([session.run(None, {read.inputs[0].name: each[None]})[0] for each in inputs])


# ---------------------------------------------------------------- drift, and the gate


class OnEvent:
    """A progress that remembers what was done."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, what: str, done: float, total: float, lane: str = "") -> None:
        self.said.append(what)


def test_what_was_made_is_found_and_what_is_damaged_is_made_again(both: Both, scattered: Bundles, tmp_path: Path) -> None:
    heard, files = OnEvent(), [scattered["fp32"], scattered["int8"]]
    again = explain(files, both.folder, progress=heard, **GIVEN)
    assert ([each.cached for each in again.found], heard.said) == ([True, True], [])
    assert [each.explanation for each in again.found] == [each.explanation for each in both.result.found]
    copy = both.copied(tmp_path)
    [path] = [path for path in store.paths(copy / "results") if ".fp32." in path.name]
    path.write_text(path.read_text().replace('"deletion"', '"deletiom"'))
    with pytest.raises(RecordError, match="its hash differs"):
        store.read(path)
    made = explain(files, copy, progress=heard, **GIVEN)
    assert [each.cached for each in made.found] == [False, True]
    assert heard.said and all("fp32" in said for said in heard.said)
    assert (made.found[0].maps == both.result.found[0].maps).all()


def test_another_networks_maps_are_told_from_the_same_ones(here: Path, sets: Sets, scattered: Bundles) -> None:
    with pytest.raises(InputError, match="have other classes or test samples"):
        explain([scattered["fp32"], sets.export(sets.honest, "fp32")], here, samples=4, worst=0, cells=4)
    weights = torch.load(sets.scattered.weights, weights_only=True)
    torch.manual_seed(0)
    broken = {name: value[torch.randperm(len(value))] if value.dim() == 4 else value for name, value in weights.items()}
    torch.save(broken, sets.folder / "broken.pt")
    other = Planted(sets.scattered.dataset, sets.scattered.places, sets.scattered.labels, sets.folder / "broken.pt")
    with pytest.raises(GoalMissed, match=r"broken.onnx.fp32: by occlusion its maps' rank correlation .* 0.80 is wanted") as error:
        explain([scattered["fp32"], sets.export(other, "fp32")], here, samples=20, worst=0, cells=4, min_correlation=0.8)
    drift = error.value.result.found[1].explanation.drift
    assert not drift.same_model
    assert drift.found.correlation < 0.8


PROFILE = """
name: small
dataset: {name: medmnist, options: {source: SOURCE}}
input: {size: 8, channels: 1}
models:
  - {name: net, architecture: 'tinynet:net', recipe: train, options: {epochs: 2, batch_size: 16, augment: none}}
variants:
  - {format: onnx, precisions: [PRECISIONS]}
targets: [cpu]
goals: {max_degradation: 1.0, explanation_correlation: GOAL}
"""


def profile(folder: Path, goal: float, precisions: str = "fp32, int8") -> str:
    source = few_digits(folder, 60).partition(":")[2]
    text = PROFILE.replace("SOURCE", source).replace("GOAL", str(goal)).replace("PRECISIONS", precisions)
    (folder / "small.yaml").write_text(text)
    return str(folder / "small.yaml")


def test_a_profiles_goal_is_a_gate_on_the_device(here: Path) -> None:
    found = {cell.precision: cell for cell in verbs.run(profile(here, 1.0)).cells}
    assert found["fp32"].state == "done"
    assert found["int8"].state == "failed"
    assert re.search(r"rank correlation .* 1\.00 is wanted \(explanation_correlation\)", found["int8"].reason)
    assert (here / "results" / "explanations" / "cpu").is_dir()
    found = {cell.precision: cell for cell in verbs.run(profile(here, 0.2)).cells}
    assert (found["fp32"].state, found["int8"].state) == ("cached", "done")


def test_a_gate_without_fp32_is_refused_before_anything_is_made(here: Path) -> None:
    with pytest.raises(InputError, match="compares onnx int8 with fp32; add fp32 to precisions"):
        verbs.run(profile(here, 0.5, "int8"))
    assert not (here / ".edgebench").exists()
    with pytest.raises(InputError, match="explanation_correlation is judged beside fp32 on a device"):
        verbs.export("cnn", format="onnx", goals={"explanation_correlation": 0.5}, dataset="digits", size=16, channels=1)


# ---------------------------------------------------------------- tables and pages


def test_tables_show_the_drift_beside_what_it_is_held_against(both: Both) -> None:
    [table] = report.tables(both.results).tables
    [explanation] = [
        each for path in store.paths(both.results) if (each := store.read(path)).drift and each.method == "occlusion"
    ]
    drift = explanation.drift
    assert drift is not None
    rows = {row.entry.precision: row for row in table.rows}
    assert rows["fp32"].drift is None
    shown = f"{drift.found.correlation:.2f} ({drift.own.correlation:.2f}, {drift.other.correlation:.2f})"
    text = report.leaderboard(both.results)
    assert "map ρ (own, other)" in text and f"| {shown} |" in text and "Map ρ: median rank correlation" in text
    values = json.loads(report.leaderboard(both.results, format="json"))[0]["rows"]
    assert [row.get("explained") for row in values if row["precision"] == "int8"] == [drift.found.correlation]
    assert "explained" in report.leaderboard(both.results, format="csv").splitlines()[0]
    assert r"map $\rho$" in report.leaderboard(both.results, format="latex")


def test_a_folder_without_explanations_has_no_such_column(both: Both, tmp_path: Path) -> None:
    copy = both.copied(tmp_path) / "results"
    shutil.rmtree(copy / "explanations")
    assert "map ρ" not in report.leaderboard(copy)


def test_a_record_has_a_panel_with_figures_and_pictures(both: Both) -> None:
    collection = build.Collection(both.results)
    with report.open_results(both.results) as opened:
        page = build.page(opened, collection, None, report.BY, None, lambda *_: None)
    behind = {entry.precision: json.loads(each) for entry, each in zip(page.entries, page.evidence, strict=True)}
    told = behind["int8"]["explanations"]
    assert [each["method"] for each in told] == ["occlusion"]
    assert ["against", "planted.onnx.fp32"] in told[0]["lines"]
    assert page.pictures[told[0]["sheet"]][0].startswith("iVBORw0KGgo")
    assert told[0]["sheet"] == behind["fp32"]["explanations"][0]["sheet"]
    assert "explanationsPart" in build.written(page)


def test_a_record_that_was_not_explained_says_so(both: Both) -> None:
    [path] = [path for path in records.record_paths(both.results) if ".int8." in path.name]
    record = records.read_record(path)
    other = record.model_copy(update={"cell": record.cell.model_copy(update={"bundle_sha256": "0" * 64})})
    with pytest.raises(Exception, match="edgebench explain"):
        explained.told(both.results, other)
    assert len(explained.told(both.results, record)) == 1


def test_an_explanation_that_was_changed_is_named_and_shown_nowhere(both: Both, cli: Cli, tmp_path: Path) -> None:
    copy = both.copied(tmp_path) / "results"
    [path] = [path for path in store.paths(copy) if ".int8.occlusion." in path.name]
    content = json.loads(path.read_text())
    content["drift"]["found"]["correlation"] = 0.99
    path.write_text(json.dumps(content))
    code, out, err = cli("leaderboard", copy)
    assert code == 1 and "map ρ" not in out
    assert "left out" in err and "its hash differs" in err
    content["drift"]["found"]["correlation"] = 7.0
    path.write_text(json.dumps(seal(content)))
    code, out, err = cli("leaderboard", copy)
    assert code == 1 and "7.0 is no correlation and no share" in err
    for name in ("../../../../etc/passwd", "/etc/passwd"):
        content["drift"]["found"]["correlation"] = 0.5
        content["sheet"] = {"file": name, "sha256": "0" * 64, "bytes": 9}
        path.write_text(json.dumps(seal(content)))
        with pytest.raises(RecordError, match="leads out of the folder"):
            store.sheet(copy, store.read(path), 10**6)
    for field, value in (("method", "../x"), ("key", "../x")):
        path.write_text(json.dumps(seal({**content, field: value})))
        with pytest.raises(RecordError, match=field):
            store.read(path)


# ---------------------------------------------------------------- the command


def test_the_command_prints_tables_json_and_pictures(here: Path, cli: Cli, both: Both, scattered: Bundles) -> None:
    places = ("--results", both.results, "--work", both.folder / "work")
    words = ("explain", scattered["fp32"], scattered["int8"], "--samples", "40", "--worst", "0", "--cells", "4", *places)
    code, out, err = cli(*words, "--sheet", "maps.png", "--min-correlation", "1")
    assert code == 1  # INT8's maps are not quite FP32's
    assert "Maps against those of planted.onnx.fp32" in out and "another image's" in out and "(as before)" in out
    assert "1.00 is wanted" in err
    assert Path("maps.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = cli(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [each["cached"] for each in found["explanations"]] == [True, True]
    content = {name: value for name, value in found["explanations"][1].items() if name != "cached"}
    assert Explanation.model_validate(content) == both.result.found[1].explanation
    assert os.path.isfile(found["sheet"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "gradcam"), "unknown method 'gradcam': did you mean 'grad-cam'"),
        (("--method", "grad-cam"), "needs gradients, which a deployed file does not give.*kernel-shap, lime, occlusion"),
        (("--class", "9"), "unknown class '9'"),
        (("--samples", "0", "--worst", "0"), "leaves nothing to explain"),
        (("--evaluations", "3", "--method", "lime"), "--evaluations 3: so few say nothing"),
        (("--sheet", "maps.jpg", "--samples", "1", "--worst", "0", "--cells", "2"), "is written as PNG"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    here: Path, cli: Cli, scattered: Bundles, words: tuple[str, ...], message: str
) -> None:
    code, _, err = cli("explain", scattered["fp32"], *words)
    assert code == 2
    assert re.search(f"^edgebench: .*{message}", err, re.M), err


def test_classes_are_named_numbered_true_or_predicted(here: Path, both: Both, scattered: Bundles) -> None:
    first = both.result.found[0].explanation
    data = open_images(read_dataset(str(first.dataset))).read("test")
    assert first.classes == first.predicted == tuple(data.labels[list(first.samples)])  # a network that is always right
    given: dict[str, Any] = {"samples": 6, "worst": 0, "cells": 2}
    one, zero = (explain([scattered["fp32"]], here, of_class=name, **given).found[0] for name in ("1", "0"))
    assert (set(one.explanation.classes), set(zero.explanation.classes)) == ({1}, {0})
    assert one.explanation.likely == pytest.approx([1 - each for each in zero.explanation.likely], abs=1e-5)
    with pytest.raises(UnknownName):
        explain([scattered["fp32"]], here, of_class="2", **given)


def test_options_of_the_runtime_reach_the_device_and_are_told_apart(here: Path, scattered: Bundles) -> None:
    given: dict[str, Any] = {"options": ExplainOptions(samples=2, worst=0, cells=2), "run": RunOptions(here / "results", here)}
    with pytest.raises(MeasureError, match="onnxruntime has no option optimisation"):
        api.explain([scattered["fp32"]], measure=MeasureOptions(runtime={"optimisation": "off"}), **given)
    result = api.explain([scattered["fp32"]], measure=MeasureOptions(runtime={"optimization": "none"}), **given)
    assert result.found[0].explanation.file.options == {"optimization": "none"}
