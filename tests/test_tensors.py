"""Networks of several inputs and outputs: exported, run, measured without a data set; values against torch and the runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import verbs
from factory import make_cell
from numpy.typing import NDArray

from edgebench import config
from edgebench.agent.cell.samples import joined, width
from edgebench.agent.runtimes import preprocess, tensors
from edgebench.bundle.export import Order, accepted, build_bundle, order_key
from edgebench.bundle.manifest import list_files, read_bundle
from edgebench.bundle.predict import Predictor, predict, split
from edgebench.bundle.samples import made
from edgebench.device.job import counted
from edgebench.errors import BundleError, ExportError, InputError
from edgebench.exporters.onnx import quiet
from edgebench.schema import (
    Bundle,
    Input,
    Lineage,
    Model,
    Network,
    Preprocessing,
    Record,
    TensorSpec,
    Values,
    image_input,
)
from edgebench.store import records
from edgebench.store.key import belongs, cell_key

Array = NDArray[Any]
GOLDEN = Path(__file__).parent / "golden"
IMAGE = Preprocessing(height=8, width=8, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TOKENS = Input(name="tokens", shape=(1, 4), dtype="int64", values=Values(low=0, high=9))
SHIFT = Input(name="shift", shape=(1, 5), dtype="float32", values=Values(source="constant", value=0.25))


class Fused(torch.nn.Module):
    """Takes an image, tokens and a vector; returns scores and boxes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.table = torch.nn.Embedding(10, 6)
        self.scores = torch.nn.Linear(6, 5)
        self.boxes = torch.nn.Linear(6, 8)

    def forward(self, image: torch.Tensor, tokens: torch.Tensor, shift: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = self.convolution(image).relu().mean((2, 3)) + self.table(tokens).mean(1)
        return {"scores": self.scores(mixed) + shift, "boxes": self.boxes(mixed).reshape(-1, 4, 2)}


def network() -> Network:
    model = Model(
        name="fused",
        architecture="fused",
        task="none",
        classes=(),
        inputs=(image_input(IMAGE, "image"), TOKENS, SHIFT),
        sha256="f" * 64,
        parameters=100,
        lineage=Lineage(recipe="checkpoint"),
    )
    return Network(model, Fused().eval(), None)


def exported(folder: Path, format: str, precision: str = "fp32") -> tuple[Path, Bundle]:
    given, target = network(), config.read_target("cpu")
    order = Order(given.model, lambda: given, format, precision, accepted(target, format, precision), None)
    place = folder / f"fused.{format}.{precision}"
    return place, build_bundle(order, target, place, lambda *_: None)[0]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Bundle]]:
    folder = tmp_path_factory.mktemp("fused")
    return {format: exported(folder, format) for format in ("onnx", "torch", "tflite")}


def reference(samples: tuple[Array, ...]) -> list[Array]:
    """Compute with torch alone."""
    images = (samples[0] / 255.0 - np.array(IMAGE.mean)) / np.array(IMAGE.std)
    image = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        found = Fused().eval()(image, torch.from_numpy(samples[1][:, 0]), torch.from_numpy(samples[2][0]))
    return [found[name].numpy() for name in ("scores", "boxes")]


# ---------------------------------------------------------------- files and what they return


