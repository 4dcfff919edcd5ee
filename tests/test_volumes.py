"""Volumes [n, d, h, w(, c)]: read, preprocessed, trained, exported in fp32, measured, and refused where nothing takes them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import verbs
from conftest import Cli
from factory import parity_of
from numpy.typing import NDArray
from torch import nn

from edgebench import api, models
from edgebench.agent.runtimes import preprocess, tensors
from edgebench.architectures import SCRATCH, VOLUMES
from edgebench.bundle.images import ImageOptions
from edgebench.bundle.import_file import FileOptions
from edgebench.bundle.preflight import check_slot, untrained
from edgebench.bundle.samples import made
from edgebench.config import read_dataset, read_target
from edgebench.data import SPLITS, Dataset, _survey, open_dataset, open_images
from edgebench.errors import DataError, DataWarning, ExportError, InputError, UnknownName
from edgebench.models import scratch_zoo
from edgebench.recipes import _augment, _volumes
from edgebench.report.detail import pictures
from edgebench.run.outcome import ExportResult
from edgebench.schema import InputPlan, ModelPlan, PlannedCell, Preprocessing, Record, image_input

pytestmark = pytest.mark.filterwarnings("ignore:.*read as volumes:edgebench.errors.DataWarning")
COUNTS = {"train": 96, "val": 24, "test": 40}
FAST = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "augment": "none", "threads": 1}
NAME = "nodulemnist3d"
PROFILE = """
name: solids
dataset: {name: medmnist, options: {source: %s}}
input: {size: 8, channels: 1}
models:
  - {name: solid, architecture: cnn3d, recipe: train, options: {epochs: 2, batch_size: 16, augment: flip, threads: 1}}
