"""Training for INT8: what the files keep of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import coral
import numpy as np
import pytest
import test_edgetpu_run
import test_tensorrt_run
import torch
import verbs
from numpy.typing import NDArray
from tensorrt_board import Board, compiled
from torch import nn

from edgebench import models
from edgebench.agent.runtimes import preprocess
from edgebench.analysis.metrics import scores_of
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.device.job import Pass
from edgebench.errors import CheckpointError, ExportError, InputError
from edgebench.exporters import onnx as onnx_exporter
from edgebench.exporters import tensorrt, tflite
from edgebench.exporters._edgetpu.graph import read as read_graph
from edgebench.exporters._shared import calibration, learned
from edgebench.models.source import SourceOptions, open_source
from edgebench.recipes import Work, qat
from edgebench.recipes._fake_quant import FakeQuantized, Rounded, RoundedWeight
from edgebench.schema import ExportRequest, Network

Array = NDArray[Any]


def trained_for_int8(parent: Path, **options: Any) -> Path:
    given = {"epochs": 1, "learning_rate": 0.002, "augment": "none", "threads": 1, **options}
    return verbs.train("cnn", recipe="qat", parent=parent, name="rounded", options=given)


def images() -> Array:
    return open_images(read_dataset("digits")).read("test").images


def fake_quantized(folder: Path, inputs: Array, symmetric: bool = False) -> tuple[Array, float]:
    """Return what the network computes that was trained, and the step of its scores."""
    network = models.load_model(folder)
    made = FakeQuantized(network.module, network.example()[0], symmetric)
    made.take(network.ranges)
    with torch.no_grad():
        scores = made.eval()(torch.from_numpy(inputs)).numpy()
    low, high = list(network.ranges.values())[-1]
    return scores, (high - low) / (254 if symmetric else 255)


def agree(found: Array, wanted: Array, step: float) -> None:
    """Require the decisions of the network that was trained, and its scores within a quantum on average."""
    assert np.mean(found.argmax(1) == wanted.argmax(1)) >= 0.99
    assert np.abs(found - wanted).mean() <= step


def scales(path: Path) -> dict[str, float]:
    """Read the scale of each quantized activation of an ONNX file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    found = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in values]
    return {node.input[0]: float(values[node.input[1]]) for node in found}


def share(found: Mapping[str, float], wanted: Array | Sequence[float]) -> float:
    """Return how many of the scales are learned ones."""
    return float(np.mean([np.abs(np.asarray(wanted) - scale).min() < 1e-4 * scale for scale in found.values()]))


def unfused(path: Path, inputs: Array) -> Array:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    return np.concatenate([session.run(None, {"input": one[None]})[0] for one in inputs])


# ---------------------------------------------------------------- the model


def test_the_folder_holds_plain_weights_and_the_ranges_beside_them(half: Path, rounded: Path) -> None:
    before, model = models.read_model(half), models.read_model(rounded)
    assert (model.role, model.lineage.recipe, model.lineage.parents) == ("quantized", "qat", (before.sha256,))
    assert model.pruned == before.pruned
    weights = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (half, rounded)]
    assert {key: value.shape for key, value in weights[0].items()} == {key: value.shape for key, value in weights[1].items()}
    assert not torch.equal(weights[0]["0.weight"], weights[1]["0.weight"])
    ranges = json.loads((rounded / "ranges.json").read_text())
    assert len(ranges) == 10  # the input, six activations, what is pooled, that flattened, the scores
    assert models.load_model(rounded).ranges == {node: tuple(limits) for node, limits in ranges.items()}


def test_statistics_of_norms_stand_still(half: Path, rounded: Path) -> None:
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (half, rounded))
    frozen = [key for key in one if "running_" in key]
    assert len(frozen) == 12
    assert all(torch.equal(one[key], two[key]) for key in frozen)


def test_the_controls_are_shown(half: Path, rounded: Path) -> None:
    metrics = models.read_model(rounded).metrics
    assert metrics["parent_val_accuracy"] == models.read_model(half).metrics["val_accuracy"]
    assert {"val_accuracy", "ptq_val_accuracy", "control_val_accuracy"} <= set(metrics)
    assert metrics["val_accuracy"] >= metrics["ptq_val_accuracy"] - 0.02


