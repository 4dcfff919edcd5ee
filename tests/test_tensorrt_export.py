"""ONNX for TensorRT: what each version reads, precision where it looks for it, and refusals that name the layer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import verbs
from onnx import TensorProto, helper, numpy_helper

from edgebench.bundle import export
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_target
from edgebench.errors import ExportError
from edgebench.exporters import onnx as plain
from edgebench.exporters import tensorrt
from edgebench.exporters._tensorrt import operators
from edgebench.schema import Exported, ExportRequest, Lineage, Model, Network, Preprocessing, image_input

ELEVEN = """
extends: nvidia-gpu
accepts:
  - format: tensorrt
    precisions: [fp32, fp16, int8]
    runtime: tensorrt
    limits: {version: "11.0", opset: 17, ir: 10}
"""
TARGETS = {name: read_target(name) for name in ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano", "nvidia-gpu")}
Request = ExportRequest[tensorrt.Limits]
Made = tuple[Exported, onnx.ModelProto, Request]


class Determinant(torch.nn.Module):
    """Something that no TensorRT reads."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scale each channel by its determinant."""
        scaled: torch.Tensor = images * torch.linalg.det(images)[:, :, None, None]
        return scaled


class Attention(torch.nn.Module):
    """A transformer of one layer, over 16 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 32, 8, stride=8)
        self.norm = torch.nn.LayerNorm(32)
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: torch.Tensor = self.head((tokens + mixed).mean(1))
        return logits


def network(name: str) -> torch.nn.Module:
    import torchvision

    torch.manual_seed(0)
    if name == "attention":
        return Attention().eval()
    if name == "determinant":
        body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), Determinant(), torch.nn.AdaptiveAvgPool2d(1))
        return torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.Linear(4, 10)).eval()
    made: torch.nn.Module = getattr(torchvision.models, name)(num_classes=10).eval()
    return made


def request(name: str, precision: str, limits: tensorrt.Limits, **changes: Any) -> Request:
    spec = Preprocessing(height=32, width=32, channels=3, mean=(0, 0, 0), std=(1, 1, 1))
    model = Model(
        name=name,
        architecture=name,
        task="multi-class",
        classes=tuple("abcdefghij"),
        inputs=(image_input(spec),),
        sha256=name.ljust(64, "0"),
        parameters=1,
        lineage=Lineage(recipe="random-weights"),
    )
    images = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    return ExportRequest(Network(model, network(name), None), precision, limits, images, **changes)


def limits_of(target: str) -> tensorrt.Limits:
    if target == "eleven":
        return tensorrt.Limits(version="11.0", opset=17)
    given = next(accepts.limits for accepts in TARGETS[target].accepts if accepts.format == "tensorrt")
    return tensorrt.Limits.model_validate(given)


def made_for(target: str, name: str, precision: str, folder: Path, **changes: Any) -> Made:
    """Export without the parity gate, but as it is done: pre-flight, export, and a strict look at the file's types."""
    asked = request(name, precision, limits_of(target).model_copy(update=changes))
    tensorrt.preflight(asked)
    exported = tensorrt.export(asked, folder)
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return exported, model, asked


def cosine(folder: Path, asked: Request) -> float:
    """Compare the file, operator by operator on ONNX Runtime, with torch on the first calibration image."""
    with torch.no_grad():
        wanted = asked.network.module(torch.from_numpy(asked.calibration[:1])).numpy()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = onnxruntime.InferenceSession(folder / "model.onnx", options).run(None, {"input": asked.calibration[:1]})[0]
    return float((wanted * found).sum() / np.linalg.norm(wanted) / np.linalg.norm(found))


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def versions(model: onnx.ModelProto) -> tuple[list[tuple[str, int]], int]:
    return [(entry.domain, entry.version) for entry in model.opset_import], model.ir_version


# ---------------------------------------------------------------- whole bundles


def bundle(target: str, precision: str) -> Any:
    return verbs.export(
        "tinynet:net",
        format="tensorrt",
        precision=precision,
        target=target,
        dataset="digits",
        size=16,
        channels=1,
        name="tiny",
        calibration={"samples": 32},
    )


