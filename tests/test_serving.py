"""`edgebench serve`: it answers what the record says, in the form that was promised."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxfiles
import pytest
import verbs
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families as families
from scipy.special import expit, softmax
from servers import Client, digits, form, png, running

import edgebench
from edgebench import ExplainOptions, RunOptions
from edgebench.agent.runtimes import tensors
from edgebench.bundle.manifest import list_files, read_bundle, write_manifest, write_temperature
from edgebench.bundle.predict import Predictor, ready
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import ExportError, InputError
from edgebench.schema import Input, Preprocessing, Temperature
from edgebench.serving.batching import Batcher, Busy, Gate
from edgebench.serving.model import Inferred
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


@pytest.mark.parametrize("format", ["onnx", "tflite", "torch"])
def test_any_picture_is_preprocessed_as_on_a_device(format: str, bundles: dict[str, Path]) -> None:
    """A large one in colour, a grey one and one of 16 bits: as the runtime itself makes them of pixels."""
    random = np.random.default_rng(1)
    colour = random.integers(0, 256, (50, 70, 3), np.uint8)
    deep = Image.fromarray((random.random((20, 20)) * 65535).astype(np.uint16))
    stream = io.BytesIO()
    deep.save(stream, "PNG")
    rounded = (np.asarray(deep).astype(np.float64) / 65535 * 255 + 0.5).astype(np.uint8)
    pairs = [(png(colour), colour), (png(colour[..., 0]), colour[..., :1]), (stream.getvalue(), rounded[..., None])]
    bundle = read_bundle(bundles[format])
    with Predictor(bundles[format], bundle) as predictor, running(bundles[format]) as client:
        for content, pixels in pairs:
            [features] = client.post("/predict?return_features=true", content).json["features"].values()
            assert (np.array(features, np.float32) == predictor.run([pixels[None]])[0][0]).all()


def test_a_photo_is_read_as_the_network_s_own_data_set_reads_files(here: Path) -> None:
    """Cut and scaled, grey made of colour and transparent ground, as its options say: the record's scores, of the very files."""
    random, files = np.random.default_rng(4), []
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("a", "b"):
            folder = here / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (40 + index, 70, 4 if index == 1 else 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
                files += [folder / f"{index}.png"] if split == "test" else []
    given = {"dataset": f"image-folder:{here / 'photos'},size=24,background=black", "size": 16, "channels": 1, "name": "photos"}
    bundle = verbs.export("tinynet:net", format="onnx", out=here / "bundles", **given).folder
    verbs.run(bundle=[bundle], target=["cpu"], results=here / "results", work=here / "work")
    [path] = records.record_paths(here / "results")
    found = records.read_measurement(path, records.read_record(path))[0].predictions
    assert found is not None
    with running(bundle) as client:
        replies = [client.post("/predict?return_features=1", each.read_bytes()).json["features"] for each in files]
    given_back = np.array([next(iter(each.values())) for each in replies], np.float32)
    assert (given_back == np.frombuffer(found.values, "<f4").reshape(len(files), -1)).all()


def test_a_very_large_picture_is_answered_soon(client: Client) -> None:
    large = np.kron(digits(1).images[0].squeeze(), np.ones((300, 300), np.uint8))
    began = time.monotonic()
    found = client.post("/predict", png(large))
    assert (found.status, time.monotonic() - began < 2) == (200, True)
    small = client.post("/predict", png(np.kron(digits(1).images[0].squeeze(), np.ones((100, 100), np.uint8))))
    assert list(found.json["probabilities"].values()) == pytest.approx(list(small.json["probabilities"].values()), abs=0.01)


def test_a_photo_is_turned_as_its_camera_says(client: Client) -> None:
    upright = digits(1).images[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = png(np.rot90(upright.squeeze()).copy(), exif=exif)
    found = [client.post("/predict", content).json["probabilities"] for content in (png(upright), turned)]
    assert found[0] == found[1]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("dtype", "scale"), [("float32", None), ("int8", 0.02), ("uint8", 0.02), ("uint8", None)])
def test_what_is_ready_is_what_a_runtime_makes(layout: Any, dtype: str, scale: float | None) -> None:
    """Also where the file takes whole pixels, or integers that it calls by the type of pixels."""
    spec = Preprocessing(height=9, width=7, channels=3, mean=(0.4,) * 3, std=(0.3,) * 3, layout=layout)
    given = Input(
        name="x", shape=spec.shape, dtype=dtype, scale=scale, zero_point=None if scale is None else 3, preprocessing=spec
    )
    images = np.random.default_rng(2).integers(0, 256, (4, 20, 30, 3), np.uint8)
    described = given.model_dump(mode="json")

    def tensor(array: Array, ready_made: bool) -> Array:
        data = {"dtype": str(array.dtype), "shape": list(array.shape[1:])}
        how = None if ready_made else described["preprocessing"]
        return np.asarray(
            tensors.tensor(np, np.ascontiguousarray(array).tobytes(), {**described, "data": data, "preprocessing": how})
        )

    made = ready(given, images)
    found = tensor(made, made.dtype != np.uint8)
    assert found.dtype == np.dtype(dtype)
    assert (found == tensor(images, False)).all()


def test_labels_are_decided_each_by_itself(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles["onnx"], tmp_path, task="multi-label")
    with running(folder) as client:
        found = client.post("/predict?return_features=true", png(digits(1).images[0])).json
    [scores] = found["features"].values()
    likely = expit(np.array(scores, np.float64))
    assert list(found["probabilities"].values()) == pytest.approx(likely)
    assert found["prediction"] == [str(digit) for digit in range(10) if scores[digit] > 0]
    assert found["confidence"] == pytest.approx(np.maximum(likely, 1 - likely).min())


def test_a_temperature_that_the_bundle_carries_is_applied(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(bundles["onnx"], tmp_path)
    fitted = {
        "value": 2.5,
        "samples": 9,
        "split_sha256": "0",
        "dataset": "digits",
        "before": 1.0,
        "after": 0.9,
        "scores": "a test",
    }
    write_temperature(folder, Temperature(**fitted))
    with running(folder) as client:
        found = client.post("/predict?return_features=true", png(digits(1).images[0])).json
    [scores] = found["features"].values()
    assert list(found["probabilities"].values()) == pytest.approx(softmax(np.array(scores, np.float64) / 2.5))


def test_scores_that_are_probabilities_already_are_seen_to_be(here: Path) -> None:
    """A file of somebody's own that ends in a softmax: what it gives is what is answered."""
    from onnx import helper

    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["z"])]
    nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    path = onnxfiles.write(
        here / "soft.onnx",
        nodes,
        [onnxfiles.value("x", 1, 1, 8, 8)],
        [onnxfiles.value("y", 1, 10)],
        [onnxfiles.weights("w", 64, 10)],
    )
    folder = edgebench.import_file(path, dataset="digits").folder
    with running(folder) as client:
        assert client.get("/model/info").json["scores"] == "softmax"
        found = client.post("/predict?return_features=true", png(digits(3).images[2])).json
    assert list(found["probabilities"].values()) == pytest.approx(found["features"]["y"], abs=1e-6)
    assert sum(found["features"]["y"]) == pytest.approx(1, abs=1e-5)


