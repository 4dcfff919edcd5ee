"""Mixed precision with the device in the loop: what stays in float, why, and what is said of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from conftest import DOUBLES, Cli, Devices

from edgebench import config
from edgebench.bundle import export
from edgebench.bundle.manifest import read_bundle
from edgebench.data import open_images
from edgebench.errors import ExportError, InputError
from edgebench.models.source import SourceOptions, open_source
from edgebench.quantize import bench
from edgebench.quantize import search as search_
from edgebench.quantize.bench import Found, Tried, held_out
from edgebench.quantize.search import Result
from edgebench.run.interleave import interleaved
from edgebench.schema import Block, CalibrationPlan, DatasetRef, ModeSpec, cell

NETWORK = """
import torch
from edgebench.agent.runtimes import preprocess
from edgebench.data import open_images
from edgebench.schema import DatasetRef

def net(classes, channels, size):
    made = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 16, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3), torch.nn.Hardswish(),
        torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, classes))
    return fitted(made, classes, channels, size)

@torch.no_grad()
def fitted(made, classes, channels, size):
    train = open_images(DatasetRef(name="digits")).read("train")
    spec = {"height": size, "width": size, "channels": channels, "mean": [0.0], "std": [1.0], "layout": "nchw"}
    found = made[:-1](torch.from_numpy(preprocess.apply(train.images, spec)))
    found = torch.cat([found, torch.ones(len(found), 1)], 1).double()
    wanted = torch.nn.functional.one_hot(torch.from_numpy(train.labels), classes).double()
    found, wanted = found.T @ found + 1e-4 * torch.eye(found.shape[1]), found.T @ wanted
    solved = torch.linalg.solve(found, wanted).float()
    made[-1].weight.copy_(solved[:-1].T)
    made[-1].bias.copy_(solved[-1])
    return made
"""
"""Random features, and a last layer that least squares fit to the digits."""
TARGET = """
name: priced
description: a device where INT8 has its price
transport: local
agent_plugins: [rt_priced.py]
accepts:
  - format: onnx
    precisions: [fp32, int8, mixed]
    runtime: priced
    limits: {opset: 17, activations: uint8}
    options: {OPTIONS}
