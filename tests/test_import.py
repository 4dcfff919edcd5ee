"""Model files as they are: made into bundles, run, and compared with right outputs, on this computer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxfiles as made
import onnxruntime
import pytest
from conftest import Cli
from onnx import TensorProto, helper, numpy_helper

import edgebench
from edgebench.agent.cell import outputs
from edgebench.bundle import import_file as import_
from edgebench.bundle.images import ImageOptions
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.manifest import read_bundle
from edgebench.cli import files
from edgebench.config import read_dataset, read_target
from edgebench.data import open_images
from edgebench.errors import InputError, UnknownName, UntrustedFile
from edgebench.schema import Bundle, TensorSpec


def told(staging: Path, draft: Bundle) -> tuple[TensorSpec, ...]:
    """Stand in for a run that says what comes out."""
    return tuple(each.model_copy(update={"shape": tuple(abs(size) for size in each.shape)}) for each in draft.outputs)


def bundle_of(options: FileOptions, folder: Path) -> Bundle:
    brought = import_.read(options, read_target("cpu"), None, trust=False)
    return import_.bundle_of(brought, folder, told)[0]


def direct(path: Path, **feed: Any) -> list[Any]:
    found: list[Any] = onnxruntime.InferenceSession(path).run(None, feed)
    return found


# ---------------------------------------------------------------- bundles


def test_a_bundle_holds_the_file_its_weights_and_the_arrays_that_were_given(tmp_path: Path) -> None:
    import onnx

    path = made.linear(tmp_path / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="deep.bin", size_threshold=0)
    np.save(tmp_path / "x.npy", np.arange(8, dtype=np.float32).reshape(2, 4))
    found = bundle_of(FileOptions(path, inputs={"x": tmp_path / "x.npy"}), tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == found
    assert set(found.files) == {"model.onnx", "deep.bin", "inputs.npz"}
    assert (found.precision, found.model.architecture, found.model.task, found.model.classes) == ("fp32", "file", "none", ())
    assert (found.parity, found.scored, found.runtime) == (None, None, "onnxruntime")
    [given] = found.inputs
    assert given.values is not None and given.values.source == "file"
    assert np.load(tmp_path / "bundle" / "inputs.npz")["input_0"].shape == (2, 1, 4)


def test_a_bundle_is_made_once_for_what_was_asked(tmp_path: Path) -> None:
    target, path = read_target("cpu"), made.convolution(tmp_path / "net.onnx", ("batch", 3, "height", "width"))

    def key(**asked: Any) -> str:
        return import_.read(FileOptions(path, **{"shapes": {"images": "1x3x8x8"}, **asked}), target, None, False).key

    keys = [
        key(),
        key(shapes={"images": "1x3x8x16"}),
        key(ranges={"images": (0, 255)}),
        key(inputs={"images": np.ones((1, 3, 8, 8), np.float32)}),
        key(inputs={"images": np.zeros((1, 3, 8, 8), np.float32)}),
        key(inputs={"images": 0.5}),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    made.convolution(path, ("batch", 3, "height", "width"))
    assert key() != keys[0]  # other weights


def stateful(path: Path) -> Path:
    nodes = [helper.make_node("Mul", ["x", "rate"], ["m"]), helper.make_node("Add", ["m", "state"], ["next"])]
    inputs = [made.value("x", 1, 4), made.value("rate"), made.value("state", 1, 4)]
    return made.write(path, nodes, inputs, [made.value("next", 1, 4)])


def test_values_are_random_constant_or_fed_back(tmp_path: Path) -> None:
    options = FileOptions(stateful(tmp_path / "m.onnx"), ranges={"x": (-1, 1)}, inputs={"rate": 2.0}, carry={"state": "next"})
    x, rate, state = bundle_of(options, tmp_path / "bundle").inputs
    assert x.values is not None and (x.values.source, x.values.low, x.values.high) == ("synthetic", -1, 1)
    assert rate.values is not None and (rate.values.source, rate.values.value) == ("constant", 2.0)
    assert state.carry == "next"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ranges": {"y": (0, 1)}}, "input of .*did you mean|input of .*'y'"),
        ({"carry": {"state": "nothing"}}, "output of .*'nothing'"),
        ({"ranges": {"x": (1, 0)}}, "--range x=1:0: no range"),
        ({"ranges": {"x": (0, 1)}, "inputs": {"x": 1.0}}, "--range and --input are both given for x"),
        ({"inputs": {"x": np.zeros((1, 5), np.float32)}}, r"--input x: is \[1, 5\], wanted is \[1, 4\]"),
        ({"inputs": {"x": np.array([["a"] * 4])}}, "--input x: holds <U1, wanted is float32"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bundle_of(FileOptions(stateful(tmp_path / "m.onnx"), **given), tmp_path / "bundle")


def test_a_constant_must_fit_its_type(tmp_path: Path) -> None:
    nodes, value = [helper.make_node("Identity", ["sr"], ["y"])], made.value
    path = made.write(tmp_path / "m.onnx", nodes, [value("sr", dtype=TensorProto.INT8)], [value("y", dtype=TensorProto.INT8)])
    with pytest.raises(InputError, match="--input sr=16000: is no int8"):
        bundle_of(FileOptions(path, inputs={"sr": 16000}), tmp_path / "bundle")


def test_arrays_with_objects_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy: holds no plain arrays"):
        bundle_of(FileOptions(stateful(tmp_path / "m.onnx"), inputs={"x": tmp_path / "x.npy"}), tmp_path / "bundle")


def test_what_is_newer_than_the_target_says_is_told_and_tried(tmp_path: Path) -> None:
    path = made.linear(tmp_path / "m.onnx", opset=19, ir=11)
    brought = import_.read(FileOptions(path), read_target("cpu"), None, False)
    told_ = import_.warnings_of(brought)
    assert [each.partition(": ")[2] for each in told_] == [
        "has opset 19, the target reads 17; it is tried all the same",
        "has IR version 11, the target reads 10; it is tried all the same",
    ]


def test_a_precision_that_a_target_does_not_list_is_tried_and_one_that_it_refuses_is_not(tmp_path: Path) -> None:
    cpu = read_target("cpu")
    assert import_.accepted(cpu, "onnx", "int4-weights").runtime == "onnxruntime"
    with pytest.raises(Exception, match="cpu does not run coreml"):
        import_.accepted(cpu, "coreml", "fp16")


# ---------------------------------------------------------------- the command line


def test_options_of_files_are_read_as_they_are_typed() -> None:
    group = files.FileGroup(
        shape=['{"a": 1}=1x4'], range=["gpu_0/data_0=0:255"], input=["sr=16000", "x=x.npy", "on=true"], carry=["h=hn"], mean="0.5"
    )
    found = group.read(Path("m.onnx"))
    assert found.shapes == {'{"a": 1}': "1x4"}
    assert found.ranges == {"gpu_0/data_0": (0.0, 255.0)}
    assert found.inputs == {"sr": 16000.0, "x": Path("x.npy"), "on": 1.0}
    assert found.image.mean == (0.5,)
    for wrong in (files.FileGroup(shape=["1x3"]), files.FileGroup(range=["x=1"]), files.FileGroup(input=["x=y.txt"])):
        with pytest.raises(InputError, match="for instance --"):
            wrong.read(Path("m.onnx"))


def test_options_of_files_without_a_file_are_refused(here: Path, cli: Cli) -> None:
    code, _, errors = cli("run", "digits", "--shape", "x=1x4")
    assert code == 2
    assert "--shape: belongs to a model file, and none is given" in errors


@pytest.mark.usefixtures("here")
def test_files_are_run_by_patterns_and_one_that_is_none_does_not_stop_the_others(cli: Cli) -> None:
    made.linear(Path("good.onnx"))
    Path("bad.onnx").write_bytes(b"<html>")
    code, out, errors = cli("run", "*.onnx", "--json")
    cells = {each["model"]: each for each in json.loads(out)["cells"]}
    assert code == 1
    assert cells["good"]["state"] == "done", errors
    assert "is a web page" in cells["bad.onnx"]["reason"]
    [record] = json.loads(out)["records"]
    assert (record["accuracy"], record["cell"]["dataset"], record["status"]) == (None, None, "done")
    assert record["cell"]["precision"] == "fp32"
    code, out, _ = cli("run", "good.onnx", "--json")
    assert (code, json.loads(out)["cells"][0]["state"]) == (0, "cached")
    code, _, errors = cli("run", "bad.onnx")
    assert code == 2
    assert errors.strip().count("\n") == 0


# ---------------------------------------------------------------- right outputs, accuracy, TorchScript


@pytest.mark.usefixtures("here")
def test_outputs_are_compared_on_the_device_and_a_mismatch_is_invalid() -> None:
    path, x = made.linear(Path("m.onnx")), np.random.default_rng(0).random((3, 1, 4), np.float32)
    right = np.stack([direct(path, x=each)[0] for each in x])
    np.savez("wrong.npz", y=right + np.array([[[0, 0, 0]], [[0, 0.5, 0]], [[0, 0, 0]]], np.float32))
    [record] = edgebench.run(bundle=[FileOptions(path, inputs={"x": x}, golden=Path("wrong.npz"))]).records
    assert record.verdict is not None and record.verdict.word == "INVALID"
    reason = record.verdict.reasons[0].reason
    assert reason.startswith("output y is off by 0.5 at most, ") and reason.endswith("(element 1)")
    [kept] = record.right_outputs
    assert (kept.output, kept.at, kept.reason) == ("y", 1, None)
    assert kept.largest == pytest.approx(0.5)
    assert edgebench.verify(Path("results"))[0].wrong == ()


@pytest.mark.parametrize(("ours", "off"), [(1.0, 0), (1.05, 0.5), (1.2, 2), (float("nan"), 1e30), (float("inf"), 1e30)])
def test_how_far_an_output_is_off_is_counted_in_what_is_allowed(ours: float, off: float) -> None:
    found = outputs.told(np, "y", np.array([2.0, ours]), np.array([2.0, 1.0]), {"rtol": 0.0, "atol": 0.1})
    assert found["off"] == pytest.approx(off)
    assert found["finite"] == np.isfinite(ours)
    assert found["at"] == (1 if off else 0)


def test_an_output_of_another_shape_is_no_right_one() -> None:
    found = outputs.told(np, "y", np.zeros((1, 3)), np.zeros((1, 2)), {"rtol": 0.0, "atol": 0.1})
    assert found["reason"] == "has the shape [1, 3], right is [1, 2]"


def test_onnx_test_data_gives_inputs_and_right_outputs(tmp_path: Path) -> None:
    path, folder = made.linear(tmp_path / "m.onnx"), tmp_path / "test_data_set_0"
    folder.mkdir()
    x = np.ones((1, 4), np.float32)
    for name, array in (("input_0", x), ("output_0", direct(path, x=x)[0])):
        (folder / f"{name}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
    found = bundle_of(FileOptions(path, golden=folder), tmp_path / "bundle")
    assert found.golden is not None and found.golden.outputs == {"y": "output_0"}
    assert np.array_equal(np.load(tmp_path / "bundle" / "inputs.npz")["input_0"], x[None])
    with pytest.raises(InputError, match=r"holds no output_0\.pb"):
        bundle_of(FileOptions(path, golden=tmp_path), tmp_path / "other")


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_test_data_are_read_as_onnx_reads_them(tmp_path: Path, dtype: str, raw: bool) -> None:
    from edgebench.exporters._onnx import testdata

    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.ravel().tolist()
    (tmp_path / "x.pb").write_bytes(helper.make_tensor("x", kind, array.shape, values, raw=raw).SerializeToString())
    name, found = testdata.tensor(tmp_path / "x.pb")
    assert name == "x"
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.usefixtures("here")
def test_a_file_with_a_data_set_has_the_accuracy_of_its_own_outputs() -> None:
    path, test = made.convolution(Path("net.onnx"), (1, 1, 8, 8)), open_images(read_dataset("digits")).read("test")
    image = ImageOptions(mean=(0.3,), std=(0.4,))
    inputs = ((test.images / 255 - 0.3) / 0.4).astype(np.float32).transpose(0, 3, 1, 2)
    scores = np.concatenate([direct(path, images=each[None])[0] for each in inputs])
    [record] = edgebench.run(bundle=[FileOptions(path, image=image)], dataset="digits").records
    assert record.accuracy is not None
    assert record.accuracy.metrics["accuracy"] == pytest.approx((scores.argmax(axis=1) == test.labels).mean(), abs=1e-6)
    with pytest.raises(InputError, match=r"output scores \[1, 7\] has 7 scores, digits has 10 classes"):
        edgebench.run(bundle=[made.convolution(Path("seven.onnx"), (1, 1, 8, 8), 7)], dataset="digits")
    with pytest.raises(InputError, match="none of its inputs is an image"):
        edgebench.run(bundle=[made.linear(Path("plain.onnx"))], dataset="digits")


def test_head_and_placing_of_a_file_are_kept_with_it(tmp_path: Path) -> None:
    path, target, made_of = made.convolution(tmp_path / "net.onnx", (1, 1, 8, 8)), read_target("cpu"), tmp_path / "data.npz"
    split: dict[str, Any] = {"images": np.zeros((20, 9, 12), np.uint8), "labels": np.arange(20) % 10}
    whole: dict[str, Any] = {f"{name}_{part}": value for name in ("train", "val", "test") for part, value in split.items()}
    np.savez(made_of, **whole)
    group = files.FileGroup(head="sigmoid", resize="shortest:9+crop:8", classes_file=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("\n".join("9876543210"))
    data = open_images(read_dataset(group.dataset(f"medmnist:{made_of}") or ""))
    brought = import_.read(group.read(path), target, data, trust=False)
    bundle, _ = import_.bundle_of(brought, tmp_path / "bundle", lambda *_: ())
    spec = bundle.model.preprocessing
    assert bundle.model.head == "sigmoid" and bundle.model.classes == tuple("9876543210")
    assert (spec.resize, spec.height, spec.width) == ("shortest:9+crop:8", 8, 8)
    plain = import_.read(FileOptions(path), target, data, trust=False)
    assert plain.key != brought.key and "head" not in plain.options.image.keyed()
    with pytest.raises(InputError, match=r"takes 8 × 8, and .* ends at 4 × 4: its images would be resized twice"):
        other = open_images(read_dataset(f"medmnist:{made_of},resize=fit,size=4"))
        import_.bundle_of(import_.read(FileOptions(path), target, other, False), tmp_path / "other", lambda *_: ())
    for group, dataset, said in (
        (files.FileGroup(classes_file=Path("n")), None, "--classes-file n: is the order of a data set's classes"),
        (files.FileGroup(resize="fit"), None, "--resize fit: is of a data set's images"),
        (files.FileGroup(resize="fit"), "digits,resize=pad", "--dataset says resize= already"),
        (files.FileGroup(classes_file=Path("a,b")), "digits", "no comma may stand in it"),
    ):
        with pytest.raises(InputError, match=said):
            group.dataset(dataset)
    with pytest.raises(InputError, match="is logits, softmax or sigmoid"):
        files.FileGroup(head="tanh").read(path)


def test_one_score_of_two_classes_is_taken_of_a_file(tmp_path: Path) -> None:
    path, split = made.convolution(tmp_path / "net.onnx", (1, 1, 8, 8), 1), {"images": np.zeros((20, 8, 8), np.uint8)}
    arrays: dict[str, Any] = {f"{name}_images": split["images"] for name in ("train", "val", "test")}
    arrays |= {f"{name}_labels": np.arange(20) % 2 for name in ("train", "val", "test")}
    np.savez(tmp_path / "two.npz", **arrays)
    data = open_images(read_dataset(f"medmnist:{tmp_path / 'two.npz'},task=binary"))
    brought = import_.read(FileOptions(path), read_target("cpu"), data, trust=False)
    assert import_.bundle_of(brought, tmp_path / "bundle", lambda *_: ())[0].scored == "scores"


def test_pixels_become_what_scale_mean_and_deviation_say() -> None:
    from edgebench.agent.runtimes import preprocess
    from edgebench.bundle import images as images_
    from edgebench.schema import Input

    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    given = Input(name="x", shape=(1, 4, 4, 3), dtype="float32")
    for scale, mean, std in (
        ((0, 1), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)),
        ((0, 255), (104, 117, 124), (1, 1, 1)),
        ((-1, 1), None, None),
    ):
        image = images_.ImageOptions(scale=scale, mean=mean, std=std)
        spec = images_._spec(FileOptions(Path("m"), image=image), given, 4)
        wanted = (pixels / 255 * (scale[1] - scale[0]) + scale[0] - np.array(mean or 0)) / np.array(std or 1)
        assert np.allclose(preprocess.apply(pixels, spec.model_dump()), wanted, atol=1e-4)


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_run_where_somebody_vouches_for_it() -> None:
    import torch

    traced: Any = torch.jit.trace(torch.nn.Linear(4, 3).eval(), torch.zeros(1, 4))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, "net.pt")
    given = FileOptions(Path("net.pt"), shapes={"input": "1x4"})
    with pytest.raises(UntrustedFile, match=r"TorchScript can read and write files.*give --trust"):
        edgebench.import_file(given)
    found = edgebench.import_file(given, trust=True)
    assert [(each.name, each.shape) for each in found.bundle.outputs] == [("output", (1, 3))]
    assert found.bundle.model.parameters == 15


def test_names_that_a_file_does_not_have_are_refused_unless_another_has_them(tmp_path: Path) -> None:
    path, target = made.linear(tmp_path / "m.onnx"), read_target("cpu")
    with pytest.raises(UnknownName):
        import_.read(FileOptions(path, ranges={"images": (0, 1)}), target, None, False)
    assert import_.read(FileOptions(path, ranges={"images": (0, 1)}, several=True), target, None, False).given.ranges == {}


@pytest.mark.usefixtures("here")
def test_an_onnx_file_is_quantized_as_it_is() -> None:
    path, x = made.convolution(Path("net.onnx"), (1, 3, 8, 8)), np.random.default_rng(0).random((8, 3, 8, 8), np.float32)
    np.savez("samples.npz", images=x)
    with pytest.raises(InputError, match="INT8 needs samples to calibrate on"):
        edgebench.quantize(str(path))
    given = edgebench.QuantizeOptions(calibration_file=Path("samples.npz"))
    found = edgebench.quantize(str(path), options=given)
    assert (found.bundle.precision, found.bundle.model.name) == ("int8", "net")
    assert [(each["name"], each["metric"]) for each in found.candidates] == [("fp32", None), ("int8", None)]
    [ours], [right] = direct(found.folder / "model.onnx", images=x[:1]), direct(path, images=x[:1])
    assert 0 < np.abs(ours - right).max() < 0.05 * np.ptp(right)
    with pytest.raises(InputError, match="is int8 already"):
        edgebench.quantize(
            str(found.folder / "model.onnx"), options=edgebench.QuantizeOptions(calibration_file=Path("samples.npz"))
        )


# ---------------------------------------------------------------- names


def test_files_of_one_name_are_named_by_their_folders_too(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/model.onnx", "b/model.onnx", "b/model.tflite", "b/other.onnx")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = import_.told_apart([FileOptions(path) for path in [*paths, paths[0]]])
    assert [each.called for each in found] == ["a-model", "b-model", "model", "other", "a-model"]
    with pytest.raises(InputError, match=r"would both be called net; name one at a time with --name$"):
        import_.told_apart([FileOptions(path, name="net") for path in paths[:2]])


def test_a_file_is_called_as_the_user_says(here: Path, cli: Cli) -> None:
    made.linear(here / "model.onnx")
    given = ("--shape", "x=1x4", "--name", "my net")
    assert cli("import", "model.onnx", *given)[0] == 0
    assert read_bundle(here / "bundles" / "my-net.onnx.fp32").model.name == "my-net"
    code, _, err = cli("import", "model.onnx", "other.onnx", "--name", "net")
    assert (code, "--name net: names one file's model, and these are several" in err) == (2, True)


def test_two_files_are_compared_and_one_gives_the_noise(here: Path, cli: Cli) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        made.linear(Path(folder) / "model.onnx")
    code, out, _ = cli("compare", "a/model.onnx", "b/model.onnx", "--mode", "quick")
    assert code == 0
    assert "a-model.onnx.fp32" in out and "b-model.onnx.fp32" in out
    assert cli("noise", "a/model.onnx", "--mode", "quick", "--comparisons", "2")[0] == 0
    assert cli("compare", "a/model.onnx", "nowhere")[0] == 2
