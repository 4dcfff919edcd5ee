"""`edgebench serve`: it answers what the record says, in the form that was promised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verbs
from numpy.typing import NDArray
from scipy.special import softmax
from servers import Client, digits, png, running

from edgebench.bundle.manifest import read_bundle
from edgebench.store import records

Array = NDArray[Any]
Cli = Callable[..., tuple[int, str, str]]
COUNT = 500


@pytest.fixture(scope="module")
def bundles(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export the trained network in three formats, and in one that takes any batch."""
    out = tmp_path_factory.mktemp("served")
    wanted = {"onnx": "fp32", "tflite": "int8", "torch": "fp32"}
    made = {
        name: verbs.export(trained, format=name, precision=how, dataset="digits", out=out).folder for name, how in wanted.items()
    }
    dynamic = verbs.export(trained, format="onnx", dataset="digits", out=out / "dynamic", dynamic_batch=True)
    return {**made, "dynamic": dynamic.folder}


@pytest.fixture(scope="module")
def measured(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], dict[str, Array]]:
    """Measure bundles on five hundred digits; returns these as PNG, and the scores [n, 10] of each bundle's record."""
    folder = tmp_path_factory.mktemp("measured")
    split = digits(COUNT + 200)
    arrays: dict[str, Any] = {}
    for name, part in (("test", slice(COUNT)), ("val", slice(COUNT, COUNT + 100)), ("train", slice(COUNT + 100, None))):
        arrays |= {f"{name}_images": split.images[part].squeeze(), f"{name}_labels": split.labels[part].reshape(-1, 1)}
    np.savez(folder / "digits.npz", **arrays)
    chosen = [bundles["onnx"], bundles["tflite"]]
    results = folder / "results"
    verbs.run(bundle=chosen, target=["cpu"], dataset=f"medmnist:{folder / 'digits.npz'}", results=results, work=folder / "work")
    scores = {}
    for path in records.record_paths(results):
        record = records.read_record(path)
        found = records.read_measurement(path, record)[0].predictions
        assert found is not None and found.rows == COUNT
        scores[record.cell.format] = np.frombuffer(found.values, "<f4").reshape(COUNT, -1)
    return [png(image) for image in split.images[:COUNT]], scores


@pytest.fixture(scope="module")
def client(bundles: dict[str, Path]) -> Iterator[Client]:
    with running(bundles["onnx"]) as found:
        yield found


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_answers_are_the_record_s_scores_bit_for_bit(
    format: str, bundles: dict[str, Path], measured: tuple[list[bytes], dict[str, Array]]
) -> None:
    pictures, scores = measured
    with running(bundles[format]) as client, ThreadPoolExecutor(4) as several:
        found = list(several.map(lambda each: client.post("/predict?return_features=true", each).json, pictures))
    [name] = found[0]["features"]
    given = np.array([each["features"][name] for each in found], np.float32)
    assert given.shape == (COUNT, 10)
    assert (given == scores[format]).all()
    likely = softmax(scores[format].astype(np.float64), axis=1)
    assert np.array([list(each["probabilities"].values()) for each in found]) == pytest.approx(likely, abs=1e-12)
    assert [each["prediction"] for each in found] == [str(digit) for digit in scores[format].argmax(axis=1)]
    assert [each["confidence"] for each in found] == [each["probabilities"][each["prediction"]] for each in found]


def test_a_prediction_has_the_promised_fields(client: Client) -> None:
    reply = client.post("/predict", png(digits(1).images[0]))
    assert reply.status == 200
    assert list(reply.json) == ["prediction", "confidence", "probabilities", "inference_time_ms", "model_version"]
    assert list(reply.json["probabilities"]) == [str(digit) for digit in range(10)]
    assert sum(reply.json["probabilities"].values()) == pytest.approx(1)
    assert reply.json["inference_time_ms"] > 0


def test_features_can_be_asked_for_in_the_form_too(client: Client) -> None:
    picture = png(digits(1).images[0])
    asked = client.post("/predict", picture, fields={"return_features": "true"}).json
    assert asked["features"] == client.post("/predict?return_features=1", picture).json["features"]


def test_health_and_information(client: Client, bundles: dict[str, Path]) -> None:
    health, bundle = client.get("/health"), read_bundle(bundles["onnx"])
    assert (health.status, health.json["status"], health.json["model_loaded"]) == (200, "ok", True)
    assert list(health.json) == ["status", "model_loaded", "device", "model_version"]
    assert health.json["model_version"] == f"base.onnx.fp32@{bundle.sha256[:12]}"
    told = client.get("/model/info").json
    assert told["classes"] == list(bundle.model.classes)
    assert (told["format"], told["precision"], told["runtime"], told["scores"]) == ("onnx", "fp32", "onnxruntime", "logits")
    assert told["input"]["preprocessing"] == json.loads(bundle.model_dump_json())["inputs"][0]["preprocessing"]