def test_the_work_counts_the_control() -> None:
    data = open_images(read_dataset("digits"))
    count, judged, steps = len(data.read("train")), len(data.read("val")), -(-len(data.read("train")) // 100)
    assert qat.work(qat.Options(epochs=3, batch_size=100), data) == Work(6 * steps, 6 * count, 6 * judged)
    assert qat.work(qat.Options(epochs=3, batch_size=100, control=False), data) == Work(3 * steps, 3 * count, 3 * judged)


# ---------------------------------------------------------------- files


def test_an_onnx_file_has_the_learned_ranges_and_decides_as_the_network_that_was_trained(rounded: Path, here: Path) -> None:
    made = verbs.export(str(rounded), format="onnx", precision="int8", dataset="digits", out=here / "out")
    inputs = preprocess.apply(images(), made.bundle.model.preprocessing.model_dump())
    found, (wanted, step) = unfused(made.folder / "model.onnx", inputs), fake_quantized(rounded, inputs)
    ranges = np.array(list(models.load_model(rounded).ranges.values()))
    assert share(scales(made.folder / "model.onnx"), (ranges[:, 1] - ranges[:, 0]) / 255) >= 0.95
    agree(found, wanted, step)


def test_a_tflite_file_has_them_too_and_so_has_the_edge_tpus(rounded: Path, here: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    made = verbs.export(str(rounded), format="tflite", precision="int8", dataset="digits", out=here / "out")
    inputs = preprocess.apply(images(), made.bundle.model.preprocessing.model_dump())
    network = models.load_model(rounded)
    ranges = np.array(list(network.ranges.values()))
    steps = (ranges[:, 1] - ranges[:, 0]) / 255
    samples = [preprocess.apply(images()[:4], made.bundle.model.preprocessing.model_dump())]
    request = ExportRequest(network, "int8", tflite.Limits(), samples)
    for content in ((made.folder / "model.tflite").read_bytes(), tflite.converted(request, dense_per_channel=False)):
        runner = Interpreter(model_content=content)
        runner.allocate_tensors()
        kept = [each for each in runner.get_tensor_details() if each["dtype"] == np.int8 and each["quantization"][1] != 0]
        assert share({each["name"]: float(each["quantization"][0]) for each in kept}, steps) >= 0.95
        assert len(kept) >= 9  # not the weights, whose zero points are 0
    agree(interpreted(made.folder / "model.tflite", inputs), *fake_quantized(rounded, inputs))


def interpreted(path: Path, inputs: Array) -> Array:
    """Return a TFLite file's scores of images [n, c, h, w], by the interpreter itself."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path))
    runner.allocate_tensors()
    [taken], [given] = runner.get_input_details(), runner.get_output_details()
    found = []
    for image in inputs:
        scale, zero = taken["quantization"]
        whole = np.clip(np.round(image.transpose(1, 2, 0)[None] / scale) + zero, -128, 127).astype(np.int8)
        runner.set_tensor(taken["index"], whole)
        runner.invoke()
        scale, zero = given["quantization"]
        found.append(scale * (runner.get_tensor(given["index"]).astype(np.float32) - zero))
    return np.concatenate(found)


def test_a_file_for_the_edge_tpu_decides_likewise_also_behind_its_compiler_and_a_stick(
    rounded: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are doubles; what computes is the interpreter."""
    coral.compiler_on_path(here, monkeypatch)
    given = {"format": "edgetpu", "precision": "int8", "target": "coral-usb", "dataset": "digits"}
    made = verbs.export(str(rounded), **given, out=here / "out")
    inputs = preprocess.apply(images(), made.bundle.model.preprocessing.model_dump())
    ranges = np.array(list(models.load_model(rounded).ranges.values()))
    graph, behind = (read_graph((made.folder / name).read_bytes()) for name in ("model.tflite", "model_edgetpu.tflite"))
    tensors = {tensor.name: tensor for operator in graph.operators for tensor in operator.outputs if tensor is not None}
    steps = (ranges[:, 1] - ranges[:, 0]) / 255
    assert share({name: tensor.scales[0] for name, tensor in tensors.items()}, steps) >= 0.95
    assert [each.scales for each in (*behind.inputs, *behind.outputs)] == [
        each.scales for each in (*graph.inputs, *graph.outputs)
    ]
    wanted, step = fake_quantized(rounded, inputs)
    agree(interpreted(made.folder / "model.tflite", inputs), wanted, step)
    (here / "desk.yaml").write_text(test_edgetpu_run.HERE)
    monkeypatch.setenv("PYTHONPATH", str(coral.modules(here / "site")))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(coral.library(here / "lib")))
    monkeypatch.setenv("EDGETPU_DOUBLE_STICKS", "1")
    monkeypatch.setattr(test_edgetpu_run, "IMAGES", len(inputs))
    run = test_edgetpu_run.measured(made.folder)
    assert run.predictions is not None, run.failure
    agree(scores_of(run.predictions.values, run.predictions.columns), wanted, step)


@pytest.fixture(scope="module")
def symmetric(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the pruned network for TensorRT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("symmetric"))
        return trained_for_int8(half, symmetric=True, control=False).absolute()


def test_tensorrt_gets_symmetric_ranges_in_both_of_its_forms(symmetric: Path, here: Path) -> None:
    folder = symmetric
    network = models.load_model(folder)
    samples = [preprocess.apply(images()[:4], network.model.preprocessing.model_dump())]
    assert all(low == -high for low, high in network.ranges.values())
    steps = np.array([high / 127 for _, high in network.ranges.values()])
    computed: list[Callable[[Array], Array]] = []
    for explicit in (True, False):
        request = ExportRequest(network, "int8", tensorrt.Limits(version="8.2", explicit=explicit), samples)
        made = here / str(explicit)
        made.mkdir()
        evaluate = tensorrt.export(request, made).evaluate
        computed.append(evaluate or functools.partial(unfused, made / "model.onnx"))
    found = scales(here / "True" / "model.onnx")
    assert len(found) >= 7
    assert share(found, steps) == 1
    lines = (here / "False" / "calibration.cache").read_text().splitlines()[1:]
    cached = {name: np.frombuffer(bytes.fromhex(value), ">f4").item() for name, value in (line.split(": ") for line in lines)}
    assert sum(bool(np.abs(steps - each).min() < 1e-4 * each) for each in cached.values()) >= 9
    inputs = preprocess.apply(images(), network.model.preprocessing.model_dump())
    wanted, step = fake_quantized(folder, inputs, symmetric=True)
    for each in computed:
        agree(each(inputs), wanted, step)
    assert "control_val_accuracy" not in network.model.metrics


def test_an_engine_of_it_decides_likewise(
    symmetric: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board is a double; what computes is ONNX Runtime, operator by operator."""
    board = Board(here, compiled(tmp_path_factory.getbasetemp()), monkeypatch)
    board.has("8.6")
    target = test_tensorrt_run.write_target(here, "8.6")
    given = {"format": "tensorrt", "precision": "int8", "target": str(target), "dataset": "digits"}
    made = verbs.export(str(symmetric), **given, out=here / "out")
    monkeypatch.setattr(test_tensorrt_run, "IMAGES", 360)
    found = test_tensorrt_run.predicted(test_tensorrt_run.measured(made.folder, target, [Pass("finish"), Pass("accuracy")]))
    inputs = preprocess.apply(images(), made.bundle.model.preprocessing.model_dump())
    agree(found, *fake_quantized(symmetric, inputs, symmetric=True))
    assert board.mistakes() == ""


@pytest.fixture(scope="module")
def residual() -> tuple[Network, Array]:
    """Learn ranges of a MobileNetV2: ReLU6, depthwise convolutions, and sums of branches."""
    _, build = open_source(SourceOptions("mobilenet_v2", classes=10, size=32, channels=3), None)
    network = build()
    samples = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = FakeQuantized(network.module, network.example()[0], symmetric=False)
    made.calibrate([1.1 * samples])
    ranges = made.ranges()
    made.release()
    return dataclasses.replace(network, ranges=ranges), samples.numpy()


def test_the_ranges_of_residual_networks_are_found_too(residual: tuple[Network, Array], here: Path) -> None:
    network, samples = residual
    onnx_exporter.export(ExportRequest(network, "int8", onnx_exporter.Limits(), [samples]), here)
    ranges = np.array(list(network.ranges.values()))
    found = scales(here / "model.onnx")
    assert len(found) == 66
    assert share(found, (ranges[:, 1] - ranges[:, 0]) / 255) == 1


def test_ranges_of_another_network_are_refused(residual: tuple[Network, Array]) -> None:
    network = dataclasses.replace(residual[0], ranges={"nowhere": (0.0, 1.0)})
    with pytest.raises(ExportError, match="has no nowhere, whose range was learned"):
        learned.points(ExportRequest(network, "int8", onnx_exporter.Limits(), [residual[1]]))


# ---------------------------------------------------------------- values


def test_a_tensor_is_found_by_its_values_in_any_order_and_zeros_are_none() -> None:
    values = np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)
    points = [learned.Point(np.sort(values, axis=None), (-3.0, 5.0)), learned.Point(np.zeros(4, np.float32), (0.0, 1.0))]
    tensors = {
        "moved": values.transpose(0, 2, 3, 1),
        "near": values * np.float32(1.0005),
        "other": values * np.float32(1.01),
        "dead": np.zeros(4, np.float32),
        "none": np.zeros(0, np.float32),
    }
    assert learned.replaced(tensors, points) == {"moved": (-3.0, 5.0), "near": (-3.0, 5.0)}
    found = calibration.choose("min-max", None, lambda: iter([tensors]), points)
    assert found["moved"] == (-3.0, 5.0)
    assert found["other"] == pytest.approx((1.01 * values.min(), 1.01 * values.max()), rel=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_activations_are_rounded_as_onnx_rounds_them(symmetric: bool) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    layer, values = Rounded(symmetric), np.random.default_rng(0).uniform(-1.5, 3.5, (1, 1000)).astype(np.float32)
    layer.low, layer.high, layer.mode = torch.tensor(-1.0), torch.tensor(3.0), "round"
    low, high = layer.limits
    assert (low, high) == ((-3.0, 3.0) if symmetric else (-1.0, 3.0))
    scale = 3 / 127 if symmetric else 4 / 255
    zero = 0 if symmetric else round(-128 + 1 / scale)
    constants = [
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        numpy_helper.from_array(np.array(zero, np.int8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1000])] for name in "xy"]
    graph = helper.make_graph(nodes, "pair", *ends, constants)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    [wanted] = onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"x": values})
    found = layer(torch.from_numpy(values)).numpy()
    inside = values > -2.95 if symmetric else values > -2  # int8 has -128 too, which a symmetric range leaves out
    assert np.allclose(found[inside], wanted[inside], atol=1e-5)


def test_weights_are_rounded_with_a_scale_for_each_channel() -> None:
    layer = RoundedWeight()
    layer.mode = "round"
    weight = torch.tensor([[1.27, 0.014, -0.016], [0.0, 127.0, 0.4]])
    assert layer(weight).tolist() == [pytest.approx([1.27, 0.01, -0.02], abs=1e-6), [0.0, 127.0, 0.0]]
    assert layer(torch.zeros(2, 3)).tolist() == torch.zeros(2, 3).tolist()


def test_ranges_follow_for_so_many_steps_and_then_stay() -> None:
    layer = Rounded(symmetric=False)
    layer.mode, layer.high, layer.steps = "round", torch.tensor(1.0), torch.tensor(2)
    seen = []
    for training in (False, True, True, True):
        layer.train(training)(torch.tensor([0.0, 2.0]))
        seen.append(float(layer.high))
    assert seen == pytest.approx([1.0, 1.05, 1.0975, 1.0975])


# ---------------------------------------------------------------- what does not fit


class Deciding(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images


def test_a_network_that_cannot_be_followed_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^Deciding: torch.fx cannot follow it \(TraceError: .*choose another architecture$"):
        FakeQuantized(Deciding(), torch.zeros(1, 3), symmetric=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [('{"input_1": [0, 9]}', "changed since it was written"), (None, "changed since it was written")],
)
def test_ranges_that_were_changed_are_refused(rounded: Path, here: Path, content: str | None, reason: str) -> None:
    shutil.copytree(rounded, here / "copy")
    (here / "copy" / "ranges.json").unlink()
    if content is not None:
        (here / "copy" / "ranges.json").write_text(content)
    with pytest.raises(CheckpointError, match=reason):
        models.load_model(here / "copy")


@pytest.mark.parametrize("content", ["[]", '{"a": [0]}', '{"a": [1, 0]}', '{"a": [0, Infinity]}', '{"a": [NaN, 0]}', "{"])
def test_ranges_that_are_none_are_refused(here: Path, content: str) -> None:
    (here / "ranges.json").write_text(content)
    with pytest.raises(CheckpointError, match="ranges"):
        models.read_ranges(here)