"""
PRICES = "int8_ms: {/0/Conv: 1.5, /2/Conv: -1, /4/Conv: -1, /8/Gemm: -0.6, /10/Gemm: 0.5}, spoils: /4/Conv"
"""Slow, fast, fast and wrong, fast, slow."""
BRIEF = ModeSpec(trials=2, min_samples=5, min_seconds=0.02, cap_seconds=0.1, window_seconds=0.01, adaptive=False)
GIVEN: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "net", "target": "priced.yaml"}
GIVEN |= {"mean": [0.0], "std": [1.0]}
ALLOWED = 0.04


def prepare(folder: Path, patch: pytest.MonkeyPatch, options: str = PRICES) -> None:
    """Put the network and a device with these prices into a folder, and let measuring be brief."""
    (folder / "pricednet.py").write_text(NETWORK)
    (folder / "priced.yaml").write_text(TARGET.replace("OPTIONS", options))
    (folder / "rt_priced.py").write_bytes((DOUBLES / "rt_priced.py").read_bytes())
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    patch.setitem(cell.MODES, "quick", BRIEF)
    patch.setattr(bench, "BRIEF", BRIEF)
    patch.setattr(bench, "ROUNDS", 1)
    patch.setattr(search_, "ROUNDS", 2)


def search(**more: Any) -> Result:
    """Search on the priced device."""
    given = {**GIVEN, "search": True, "samples": 64, "calibration": {"samples": 16}, "max_degradation": ALLOWED, **more}
    return verbs.quantize("pricednet:net", **given)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result, list[str]]]:
    """Search once: interrupted when blocks are tried together, then to the end; with what the second run did."""
    folder = tmp_path_factory.mktemp("search")
    heard: list[str] = []

    def interrupting(what: str, done: float, total: float, lane: str = "") -> None:
        if what == "try the best blocks together":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch)
        with pytest.raises(KeyboardInterrupt):
            search(progress=interrupting)
        assert not (folder / "bundles").exists()
        yield folder, search(progress=lambda what, *_: heard.append(what)), heard


def choices(result: Result) -> dict[str, str]:
    """Return the choice of each block, by its one node with weights."""
    rows = result.bundle.details["recipe"]["blocks"]
    return {next(node for node in row["nodes"] if node.endswith(("Conv", "Gemm"))): row["choice"] for row in rows}


# ---------------------------------------------------------------- the search


def test_what_is_slower_or_wrong_in_int8_stays_in_float(found: tuple[Path, Result, list[str]]) -> None:
    _, result, _ = found
    assert choices(result) == {
        "/0/Conv": "int8-weights",
        "/2/Conv": "int8",
        "/4/Conv": "int8-weights",
        "/8/Gemm": "int8",
        "/10/Gemm": "int8-weights",
    }


def test_the_recipe_says_why(found: tuple[Path, Result, list[str]]) -> None:
    _, result, _ = found
    recipe = result.bundle.details["recipe"]
    rows = {row["nodes"][0]: row for row in recipe["blocks"]}
    assert "slower in INT8 alone" in rows["/0/Conv"]["why"]
    assert "faster in INT8 alone" in rows["/2/Conv"]["why"]
    assert rows["/4/Conv"]["why"].startswith("loses ")
    assert rows["/4/Conv"]["drop"] > 0.5
    assert rows["/0/Conv"]["latency_change_ns"] == pytest.approx(1.5e6)
    assert rows["/2/Conv"]["latency_change_ns"] == pytest.approx(-1e6)
    assert rows["/2/Conv"]["operators"]["Conv"] == 1
    assert recipe["complete"]
    assert recipe["held_out"]["samples"] == 64


def test_the_file_computes_what_the_recipe_says(found: tuple[Path, Result, list[str]]) -> None:
    import onnx

    _, result, _ = found
    nodes = onnx.load(result.folder / "model.onnx").graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    weights = {node.name: makers.get(node.input[1]) for node in nodes if node.op_type in ("Conv", "Gemm")}
    int8, small = ({name for name, maker in weights.items() if maker == kind} for kind in ("DequantizeLinear", "Mul"))
    assert int8 == {"/2/Conv", "/8/Gemm"}
    assert small == {"/0/Conv", "/4/Conv", "/10/Gemm"}


def test_the_result_stands_beside_float32_and_plain_int8(found: tuple[Path, Result, list[str]]) -> None:
    _, result, _ = found
    rows = {row["name"]: row for row in result.candidates}
    assert list(rows) == ["fp32", "int8", "mixed"]
    assert rows["mixed"]["against"]["ratio"]["value"] == pytest.approx(1.4 / 3)
    assert rows["fp32"]["metric"] > 0.8
    assert rows["mixed"]["metric"] == pytest.approx(rows["fp32"]["metric"], abs=ALLOWED)
    assert rows["int8"]["metric"] < 0.5
    assert result.warning is None


def test_the_bundle_is_whole_and_runs_like_any_other(found: tuple[Path, Result, list[str]]) -> None:
    folder, result, _ = found
    bundle = read_bundle(result.folder)
    assert (bundle.precision, bundle.calibration is not None) == ("mixed", True)
    assert bundle.sha256 == result.bundle.sha256
    ran = verbs.run(bundle=[result.folder], target=["priced.yaml"], results=folder / "results", work=folder / "w")
    assert [record.status for record in ran.records] == ["done"]


def test_an_interrupted_search_goes_on_where_it_was(found: tuple[Path, Result, list[str]]) -> None:
    _, _, heard = found
    assert "try each block in INT8" not in heard
    assert "try the best blocks together" in heard


def test_the_same_search_again_finds_its_result(
    found: tuple[Path, Result, list[str]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first, _ = found
    prepare(folder, monkeypatch)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(search_, "candidates", never)
    again = search()
    assert (again.cached, again.bundle.sha256) == (True, first.bundle.sha256)
    with pytest.raises(AssertionError, match="measured again"):
        search(max_degradation=0.5, minutes=0.0)


def test_the_command_line_prints_blocks_and_what_they_became(
    found: tuple[Path, Result, list[str]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = found
    prepare(folder, monkeypatch)
    arguments = ["quantize", "pricednet:net", "--dataset", "digits", "--size", 16, "--channels", 1, "--name", "net"]
    arguments += ["--target", "priced.yaml", "--search", "--samples", 64, "--calibration-samples", 16]
    arguments += ["--mean", 0.0, "--std", 1.0, "--max-degradation", ALLOWED]
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "FP32, INT8 weights" in out
    assert "(as before); mixed is" in out
    code, out, _ = cli(*arguments, "--json")
    content = json.loads(out)
    assert content["cached"]
    assert [row["name"] for row in content["compared"]] == ["fp32", "int8", "mixed"]
    assert len(content["recipe"]["blocks"]) == 5


def test_without_time_all_stays_in_float_and_slower_is_said(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(here, monkeypatch, "packed_ms: 2.0")
    arguments = ["quantize", "pricednet:net", "--dataset", "digits", "--size", 16, "--channels", 1, "--target", "priced.yaml"]
    code, out, err = cli(*arguments, "--search", "--minutes", 0, "--calibration-samples", 8, "--max-degradation", 1)
    assert code == 0, err
    assert "not tried: the time was over" in out
    assert "mixed is" in out
    assert "% slower than fp32 on this device; deploy fp32 for speed" in err
    [folder] = Path("bundles").iterdir()
    recipe = read_bundle(folder).details["recipe"]
    assert not recipe["complete"]
    assert {row["choice"] for row in recipe["blocks"]} == {"int8-weights"}


def test_without_a_search_plain_int8_stands_beside_float32(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(here, monkeypatch, "int8_ms: {/0/Conv: 3}")
    arguments = ["quantize", "pricednet:net", "--dataset", "digits", "--size", 16, "--channels", 1, "--target", "priced.yaml"]
    code, out, err = cli(*arguments, "--calibration-samples", 8, "--json")
    assert code == 0, err
    content = json.loads(out)
    assert [row["name"] for row in content["compared"]] == ["fp32", "int8"]
    assert content["compared"][1]["against"]["word"] == "slower"
    assert "slower than fp32" in content["warning"]
    assert content["recipe"] is None


# ---------------------------------------------------------------- refusals


def test_a_search_mixes_onnx_alone(here: Path, cli: Cli) -> None:
    pytest.importorskip("litert_torch")
    code, _, err = cli("quantize", "tinynet:net", "--dataset", "digits", "--format", "tflite", "--search")
    assert code == 2
    assert "mixes precisions within onnx files, not within tflite" in err


def test_the_verbs_stay_functions_whatever_was_imported() -> None:
    import edgebench.diagnose.diagnose
    import edgebench.quantize.search
    import edgebench.report.build
    import edgebench.run.session

    assert callable(edgebench.quantize)
    assert callable(edgebench.diagnose)
    assert callable(edgebench.run)
    assert callable(edgebench.report)


def test_a_target_without_mixed_precision_says_what_it_runs(here: Path, cli: Cli) -> None:
    code, _, err = cli("quantize", "tinynet:net", "--dataset", "digits", "--target", "sleeper.yaml", "--search")
    assert code == 1
    assert "sleeper does not run onnx mixed; it runs onnx fp32/int8" in err


def test_a_data_set_must_be_given(here: Path, cli: Cli) -> None:
    code, _, err = cli("quantize", "tinynet:net", "--search")
    assert code == 2
    assert "--dataset" in err


def test_an_unknown_way_to_divide_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match="by block or by node, not by layer"):
        verbs.quantize("tinynet:net", dataset="digits", search=True, by="layer")


# ---------------------------------------------------------------- its parts


def order_of(size: int = 16, precision: str = "mixed", source: str = "tinynet:net") -> export.Order:
    data = open_images(DatasetRef(name="digits"))
    model, network = open_source(SourceOptions(source, name="net", size=size, channels=1), data)
    accepts = config.read_target("cpu").accepted("onnx", precision)
    assert accepts is not None
    return export.Order(model, network, "onnx", precision, accepts, data, CalibrationPlan(samples=8))


def mixer_of(order: export.Order, folder: Path) -> Any:
    return search_._mixer(order, order.network(), folder)


def test_held_out_samples_are_neither_tested_nor_calibrated_on(here: Path) -> None:
    order = order_of()
    assert order.dataset is not None
    split = held_out(order, 600).read("test")
    assert len(split) == 600
    test = {image.tobytes() for image in order.dataset.read("test").images}
    train = order.dataset.read("train")
    drawn = {train.images[index].tobytes() for index in export.drawn_samples(len(train), 8)}
    own = {image.tobytes() for image in split.images}
    assert not own & test
    assert not own & drawn
    assert {image.tobytes() for image in order.dataset.read("val").images} - test <= own


@pytest.mark.parametrize("by", ["block", "node"])
def test_every_node_is_in_one_block(here: Path, by: str) -> None:
    import onnx

    mixer = mixer_of(order_of(32, source="mobilenet_v3_small"), here)
    blocks = mixer.blocks(by)
    names = [node for block in blocks for node in block.nodes]
    assert len(names) == len(set(names)) == len(onnx.load(here / "prepared.onnx").graph.node)
    assert all(any(kind in block.operators for kind in ("Conv", "Gemm")) for block in blocks)
    assert len({block.name for block in blocks}) == len(blocks)
    assert len(blocks) == (15 if by == "block" else 54)
    if by == "block":
        assert "features/features.4/block" in {block.name for block in blocks}


def test_small_weights_are_four_times_smaller_and_folded_when_loaded(here: Path) -> None:
    import onnx
    import onnxruntime

    order = order_of(32, source="mobilenet_v3_small")
    mixer = mixer_of(order, here)
    mixer.write({}, here / "small.onnx")
    plain = {node: "fp32" for block in mixer.blocks("block") for node in block.nodes}
    mixer.write(plain, here / "plain.onnx")
    assert (here / "plain.onnx").stat().st_size > 3.4 * (here / "small.onnx").stat().st_size
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(here / "loaded.onnx")
    onnxruntime.InferenceSession(str(here / "small.onnx"), options, providers=["CPUExecutionProvider"])
    loaded, exact = (onnx.load(here / name).graph for name in ("loaded.onnx", "plain.onnx"))
    assert "Cast" not in {node.op_type for node in loaded.node}
    before, after = (weights(graph) for graph in (exact, loaded))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        error = np.abs(weight - after[name]).reshape(len(weight), -1).max(axis=1)
        assert (error <= largest / 254 + 1e-6).all(), name


def weights(graph: Any) -> dict[str, Any]:
    """Return the weights [out, …] of each node that has some, by the node's name."""
    from onnx import numpy_helper

    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    return {node.name: values[node.input[1]] for node in graph.node if node.op_type in ("Conv", "Gemm")}