variants: [%s]
scenario: {half_width: 0.5, threads: 1}
goals: {max_degradation: 0.5}
"""
PHONE = """
name: phone
description: a phone, for export alone
transport: local
accepts: [{format: coreml, precisions: [fp32, fp16], runtime: coreml}]
"""


def arrays(sides: tuple[int, ...] = (8, 8, 8), counts: dict[str, int] = COUNTS) -> dict[str, Any]:
    """Make volumes in the form of MedMNIST3D's files: the second class is bright in its first slices, half of them noisily."""
    rng, found = np.random.default_rng(0), {}
    for name, count in counts.items():
        labels = np.arange(count) % 2
        noise = rng.integers(0, 120, (count, *sides))
        noise[labels == 1, : sides[0] // 2] += rng.integers(20, 100, (int(labels.sum()), *[1] * len(sides)))
        found[f"{name}_images"] = noise.clip(0, 255).astype(np.uint8)
        found[f"{name}_labels"] = labels[:, None].astype(np.uint8)
    return found


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write `nodulemnist3d.npz` as it is published, of 8 × 8 × 8 voxels, and `box.npz`, whose three sides differ."""
    folder = tmp_path_factory.mktemp("volumes")
    np.savez_compressed(folder / f"{NAME}.npz", **arrays())
    np.savez_compressed(folder / "box.npz", **arrays((6, 8, 10), dict.fromkeys(SPLITS, 12)))
    return folder


def published(room: Path) -> str:
    """Name the set as MedMNIST does; its sum is that of the file which was made."""
    return f"medmnist:{NAME},root={room},md5={hashlib.md5((room / f'{NAME}.npz').read_bytes()).hexdigest()}"


def opened(text: str) -> Dataset:
    return open_images(read_dataset(text))


@pytest.fixture(scope="module")
def solid(room: Path) -> Path:
    """Train the three-dimensional CNN; returns its model folder."""
    return verbs.train("cnn3d", dataset=published(room), name="solid", options=FAST, work=room)


@pytest.fixture(scope="module")
def files(room: Path, solid: Path) -> dict[str, ExportResult]:
    """Export it to what runs here."""
    given: dict[str, Any] = {"dataset": published(room), "out": room / "bundles"}
    return {format: verbs.export(solid, format=format, **given) for format in ("torch", "onnx", "tflite")}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(folder: Path, volumes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute with torch alone: volumes [n, d, h, w, 1] → scores."""
    network = models.load_model(folder)
    [mean], [std] = network.model.preprocessing.mean, network.model.preprocessing.std
    ready = (torch.from_numpy(volumes[..., 0].astype(np.float64) / 255) - mean) / std
    with torch.no_grad():
        return np.asarray(network.module(ready[:, None].float()).numpy())


# ---------------------------------------------------------------- data


def test_values_are_those_that_the_medmnist_package_gives(room: Path) -> None:
    package = pytest.importorskip("medmnist", reason="medmnist is not installed")
    data = open_dataset(read_dataset(published(room)))
    assert (data.task, data.classes, data.volume) == ("binary", ("benign", "malignant"), (8, 8, 8))
    plain = Preprocessing(depth=8, height=8, width=8, channels=1, mean=(0.0,), std=(1.0,)).model_dump()
    for name in SPLITS:
        split, theirs = data.read(name), package.NoduleMNIST3D(name, root=str(room))
        assert split.images.shape == (COUNTS[name], 8, 8, 8, 1)
        expected = np.stack([volume for volume, _ in theirs])
        assert np.array_equal(preprocess.apply(split.images, plain), expected.astype(np.float32))
        assert split.labels.tolist() == [int(label[0]) for _, label in theirs]


@pytest.mark.parametrize(
    ("sides", "wanted", "said"),
    [
        ((8, 8, 8), (8, 8, 8, 1), r"read as volumes \[n, d, h, w\] of 8 slices of 8 × 8; images would have 1 or 3 channels"),
        ((8, 8, 3), (8, 8, 3), ""),
        ((8, 8), (8, 8, 1), ""),
        ((5, 8, 6, 1), (5, 8, 6, 1), ""),
        ((5, 8, 6, 3), (5, 8, 6, 3), ""),
        ((1, 5, 8, 6), (5, 8, 6, 1), r"read as volumes \[n, c, d, h, w\] of 5 slices of 8 × 6"),
        ((3, 8, 8), (8, 8, 3), r"read as \[n, c, h, w\]"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_images_and_volumes_are_told_apart_by_their_shape(
    tmp_path: Path, sides: tuple[int, ...], wanted: tuple[int, ...], said: str, recwarn: pytest.WarningsRecorder
) -> None:
    given = arrays(sides, dict.fromkeys(SPLITS, 4))
    np.savez(tmp_path / "own.npz", **given)
    test = open_dataset(read_dataset(f"medmnist:{tmp_path / 'own.npz'}")).read("test")
    assert test.images.shape == (4, *wanted)
    expected = np.moveaxis(given["test_images"], 1, -1) if "c, " in said else given["test_images"]
    assert np.array_equal(test.images, expected.reshape(4, *wanted))
    told = [str(each.message) for each in recwarn if each.category is DataWarning]
    assert len(told) == bool(said)
    if said:
        with pytest.warns(DataWarning, match=said):
            open_dataset(read_dataset(f"medmnist:{tmp_path / 'own.npz'}"))


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ((8, 8, 2), "images of 2 channels; images have 1 or 3; write volumes as"),
        ((8, 8, 4), "images of 4 channels; leave transparency out"),
        ((8, 8, 8, 8), "volumes have 1 or 3 channels"),
    ],
)
def test_what_is_neither_is_refused(tmp_path: Path, sides: tuple[int, ...], reason: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays(sides, dict.fromkeys(SPLITS, 4)))
    with pytest.raises(DataError, match=reason) as caught:
        opened(f"medmnist:{tmp_path / 'own.npz'}")
    assert "\n" not in str(caught.value)


def test_volumes_are_never_resized(room: Path, tmp_path: Path) -> None:
    for option in ("size=16", "resize=fit", "interpolation=nearest"):
        with pytest.raises(DataError, match=r"volumes .* are not resized; leave size and resize out"):
            opened(f"medmnist:{room / 'box.npz'},{option}")
    with pytest.raises(InputError, match=r"its volumes are 8 × 8 × 8, and the network would see 16: they are not resized"):
        verbs.train("cnn3d", dataset=published(room), size=16, options=FAST, work=tmp_path)
    given = {**arrays(counts=dict.fromkeys(SPLITS, 4)), "test_images": np.zeros((4, 8, 8, 9), np.uint8)}
    np.savez(tmp_path / "other.npz", **given)
    with pytest.raises(DataError, match=r"test_images are \[8, 8, 9\], and train's are \[8, 8, 8\]: volumes are not resized"):
        opened(f"medmnist:{tmp_path / 'other.npz'}")
    with pytest.raises(ValueError, match="volumes are not resized"):
        Preprocessing(depth=8, height=8, width=8, channels=1, mean=(0.0,), std=(1.0,), resize="fit")


def test_a_survey_counts_exact_duplicates_and_draws_middle_slices(tmp_path: Path) -> None:
    from PIL import Image

    given = arrays()
    given["test_images"][3] = given["train_images"][5]
    np.savez(tmp_path / "own.npz", **given)
    data = opened(f"medmnist:{tmp_path / 'own.npz'}")
    found = _survey.survey(data)
    assert [(each.first, each.second, each.exact, each.near) for each in found.duplicates] == [("train", "test", 1, 0)]
    assert list(found.shapes.values()) == [[8, 8, 8, 1]] * 3
    assert any("not looked for among volumes" in warning for warning in found.warnings)
    _survey.write_sheet(data, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    first = int(np.flatnonzero(given["train_labels"] == 0)[0])
    corner = sheet[16 : 16 + 64, 120 : 120 + 64]
    assert np.array_equal(corner[::8, ::8], given["train_images"][first][4])
    [png] = pictures(data.read("test"), [7]).values()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))), given["test_images"][7][4])


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_device_prepares_volumes_as_torch_does(layout: str) -> None:
    volumes = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6, 3), dtype=np.uint8)
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.3, 0.5)
    sides: dict[str, Any] = {"depth": 4, "height": 5, "width": 6, "layout": layout}
    spec = Preprocessing(**sides, channels=3, mean=mean, std=std)
    expected = (torch.from_numpy(volumes) / 255 - torch.tensor(mean)) / torch.tensor(std)
    expected = expected.permute(0, 4, 1, 2, 3) if layout == "nchw" else expected
    assert spec.shape == (1, *expected.shape[1:])
    job = {**image_input(spec).model_dump(mode="json"), "data": {"shape": [4, 5, 6, 3], "dtype": "uint8"}}
    found = tensors.tensor(np, volumes.tobytes(), job)
    assert (found.shape, found.dtype) == (tuple(expected.shape), np.float32)
    assert np.abs(found - expected.numpy()).max() < 1e-5
    luma = Preprocessing(**sides, channels=1, mean=(0.0,), std=(1.0,), grey="luma").model_dump()
    colour = np.moveaxis(preprocess.apply(volumes, luma), 1, -1) if layout == "nchw" else preprocess.apply(volumes, luma)
    flat = preprocess.with_channels(volumes.reshape(3, 20, 6, 3), luma)
    assert np.array_equal(colour.reshape(3, 20, 6, 1), (flat / 255).astype(np.float32))
    grey = Preprocessing(**sides, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3).model_dump()
    repeated = preprocess.apply(volumes[..., :1], grey)
    assert np.ptp(repeated, axis=1 if layout == "nchw" else -1).max() == 0
    with pytest.raises(ValueError, match="they are not resized"):
        preprocess.apply(volumes[:, 1:], spec.model_dump())