@pytest.mark.parametrize(
    ("target", "precision", "flags"),
    [
        ("jetson-nano", "fp32", []),
        ("jetson-nano", "fp16", ["FP16"]),
        ("jetson-orin-nano", "int8", ["INT8", "FP16"]),
        ("eleven.yaml", "fp16", []),
        ("eleven.yaml", "int8", []),
    ],
)
def test_a_bundle_says_how_its_engine_is_built_and_passes_the_gate(
    here: Path, target: str, precision: str, flags: list[str]
) -> None:
    Path("eleven.yaml").write_text(ELEVEN)
    result = bundle(target, precision)
    sealed = read_bundle(result.folder)
    version = {"jetson-nano": "8.2", "jetson-orin-nano": "8.6"}.get(target, "11.0")
    assert (sealed.runtime, sealed.entry, sealed.parity.runtime) == ("tensorrt", "model.onnx", "onnxruntime")
    assert sealed.finish is not None
    assert sealed.finish.options == {
        "precision": precision,
        "flags": flags,
        "strongly_typed": version == "11.0",
        "calibration_cache": None,
        "workspace_mebibytes": 1024,
        "version": version,
    }
    assert sealed.parity.top1_agreement >= (0.9 if precision == "int8" else 0.995)
    assert (sealed.calibration is not None) == (precision == "int8")
    assert bundle(target, precision).cached


def test_the_nano_refuses_int8_with_the_reason(here: Path) -> None:
    with pytest.raises(ExportError, match=r"jetson-nano does not run tensorrt int8: .*5\.3\) has no INT8; use fp16"):
        bundle("jetson-nano", "int8")
    assert export.accepted(TARGETS["jetson-orin-nano"], "tensorrt", "int8").limits["version"] == "8.6"


# ---------------------------------------------------------------- float


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize(("target", "opset", "ir"), [("jetson-nano", 13, 7), ("jetson-orin-nano", 17, 8), ("eleven", 17, 8)])
def test_a_file_is_of_the_opset_and_ir_that_the_parser_reads(tmp_path: Path, name: str, target: str, opset: int, ir: int) -> None:
    exported, model, asked = made_for(target, name, "fp16", tmp_path)
    assert versions(model) == ([("", opset)], ir)
    assert not kinds(model) & {"QuantizeLinear", "Identity", "HardSwish"}
    assert exported.details["tensorrt"] == limits_of(target).version
    assert cosine(tmp_path, asked) > 0.999
    types = {value.data_type for value in model.graph.initializer}
    assert types == {TensorProto.FLOAT16 if target == "eleven" else TensorProto.FLOAT}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_strongly_typed_network_computes_in_float16_throughout(tmp_path: Path) -> None:
    _, model, _ = made_for("eleven", "mobilenet_v3_small", "fp16", tmp_path)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 2
    inner = [name for node in model.graph.node if node is not casts[-1] for name in node.output if name in types]
    assert len(inner) > 100
    assert {types[name] for name in inner} == {TensorProto.FLOAT16}


def test_attention_reaches_a_nano_in_opset_13(tmp_path: Path) -> None:
    _, model, asked = made_for("jetson-nano", "attention", "fp32", tmp_path)
    assert versions(model) == ([("", 13)], 7)
    assert {"MatMul", "Softmax", "ReduceMean"} <= kinds(model) <= operators.read_by((8, 2))
    assert cosine(tmp_path, asked) > 0.9999


def test_layer_normalization_is_written_out_for_versions_that_do_not_read_it(tmp_path: Path) -> None:
    _, old, _ = made_for("jetson-xavier-nx", "attention", "fp32", tmp_path)
    _, new, _ = made_for("jetson-orin-nano", "attention", "fp32", tmp_path)
    assert versions(old)[0] == [("", 16)]
    assert "LayerNormalization" not in kinds(old)
    assert "LayerNormalization" in kinds(new)
    with pytest.raises(ExportError, match=r"net: TensorRT 8\.5 does not read .* LayerNormalization .*layer norm.*8\.6 or later"):
        operators.check(new, (8, 5), "net", ["norm"])