def test_mixed_without_a_recipe_computes_in_float_from_small_weights(here: Path) -> None:
    (here / "pricednet.py").write_text(NETWORK)
    made = verbs.export(
        "pricednet:net", format="onnx", precision="mixed", dataset="digits", size=16, channels=1, calibration={"samples": 4}
    )
    content = (made.folder / "model.onnx").read_bytes()
    assert b"QuantizeLinear" not in content
    assert content.count(b"_int8") >= 5
    assert "recipe" not in made.bundle.details


def test_a_search_key_depends_on_the_recipe(here: Path) -> None:
    from dataclasses import replace

    order = order_of()
    recipes: list[dict[str, Any] | None] = [None, {"blocks": []}, {"blocks": [{"choice": "int8"}]}]
    keys = {export.order_key(replace(order, recipe=recipe)) for recipe in recipes}
    assert len(keys) == 3


def test_a_search_measures_on_the_device_itself(tmp_path: Path, sshd: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)
    device = sshd(python=sys.executable)
    target = TARGET.replace("OPTIONS", PRICES).replace("transport: local", f"transport: ssh\nhost: {device.host}")
    Path("priced.yaml").write_text(target)
    done = choices(search())
    assert {node for node, choice in done.items() if choice == "int8"} == {"/2/Conv", "/8/Gemm"}
    assert list(device.home.glob(".edgebench/bundles/*"))