def copied(folder: Path, into: Path, **changes: Any) -> Path:
    """Copy a bundle, with changes to its model."""
    bundle = read_bundle(shutil.copytree(folder, into / "copy"))
    write_manifest(into / "copy", bundle.model_copy(update={"model": bundle.model.model_copy(update=changes)}))
    return into / "copy"


# ---------------------------------------------------------------- several at once


def test_a_batch_is_answered_in_its_order(client: Client) -> None:
    pictures = [png(image) for image in digits(12).images]
    reply = client.post("/predict/batch?return_features=true", *pictures, name="files")
    assert (reply.status, reply.json["count"]) == (200, 12)
    alone = [client.post("/predict?return_features=true", each).json["features"] for each in pictures]
    assert [each["features"] for each in reply.json["predictions"]] == alone


def test_requests_are_inferred_together_where_the_file_takes_any_batch(bundles: dict[str, Path]) -> None:
    pictures = [png(image) for image in digits(40).images]
    bundle = read_bundle(bundles["dynamic"])
    with running(bundles["dynamic"], batch=4, wait_ms=20.0) as client, ThreadPoolExecutor(8) as several:
        found = list(several.map(lambda each: client.post("/predict?return_features=true", each).json, pictures))
        told = client.get("/metrics").body.decode()
        assert client.get("/model/info").json["limits"]["batch"] == 4
    figures = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("edgebench_batch_pictures_"))
    assert float(figures["edgebench_batch_pictures_sum"]) == 40
    assert float(figures["edgebench_batch_pictures_count"]) < 30
    assert figures['edgebench_batch_pictures_bucket{le="4.0"}'] == figures['edgebench_batch_pictures_bucket{le="+Inf"}']
    with Predictor(bundles["dynamic"], bundle, batch=1) as predictor:
        alone = predictor.run([digits(40).images])[0]
    given = np.array([next(iter(each["features"].values())) for each in found])
    assert given == pytest.approx(alone, abs=1e-4)


