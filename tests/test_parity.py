"""The gate judges values: what it refuses, what rounding may do, and a changed weight that it finds."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coral
import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from edgebench.bundle import closeness
from edgebench.bundle import parity as parity_
from edgebench.bundle.export import Order, accepted, build_bundle, judge_file
from edgebench.bundle.parity import check_agreement
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.errors import ExportError
from edgebench.models.source import SourceOptions, open_source
from edgebench.schema import Bundle, Exported, Network, Parity, Target

Change = Callable[[Any], None]


def images(count: int = 64) -> Any:
    return open_images(read_dataset("digits")).read("test").images[:count]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder that holds the tiny network and the Edge TPU's compiler, in one thread: small layers only wait for two."""
    folder, threads = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    (folder / "tinynet.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        coral.compiler_on_path(folder, patch)
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(home: Path) -> Network:
    _, network = open_source(SourceOptions("tinynet:net", name="tiny", size=16, channels=1), open_images(read_dataset("digits")))
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
    model = network.model.model_copy(update={"sha256": uuid.uuid4().hex})  # an id may be one that went, and outputs are kept
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


def test_what_random_weights_decide_is_not_judged_beside_their_values(tiny: Network) -> None:
    right = parity_.torch_outputs(tiny, (images(),))["output"]
    found = judged(tiny, right).model_copy(update={"top1_agreement": 0.9})
    trained = tiny.model.model_copy(update={"lineage": tiny.model.lineage.model_copy(update={"recipe": "train"})})
    parity_.check_agreement("net", tiny.model, found, "fp32")
    with pytest.raises(ExportError, match=r"decides 10\.0 % of 64 samples otherwise"):
        parity_.check_agreement("net", trained, found, "fp32")


def test_a_constant_output_is_judged_by_its_size(tiny: Network) -> None:
    ones = np.ones((8, 3), np.float32)
    assert closeness.errors([ones], [ones * 1.01]) == pytest.approx(0.01)
    assert closeness.errors([ones * 0], [ones]) == 1
    assert closeness.correlations([ones], [ones * 1.01]) == 1
    assert closeness.correlations([np.eye(4)], [np.ones((4, 4))]) == 0


# ---------------------------------------------------------------- in a file


def of_onnx(folder: Path, layer: str, change: Change) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "model.onnx")
    found = next(each for each in model.graph.initializer if list(each.dims) == {"first": [8, 1, 3, 3], "last": [10, 16]}[layer])
    values = numpy_helper.to_array(found).copy()
    change(values)
    found.CopyFrom(numpy_helper.from_array(values, found.name))
    onnx.save(model, folder / "model.onnx")


def of_tflite(folder: Path, layer: str, change: Change) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path, size = folder / "model.tflite", {"first": 72, "last": 160}[layer]
    kinds: dict[int, Any] = {0: np.float32, 1: np.float16, 9: np.int8}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    held = [each for each in model.subgraphs[0].tensors if model.buffers[each.buffer].data is not None]
    tensor = next(each for each in held if np.prod(each.shape) == size and each.type in kinds)
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), kinds[tensor.type]).copy()
    change(values)
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def of_bytes(content: bytes, weights: Any, change: Change) -> bytes:
    """Change weights where they lie one after the other in a file."""
    values = weights.copy()
    change(values)
    assert content.count(weights.tobytes()) == 1
    return content.replace(weights.tobytes(), values.tobytes())