def test_samples_that_nothing_gives_are_noise_of_the_right_form() -> None:
    spec = Preprocessing(depth=4, height=5, width=6, channels=1, mean=(0.5,), std=(0.5,))
    [noise] = made([image_input(spec)], Path(), 3)
    assert noise.shape == (3, 4, 5, 6, 1) and noise.dtype == np.uint8 and len(np.unique(noise)) > 100
    assert Preprocessing.model_validate(spec.model_dump()) == spec
    assert "depth" not in Preprocessing(height=5, width=6, channels=1, mean=(0.5,), std=(0.5,)).model_dump()


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("sides", [(8, 8, 8), (7, 6, 9), (1, 5, 2)])
def test_maxima_of_neighbours_are_max_pooling(sides: tuple[int, int, int]) -> None:
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    window = [min(2, side) for side in sides]
    assert torch.equal(scratch_zoo.Halved()(x), nn.functional.max_pool3d(x, window, window))


@pytest.mark.parametrize("architecture", [*SCRATCH, "r3d_18"])
def test_networks_are_built_for_any_size_channels_and_classes(architecture: str) -> None:
    volumes = architecture in VOLUMES
    for channels, sides in ((1, (8, 8, 8)), (3, (6, 10, 12)))[architecture == "r3d_18" :]:  # torchvision's takes its time
        given = sides if volumes else sides[1:]
        network = models.build(architecture, 5, channels, sides[1], volume=sides if volumes else None).eval()
        with torch.no_grad():
            assert network(torch.zeros(2, channels, *given)).shape == (2, 5)
    kinds = [type(layer).__name__ for layer in network.modules()]
    rank = "3d" if volumes else "2d"
    assert kinds.count(f"Conv{rank}") + kinds.count("Conv3DSimple") >= 3
    assert kinds.count(f"BatchNorm{rank}") >= 3
    dropout = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert dropout == ([0.5] if architecture.startswith("cnn") else [])