def test_trials_of_several_cells_go_there_and_back() -> None:
    assert [each.cell for each in interleaved(3, 2)] == [0, 1, 2, 2, 1, 0]
    assert [each.trial for each in interleaved(2, 2)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("ratio", "drop", "choice", "said"),
    [
        (None, 0.0, "int8-weights", "not tried: the time was over"),
        (0.9, 0.0, "int8", "10.0 % faster in INT8 alone"),
        (1.1, 0.0, "int8", "10.0 % slower in INT8 alone, faster beside its neighbours"),
        (0.9, 0.02, "int8-weights", "loses 2.0 points in INT8"),
        (1.1, 0.0, "int8-weights", "10.0 % slower in INT8 alone"),
        (0.9, 0.005, "int8-weights", "10.0 % faster in INT8 alone, no gain beside the others"),
    ],
)
def test_every_choice_has_its_reason(ratio: float | None, drop: float, choice: str, said: str) -> None:
    found = None if ratio is None else Found(ratio, 1e6, 0.9, 0.01, 1000)
    row = Tried(Block("b", {"Conv": 1}, ("n",)), found, drop).row(choice, 0.005)
    assert row["why"] == said
    assert row["latency_change_ns"] == (None if ratio is None else pytest.approx(1e6 * (1 - 1 / ratio)))


def test_precision_mixed_is_refused_where_a_format_has_none(here: Path) -> None:
    with pytest.raises((ExportError, InputError), match="mixed"):
        verbs.export("tinynet:net", format="torch", precision="mixed", dataset="digits")