@dataclass(frozen=True)
class File:
    """An exported file, with all that the gate wants to know."""

    order: Order
    network: Network
    folder: Path
    bundle: Bundle
    made: Exported
    target: Target

    def weights(self, layer: str) -> Any:
        found = self.network.module[{"first": 0, "last": -1}[layer]].weight.detach().numpy()
        return found.astype(np.float16) if self.order.precision == "fp16" else found

    def changed(self, folder: Path, layer: str, change: Change) -> File:
        """Return a copy, some of whose weights are others."""
        shutil.copytree(self.folder, folder)
        made = self.made
        if self.order.format in ("onnx", "tensorrt"):
            of_onnx(folder, layer, change)
        elif self.order.format in ("tflite", "edgetpu"):
            of_tflite(folder, layer, change)
        elif self.order.format == "torch":
            with zipfile.ZipFile(self.folder / "model.pt2") as before, zipfile.ZipFile(folder / "model.pt2", "w") as after:
                [place] = [name for name in before.namelist() if self.weights(layer).tobytes() in before.read(name)]
                for each in before.infolist():
                    content = before.read(each)
                    after.writestr(each, of_bytes(content, self.weights(layer), change) if each.filename == place else content)
        else:
            made = self.of_coreml(folder / "model.mlpackage", layer, change)
        return dataclasses.replace(self, folder=folder, made=made)

    def of_coreml(self, package: Path, layer: str, change: Change) -> Exported:
        from edgebench.exporters import coreml
        from edgebench.exporters._coreml import interpreter as interpreter_
        from edgebench.exporters._coreml import package as package_

        path = package / "Data/com.apple.CoreML/weights/weight.bin"
        path.write_bytes(of_bytes(path.read_bytes(), self.weights(layer), change))
        interpreter, spec = interpreter_.Interpreter(package_.read(package)), self.order.model.preprocessing
        return dataclasses.replace(
            self.made, evaluate=lambda given: interpreter(coreml.pixels(given, spec, whole=True), "scores").numpy()
        )

    def gate(self) -> None:
        found = judge_file(self.order, self.network, self.folder, self.bundle, self.made, self.target)
        check_agreement("tiny", self.order.model, found.parity, self.order.precision)


TARGETS = {"coreml": "mac", "tensorrt": "jetson-nano", "edgetpu": "coral-usb"}


@pytest.fixture(scope="module")
def exported(home: Path, tiny: Network) -> Callable[[str, str], File]:
    """Export the tiny network once in each format and precision that is asked for."""
    from edgebench import plugins

    data, made = open_images(read_dataset("digits")), dict[tuple[str, str], File]()

    def export(format: str, precision: str) -> File:
        if (format, precision) not in made:
            kept: list[Exported] = []
            target = read_target(TARGETS.get(format, "cpu"))
            order = Order(tiny.model, lambda: tiny, format, precision, accepted(target, format, precision), data)
            plugin: Any = plugins.load("edgebench.exporters", format, "format")
            whole = plugin.export

            def keep(request: Any, staging: Path) -> Exported:
                kept.append(whole(request, staging))
                return kept[0]

            folder = home / f"{format}.{precision}"
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(plugin, "export", keep)
                bundle, _ = build_bundle(order, target, folder, lambda *_: None)
            made[format, precision] = File(order, tiny, folder, bundle, kept[0], target)
        return made[format, precision]

    return export


def one_of_a_hundred(values: Any) -> None:
    """Change one weight by a hundredth of its layer's span."""
    span = np.ptp(values.astype(np.float64))
    values.flat[values.size // 2] += np.asarray(span / 100).astype(values.dtype)


FOUND = [
    *(
        (format, precision, layer)
        for format in ("onnx", "tflite")
        for precision in ("fp32", "fp16")
        for layer in ("first", "last")
    ),
    ("torch", "fp32", "first"),
    ("torch", "fp32", "last"),
    *(("tensorrt", precision, layer) for precision in ("fp32", "fp16") for layer in ("first", "last")),
    ("coreml", "fp32", "last"),
    ("coreml", "fp16", "last"),
]


@pytest.mark.parametrize(("format", "precision", "layer"), FOUND)
def test_one_weight_changed_by_a_hundredth_of_its_layers_span_is_found(
    exported: Callable[[str, str], File], tmp_path: Path, format: str, precision: str, layer: str
) -> None:
    file = exported(format, precision)
    with pytest.raises(ExportError, match=f"values differ by .* of their span, .* allowed in {precision}"):
        file.changed(tmp_path / "changed", layer, one_of_a_hundred).gate()


def test_in_int8_such_a_weight_is_not_found_and_another_network_is(exported: Callable[[str, str], File], tmp_path: Path) -> None:
    """A hundredth of the span is two or three of the 255 steps that every weight may be off by half of."""
    file = exported("edgetpu", "int8")

    def other(values: Any) -> None:
        values[:] = np.random.default_rng(0).choice([-127, 127], values.shape)

    file.changed(tmp_path / "one", "last", one_of_a_hundred).gate()
    with pytest.raises(ExportError, match="computes otherwise than the torch model"):
        file.changed(tmp_path / "all", "last", other).gate()