def test_an_int8_of_attention_can_be_made_for_onnx_too(tmp_path: Path) -> None:
    asked = request("attention", "int8", tensorrt.Limits(opset=17, ir=8))
    plain.export(asked, tmp_path)
    assert "QuantizeLinear" in kinds(onnx.load(tmp_path / "model.onnx"))
    assert cosine(tmp_path, asked) > 0.99


# ---------------------------------------------------------------- Q/DQ


def pairs(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """List Q and DQ nodes with scales and zero points."""
    values = arrays(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield node, values[node.input[1]], values[node.input[2]]


def check_fusion(model: onnx.ModelProto) -> None:
    """See that what follows a convolution still fuses with it: ReLU, and the addition of a residual."""
    makers = {out: node for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if node.op_type == "Relu":
            assert makers[node.input[0]].op_type in ("Conv", "Add")
    added = [sorted(makers[name].op_type for name in node.input) for node in model.graph.node if node.op_type == "Add"]
    assert added == [["Conv", "DequantizeLinear"]] * 8
    used = {name for node in model.graph.node for name in node.input}
    assert set(arrays(model)) <= used


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("jetson-xavier-nx", "mobilenet_v3_small"),
        ("jetson-orin-nano", "resnet18"),
        ("jetson-orin-nano", "attention"),
        ("nvidia-gpu", "attention"),
        ("eleven", "mobilenet_v3_small"),
    ],
)
def test_int8_is_signed_symmetric_and_per_channel(tmp_path: Path, name: str, target: str) -> None:
    exported, model, asked = made_for(target, name, "int8", tmp_path)
    values, makers = arrays(model), {out: node for node in model.graph.node for out in node.output}
    found = list(pairs(model))
    assert len(found) == exported.details["quantize_nodes"] + sum(node.op_type == "DequantizeLinear" for node, _, _ in found)
    for _node, scale, zero_point in found:
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert scale.shape == zero_point.shape
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = makers[node.input[1]]
            assert helper.get_node_attr_value(weight, "axis") == 0
            stored = values[weight.input[0]] if weight.input[0] in values else values[makers[weight.input[0]].input[0]]
            assert len(values[weight.input[1]]) == len(stored)
            assert stored.dtype == (np.int8 if target in ("nvidia-gpu", "eleven") else np.float32)
            assert makers[node.input[0]].op_type == "DequantizeLinear"
            assert node.input[2] in values
            assert values[node.input[2]].dtype == np.float32
    assert not [array for array in values.values() if array.dtype == np.int32]
    if name == "resnet18":
        check_fusion(model)
    assert cosine(tmp_path, asked) > 0.98


def test_operators_that_a_target_does_not_quantize_are_left_alone(tmp_path: Path) -> None:
    _, model, _ = made_for("jetson-orin-nano", "mobilenet_v3_small", "int8", tmp_path, quantized=("Conv",), per_channel=False)
    makers = {out: node for node in model.graph.node for out in node.output}
    inputs = {node.op_type: {makers[name].op_type for name in node.input if name in makers} for node in model.graph.node}
    assert "DequantizeLinear" in inputs["Conv"]
    assert "DequantizeLinear" not in inputs["Gemm"]
    assert {scale.size for _, scale, _ in pairs(model)} == {1}


def test_additions_that_are_no_residual_s_stay_in_float(tmp_path: Path) -> None:
    _, model, _ = made_for("jetson-orin-nano", "attention", "int8", tmp_path)
    makers = {out: node for node in model.graph.node for out in node.output}
    added = [makers[name].op_type for node in model.graph.node if node.op_type == "Add" for name in node.input if name in makers]
    assert added
    assert "DequantizeLinear" not in added


# ---------------------------------------------------------------- calibration cache


@pytest.mark.parametrize("method", ["min-max", "entropy", "percentile"])
def test_a_calibration_cache_holds_each_tensor_s_scale(tmp_path: Path, method: str) -> None:
    limits = limits_of("jetson-xavier-nx").model_copy(update={"explicit": False, "version": "8.5.2"})
    percentile = 99.9 if method == "percentile" else None
    asked = request("mobilenet_v3_small", "int8", limits, calibration_method=method, percentile=percentile)
    exported = tensorrt.export(asked, tmp_path)
    assert exported.finish is not None
    assert exported.finish.options["flags"] == ["INT8", "FP16"]
    assert exported.finish.options["calibration_cache"] == "calibration.cache"
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "calibration.cache"}
    head, *lines = (tmp_path / "calibration.cache").read_text().splitlines()
    assert head == "TRT-8502-EntropyCalibration2"
    scales = {name: struct.unpack(">f", bytes.fromhex(text))[0] for name, text in (line.split(": ") for line in lines)}
    model = onnx.load(tmp_path / "model.onnx")
    assert not kinds(model) & {"QuantizeLinear", "DequantizeLinear"}
    assert set(scales) == {"input", *(name for node in model.graph.node for name in node.output)}
    for name, values in _values(model, asked.calibration).items():
        measured = np.abs(values).max() / 127
        if method == "min-max":
            assert scales[name] == pytest.approx(measured, rel=1e-4)
        assert 0 < scales[name] <= measured * 1.01


