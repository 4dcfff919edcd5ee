"""Every format and precision on real files; the traps that exporters fall into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from factory import parity_of

from edgebench import models
from edgebench.bundle import parity as parity_
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import BundleError, ExportError, InputError, UnknownName
from edgebench.models.source import SourceOptions, open_source
from edgebench.run.outcome import ExportResult
from edgebench.schema import Goals, Parity

EIGHT = [(format, precision) for format in ("onnx", "tflite") for precision in ("fp32", "fp16", "int8", "int8-dynamic")]
LIMITED = """
name: old
description: a board with an old runtime
transport: local
accepts:
  - format: onnx
    precisions: [fp32, fp16, int8, int8-dynamic]
    runtime: onnxruntime
    limits: {opset: 13, ir: 7, activations: %s, per_channel: true}
"""


def export(format: str, precision: str, **changes: Any) -> ExportResult:
    given: dict[str, Any] = {"dataset": "digits", "size": 16, "channels": 1, "name": "tiny", "calibration": {"samples": 64}}
    return verbs.export("tinynet:net", format=format, precision=precision, **{**given, **changes})


@pytest.mark.parametrize(("format", "precision"), [*EIGHT, ("torch", "fp32")])
def test_every_variant_is_exported_checked_and_sealed(here: Path, format: str, precision: str) -> None:
    result = export(format, precision)
    bundle = read_bundle(result.folder)
    assert bundle == result.bundle
    assert (bundle.format, bundle.precision, parity_of(bundle).samples, parity_of(bundle).source) == (
        format,
        precision,
        256,
        "test",
    )
    if precision in ("fp32", "fp16"):
        assert parity_of(bundle).top1_agreement >= 0.995
        assert parity_of(bundle).cosine > 0.999
    assert parity_of(bundle).metric_drop is not None
    assert bundle.macs
    assert bundle.model.lineage.recipe == "random-weights"
    assert (bundle.calibration is not None) == (precision == "int8")
    assert export(format, precision).cached


def test_calibration_is_the_training_split_alone_and_written_down(here: Path) -> None:
    import hashlib

    calibration = export("onnx", "int8").bundle.calibration
    assert calibration is not None
    assert (calibration.split, calibration.samples, calibration.method) == ("train", 64, "min-max")
    data = open_images(read_dataset("digits"))
    chosen = np.sort(np.random.default_rng(0).choice(len(data.read("train")), 64, replace=False))
    images = data.read("train").images[chosen]
    assert calibration.sha256 == hashlib.sha256(images.tobytes()).hexdigest()
    test = {image.tobytes() for image in data.read("test").images}
    assert not test & {image.tobytes() for image in images}


def test_int8_tflite_takes_and_gives_int8(here: Path) -> None:
    bundle = export("tflite", "int8").bundle
    assert (bundle.inputs[0].dtype, bundle.outputs[0].dtype) == ("int8", "int8")
    assert bundle.inputs[0].scale
    assert export("tflite", "int8-dynamic").bundle.inputs[0].dtype == "float32"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic"])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_targets_opset_ir_and_signedness_are_kept(here: Path, precision: str, activations: str) -> None:
    import onnx

    Path("old.yaml").write_text(LIMITED % activations)
    result = export("onnx", precision, target="old.yaml")
    model = onnx.load(result.folder / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert model.ir_version <= 7
    if precision == "int8":
        kinds = {node.op_type for node in model.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        zero_points = {value.name: value.data_type for value in model.graph.initializer if "zero_point" in value.name}
        used = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        expected = onnx.TensorProto.INT8 if activations == "int8" else onnx.TensorProto.UINT8
        assert {zero_points[name] for name in used} == {expected}


def test_a_file_beyond_the_targets_limits_is_refused(here: Path) -> None:
    Path("old.yaml").write_text((LIMITED % "int8").replace("ir: 7", "ir: 5"))
    with pytest.raises(ExportError, match="reads ONNX IR 5 at most, this file came out as 7"):
        export("onnx", "fp32", target="old.yaml")
    assert not list(Path("bundles").glob("*"))


def test_concatenations_of_one_tensor_are_removed() -> None:
    from onnx import TensorProto, helper

    from edgebench.exporters.onnx import without_lone_concats

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["a"], ["b"], axis=1),
        helper.make_node("Concat", ["b", "b"], ["c"], axis=1),
        helper.make_node("Concat", ["c"], ["y"], axis=1),
    ]
    model = without_lone_concats(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])))
    found = [(node.op_type, list(node.input)) for node in model.graph.node]
    assert found == [("Relu", ["x"]), ("Concat", ["a", "a"]), ("Concat", ["c"])]


def test_tflite_weights_lie_inside_the_flatbuffer(here: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    for precision in ("fp16", "int8", "int8-dynamic"):
        content = (export("tflite", precision).folder / "model.tflite").read_bytes()
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        assert not [buffer for buffer in model.buffers if buffer.offset > 1]


def test_what_was_changed_is_noticed_and_made_anew(here: Path) -> None:
    result = export("onnx", "fp32")
    path = result.folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"model\.onnx: changed since it was written"):
        read_bundle(result.folder)
    assert not export("onnx", "fp32").cached
    assert read_bundle(result.folder)
    manifest = result.folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"samples": 256', '"samples": 999'))
    with pytest.raises(BundleError, match=r"bundle\.json: changed"):
        read_bundle(result.folder)
    path.unlink()
    assert not export("onnx", "fp32").cached
    (result.folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="missing"):
        read_bundle(result.folder)


def test_a_bundle_with_hostile_names_is_refused(here: Path) -> None:
    import json

    from edgebench.files import seal

    folder = export("onnx", "fp32").folder
    good = json.loads((folder / "bundle.json").read_text())
    hostile: list[dict[str, Any]] = [
        {"format": "../../x"},
        {"precision": "$(id)"},
        {"runtime": "a b;rm -rf ~"},
        {"model": {**good["model"], "name": "../../x"}},
        {"entry": "/etc/passwd"},
        {"files": {**good["files"], "../../x": good["files"]["model.onnx"]}},
    ]
    for change in hostile:
        (folder / "bundle.json").write_text(json.dumps(seal({**good, **change})))
        with pytest.raises(BundleError):
            read_bundle(folder)


def test_other_inputs_are_other_bundles(here: Path) -> None:
    first = export("onnx", "int8").bundle
    assert export("onnx", "int8", calibration={"samples": 32}).bundle.key != first.key
    assert not export("onnx", "int8").cached
    assert export("onnx", "int8").bundle.key == first.key


def test_the_parity_gate_refuses_a_file_that_decides_otherwise(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgebench.exporters import onnx as plugin

    def spoilt(request: Any, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        model = onnx.load(path)
        last = next(value for value in model.graph.initializer if list(value.dims) == [10, 16])
        array = numpy_helper.to_array(last).copy()
        last.CopyFrom(numpy_helper.from_array(array[::-1].copy(), last.name))
        onnx.save(model, path)

    monkeypatch.setitem(plugin.CONVERT, "fp32", spoilt)
    with pytest.raises(ExportError, match="parity gate"):
        export("onnx", "fp32")
    assert not list(Path("bundles").glob("*"))


def test_the_gate_counts_decisions_and_refuses_what_is_not_finite(here: Path) -> None:
    model = export("torch", "fp32").bundle.model
    reference = np.eye(10, dtype=np.float32)[np.arange(200) % 10]
    outputs = reference.copy()
    outputs[:2] = outputs[:2, ::-1]
    parity = parity_.compare(model, [reference], [outputs], None, "synthetic")
    assert parity.top1_agreement == pytest.approx(0.99)
    with pytest.raises(ExportError, match=r"1\.0 % of 200 samples"):
        parity_.check_agreement("tiny", model, parity, "fp32")
    reference[:2, 9] = reference[:2, 0] * 0.999 + reference[:2, 1] * 0.999
    tied = parity_.compare(model, [reference], [outputs], None, "synthetic")
    assert tied.top1_agreement == pytest.approx(0.99)
    assert tied.near_ties == 1
    trained = model.model_copy(update={"lineage": model.lineage.model_copy(update={"recipe": "train"})})
    assert parity_.gate(model, tied) == pytest.approx(0.995)
    assert parity_.gate(trained, tied) == pytest.approx(0.99)
    parity_.check_agreement("tiny", model, tied, "fp32")
    with pytest.raises(ExportError, match="parity gate"):
        parity_.check_agreement("tiny", trained, tied, "fp32")
    outputs[0, 0] = np.nan
    with pytest.raises(ExportError, match="not finite"):
        parity_.compare(model, [reference], [outputs], None, "synthetic")
    with pytest.raises(ExportError, match="shape"):
        parity_.compare(model, [reference], [outputs[:, :3]], None, "synthetic")


def test_a_quantized_file_that_loses_too_much_is_refused(here: Path) -> None:
    bundle = export("onnx", "int8").bundle
    lossy = bundle.model_copy(update={"parity": parity_of(bundle).model_copy(update={"metric_drop": 0.02})})
    check_goals(lossy, Goals(max_degradation=0.02))
    with pytest.raises(ExportError, match=r"loses 2\.0 points of accuracy.*1\.0 are allowed"):
        check_goals(lossy, Goals())
    assert isinstance(lossy.parity, Parity)


def test_int8_without_data_is_refused_and_fp32_says_that_its_samples_are_noise(here: Path) -> None:
    with pytest.raises(InputError, match="int8 needs samples to calibrate on"):
        export("onnx", "int8", dataset=None, classes=4)
    assert parity_of(export("onnx", "fp32", dataset=None, classes=4).bundle).source == "synthetic"


def test_unknown_formats_and_precisions_get_the_nearest(here: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'onnx'"):
        export("onx", "fp32")
    with pytest.raises(UnknownName, match="did you mean 'int8'"):
        export("onnx", "int9")
    with pytest.raises(ExportError, match="does not run"):
        Path("old.yaml").write_text(LIMITED % "int8")
        export("tflite", "fp32", target="old.yaml")


@pytest.mark.filterwarnings("ignore:mine.pt. its keys fit without the prefix 'module.':edgebench.errors.ModelWarning")
def test_checkpoints_and_programs_are_exported_like_models(here: Path) -> None:
    import torch

    module = models.build("tinynet:net", 10, 1, 16).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, "mine.pt")
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 16, 16),)), "mine.pt2")
    given: dict[str, Any] = {"format": "onnx", "dataset": "digits", "size": 16, "channels": 1}
    one = verbs.export("mine.pt", architecture="tinynet:net", **given).bundle
    two = verbs.export("mine.pt2", out=Path("other"), trust=True, **given).bundle
    assert one.model.lineage.recipe == two.model.lineage.recipe == "checkpoint"
    assert one.model.parameters == two.model.parameters
    assert parity_of(one).max_abs < 1e-3
    assert parity_of(two).max_abs < 1e-3
    assert one.model.preprocessing.mean == (0.3049,)
    stated = verbs.export("mine.pt", architecture="tinynet:net", out=Path("third"), mean=[0.5], std=[0.25], **given).bundle
    assert (stated.model.preprocessing.mean, stated.model.preprocessing.std) == ((0.5,), (0.25,))
    with pytest.raises(InputError, match="mean wants 1 values"):
        verbs.export("mine.pt", architecture="tinynet:net", mean=[0.5, 0.5], std=[1, 1], **given)
    with pytest.raises(InputError, match="--architecture"):
        verbs.export("mine.pt", **given)
    with pytest.raises(InputError, match="has 10 classes, 4 are wanted"):
        verbs.export("mine.pt", architecture="tinynet:net", classes=4, **{**given, "dataset": None})


def test_random_networks_keep_activations_in_range(here: Path) -> None:
    """Without settled batch norms a deep random MobileNet returns numbers of 1e-11 or so."""
    data = open_images(read_dataset("digits"))
    _, network = open_source(SourceOptions("mobilenet_v3_small", size=32, channels=1), data)
    assert np.abs(parity_.torch_outputs(network(), [data.read("test").images[:8]])["output"]).max() > 1e-3


def test_random_networks_score_something(here: Path) -> None:
    """torchvision's vision transformers begin with a head of zeros, which any file would agree with."""
    _, network = open_source(SourceOptions("vit_b_16", size=16, channels=1, classes=10), None)
    scores = parity_.torch_outputs(network(), [np.zeros((2, 16, 16, 1), np.uint8)])["output"]
    assert scores.std() > 0.01
