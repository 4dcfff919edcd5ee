"""The gate judges values: what it refuses, what rounding may do, and a changed weight that it finds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from torch import nn

from edgebench.bundle import closeness
from edgebench.bundle import parity as parity_
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import ExportError
from edgebench.models.source import SourceOptions, open_source
from edgebench.schema import Network, Parity

Change = Callable[[Any], None]


def images(count: int = 64) -> Any:
    return open_images(read_dataset("digits")).read("test").images[:count]


@pytest.fixture
def tiny(here: Path) -> Network:
    _, network = open_source(SourceOptions("tinynet:net", size=16, channels=1), open_images(read_dataset("digits")))
    return network()


def judged(network: Network, outputs: Any, precision: str = "fp32") -> Parity:
    """Judge outputs as if a file had returned them."""
    samples = (images(len(outputs)),)
    reference = list(parity_.torch_outputs(network, samples).values())
    close = closeness.judge(network, precision, samples, reference, [outputs])
    nothing = {"samples": len(outputs), "source": "test", "max_abs": 1.0, "cosine": 1.0, "top1_agreement": 1.0}
    return Parity(**nothing, **vars(close))


def refused(network: Network, outputs: Any, precision: str = "fp32") -> str:
    try:
        parity_.check_agreement("net", network.model, judged(network, outputs, precision), precision)
    except ExportError as error:
        return str(error)
    return ""


def alone(network: Network, module: nn.Module) -> Network:
    """Put another module into a network, as a model of its own."""
    model = network.model.model_copy(update={"sha256": str(id(module))})
    return Network(model, module.eval(), None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic", "mixed"])
def test_a_network_of_one_output_whose_file_is_off_by_five_is_refused(tiny: Network, precision: str) -> None:
    one = alone(tiny, nn.Sequential(tiny.module, nn.Linear(10, 1)))
    right = parity_.torch_outputs(one, (images(),))["output"]
    assert refused(one, right, precision) == ""
    assert "computes otherwise than the torch model: values differ by" in refused(one, right + 5, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_two_unrelated_sigmoid_vectors_do_not_agree(tiny: Network, precision: str) -> None:
    sigmoid = alone(tiny, nn.Sequential(tiny.module, nn.Sigmoid()))
    right = parity_.torch_outputs(sigmoid, (images(),))["output"]
    other = np.random.default_rng(1).permuted(right, axis=1)
    assert "computes otherwise than the torch model" in refused(sigmoid, other, precision)


def test_what_takes_the_other_way_on_one_sample_in_many_is_refused(tiny: Network) -> None:
    right = parity_.torch_outputs(tiny, (images(),))["output"]
    baked = right.copy()
    baked[17] *= 2
    assert "values differ by" in refused(tiny, baked)


def test_rounding_is_measured_in_the_network_itself(tiny: Network) -> None:
    """Large numbers that cancel leave little of float32; that is the network's doing, not a file's."""

    class Cancels(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.inner, self.by = tiny.module, by

        def forward(self, x: torch.Tensor) -> Any:
            return (self.inner(x) + self.by) - self.by

    rough, calm = alone(tiny, Cancels(1e4)), alone(tiny, Cancels(0.0))
    exact = parity_.torch_outputs(calm, (images(),))["output"]
    found = judged(rough, exact)
    assert found.unexplained_error is not None
    assert found.allowed_error is not None
    assert closeness.LEAST * 4 < found.unexplained_error <= found.allowed_error
    assert "values differ" in refused(calm, parity_.torch_outputs(rough, (images(),))["output"])


def test_weights_rounded_to_float16_are_expected_and_others_are_not(tiny: Network) -> None:
    twin = copy.deepcopy(tiny.module)
    norm = twin[1]
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = nn.Conv2d(1, 8, 3, stride=2, padding=1)
    with torch.no_grad():
        folded.weight.copy_(twin[0].weight * factor[:, None, None, None])
        assert folded.bias is not None
        folded.bias.copy_(norm.bias - norm.running_mean * factor)
    rounded = nn.Sequential(folded, *twin[2:])
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half().float())
    outputs = parity_.torch_outputs(alone(tiny, rounded), (images(),))["output"]
    found = judged(tiny, outputs, "fp16")
    assert found.relative_error is not None
    assert found.unexplained_error is not None
    assert found.unexplained_error < 1e-6 < found.relative_error / 20
    assert refused(tiny, outputs, "fp16") == ""
    noise = np.random.default_rng(0).choice([-1, 1], outputs.shape) * found.relative_error * np.ptp(outputs)
    assert "in fp16" in refused(tiny, (outputs + noise).astype(np.float32), "fp16")


def test_a_constant_output_is_judged_by_its_size(tiny: Network) -> None:
    ones = np.ones((8, 3), np.float32)
    assert closeness.errors([ones], [ones * 1.01]) == pytest.approx(0.01)
    assert closeness.errors([ones * 0], [ones]) == 1
    assert closeness.correlations([ones], [ones * 1.01]) == 1
    assert closeness.correlations([np.eye(4)], [np.ones((4, 4))]) == 0


# ---------------------------------------------------------------- in a file


def weights_of_onnx(folder: Path, name: str, change: Change) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "model.onnx")
    found = next(each for each in model.graph.initializer if list(each.dims) == {"first": [8, 1, 3, 3], "last": [10, 16]}[name])
    values = numpy_helper.to_array(found).copy()
    change(values)
    found.CopyFrom(numpy_helper.from_array(values, found.name))
    onnx.save(model, folder / "model.onnx")


def weights_of_tflite(folder: Path, name: str, change: Change) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path, size = folder / "model.tflite", {"first": 72, "last": 160}[name]
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    held = [each for each in model.subgraphs[0].tensors if model.buffers[each.buffer].data is not None]
    tensor = next(each for each in held if np.prod(each.shape) == size and each.type in (0, 1))
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float16 if tensor.type == 1 else np.float32).copy()
    change(values)
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


CHANGES = {"onnx": weights_of_onnx, "tflite": weights_of_tflite}


FOUND = [
    *(("onnx", precision, layer) for precision in ("fp32", "fp16") for layer in ("first", "last")),
    ("tflite", "fp32", "first"),
    ("tflite", "fp16", "last"),
]


@pytest.mark.parametrize(("format", "precision", "layer"), FOUND)
def test_one_weight_changed_by_a_hundredth_of_its_layers_span_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, format: str, precision: str, layer: str
) -> None:
    from edgebench import plugins

    plugin: Any = plugins.load("edgebench.exporters", format, "format")
    whole = plugin.export

    def spoilt(request: Any, folder: Path) -> Any:
        made = whole(request, folder)

        def change(values: Any) -> None:
            values.flat[values.size // 2] += np.ptp(values) / 100

        CHANGES[format](folder, layer, change)
        return made

    monkeypatch.setattr(plugin, "export", spoilt)
    with pytest.raises(ExportError, match=f"values differ by .* of their span, .* allowed in {precision}"):
        verbs.export("tinynet:net", format=format, precision=precision, dataset="digits", size=16, channels=1, name="tiny")