def test_an_answer_does_not_wait_for_its_own_head(client: Client) -> None:
    """On a connection that is kept; by Nagle's algorithm and delayed acknowledgements each would take 40 ms."""
    connection, (body, kind) = (
        http.client.HTTPConnection("127.0.0.1", client.port),
        form([("file", png(digits(1).images[0]))], {}),
    )
    taken = []
    for _ in range(25):
        began = time.perf_counter()
        connection.request("POST", "/predict", body, {"Content-Type": kind})
        assert connection.getresponse().read()
        taken.append(time.perf_counter() - began)
    connection.close()
    assert sorted(taken)[5] < 0.03


class Worked:
    """A batcher over a function, in an event loop of its own."""

    def __init__(
        self, infer: Callable[[Sequence[Array]], list[Inferred]], most: int = 4, wait: float = 0.0, timeout: float = 5.0
    ) -> None:
        self.gate, self.sizes = Gate(64), list[int]()
        self._given = (infer, most, wait, timeout, self.gate)

    def _make(self) -> Batcher:
        return Batcher(*self._given, ThreadPoolExecutor(1), lambda count, _: self.sizes.append(count))

    def run(self, ask: Callable[[Batcher], Any]) -> Any:
        async def inside() -> Any:
            batcher = self._make()
            batcher.start()
            try:
                return await ask(batcher)
            finally:
                await batcher.stop()

        return asyncio.run(inside())


def doubled(tensors: Sequence[Array]) -> list[Inferred]:
    return [Inferred({"y": 2 * each}, 0.0, len(tensors)) for each in tensors]


async def asked(batcher: Batcher, values: Sequence[int]) -> list[Any]:
    return list(await asyncio.gather(*(batcher.ask(np.array([value])) for value in values), return_exceptions=True))


def test_each_gets_its_own_answer_and_no_batch_is_larger_than_it_may_be() -> None:
    worked = Worked(doubled)
    found = worked.run(lambda batcher: asked(batcher, range(10)))
    assert [int(each.outputs["y"][0]) for each in found] == list(range(0, 20, 2))
    assert (sum(worked.sizes), max(worked.sizes)) == (10, 4)


def test_a_picture_waits_while_others_are_on_their_way_and_no_longer_than_it_may() -> None:
    async def timed(batcher: Batcher, worked: Worked, others: int) -> float:
        with worked.gate.take(1 + others):
            began = time.monotonic()
            await batcher.ask(np.array([1]))
            return time.monotonic() - began

    alone, among = Worked(doubled, wait=5.0), Worked(doubled, wait=0.2)
    assert alone.run(lambda batcher: timed(batcher, alone, 0)) < 2
    assert 0.19 < among.run(lambda batcher: timed(batcher, among, 1)) < 2


def test_an_inference_that_fails_is_told_to_those_in_it_and_the_next_succeeds() -> None:
    def infer(tensors: Sequence[Array]) -> list[Inferred]:
        if any(each[0] == 3 for each in tensors):
            raise ExportError("no three")
        return doubled(tensors)

    found = Worked(infer, most=2).run(lambda batcher: asked(batcher, [0, 1, 2, 3, 4, 5]))
    assert [isinstance(each, ExportError) for each in found] == [False, False, True, True, False, False]


def test_what_waited_too_long_is_not_inferred() -> None:
    seen: list[int] = []

    def infer(tensors: Sequence[Array]) -> list[Inferred]:
        seen.extend(int(each[0]) for each in tensors)
        time.sleep(0.3)
        return doubled(tensors)

    found = Worked(infer, most=1, timeout=0.15).run(lambda batcher: asked(batcher, [0, 1, 2]))
    assert [type(each) for each in found] == [Busy] * 3
    assert seen == [0]


# ---------------------------------------------------------------- heat maps, figures, deployment


def test_a_heat_map_is_the_one_that_explain_makes(bundles: dict[str, Path], tmp_path: Path) -> None:
    made = edgebench.explain(
        [bundles["onnx"]],
        options=ExplainOptions(["occlusion"], samples=2, worst=0, seed=0),
        run=RunOptions(results=tmp_path / "results", work=tmp_path / "work"),
    )
    [found], images = made.found, open_images(read_dataset("digits")).read("test").images
    with running(bundles["onnx"]) as client:
        for place, sample in enumerate(found.explanation.samples):
            wanted = str(found.explanation.classes[place])
            reply = client.post("/explain", png(images[sample]), fields={"explained_class": wanted})
            assert (reply.status, reply.json["explained_class"], reply.json["inferences"]) == (200, wanted, 65)
            assert np.array(reply.json["map"]) == pytest.approx(found.maps[place], abs=1e-6)
            seen = Image.open(io.BytesIO(base64.b64decode(reply.json["picture_png"])))
            assert seen.size == Image.open(io.BytesIO(base64.b64decode(reply.json["heat_map_png"]))).size == (448, 448)