def _values(model: onnx.ModelProto, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Run a file on each image, and keep what each of its nodes gives."""
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    runs = [session.run(None, {"input": image[None]}) for image in images]
    return {"input": images, **{name: np.stack(values) for name, values in zip(names, zip(*runs, strict=True), strict=True)}}


def test_tensorrt_11_takes_no_calibration_cache() -> None:
    asked = request("resnet18", "int8", tensorrt.Limits(version="11.0", opset=17, explicit=False))
    with pytest.raises(ExportError, match=r"resnet18: TensorRT 11\.0 has no calibration caches; leave explicit: false out"):
        tensorrt.preflight(asked)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("version", ["8.2", "8.6", "10.0", "11.0"])
def test_an_operator_that_tensorrt_does_not_read_is_named_with_its_layer(tmp_path: Path, version: str) -> None:
    asked = request("determinant", "fp16", tensorrt.Limits(version=version))
    message = rf"determinant: TensorRT {version} does not read the ONNX operator Det \(node /0/0\.1/Det, layer 0\.1\); replace"
    with pytest.raises(ExportError, match=message):
        tensorrt.export(asked, tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r'resnet18: tensorrt depends on its version; .*version: "8\.2"'),
        ("8.0", r"resnet18: TensorRT 8\.0 is older than 8\.2"),
        ("jetpack", r"resnet18: the target's limits: version: 'jetpack' is not a version of TensorRT"),
    ],
)
def test_a_target_must_say_its_version(version: str | None, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        tensorrt.preflight(request("resnet18", "fp32", tensorrt.Limits(version=version)))


def one_node(kind: str, inputs: dict[str, Any], opset: int = 17, outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """Make a model of one node; inputs are arrays (constants) or shapes."""
    domain = attributes.pop("domain", "")
    node = helper.make_node(kind, list(inputs), [f"y{index}" for index in range(outputs)], f"/body/{kind}", domain=domain)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    constants = [numpy_helper.from_array(value, name) for name, value in inputs.items() if isinstance(value, np.ndarray)]
    shapes = {name: value for name, value in inputs.items() if not isinstance(value, np.ndarray)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    graph = helper.make_graph([node], "g", values, ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


IMAGE = {"x": (1, 3, 8, 8)}
HALF, ZERO, BYTE = np.full((), 0.5, np.float32), np.zeros((), np.int8), np.zeros((), np.uint8)
LONGS = np.array([1], np.int64)


@pytest.mark.parametrize(
    ("model", "read", "refused", "message"),
    [
        (one_node("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2]), (8, 6), (10, 0), "needs dilations of 1"),
        (one_node("MaxPool", IMAGE, outputs=2, kernel_shape=[2, 2]), None, (8, 2), "no output of indices"),
        (one_node("AveragePool", {"x": (1, 3, 8)}, kernel_shape=[2]), None, (10, 0), "2 or 3 spatial dimensions"),
        (one_node("Conv", {**IMAGE, "w": (4, 3, 1, 1)}), (8, 5), (8, 2), r"weights that are constant.*8\.5 or later"),
        (one_node("TopK", {**IMAGE, "k": (1,)}, outputs=2), (8, 6), (8, 5), "needs a constant K"),
        (one_node("Unsqueeze", {**IMAGE, "axes": (1,)}), None, (10, 3), "needs constant axes"),
        (one_node("Einsum", IMAGE, equation="...i->...i"), (10, 0), (8, 6), "no ellipsis"),
        (one_node("Resize", {**IMAGE, "": (), "s": np.ones(4, np.float32)}, mode="linear"), (8, 2), None, ""),
        (one_node("Resize", {**IMAGE, "": (), "s": np.ones(4, np.float32)}, mode="cubic"), None, (10, 0), "nearest and linear"),
        (one_node("Resize", {**IMAGE, "": (), "s": HALF}, mode="linear", antialias=1), None, (10, 0), "without antialiasing"),
        (one_node("QuantizeLinear", {**IMAGE, "s": HALF, "z": ZERO}), (8, 2), None, ""),
        (one_node("QuantizeLinear", {**IMAGE, "s": HALF, "z": BYTE}), None, (8, 2), "int8 with zero point 0"),
        (one_node("QuantizeLinear", {**IMAGE, "s": HALF, "z": np.full((), 3, np.int8)}), None, (11, 0), "int8 with zero point 0"),
        (one_node("QuantizeLinear", {**IMAGE, "s": HALF}), None, (8, 2), "int8 with zero point 0"),
        (one_node("Cast", IMAGE, to=TensorProto.UINT16), None, (10, 0), "has no type UINT16, to which Cast leads"),
        (one_node("Cast", IMAGE, to=TensorProto.UINT8), (10, 0), (8, 6), "has no type UINT8"),
        (one_node("Add", {**IMAGE, "b": np.ones(1, np.uint32)}), None, (8, 2), "has no type UINT32, to which Add leads"),
        (one_node("Gelu", IMAGE, opset=20), (11, 0), (10, 0), r"does not read the ONNX operator Gelu.*10\.15 or later"),
        (one_node("Gelu", IMAGE, domain="com.microsoft"), None, (11, 0), "does not read the ONNX operator Gelu"),
        (one_node("Mod", {**IMAGE, "b": LONGS}), (8, 5), (8, 2), r"Mod \(node /body/Mod, layer body\)"),
    ],
)
def test_restrictions_hold_for_the_versions_that_have_them(
    model: onnx.ModelProto, read: tuple[int, ...] | None, refused: tuple[int, ...] | None, message: str
) -> None:
    if read is not None:
        operators.check(model, read, "net", ["body"])
    if refused is not None:
        with pytest.raises(ExportError, match=message):
            operators.check(model, refused, "net", ["body"])


def test_the_tables_name_operators_that_there_are() -> None:
    schemas = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    listed = [name for names in operators.READ_SINCE.values() for name in names.split()]
    assert len(listed) == len(set(listed)) > 140
    assert set(listed) - schemas <= {"ParametricSoftplus", "ScaledTanh", "ImageScaler", "TensorScatter"}
    assert not set(listed) & {"ConvInteger", "MatMulInteger", "QLinearConv", "DynamicQuantizeLinear"}
    assert operators.highest_opset((8, 2, 1)) == 13
    assert operators.highest_opset((10, 13)) == 20


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_node_s_layer_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    asked = request(name, "fp32", tensorrt.Limits(opset=13))
    with plain.quiet():
        plain.trace(asked, tmp_path / "model.onnx", 13)
    layers = dict(asked.network.module.named_modules())
    expected = {"Conv": torch.nn.Conv2d, "Gemm": torch.nn.Linear, "Relu": torch.nn.ReLU}
    found = [node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type in expected]
    assert len(found) > 30
    for node in found:
        assert isinstance(layers[operators.layer_of(node.name, layers)], expected[node.op_type]), node.name
    assert operators.layer_of("onnx::Conv_421", layers) == ""