@pytest.mark.parametrize("format", ["onnx", "torch", "tflite"])
def test_a_network_of_several_tensors_returns_what_torch_returns(bundles: dict[str, tuple[Path, Bundle]], format: str) -> None:
    folder, bundle = bundles[format]
    assert [each.shape for each in bundle.outputs] == [(1, 5), (1, 4, 2)]
    whole = "int32" if format == "tflite" else "int64"  # litert-torch writes no wider ones
    assert [each.dtype for each in bundle.inputs] == ["float32", whole, "float32"]
    assert [each.is_image for each in bundle.inputs] == [True, False, False]
    assert bundle.scored is None
    assert bundle.parity is not None and bundle.parity.top1_agreement is None
    samples = made(bundle.inputs, folder, 3)
    assert [len(each) for each in samples] == [3, 3, 1]
    for found, wanted in zip(predict(folder, bundle, samples, config.read_target("cpu")), reference(samples), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-5 * np.ptp(wanted)


def test_names_in_the_file_are_the_model_s(bundles: dict[str, tuple[Path, Bundle]]) -> None:
    folder, bundle = bundles["onnx"]
    session = onnxruntime.InferenceSession(folder / bundle.entry, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image", "tokens", "shift"]
    assert [each.name for each in session.get_outputs()] == [each.name for each in bundle.outputs] == ["scores", "boxes"]


def test_a_bundle_without_scores_is_measured_without_accuracy(
    bundles: dict[str, tuple[Path, Bundle]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [cell] = verbs.run(bundle=[bundles["onnx"][0]]).cells
    record = cell.record
    assert isinstance(record, Record) and record.status == "done"
    assert (record.cell.dataset, record.cell.evaluation_sha256, record.accuracy) == (None, None, None)
    assert record.latency is not None and record.memory.peak_bytes
    assert record.verdict is not None and record.verdict.word != "INVALID"
    [(path, read)] = records.read_all(Path("results"))
    assert read == record
    assert records.read_measurement(path, record)[0].predictions is None
    [checked] = verbs.api.verify(Path("results"))
    assert checked.wrong == ()
    assert verbs.run(bundle=[bundles["onnx"][0]]).cells[0].state == "cached"
    with pytest.raises(InputError, match="nothing of it is judged"):
        verbs.run(bundle=[bundles["onnx"][0]], dataset="digits")


def test_a_program_of_several_tensors_is_exported_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.export.save(torch.export.export(Fused().eval(), network().example()), "two.pt2")
    made = verbs.export("two.pt2", format="onnx", trust=True, out=tmp_path)
    assert [(each.name, each.shape, each.dtype) for each in made.bundle.inputs] == [
        ("image", (1, 3, 8, 8), "float32"),
        ("tokens", (1, 4), "int64"),
        ("shift", (1, 5), "float32"),
    ]
    assert made.bundle.model.task == "none"
    assert [each.name for each in made.bundle.outputs] == ["scores", "boxes"]


# ---------------------------------------------------------------- examples and samples


def test_an_example_is_what_the_inputs_say() -> None:
    image, tokens, shift = network().example(2)
    assert (tuple(image.shape), float(image.abs().sum())) == ((2, 3, 8, 8), 0.0)
    assert (tokens.dtype, tuple(tokens.shape)) == (torch.int64, (2, 4))
    assert int(tokens.min()) >= 0 and int(tokens.max()) <= 9
    assert shift.tolist() == [[0.25] * 5] * 2
    assert all(torch.equal(one, other) for one, other in zip(network().example(), network().example(), strict=True))


@pytest.mark.parametrize(
    ("dtype", "values", "low", "high"),
    [
        ("float32", None, 0, 1),
        ("float16", Values(low=-2, high=3), -2, 3),
        ("uint8", None, 0, 255),
        ("int8", None, -128, 127),
        ("int64", None, 0, 1),
        ("int32", Values(low=5, high=9), 5, 9),
        ("bool", None, 0, 1),
    ],
)
def test_synthetic_samples_fill_the_range_of_their_type(dtype: str, values: Values | None, low: float, high: float) -> None:
    given = Input(name="x", shape=(1, 500), dtype=dtype, values=values)
    [array] = made([given], Path(), 8)
    assert (array.shape, str(array.dtype)) == ((8, 1, 500), dtype)
    assert low <= array.min() and array.max() <= high
    real = array.astype(np.float64)
    assert np.ptp(real) > 0.98 * (high - low)
    assert np.array_equal(array, made([given], Path(), 8)[0])
    assert len(np.unique(array[0])) > 1


def test_large_inputs_get_fewer_samples_and_constants_one() -> None:
    large = Input(name="large", shape=(1, 3, 2048, 2048), dtype="float32")
    state = Input(name="state", shape=(2, 1, 64), dtype="float32", values=Values(source="constant", value=0), carry="stateN")
    rate = Input(name="sr", shape=(), dtype="int64", values=Values(source="constant", value=16000.0))
    samples = made([large, state, rate], Path())
    assert [each.shape for each in samples] == [(1, 1, 3, 2048, 2048), (1, 2, 1, 64), (1,)]
    assert samples[2].tolist() == [16000]


def test_samples_of_a_file_are_read_as_they_are(tmp_path: Path) -> None:
    values = Values(source="file", file="inputs.npz", array="x")
    given = Input(name="x", shape=(1, 3), dtype="float32", values=values)
    np.savez(tmp_path / "inputs.npz", x=np.arange(6, dtype=np.float64).reshape(2, 1, 3))
    [array] = made([given], tmp_path)
    assert array.tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    np.savez(tmp_path / "inputs.npz", x=np.arange(4))
    with pytest.raises(BundleError, match=r"x is \[4\], x takes \[1, 3\]"):
        made([given], tmp_path)


def test_inputs_of_other_numbers_of_samples_are_refused() -> None:
    assert counted([np.zeros((3, 1)), np.zeros((1, 1))]) == 3
    with pytest.raises(InputError, match="the inputs hold 2 and 3 samples"):
        counted([np.zeros((3, 1)), np.zeros((2, 1))])


# ---------------------------------------------------------------- on the device


def described(given: Input, samples: Array) -> dict[str, Any]:
    data = {"count": len(samples), "shape": list(samples.shape[1:]), "dtype": str(samples.dtype)}
    return {**given.model_dump(mode="json"), "data": data}


def test_several_samples_go_together_where_an_input_has_a_dimension_for_them() -> None:
    inputs = [
        described(TOKENS, np.zeros((3, 1, 4), np.int64)),
        described(SHIFT, np.zeros((1, 1, 5), np.float32)),
        described(Input(name="rate", shape=(), dtype="int64"), np.zeros(1, np.int64)),
    ]
    assert joined([[b"a", b"s", b"r"], [b"b", b"s", b"r"]], inputs) == [b"ab", b"ss", b"r"]
    assert [width(dtype) for dtype in ("float32", "float16", "int64", "uint8", "bool")] == [4, 2, 8, 1, 1]


def test_a_quantized_tensor_is_made_of_real_numbers() -> None:
    spec = TensorSpec(name="x", shape=(1, 2), dtype="int8", scale=0.5, zero_point=-3)
    real = np.array([[1.0, -2.0]], np.float32)
    given = described(Input(**spec.model_dump()), real[None])
    assert tensors.tensor(np, real.tobytes(), given).tolist() == [[-1, -7]]
    job = {"outputs": [spec.model_dump()], "scored": ["x"], "inputs": [given]}
    assert np.frombuffer(tensors.scores(np, [np.array([[-1, -7]], np.int8)], job), "<f4").tolist() == [1.0, -2.0]


def test_scores_of_several_outputs_lie_sample_by_sample() -> None:
    specs = [TensorSpec(name="a", shape=(1, 2), dtype="float32"), TensorSpec(name="b", shape=(1, 2, 2), dtype="int64")]
    job = {"outputs": [each.model_dump() for each in specs], "scored": ["a", "b"], "inputs": []}
    a, b = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(12).reshape(3, 2, 2)
    rows = np.frombuffer(tensors.scores(np, [a, b], job), "<f4").reshape(3, 6)
    assert rows[1].tolist() == [2, 3, 4, 5, 6, 7]
    back = split(rows, specs)
    assert np.array_equal(back[0], a) and np.array_equal(back[1], b)


def test_an_output_is_fed_back_into_its_input(tmp_path: Path, bundles: dict[str, tuple[Path, Bundle]]) -> None:
    class Counter(torch.nn.Module):
        def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + state, state + 1

    example = (torch.zeros(1, 1), torch.zeros(1, 1))
    names: dict[str, Any] = {"input_names": ["x", "state"], "output_names": ["y", "stateN"]}
    with quiet():
        torch.onnx.export(Counter(), example, str(tmp_path / "model.onnx"), **names, dynamo=False)
    x = Input(name="x", shape=(1, 1), dtype="float32")
    state = Input(name="state", shape=(1, 1), dtype="float32", values=Values(source="constant", value=0), carry="stateN")
    outputs = tuple(TensorSpec(name=name, shape=(1, 1), dtype="float32") for name in ("y", "stateN"))
    update = {"inputs": (x, state), "outputs": outputs, "files": list_files(tmp_path), "sha256": "c" * 64}
    bundle = bundles["onnx"][1].model_copy(update=update)
    samples = (np.full((4, 1, 1), 10, np.float32), np.zeros((1, 1, 1), np.float32))
    found = predict(tmp_path, bundle, samples, config.read_target("cpu"))
    assert found[0].ravel().tolist() == [10, 11, 12, 13]


def test_a_predictor_takes_images_and_ready_tensors_by_name(bundles: dict[str, tuple[Path, Bundle]]) -> None:
    for format in ("onnx", "torch"):
        folder, bundle = bundles[format]
        image, tokens, shift = made(bundle.inputs, folder, 2)
        scores, boxes = reference((image, tokens, shift))
        before = torch.get_num_threads()
        with Predictor(folder, bundle) as predictor:
            found = predictor(image=image, tokens=tokens, shift=shift)
            ready = preprocess.apply(image, IMAGE.model_dump())
            again = predictor(image=ready, tokens=tokens, shift=shift)
            with pytest.raises(InputError, match="takes image, tokens, shift; given: image"):
                predictor(image=image)
            with pytest.raises(ExportError, match=r"fused.*: the exported file does not run: predictions: "):
                predictor(image=ready[:, :2], tokens=tokens, shift=shift)
        assert list(found) == ["scores", "boxes"]
        assert np.abs(found["scores"] - scores).max() < 1e-5 and np.abs(found["boxes"] - boxes).max() < 1e-5
        assert all(np.array_equal(found[name], again[name]) for name in found)
        assert (torch.is_grad_enabled(), torch.get_num_threads()) == (True, before)


def test_a_process_of_the_agent_predicts_the_same(bundles: dict[str, tuple[Path, Bundle]]) -> None:
    folder, bundle = bundles["onnx"]
    samples = made(bundle.inputs, folder, 2)
    with Predictor(folder, bundle) as here, Predictor(folder, bundle, target=config.read_target("cpu")) as apart:
        for one, other in zip(here.run(samples), apart.run(samples), strict=True):
            assert np.array_equal(one, other)


# ---------------------------------------------------------------- what was written before


def test_a_bundle_of_schema_1_is_read_and_keeps_its_hash() -> None:
    written = json.loads((GOLDEN / "tiny.onnx.fp32" / "bundle.json").read_text())
    bundle = read_bundle(GOLDEN / "tiny.onnx.fp32")
    assert (written["schema"], bundle.schema_version, bundle.sha256) == (1, 2, written["sha256"])
    [given], [output] = bundle.inputs, bundle.outputs
    assert (given.name, given.shape, given.dtype) == ("input", (1, 1, 16, 16), "float32")
    assert given.preprocessing is not None
    assert given.preprocessing.model_dump(mode="json") == written["preprocessing"]
    assert (output.name, output.shape, bundle.scored) == ("output", (1, 10), "output")
    assert bundle.model.inputs == (given,)
    assert bundle.model.keyed() == written["model"]


def test_a_core_ml_bundle_of_pixels_is_read_without_its_normalisation() -> None:
    written = json.loads((GOLDEN / "tiny.onnx.fp32" / "bundle.json").read_text())
    given = Bundle.model_validate({**written, "runtime": "coreml"}).image.preprocessing
    assert given is not None
    assert (given.mean, given.std) == ((0.0,), (1 / 255,))


def test_keys_hold_the_inputs_of_a_model_that_is_not_one_image() -> None:
    given, target = network(), config.read_target("cpu")
    accepts = accepted(target, "torch", "fp32")
    keys = set()
    for inputs in (given.model.inputs, (*given.model.inputs[:2], SHIFT.model_copy(update={"name": "other"}))):
        model = given.model.model_copy(update={"inputs": inputs})
        assert model.keyed()["inputs"][0]["name"] == "image"
        keys.add(order_key(Order(model, lambda: given, "torch", "fp32", accepts, None)))
    assert len(keys) == 2


def test_committed_records_keep_their_keys_and_models() -> None:
    for path, record in records.read_all(Path(__file__).parent.parent / "results"):
        written = json.loads(path.read_text())
        assert record.model is not None
        assert record.model.keyed() == written["model"]
        assert belongs(record, written["cell"])


def test_a_cell_without_data_has_a_key_of_its_own() -> None:
    bare = make_cell(dataset=None, evaluation_sha256=None)
    assert cell_key(bare) != cell_key(make_cell())
    assert type(bare).model_validate_json(bare.model_dump_json()) == bare


def test_a_model_without_one_image_says_so_in_one_line() -> None:
    model = network().model.model_copy(update={"inputs": (TOKENS, SHIFT)})
    with pytest.raises(InputError, match=r"^fused: has no image inputs \(it takes: tokens, shift\), and one is needed here$"):
        _ = model.preprocessing
