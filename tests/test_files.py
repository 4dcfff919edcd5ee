"""What model files say of themselves, and what is said of files that are none."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxfiles as made
import pytest
import tflitefiles as tflite
from onnx import TensorProto, helper, numpy_helper

from edgebench.bundle import kinds, shapes
from edgebench.errors import InputError, UnknownName
from edgebench.schema.file import FileDescription

# ---------------------------------------------------------------- ONNX


def read(path: Path) -> FileDescription:
    return kinds.read_file(path)


def test_inputs_are_read_with_their_open_sizes_and_initializers_are_none(tmp_path: Path) -> None:
    given = [made.value("x", "batch", 4), made.value("w", 4, 3)]  # as IR 3 lists them
    found = read(made.linear(tmp_path / "m.bin", given))
    assert [(each.name, each.shape, each.symbols, each.dtype) for each in found.inputs] == [
        ("x", (None, 4), ("batch", ""), "float32")
    ]
    assert [(each.name, each.shape) for each in found.outputs] == [("y", (None, 3))]
    assert (found.format, found.precision, found.parameters) == ("onnx", "fp32", 12)
    assert (found.details["opset"], found.details["ir"], found.details["nodes"]) == (17, 8, 1)


@pytest.mark.parametrize("name", ["gpu_0/data_0", '{"a": [1, 2]}', "ä ö", "x=y"])
def test_names_may_be_anything(tmp_path: Path, name: str) -> None:
    path = made.write(tmp_path / "m.onnx", [helper.make_node("Relu", [name], ["y"])], [made.value(name, 1)], [made.value("y", 1)])
    assert read(path).inputs[0].name == name


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL"])
def test_scalars_of_every_type_are_read(tmp_path: Path, dtype: str) -> None:
    kind = getattr(TensorProto, dtype)
    values = [made.value("x", dtype=kind)], [made.value("y", dtype=kind)]
    [found] = read(made.write(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], *values)).inputs
    assert found.shape == ()
    assert found.dtype == {"FLOAT": "float32"}.get(dtype, dtype.lower())


def test_what_no_runtime_is_fed_is_refused_by_name(tmp_path: Path) -> None:
    text = made.value("words", 1, dtype=TensorProto.STRING)
    path = made.write(tmp_path / "t.onnx", [helper.make_node("Identity", ["words"], ["y"])], [text], [made.value("y", 1)])
    with pytest.raises(InputError, match=r"t\.onnx: input 'words' takes text"):
        read(path)
    many = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [1])
    path = made.write(
        tmp_path / "s.onnx", [helper.make_node("SequenceConstruct", ["x"], ["parts"])], [made.value("x", 1)], [many]
    )
    with pytest.raises(InputError, match="output 'parts' is a sequence"):
        read(path)


def half_weights() -> tuple[list[Any], list[Any]]:
    cast = helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT)
    return [cast, helper.make_node("MatMul", ["x", "f"], ["y"])], [made.weights("w", 4, 3, dtype=np.float16)]


def constant_weights() -> tuple[list[Any], list[Any]]:
    held = helper.make_node("Constant", [], ["w"], value=made.weights("", 4, 3, dtype=np.float16))
    cast = helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT)
    return [held, cast, helper.make_node("MatMul", ["x", "f"], ["y"])], []


def integer_weights() -> tuple[list[Any], list[Any]]:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    unpack = helper.make_node("DequantizeLinear", ["w", "s"], ["f"])
    return [unpack, helper.make_node("MatMul", ["x", "f"], ["y"])], [made.weights("w", 4, 3, dtype=np.int8), scale]


def full_integers() -> tuple[list[Any], list[Any]]:
    nodes, given = integer_weights()
    before = [helper.make_node("QuantizeLinear", ["x", "s"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s"], ["d"])]
    nodes[-1].input[0] = "d"
    return before + nodes, given


def dynamic() -> tuple[list[Any], list[Any]]:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    return nodes, [made.weights("w", 4, 3, dtype=np.int8)]


def several() -> tuple[list[Any], list[Any]]:
    nodes, given = integer_weights()
    nodes[-1].output[0] = "h"
    return [*nodes, helper.make_node("MatMul", ["h", "v"], ["y"])], [*given, made.weights("v", 3, 3)]


@pytest.mark.parametrize(
    ("form", "precision"),
    [
        (half_weights, "fp16-weights"),
        (constant_weights, "fp16-weights"),
        (integer_weights, "int8-weights"),
        (full_integers, "int8"),
        (dynamic, "int8-dynamic"),
        (several, "mixed"),
    ],
)
def test_precision_is_read_operator_by_operator(tmp_path: Path, form: Any, precision: str) -> None:
    nodes, given = form()
    path = made.write(tmp_path / "fp32.onnx", nodes, [made.value("x", 1, 4)], [made.value("y", 1, 3)], given)
    onnx.checker.check_model(path)
    found = read(path)
    assert found.precision == precision
    assert found.parameters >= 12


def test_half_precision_throughout_is_fp16(tmp_path: Path) -> None:
    values = [made.value("x", 1, 4, dtype=TensorProto.FLOAT16)], [made.value("y", 1, 3, dtype=TensorProto.FLOAT16)]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert read(made.write(tmp_path / "m.onnx", [node], *values, [made.weights("w", 4, 3, dtype=np.float16)])).precision == "fp16"


def test_weights_and_custom_operators_of_graphs_within_are_seen(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Decode", ["a"], ["b"], "decoder", domain="my.own"),
        ],
        "then",
        [],
        [made.value("b", 1, 3)],
        [made.weights("w", 4, 3, dtype=np.float16)],
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b2"])], "else", [], [made.value("b2", 1, 4)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)
    inputs = [made.value("c", dtype=TensorProto.BOOL), made.value("x", 1, 4)]
    found = read(made.write(tmp_path / "m.onnx", [node], inputs, [made.value("y")], domains=["my.own"]))
    assert (found.precision, found.parameters) == ("fp16", 12)
    assert [str(each) for each in found.custom] == ["my.own.Decode (decoder)"]


def external(folder: Path, location: str = "weights.bin") -> Path:
    path = made.linear(folder / "m.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_files_beside_belong_to_it(tmp_path: Path) -> None:
    found = read(external(tmp_path))
    assert found.files == (Path("weights.bin"),)
    assert found.parameters == 12


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../b", ""])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(InputError, match="leads out of its folder"):
        read(external(tmp_path, location))


def test_missing_or_short_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"'weights\.bin', which ends too early \(4 of 48 bytes\)"):
        read(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"'weights\.bin', which is not beside it"):
        read(path)


def test_a_link_out_of_the_folder_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = external(tmp_path / "in")
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "in" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(InputError, match="a link out of its folder"):
        read(path)


def test_a_file_cut_at_any_byte_is_refused_or_read(tmp_path: Path) -> None:
    content = made.convolution(tmp_path / "m.onnx").read_bytes()
    for end in range(1, len(content), 7):
        (tmp_path / "cut.onnx").write_bytes(content[:end])
        with pytest.raises(InputError, match=r"cut\.onnx: "):
            read(tmp_path / "cut.onnx")


def test_metadata_of_a_files_maker_is_read(tmp_path: Path) -> None:
    told = {"imgsz": "[320, 640]", "names": "{0: 'cat', 1: 'dog'}", "task": "detect", "stride": "32"}
    found = read(made.convolution(tmp_path / "m.onnx", metadata=told))
    assert shapes.image_size(found) == (320, 640)
    assert shapes.class_names(found) == ("cat", "dog")


# ---------------------------------------------------------------- shapes


def image(tmp_path: Path, *shape: Any, **more: Any) -> FileDescription:
    return read(made.convolution(tmp_path / "m.onnx", shape, **more))


def wanted(**given: str) -> dict[str, shapes.Wanted]:
    return {name: shapes.parse_shape(text) for name, text in given.items()}


def test_the_batch_is_one_and_every_other_size_must_be_given(tmp_path: Path) -> None:
    assert shapes.resolved("m", image(tmp_path, "batch", 3, 8, 8), {})[0].shape == (1, 3, 8, 8)
    assert shapes.resolved("m", image(tmp_path, None, 3, 8, 8), {})[0].shape == (1, 3, 8, 8)
    assert shapes.resolved("m", image(tmp_path, 4, 3, 8, 8), {})[0].shape == (4, 3, 8, 8)
    with pytest.raises(InputError, match=r"sizes are open.*images \[1, 3, height, \?\] float32; give --shape images=1x3xNxN"):
        shapes.resolved("m", image(tmp_path, "batch", 3, "height", None), {})


def test_sizes_are_given_whole_or_by_their_names_or_by_the_files_maker(tmp_path: Path) -> None:
    found = image(tmp_path, "batch", 3, "height", "width")
    assert shapes.resolved("m", found, wanted(images="2x3x16x24"))[0].shape == (2, 3, 16, 24)
    assert shapes.resolved("m", found, wanted(height="16", width="24"))[0].shape == (1, 3, 16, 24)
    told = image(tmp_path, "batch", 3, "height", "width", metadata={"imgsz": "[320, 640]"})
    assert shapes.resolved("m", told, {})[0].shape == (1, 3, 320, 640)


def test_a_size_of_the_same_name_is_the_same_elsewhere(tmp_path: Path) -> None:
    inputs = [made.value(name, "batch", "sequence", dtype=TensorProto.INT64) for name in ("ids", "mask")]
    nodes = [helper.make_node("Add", ["ids", "mask"], ["y"])]
    found = read(made.write(tmp_path / "m.onnx", nodes, inputs, [made.value("y", "batch", "sequence", dtype=TensorProto.INT64)]))
    assert [each.shape for each in shapes.resolved("m", found, wanted(ids="1x16"))] == [(1, 16), (1, 16)]
    with pytest.raises(InputError, match="sequence as 16 and as 8"):
        shapes.resolved("m", found, wanted(ids="1x16", mask="1x8"))


def test_a_first_size_that_is_no_batch_is_asked_for(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    found = read(made.write(tmp_path / "m.onnx", [node], [made.value("x", "frames", 3)], [made.value("y", "frames", 3)]))
    with pytest.raises(InputError, match=r"x \[frames, 3\]"):
        shapes.resolved("m", found, {})


def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    found = image(tmp_path, "batch", 3, 8, 8)
    with pytest.raises(InputError, match="does not fit images"):
        shapes.resolved("m", found, wanted(images="1x4x8x8"))
    with pytest.raises(UnknownName, match="did you mean 'images'"):
        shapes.resolved("m", found, wanted(image="1x3x8x8"))
    with pytest.raises(ValueError, match="is no shape"):
        shapes.parse_shape("1x0x3")


# ---------------------------------------------------------------- what is no model file


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as made_:
        for name in names:
            made_.writestr(name, "x")
    return path


def test_what_is_no_model_file_is_named_with_the_next_step(tmp_path: Path) -> None:
    files: dict[str, tuple[bytes, str]] = {
        "a.pkl": (pickle.dumps({"a": 1}), "is a pickle.*edgebench export"),
        "b.h5": (b"\x89HDF\r\n\x1a\n" + b"0" * 20, "is a Keras file.*tf2onnx"),
        "c.onnx": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        "d.onnx": (b"", "is empty"),
        "e.onnx": (b"<!DOCTYPE html><html>", "is a web page"),
        "f.safetensors": (struct.pack("<Q", 2) + b"{}" + b"0" * 20, "weights alone.*edgebench export"),
        "g.onnx": (b"hello, this is no model", "is no onnx file whatever its name says.*begins with 'hello"),
        "h.gguf": (b"GGUF" + b"0" * 20, "is of GGUF version"),
        "i.xml": (b"<?xml version='1.0'?><net name='x'>", "OpenVINO"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{words}"):
            read(tmp_path / name)
    archives = {
        "j.keras": (("config.json", "model.weights.h5", "metadata.json"), "is a Keras file"),
        "k.pt": (("archive/data.pkl", "archive/data/0"), "is a torch checkpoint.*edgebench export"),
        "l.npz": (("a.npy",), "holds arrays.*--input"),
        "m.zip": (("inner/model.onnx",), "is an archive of something else; unpack it and name inner/model.onnx"),
    }
    for name, (members, words) in archives.items():
        with pytest.raises(InputError, match=f"{name}: .*{words}"):
            read(archive(tmp_path / name, *members))


def test_folders_and_missing_paths_are_named_with_the_next_step(tmp_path: Path) -> None:
    for name in ("saved/saved_model.pb", "hf/config.json", "hf/model.safetensors", "some/net.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    with pytest.raises(InputError, match=r"is a TensorFlow SavedModel.*tf2onnx"):
        read(tmp_path / "saved")
    with pytest.raises(InputError, match=r"is a Hugging Face model folder.*export hf:"):
        read(tmp_path / "hf")
    with pytest.raises(InputError, match=r"is a folder with model files; name them: .*net\.onnx"):
        read(tmp_path / "some")
    with pytest.raises(InputError, match=r"no such file; beside it: net\.onnx"):
        read(tmp_path / "some" / "nett.onnx")
    with pytest.raises(InputError, match="matches no file"):
        kinds.expanded([str(tmp_path / "*.tflite")])


# ---------------------------------------------------------------- other formats


def test_a_pattern_is_replaced_by_what_it_matches(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "c.txt"):
        (tmp_path / name).write_bytes(b"1")
    assert kinds.expanded([str(tmp_path / "*.onnx"), "digits"]) == [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "digits"]


def test_an_engine_is_known_by_its_beginning_and_by_ultralytics_description(tmp_path: Path) -> None:
    described = json.dumps({"imgsz": [320, 320], "batch": 1, "task": "detect", "args": {"half": True}}).encode()
    (tmp_path / "a.bin").write_bytes(b"ftrt" + b"\0" * 60)
    (tmp_path / "b.engine").write_bytes(struct.pack("<i", len(described)) + described + b"ptrt" + b"\0" * 60)
    assert read(tmp_path / "a.bin").format == "tensorrt"
    found = read(tmp_path / "b.engine")
    assert (found.precision, found.details["begins"]) == ("fp16", 4 + len(described))
    assert shapes.resolved("b", found, {})[0].shape == (1, 3, 320, 320)
    with pytest.raises(InputError, match="does not say what it takes"):
        shapes.resolved("a", read(tmp_path / "a.bin"), {})


def test_files_that_edgebench_exports_are_read_as_what_they_are(tiny_bundles: dict[tuple[str, str], Path]) -> None:
    for (format, precision), folder in tiny_bundles.items():
        manifest = json.loads((folder / "bundle.json").read_text())
        found = read(folder / manifest["entry"])
        assert (found.format, found.precision) == (format, precision)
        assert [each.shape for each in found.inputs] == [(1, 1, 16, 16)]
        assert [each.shape for each in found.outputs] == [(1, 10)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_read_without_torch(tmp_path: Path) -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    torch.jit.save(torch.jit.script(network), str(tmp_path / "net.pt"))
    found = read(tmp_path / "net.pt")
    assert [(each.name, each.shape) for each in found.inputs] == [("input", None)]
    assert (found.precision, found.parameters, found.details["kind"]) == ("fp32", 15, "TorchScript")
    [given] = shapes.resolved("net.pt", found, {"input": shapes.parse_shape("1x4:float32")})
    assert (given.shape, given.dtype) == ((1, 4), "float32")
    with pytest.raises(InputError, match=r"input \(shape not said\)"):
        shapes.resolved("net.pt", found, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_that_takes_more_than_tensors_is_refused_by_name(tmp_path: Path) -> None:
    import torch

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
            return x * rate

    torch.jit.save(torch.jit.script(Net()), str(tmp_path / "net.pt"))
    with pytest.raises(InputError, match="takes 'rate' as int"):
        read(tmp_path / "net.pt")


# ---------------------------------------------------------------- TFLite


@pytest.mark.parametrize(
    ("stored", "used", "taken", "precision"),
    [
        ("float32", None, "float32", "fp32"),
        ("float16", "float32", "float32", "fp16"),
        ("int8", "float32", "float32", "int8-weights"),
        ("int8", None, "float32", "int8-dynamic"),
        ("int8", None, "int8", "int8"),
    ],
)
def test_precision_of_tflite_is_read_operator_by_operator(
    tmp_path: Path, stored: str, used: str | None, taken: str, precision: str
) -> None:
    found = read(tflite.linear(tmp_path / "model.bin", stored, used, taken))
    assert (found.format, found.precision, found.parameters) == ("tflite", precision, 12)
    assert [(each.name, each.shape, each.dtype, each.scale) for each in found.inputs] == [
        ("x", (1, 4), taken, pytest.approx(0.1) if taken == "int8" else None)
    ]


def test_custom_operators_and_open_sizes_of_tflite_are_read(tmp_path: Path) -> None:
    made = tflite.Writer()
    x, y = made.tensor("x", (1, -1, 4)), made.tensor("decoded", (1, 4))
    made.operator("MyDecoder", [x], [y])
    found = read(made.write(tmp_path / "m.tflite", [x], [y]))
    assert [str(each) for each in found.custom] == ["MyDecoder (decoded)"]
    assert found.inputs[0].shape == (1, None, 4)


def test_text_that_tflite_takes_is_refused_by_name(tmp_path: Path) -> None:
    made = tflite.Writer()
    x, y = made.tensor("words", (1,), "string"), made.tensor("y", (1,))
    made.operator("MyDecoder", [x], [y])
    with pytest.raises(InputError, match="input 'words' takes text"):
        read(made.write(tmp_path / "m.tflite", [x], [y]))


def test_tflite_that_is_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = tflite.linear(tmp_path / "m.tflite").read_bytes()
    for end in range(8, len(content) - 64, 9):
        (tmp_path / "cut.tflite").write_bytes(content[:end])
        with pytest.raises(InputError, match=r"cut\.tflite: "):
            read(tmp_path / "cut.tflite")


def test_what_exporters_append_to_tflite_is_read(tmp_path: Path) -> None:
    path = tflite.linear(tmp_path / "m.tflite")
    with zipfile.ZipFile(path, "a") as added:
        added.writestr("metadata.json", json.dumps({"imgsz": [64, 64], "names": {"0": "cat", "1": "dog"}}))
    found = read(path)
    assert shapes.image_size(found) == (64, 64)
    assert shapes.class_names(found) == ("cat", "dog")