def test_a_large_picture_is_explained_as_the_network_sees_it(client: Client) -> None:
    large = np.kron(digits(1).images[0].squeeze(), np.ones((40, 40), np.uint8))
    reply = client.post("/explain", png(large), fields={"method": "lime", "evaluations": "64", "cells": "4", "baseline": "black"})
    assert (reply.status, np.array(reply.json["map"]).shape, reply.json["inferences"]) == (200, (4, 4), 65)
    assert np.ptp(reply.json["map"]) > 0


def test_figures_are_those_of_prometheus(bundles: dict[str, Path]) -> None:
    with running(bundles["onnx"]) as client:
        client.post("/predict", png(digits(1).images[0]))
        client.post("/predict", b"nothing")
        client.get("/no/such/path")
        time.sleep(0.1)  # an answer is counted once it has gone
        told = client.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    parsed = families(told.body.decode())
    found = {(each.name, *sorted(each.labels.values())): each.value for one in parsed for each in one.samples}
    assert found["edgebench_requests_total", "/predict", "200"] == 1
    assert found["edgebench_requests_total", "/predict", "415"] == 1
    assert found["edgebench_requests_total", "404", "other"] == 1
    assert found["edgebench_inference_seconds_count",] == 1
    assert found["edgebench_pictures_in_work",] == 0


def test_the_document_of_the_interface_names_every_endpoint(client: Client) -> None:
    told = client.get("/openapi.json").json
    assert set(told["paths"]) == {"/health", "/model/info", "/metrics", "/predict", "/predict/batch", "/explain"}
    assert {"200", "408", "413", "415", "422", "429", "503"} <= set(told["paths"]["/predict"]["post"]["responses"])


def test_how_to_deploy_it_is_printed(bundles: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    code, docker, _ = cli("serve", bundles["torch"], "--print", "dockerfile", "--workers", 2, "--max-bytes", "1MiB")
    assert code == 0
    entry = json.loads(docker.partition("ENTRYPOINT ")[2])
    assert entry[:6] == ["edgebench", "serve", "/bundle", "--host", "0.0.0.0", "--port"]
    assert entry[7:] == ["--workers", "2", "--max-bytes", str(1 << 20)]
    assert f"edgebench[serve]=={edgebench.__version__}' 'edgebench[torch]'" in docker
    docker = cli("serve", bundles["onnx"], "--print", "dockerfile")[1]
    assert f"edgebench[serve]=={edgebench.__version__}' onnxruntime=={version('onnxruntime')}\n" in docker
    odd = shutil.copytree(bundles["onnx"], tmp_path / 'a "b" $c %d')
    code, unit, _ = cli("serve", odd, "--print", "systemd", "--option", "optimization=none")
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert (code, f'"{tmp_path}/a \\"b\\" $$c %%d"' in start) == (0, True)
    assert start.endswith('--option "optimization=\\"none\\"" --api-key-file %d/api-key')
    if shutil.which("systemd-analyze"):
        (tmp_path / "edgebench-serve.service").write_text(unit)
        words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "edgebench-serve.service")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "edgebench-serve.service" not in done.stderr


def test_what_is_no_classifier_of_one_picture_is_not_served(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no classifier"):
        edgebench.serve(copied(bundles["onnx"], tmp_path, task="none"))


def test_a_damaged_bundle_is_not_served(bundles: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
    folder = shutil.copytree(bundles["onnx"], tmp_path / "copy")
    entry = folder / read_bundle(folder).entry
    entry.write_bytes(entry.read_bytes()[:-1])
    code, _, errors = cli("serve", folder, "--port", "0")
    assert (code, "changed since it was written" in errors) == (2, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_does_not_run_is_said_in_one_line(workers: int, bundles: dict[str, Path], tmp_path: Path) -> None:
    """Also where each of several workers finds it out, and none is tried again."""
    folder = shutil.copytree(bundles["onnx"], tmp_path / "copy")
    bundle = read_bundle(folder)
    (folder / bundle.entry).write_bytes(b"no network")
    write_manifest(folder, bundle.model_copy(update={"files": list_files(folder)}))
    words = [sys.executable, "-m", "edgebench", "serve", str(folder), "--port", "0", "--workers", str(workers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{bundle.name}: the exported file does not run: load: " in done.stderr
    assert "Traceback" not in done.stderr