def test_r3d_18_is_torchvisions() -> None:
    from torchvision.models.video import r3d_18

    theirs, ours = r3d_18(num_classes=4).eval(), models.build("r3d_18", 4, 3, 8, volume=(8, 8, 8)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert models.build("r3d_18", 4, 1, 8, volume=(8, 8, 8)).stem[0].weight.shape == (64, 1, 3, 7, 7)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_residual_block_adds_what_went_in(dimensions: int) -> None:
    block = scratch_zoo.Residual(dimensions, 4, 4, 1).eval()
    x = torch.randn(1, 4, *[6] * dimensions)
    with torch.no_grad():
        assert not torch.allclose(block(x), x.relu())
        for parameter in block.body[-1].parameters():  # of the last norm: nothing is left to add
            nn.init.zeros_(parameter)
        assert torch.equal(block(x), x.relu())
        assert scratch_zoo.Residual(dimensions, 4, 8, 2).eval()(x).shape == (1, 8, *[3] * dimensions)


def test_a_network_for_the_other_kind_of_data_is_refused(room: Path, tmp_path: Path) -> None:
    for architecture in ("resnet18", "cnn", "resnet2d"):
        with pytest.raises(InputError, match=r"takes images, and the data are volumes of 8 × 8 × 8 × 1; choose cnn3d"):
            verbs.train(architecture, dataset=published(room), options=FAST, work=tmp_path)
    with pytest.raises(InputError, match=r"cnn3d: takes volumes, and the data are images of 16 × 16 × 1"):
        verbs.train("cnn3d", dataset="digits", options=FAST, work=tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'resnet3d'"):
        models.build("resnet3", 2, 1, 8, volume=(8, 8, 8))


# ---------------------------------------------------------------- training


def test_a_network_learns_from_volumes_and_knows_what_it_sees(solid: Path, room: Path) -> None:
    model = models.read_model(solid)
    train = np.load(room / f"{NAME}.npz")["train_images"] / 255
    spec = model.preprocessing
    assert (spec.volume, spec.channels, spec.shape) == ((8, 8, 8), 1, (1, 1, 8, 8, 8))
    assert spec.mean == pytest.approx([train.mean()], abs=1e-4)
    assert spec.std == pytest.approx([train.std()], abs=1e-4)
    assert model.metrics["val_accuracy"] > 0.8
    val = opened(published(room)).read("val")
    assert np.mean(scores(solid, val.images).argmax(1) == val.labels) == pytest.approx(model.metrics["val_accuracy"], abs=1e-6)


def test_a_student_is_taught_and_another_input_is_not(solid: Path, room: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"recipe": "distill", "teacher": solid, "name": "student", "work": tmp_path}
    once = {**FAST, "epochs": 1, "augment": "affine"}
    student = models.read_model(verbs.train("resnet3d", dataset=published(room), options=once, **given))
    assert student.lineage.parents == (models.read_model(solid).sha256,)
    with pytest.raises(InputError, match=r"its teacher sees 8 × 8 × 8 × 1, the student 6 × 8 × 10 × 1; give both the same"):
        verbs.train("cnn3d", dataset=f"medmnist:{room / 'box.npz'}", options=once, **given)
    with pytest.raises(InputError, match="sees volumes, of which no INT8 file is written"):
        verbs.train("cnn3d", dataset=published(room), recipe="qat", parent=solid, name="rounded", work=tmp_path)


def test_no_channels_are_taken_out_of_networks_that_see_volumes(solid: Path, room: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    with pytest.raises(InputError, match="sees volumes, and torch-pruning takes no channels out"):
        verbs.train("cnn3d", dataset=published(room), recipe="prune", parent=solid, name="half", work=tmp_path)


def test_augmentation_mirrors_along_each_axis_and_moves_nothing_else_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    volumes = torch.rand(32, 1, 4, 5, 6)
    assert torch.equal(_augment.shifted(volumes, "none"), volumes)
    changed = _volumes.augmented(volumes, "affine")
    assert changed.shape == volumes.shape
    assert not torch.allclose(changed, volumes, atol=0.01)
    for name in ("DEGREES", "SCALE", "SHIFT"):
        monkeypatch.setattr(_volumes, name, 0.0)
    assert torch.allclose(_volumes.augmented(volumes, "affine"), volumes, atol=1e-5)
    axes = [[axis for axis in (1, 2, 3) if number >> (axis - 1) & 1] for number in range(8)]
    seen = set()
    for before, after in zip(volumes, _volumes.augmented(volumes, "flip"), strict=True):
        [which] = [index for index, each in enumerate(axes) if torch.allclose(before.flip(each), after, atol=1e-5)]
        seen.add(which)
    assert len(seen) > 4
    with pytest.raises(InputError, match="augment medical: is for images, and these are volumes; choose none, affine or flip"):
        _augment.augmentation("medical", 0, lambda: 0, np.zeros((1, 8, 8, 8, 1), np.uint8))


# ---------------------------------------------------------------- files


def test_files_compute_what_torch_computes(files: dict[str, ExportResult], solid: Path, room: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    test = opened(published(room)).read("test").images
    right = scores(solid, test)
    for format, result in files.items():
        parity = parity_of(result.bundle)
        assert (parity.samples, parity.top1_agreement, parity.max_abs < 1e-5) == (COUNTS["test"], 1.0, True), format
    assert [files[format].bundle.image.shape for format in files] == [(1, 1, 8, 8, 8), (1, 1, 8, 8, 8), (1, 8, 8, 8, 1)]
    ready = preprocess.apply(test, models.read_model(solid).preprocessing.model_dump())
    session = onnxruntime.InferenceSession(files["onnx"].folder / "model.onnx", providers=["CPUExecutionProvider"])
    runner = Interpreter(model_path=str(files["tflite"].folder / "model.tflite"))
    runner.allocate_tensors()
    for one, wanted in zip(ready, right, strict=True):
        [[by_onnx]] = session.run(None, {session.get_inputs()[0].name: one[None]})
        runner.set_tensor(runner.get_input_details()[0]["index"], np.moveaxis(one, 0, -1)[None].copy())
        runner.invoke()
        by_tflite = runner.get_tensor(runner.get_output_details()[0]["index"])[0]
        assert np.abs(by_onnx - wanted).max() < 1e-5
        assert np.abs(by_tflite - wanted).max() < 1e-5
    assert not [each for each in files["tflite"].bundle.details["operators"] if each.startswith("STABLEHLO")]


@pytest.mark.parametrize("format", ["onnx", "tflite", "torch"])
def test_three_unlike_sides_stay_where_they_are(room: Path, tmp_path: Path, format: str) -> None:
    result = verbs.export("resnet3d", format=format, dataset=f"medmnist:{room / 'box.npz'}", out=tmp_path)
    parity = parity_of(result.bundle)
    assert (parity.samples, parity.max_abs < 1e-4) == (12, True)
    assert result.bundle.model.preprocessing.volume == (6, 8, 10)
    assert result.bundle.image.shape == ((1, 6, 8, 10, 1) if format == "tflite" else (1, 1, 6, 8, 10))


def test_without_a_data_set_a_network_by_name_sees_cubes(tmp_path: Path) -> None:
    bundle = verbs.export("cnn3d", format="onnx", size=8, classes=3, out=tmp_path).bundle
    assert (bundle.image.shape, parity_of(bundle).source) == ((1, 1, 8, 8, 8), "synthetic")
    assert bundle.macs is not None and bundle.macs > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_r3d_18_is_exported_as_it_is(room: Path, tmp_path: Path, format: str) -> None:
    bundle = verbs.export("r3d_18", format=format, dataset=published(room), channels=3, out=tmp_path).bundle
    assert parity_of(bundle).relative_error < 1e-4


def test_a_convolution_that_ends_the_converter_is_refused(empty: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "strided.py").write_text(
        "import torch\n\ndef net(classes, channels):\n    layers = [torch.nn.Conv3d(channels, 4, 3, 2, 1), torch.nn.Flatten()]\n"
        "    return torch.nn.Sequential(*layers, torch.nn.Linear(256, classes))\n"
    )
    monkeypatch.syspath_prepend(str(empty))
    given: dict[str, Any] = {"format": "tflite", "dataset": published(room)}
    with pytest.raises(ExportError, match=r"0 \(Conv3d\): litert-torch ends the process .* give the network three channels"):
        verbs.export("strided:net", channels=1, **given)
    assert parity_of(verbs.export("strided:net", channels=3, **given).bundle).max_abs < 1e-5


def test_core_ml_takes_a_tensor_of_voxels_and_normalises_it_inside(solid: Path, room: Path, empty: Path) -> None:
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this computer")
    from edgebench.exporters._coreml import interpreter
    from edgebench.exporters._coreml import package as package_

    (empty / "phone.yaml").write_text(PHONE)
    given: dict[str, Any] = {"format": "coreml", "dataset": published(room), "target": "phone.yaml"}
    result = verbs.export(solid, **given)
    package = package_.read(result.folder / "model.mlpackage")
    [tensor] = package.spec.description.input
    assert list(tensor.type.multiArrayType.shape) == [1, 1, 8, 8, 8]
    assert (result.bundle.image.dtype, result.bundle.details["input"], parity_of(result.bundle).max_abs < 1e-5) == (
        "float32",
        "tensor",
        True,
    )
    test = opened(published(room)).read("test").images[:8]
    found = interpreter.Interpreter(package)(torch.from_numpy(test).permute(0, 4, 1, 2, 3).float(), "scores").numpy()
    assert np.abs(found - scores(solid, test)).max() < 1e-5
    with pytest.raises(ExportError, match=r"0 \(Conv3d\).*written in fp32 alone: what fp16 makes of them is not proven"):
        verbs.export(solid, precision="fp16", **given)


@pytest.mark.parametrize(
    ("format", "precision", "target", "reason"),
    [
        ("onnx", "fp16", "cpu", "volumes are written in fp32 alone: what fp16 makes of them is not proven; choose fp32"),
        ("onnx", "int8", "cpu", "what int8 makes of them is not proven; choose fp32"),
        ("onnx", "int8-dynamic", "cpu", "what int8-dynamic makes of them is not proven; choose fp32"),
        ("tflite", "fp16", "cpu", "what fp16 makes of them is not proven; choose fp32"),
        ("tflite", "int8", "cpu", "what int8 makes of them is not proven; choose fp32"),
        ("edgetpu", "int8", "coral-usb", "no volumes are written: what the Edge TPU's compiler makes of them is not proven"),
        ("tensorrt", "fp32", "jetson-orin-nano", "no volumes are written: what TensorRT makes of them is not proven"),
    ],
)
def test_what_takes_no_volumes_names_the_layer(room: Path, format: str, precision: str, target: str, reason: str) -> None:
    plan = ModelPlan(name="solid", architecture="cnn3d", recipe="train")
    network = untrained(plan, opened(published(room)), InputPlan(size=8, channels=1))
    assert network is not None
    with pytest.raises(ExportError, match=r"^solid: 0 \(Conv3d\): ") as caught:
        check_slot(network, PlannedCell(plan, format, precision, read_target(target)), False)
    assert reason in str(caught.value)


def test_an_operator_that_a_runtime_does_not_know_is_named_before_it_is_written(empty: Path, room: Path) -> None:
    (empty / "pooled.py").write_text(
        "import torch\n\ndef net(classes, channels):\n    layers = [torch.nn.Conv3d(channels, 4, 3), torch.nn.MaxPool3d(2)]\n"
        "    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(108, classes))\n"
    )
    accepts = "accepts: [{format: tflite, precisions: [fp32], runtime: tflite, limits: {operators: {'*': 9, 'STABLEHLO_*': 0}}}]"
    (empty / "older.yaml").write_text(f"name: older\ndescription: knows no StableHLO\ntransport: local\n{accepts}\n")
    given: dict[str, Any] = {"format": "tflite", "dataset": published(room), "channels": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(empty))
        with pytest.raises(ExportError, match=r"1 \(MaxPool3d\).*aten::max_pool3d becomes STABLEHLO_REDUCE_WINDOW, which"):
            verbs.export("pooled:net", target="older.yaml", **given)
        operators = verbs.export("pooled:net", **given).bundle.details["operators"]
    assert any(each.startswith("STABLEHLO_REDUCE_WINDOW") for each in operators)


# ---------------------------------------------------------------- measured


def judged(cell: Any) -> Record:
    record = cell.record
    assert isinstance(record, Record) and record.status == "done", cell.reason
    return record


def test_the_devices_accuracy_is_torchs(files: dict[str, ExportResult], solid: Path, room: Path, empty: Path) -> None:
    test = opened(published(room)).read("test")
    right = float(np.mean(scores(solid, test.images).argmax(1) == test.labels))
    for cell in verbs.run(bundle=[each.folder for each in files.values()], dataset=published(room)).cells:
        accuracy = judged(cell).accuracy
        assert accuracy is not None
        assert accuracy.metrics["accuracy"] == pytest.approx(right)
        assert (accuracy.samples, accuracy.host_agreement) == (40, 1.0)


def test_a_brought_file_is_judged_on_volumes_of_its_size(
    files: dict[str, ExportResult], solid: Path, room: Path, empty: Path
) -> None:
    test, spec = opened(published(room)).read("test"), models.read_model(solid).preprocessing
    right = float(np.mean(scores(solid, test.images).argmax(1) == test.labels))
    for format, name in (("onnx", "model.onnx"), ("tflite", "model.tflite")):
        image = ImageOptions(mean=spec.mean, std=spec.std)
        source = FileOptions(files[format].folder / name, name=format, image=image)
        [cell] = verbs.run(bundle=[source], dataset=published(room)).cells
        accuracy = judged(cell).accuracy
        assert accuracy is not None and accuracy.metrics["accuracy"] == pytest.approx(right)
    source = FileOptions(files["onnx"].folder / "model.onnx")
    with pytest.raises(InputError, match=r"takes volumes of 8 × 8 × 8, and .* holds volumes of 6 × 8 × 10"):
        verbs.run(bundle=[source], dataset=f"medmnist:{room / 'box.npz'}")
    with pytest.raises(InputError, match=r"none of its inputs is an image"):
        verbs.run(bundle=[source], dataset="digits")
    with pytest.raises(InputError, match="holds volumes, of which no INT8 file is written"):
        api.quantize(source, dataset=published(room))


def test_a_model_of_volumes_is_not_judged_on_other_data(solid: Path, files: dict[str, ExportResult], empty: Path) -> None:
    given = arrays((8, 8), dict.fromkeys(SPLITS, 8))
    np.savez(empty / "flat.npz", **given)
    (empty / "names.txt").write_text("benign\nmalignant")
    with pytest.raises(InputError, match=r"has 2 classes|takes volumes of 8 × 8 × 8, and .* holds images"):
        verbs.export(solid, format="onnx", dataset=f"medmnist:{empty / 'flat.npz'}")
    data = open_dataset(read_dataset(f"medmnist:{empty / 'flat.npz'}"))
    from edgebench.models.normalization import check_kind

    with pytest.raises(InputError, match=r"solid: takes volumes of 8 × 8 × 8, and medmnist.* holds images"):
        check_kind("solid", models.read_model(solid).preprocessing, data)


def test_a_profile_of_volumes_is_trained_exported_and_run(room: Path, empty: Path, cli: Cli) -> None:
    variants = "{format: onnx, precisions: [fp32, int8]}, {format: tflite, precisions: [fp32]}"
    (empty / "solids.yaml").write_text(PROFILE % (room / f"{NAME}.npz", variants))
    code, out, err = cli("run", "solids.yaml", "--half-width", "50%", "--json")
    cells = {(cell["format"], cell["precision"]): cell for cell in json.loads(out)["cells"]}
    assert {name: cell["state"] for name, cell in cells.items()} == {
        ("onnx", "fp32"): "done",
        ("onnx", "int8"): "failed",
        ("tflite", "fp32"): "done",
    }, err
    assert code == 1
    assert "0 (Conv3d): volumes are written in fp32 alone" in cells["onnx", "int8"]["reason"]
    code, out, _ = cli("leaderboard", "results")
    assert (code, "cnn3d" in out or "solid" in out) == (0, True)


def test_nothing_is_trained_for_what_cannot_be_written(room: Path, empty: Path, cli: Cli) -> None:
    (empty / "none.yaml").write_text(PROFILE % (room / f"{NAME}.npz", "{format: onnx, precisions: [int8]}"))
    code, out, err = cli("run", "none.yaml", "--json")
    assert code == 1, err
    assert "0 (Conv3d): volumes are written in fp32 alone" in json.loads(out)["cells"][0]["reason"]
    assert not list(empty.glob(".edgebench/models/*"))
