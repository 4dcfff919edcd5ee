"""Model files that packages ship, read out of their wheels (`make files`): nothing of the packages is installed or run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgebench
from edgebench.bundle import kinds, shapes
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.predict import predict
from edgebench.bundle.samples import samples
from edgebench.config import read_target
from edgebench.errors import EdgebenchError, InputError

WHEELS = Path(__file__).parent.parent / "build" / "files"
RECOGNIZER = "ch_PP-OCRv4_rec_infer.onnx"
FACES = ("face_detection_short_range.tflite", "face_detection_full_range_sparse.tflite", "face_landmark_with_attention.tflite")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Unpack the model files of all wheels; by name, `silero_vad.onnx`, but magika's, which is called `magika.onnx`."""
    folder, found = tmp_path_factory.mktemp("shipped"), {}
    wheels = sorted(WHEELS.glob("*.whl"))
    if len(wheels) < 5:
        pytest.skip("the wheels of tests/files.txt are not there; `make files` fetches them (82 MB)")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith((".onnx", ".tflite", ".jit")):
                    called = "magika.onnx" if name.startswith("magika/") else Path(name).name
                    found[called] = folder / called
                    found[called].write_bytes(archive.read(name))
    return found


READ = [
    ("320n.onnx", "fp32", 3009191, {"images": (None, 3, None, None)}),
    (RECOGNIZER, "fp32", 2690352, {"x": (None, 3, None, None)}),
    ("silero_vad.onnx", "fp32", 545288, {"input": (None, None), "state": (2, None, 128), "sr": ()}),
    ("silero_vad_half.onnx", "fp32", 309636, {"input": (None, None), "state": (2, None, 128)}),  # whatever its name says
    ("magika.onnx", "fp32", 784223, {"bytes": (None, 2048)}),
    ("iris_landmark.tflite", "fp32", 651300, {"input_1": (1, 64, 64, 3)}),
    (FACES[0], "fp16", 101390, {"input": (1, 128, 128, 3)}),
    (FACES[1], "fp16-sparse", 508308, {"input_1": (1, 192, 192, 3)}),
]


@pytest.mark.parametrize(("name", "precision", "parameters", "inputs"), READ, ids=[each[0] for each in READ])
def test_it_is_read(shipped: dict[str, Path], name: str, precision: str, parameters: int, inputs: Any) -> None:
    found = kinds.read_file(shipped[name])
    assert (found.precision, found.parameters) == (precision, parameters)
    assert {each.name: each.shape for each in found.inputs} == inputs


def test_a_detectors_size_is_what_its_maker_says(shipped: dict[str, Path]) -> None:
    path = shipped["320n.onnx"]
    assert shapes.resolved(str(path), kinds.read_file(path), {})[0].shape == (1, 3, 320, 320)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (RECOGNIZER, r"sizes are open.*x \[1, 3, \?, p2o\.DynamicDimension\.1\] float32; give --shape x=1x3xNxN"),
        ("silero_vad.onnx", r"sizes are open.*state \[2, \?, 128\] float32"),
        ("silero_vad.jit", "takes 'sr' as int"),
        (FACES[2], "unresolved custom op: Landmarks2TransformMatrix"),
    ],
)
def test_it_is_refused_by_name(shipped: dict[str, Path], tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(EdgebenchError, match=words):
        edgebench.import_file(shipped[name], out=tmp_path)


def test_custom_operators_are_named_with_their_nodes(shipped: dict[str, Path]) -> None:
    found = kinds.read_file(shipped[FACES[2]]).custom
    assert str(found[0]) == "Landmarks2TransformMatrix (landmarks_to_transform_matrix_v2)"


RUN: list[tuple[str, dict[str, Any]]] = [
    ("320n.onnx", {}),
    (RECOGNIZER, {"shapes": {"x": "1x3x48x320"}}),
    (
        "silero_vad.onnx",
        {"shapes": {"input": "1x512", "state": "2x1x128"}, "inputs": {"sr": 16000}, "carry": {"state": "stateN"}},
    ),
    ("magika.onnx", {"ranges": {"bytes": (0, 256)}}),
    (FACES[1], {}),
]


def direct(path: Path, feeds: dict[str, Any]) -> list[Any]:
    """Call the file's runtime."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), feeds.values(), strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize(("name", "given"), RUN, ids=[each[0] for each in RUN])
def test_it_computes_what_its_runtime_called_directly_does(
    shipped: dict[str, Path], tmp_path: Path, name: str, given: dict[str, Any]
) -> None:
    made = edgebench.import_file(FileOptions(shipped[name], **given), out=tmp_path)
    one = [each[:1] for each in samples(made.bundle.inputs, made.folder, None, 1)]
    ours = predict(made.folder, made.bundle, one, read_target("cpu"))
    theirs = direct(shipped[name], {each.name: np.asarray(array[0]) for each, array in zip(made.bundle.inputs, one, strict=True)})
    for spec, our, their in zip(made.bundle.outputs, ours, theirs, strict=True):
        assert spec.shape == their.shape
        assert np.abs(our.ravel() - their.ravel()).max() <= 1e-6 * np.abs(their).max()


def test_a_size_of_the_wrong_rank_is_refused(shipped: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not fit x"):
        edgebench.import_file(FileOptions(shipped[RECOGNIZER], shapes={"x": "1x3x48"}), out=tmp_path)
