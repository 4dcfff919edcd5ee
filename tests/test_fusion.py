"""Text beside images: tokens, training, files and runs; right values come from transformers, torch and the runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import verbs
from numpy.typing import NDArray
from pairs import as_npz, pairs, text_encoder

from edgebench import api, models
from edgebench.agent.runtimes import preprocess
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import Predictor
from edgebench.config import read_dataset
from edgebench.data import Dataset, open_images
from edgebench.models import tokens
from edgebench.models.source import SourceOptions
from edgebench.report.leaderboard import leaderboard
from edgebench.schema import Network

STRATEGIES = ("concat", "cross-attention", "gated")
LENGTH = 12


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fusion")
    as_npz(folder / "pairs.npz", pairs())
    text_encoder(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def data(room: Path) -> Dataset:
    return open_images(read_dataset(f"medmnist:{room / 'pairs.npz'}"))


@pytest.fixture(scope="module")
def trained(room: Path) -> dict[str, Path]:
    """Train each strategy."""
    found = {}
    for strategy in STRATEGIES:
        options = {
            "fusion": strategy, "text_encoder": str(room / "encoder"), "max_tokens": LENGTH, "hidden": 48,
            "modality_dropout": 0.1, "text_rate": 1.0, "epochs": 4, "batch_size": 32, "augment": "none", "threads": 1,
            "learning_rate": 4e-3,
        }
        source = SourceOptions("cnn", name=strategy)
        found[strategy] = api.train(
            source, dataset=f"medmnist:{room / 'pairs.npz'}", recipe="fusion", options=options, work=room / "work"
        )
    return found


def fed(network: Network, data: Dataset, room: Path) -> list[torch.Tensor]:
    """Make a network's inputs of the test split, tokens by transformers."""
    from transformers import AutoTokenizer

    test = data.read("test")
    assert test.texts is not None
    made = AutoTokenizer.from_pretrained(room / "encoder")(
        list(test.texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    images = torch.from_numpy(preprocess.apply(test.images, network.model.preprocessing.model_dump()))
    return [images, made["input_ids"], made["attention_mask"]]


def accuracy(scores: NDArray[Any] | torch.Tensor, data: Dataset) -> float:
    return float((np.asarray(scores).argmax(1) == data.read("test").labels).mean())


def test_a_trained_network_reads_and_without_its_own_texts_is_far_worse(
    trained: dict[str, Path], data: Dataset, room: Path
) -> None:
    for strategy, folder in trained.items():
        network = models.load_model(folder)
        inputs = fed(network, data, room)
        with torch.no_grad():
            own = accuracy(network.module(*inputs), data)
            turned = accuracy(network.module(inputs[0], *(each.roll(1, 0) for each in inputs[1:])), data)
        model = network.model
        print(strategy, own, turned, model.metrics)
        assert own > 0.85, strategy
        assert turned < own - 0.25, strategy
        assert model.metrics["shuffled_text_val_accuracy"] < model.metrics["val_accuracy"] - 0.25


# ---------------------------------------------------------------- files


def exported(folder: Path, data: Dataset, room: Path, format: str, precision: str = "fp32") -> Path:
    made = api.export(
        str(folder), format=format, precision=precision, dataset=str(data.ref), options=api.ExportOptions(out=room / "bundles")
    )
    return made.folder


def test_an_onnx_file_takes_three_inputs_and_gives_what_torch_gives(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    for strategy, folder in trained.items():
        place = exported(folder, data, room, "onnx")
        network = models.load_model(folder)
        inputs = fed(network, data, room)
        with torch.no_grad():
            reference = network.module(*inputs).numpy()
        session = onnxruntime.InferenceSession(place / "model.onnx")
        names = [each.name for each in session.get_inputs()]
        assert names == ["input", "input_ids", "attention_mask"], strategy
        rows = [
            session.run(None, {name: each[index : index + 1].numpy() for name, each in zip(names, inputs, strict=True)})[0]
            for index in range(len(reference))
        ]
        assert np.abs(np.concatenate(rows) - reference).max() < 1e-4, strategy
        bundle = read_bundle(place)
        assert bundle.parity is not None
        assert bundle.parity.top1_agreement == 1.0
        assert bundle.parity.source == "test"
        with Predictor(place, bundle) as predictor:
            test = data.read("test")
            found = predictor.pairs(test.images, test.texts or ())["output"]
        assert np.abs(found - reference).max() < 1e-4, strategy


def test_a_tflite_file_of_concat_gives_what_torch_gives(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    place = exported(trained["concat"], data, room, "tflite")
    network, bundle = models.load_model(trained["concat"]), read_bundle(place)
    inputs = fed(network, data, room)
    with torch.no_grad():
        reference = network.module(*inputs).numpy()
    runner = Interpreter(model_path=str(place / "model.tflite"), num_threads=1)
    runner.allocate_tensors()
    taken = {each["name"]: each for each in runner.get_input_details()}
    assert [each.dtype for each in bundle.inputs[1:]] == [taken[each.name]["dtype"].__name__ for each in bundle.inputs[1:]]
    images = np.moveaxis(inputs[0].numpy(), 1, -1)
    for index in range(20):
        for each, array in zip(bundle.inputs, (images, *(part.numpy() for part in inputs[1:])), strict=True):
            runner.set_tensor(taken[each.name]["index"], array[index : index + 1].astype(each.dtype))
        runner.invoke()
        found = runner.get_tensor(runner.get_output_details()[0]["index"])
        assert np.abs(found - reference[index]).max() < 1e-4


def test_a_run_measures_accuracy_with_each_text_and_with_anothers(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    bundles = [exported(trained["concat"], data, room, format) for format in ("onnx", "tflite")]
    results = room / "results"
    done = verbs.run(bundle=bundles, mode="quick", results=results, work=room / "work")
    network = models.load_model(trained["concat"])
    images, *texts = fed(network, data, room)
    others = torch.from_numpy(tokens.shuffled(len(images), 0))
    with torch.no_grad():
        own = accuracy(network.module(images, *texts), data)
        control = accuracy(network.module(images, *(each[others] for each in texts)), data)
    for cell in done.cells:
        assert cell.record is not None, cell
        found = cell.record.accuracy
        assert found is not None, cell.reason
        assert found.metrics["accuracy"] == pytest.approx(own, abs=1e-6)
        assert found.host_agreement == 1.0
        assert found.shuffled_text == pytest.approx(control, abs=1e-6)
        assert found.shuffled_text < found.metrics["accuracy"] - 0.25
        assert cell.record.model is not None
        assert cell.record.model.fusion is not None
    written = markdown(results)
    assert "others' text %" in written
    assert f"{100 * own:.1f}" in written
    assert f"{100 * control:.1f}" in written


def markdown(results: Path) -> str:
    return leaderboard(results, format="markdown")
