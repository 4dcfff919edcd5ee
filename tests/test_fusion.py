"""Text beside images: tokens, training, files and runs; right values come from transformers, torch and the runtimes."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pairs
import pytest
import torch
import verbs
from conftest import Devices
from factory import make_measurement
from numpy.typing import NDArray
from pairs import CLASSES, LENGTH, as_folder, fed

from edgebench import api, models
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import Predictor
from edgebench.config import read_dataset, read_target
from edgebench.data import Dataset, open_images
from edgebench.errors import CheckpointError, DataError, InputError
from edgebench.models import tokens
from edgebench.models.source import SourceOptions
from edgebench.report.leaderboard import leaderboard
from edgebench.run.options import ExportOptions
from edgebench.run.plan import CellJob
from edgebench.run.record import controlled


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.prepared(tmp_path_factory.mktemp("fusion"))


@pytest.fixture(scope="module")
def data(room: Path) -> Dataset:
    return open_images(read_dataset(f"medmnist:{room / 'pairs.npz'}"))


@pytest.fixture(scope="module")
def trained(room: Path) -> dict[str, Path]:
    return pairs.trained(room)


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
        str(folder), format=format, precision=precision, dataset=str(data.ref), options=ExportOptions(out=room / "bundles")
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


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_int8_reads_too(trained: dict[str, Path], data: Dataset, room: Path, precision: str) -> None:
    """A mask of another size than the scores of attention would leave these nothing of an INT8 scale."""
    place = exported(trained["cross-attention"], data, room, "onnx", precision)
    network = models.load_model(trained["cross-attention"])
    inputs = fed(network, data, room)
    with torch.no_grad():
        reference = network.module(*inputs).argmax(1).numpy()
    session = onnxruntime.InferenceSession(place / "model.onnx")
    names = [each.name for each in session.get_inputs()]
    found = [
        session.run(None, {name: each[index : index + 1].numpy() for name, each in zip(names, inputs, strict=True)})[0].argmax()
        for index in range(len(reference))
    ]
    assert (np.array(found) == reference).mean() > 0.95


def test_a_batch_of_pairs_gives_what_each_gives_alone(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    made = api.export(
        str(trained["cross-attention"]),
        format="onnx",
        dataset=str(data.ref),
        options=ExportOptions(out=room / "batches", dynamic_batch=True),
    )
    network = models.load_model(trained["cross-attention"])
    inputs = fed(network, data, room)
    with torch.no_grad():
        reference = network.module(*inputs).numpy()
    session = onnxruntime.InferenceSession(made.folder / "model.onnx")
    names = [each.name for each in session.get_inputs()]
    [found] = session.run(None, {name: each.numpy() for name, each in zip(names, inputs, strict=True)})
    assert found.shape == reference.shape
    assert np.abs(found - reference).max() < 1e-4


def test_without_data_ids_are_drawn_from_the_vocabulary(trained: dict[str, Path], room: Path) -> None:
    made = api.export(str(trained["gated"]), format="onnx", options=ExportOptions(out=room / "nothing"))
    assert made.bundle.parity is not None
    assert (made.bundle.parity.source, made.bundle.parity.top1_agreement) == ("synthetic", 1.0)
    words = (room / "encoder" / "words.txt").read_text().split("\n")
    values = made.bundle.inputs[1].values
    assert values is not None
    assert values.bounds("int64") == (0, len(words) - 1)
    assert (made.folder / "tokenizer.json").read_bytes() == (trained["gated"] / "tokenizer.json").read_bytes()


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
        assert found.shuffled_text is not None
        assert found.shuffled_text < found.metrics["accuracy"] - 0.25
        assert cell.record.model is not None
        assert cell.record.model.fusion is not None
    subject = CellJob(done.records[0].cell, done.records[0].key, bundles[0], read_bundle(bundles[0]), data, read_target("cpu"))
    without = controlled(done.records[0], subject.control, [make_measurement(predictions=False)])
    assert (without.status, without.failed_stage, without.accuracy) == ("failed", "predictions", None)
    assert without.failure is not None
    assert without.failure.reason.startswith("with others' texts: nothing arrived")
    written = markdown(results)
    assert "others' text %" in written
    assert f"{100 * own:.1f}" in written
    assert f"{100 * control:.1f}" in written


def markdown(results: Path) -> str:
    return leaderboard(results, format="markdown")


def test_a_board_over_ssh_gets_numbers_alone_and_is_as_right(
    here: Path, sshd: Devices, trained: dict[str, Path], data: Dataset, room: Path
) -> None:
    device, bundle = sshd(python=sys.executable), exported(trained["gated"], data, room, "onnx")
    Path("board.yaml").write_text(
        f"name: board\ndescription: a board\ntransport: ssh\nhost: {device.host}\n"
        "accepts: [{format: onnx, precisions: [fp32], runtime: onnxruntime}]\n"
    )
    [record] = verbs.run(bundle=[bundle], target=["board.yaml"], scenario={"half_width": 0.5}).records
    assert record.failure is None, record.failure
    network = models.load_model(trained["gated"])
    with torch.no_grad():
        own = accuracy(network.module(*fed(network, data, room)), data)
    assert record.accuracy is not None
    assert record.accuracy.metrics["accuracy"] == pytest.approx(own, abs=1e-6)
    assert record.accuracy.shuffled_text is not None
    assert record.accuracy.shuffled_text < own - 0.25
    there = [path.name for path in (device.home / ".edgebench").rglob("*") if path.is_file()]
    assert "model.onnx" in there
    assert "tokenizer.json" not in there
    test = data.read("test")
    ids = fed(network, data, room)[1].numpy()
    held = [np.fromfile(path, np.int64) for path in (device.home / ".edgebench").rglob("sets/*.int64")]
    assert any(np.array_equal(each.reshape(-1, LENGTH), ids) for each in held), (there, len(test))


PROFILE = """
name: reads
dataset: {{name: medmnist, options: {{source: {source}}}}}
input: {{size: 16, channels: 1}}
models:
  - name: reader
    architecture: cnn
    recipe: fusion
    options: {{fusion: concat, text_encoder: {encoder}, max_tokens: 12, text_rate: 1.0, epochs: 1, augment: none, threads: 1}}
variants:
  - {{format: onnx, precisions: [fp32]}}
targets: [cpu]
"""


def test_a_profile_trains_exports_and_measures(room: Path, data: Dataset, here: Path) -> None:
    Path("reads.yaml").write_text(PROFILE.format(source=room / "pairs.npz", encoder=room / "encoder"))
    [record] = verbs.run("reads.yaml", mode="quick").records
    assert record.failure is None, record.failure
    assert record.accuracy is not None
    assert record.accuracy.shuffled_text is not None
    assert record.accuracy.host_agreement == 1.0


# ---------------------------------------------------------------- training


def test_in_training_a_sample_lacks_its_image_or_its_text_and_never_both(
    trained: dict[str, Path], data: Dataset, room: Path
) -> None:
    network = models.load_model(trained["concat"])
    inputs = [each[:1].expand(1000, *each.shape[1:]) for each in fed(network, data, room)]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    network.module.meet.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
    torch.manual_seed(0)
    network.module.missing = 0.4
    with torch.no_grad():
        network.module(*inputs)
        for part in (network.module, network.module.head):
            part.train()
        network.module(*inputs)
    for index, share in enumerate((0.0, 0.2)):
        without = [(each.flatten(1) == 0).all(1) for each in seen[index]]
        assert [float(each.float().mean()) for each in without] == pytest.approx([share, share], abs=0.05)
        assert not (without[0] & without[1]).any()


def test_a_text_encoder_that_does_not_learn_stays_as_it_was(data: Dataset, room: Path) -> None:
    from transformers import BertModel

    options = {"text_encoder": str(room / "encoder"), "max_tokens": LENGTH, "text_rate": 0.0, "epochs": 1, "threads": 1}
    folder = api.train(SourceOptions("cnn"), dataset=str(data.ref), recipe="fusion", options=options, work=room / "work")
    kept = models.load_model(folder).module.text.state_dict()
    given = BertModel.from_pretrained(room / "encoder", add_pooling_layer=False).state_dict()
    assert set(kept) == set(given)
    assert all(torch.equal(kept[name], given[name]) for name in given)


def test_a_model_names_its_text_encoder_by_hash_and_its_folder_is_enough(
    trained: dict[str, Path], data: Dataset, room: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained["gated"], folder)
    model = models.read_model(folder)
    weights = hashlib.sha256((room / "encoder" / "model.safetensors").read_bytes()).hexdigest()
    assert weights in model.lineage.parents
    assert model.fusion is not None
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.pt",
        "history.csv",
        "history.json",
        "model.json",
        "tokenizer.json",
    ]
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("opacity", "opacitx"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing or changed"):
        models.load_model(folder)


def test_words_are_read_as_transformers_reads_them(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    from transformers import BertModel

    network = models.load_model(trained["concat"])
    _, ids, mask = fed(network, data, room)
    reference = BertModel(network.module.text.config, add_pooling_layer=False).eval()
    reference.load_state_dict(network.module.text.state_dict())
    seen: list[torch.Tensor] = []
    network.module.meet.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    with torch.no_grad():
        wanted = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        network.module(*fed(network, data, room))
    assert not mask.all()
    assert float(((seen[0] - wanted).abs() * mask[:, :, None]).max()) < 1e-5


# ---------------------------------------------------------------- data


def test_tokens_are_those_of_transformers(trained: dict[str, Path], data: Dataset, room: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["Opacity seen, left", "", "unheard words of the chest " * 9, "clear\nnormal"]
    made = AutoTokenizer.from_pretrained(room / "encoder")(texts, padding="max_length", truncation=True, max_length=LENGTH)
    fusion = models.read_model(trained["concat"]).fusion
    assert fusion is not None
    found = tokens.encoded(texts, trained["concat"], fusion.tokenizer)
    assert found["ids"].tolist() == made["input_ids"]
    assert found["mask"].tolist() == made["attention_mask"]


def test_nobody_keeps_their_own_text() -> None:
    for count in (2, 3, 50):
        for seed in range(20):
            found = tokens.shuffled(count, seed)
            assert sorted(found) == list(range(count))
            assert not (found == np.arange(count)).any()
    assert tokens.shuffled(50, 0).tolist() == tokens.shuffled(50, 0).tolist() != tokens.shuffled(50, 1).tolist()


def test_a_csv_brings_the_text_beside_each_image(room: Path, tmp_path: Path) -> None:
    found = pairs.pairs()
    found["test"][2][0] = 'a "mass", of two\nlines'
    data = open_images(read_dataset(as_folder(tmp_path / "images", found, 24)))
    bare = open_images(read_dataset(as_folder(tmp_path / "bare", found, 24)))
    for name, (_, labels, texts) in found.items():
        split = data.read(name)
        assert split.texts == tuple(texts[:24])
        assert [data.classes[label] for label in split.labels] == [CLASSES[label] for label in labels[:24]]
        assert split.some(np.array([3, 1])).texts == (texts[3], texts[1])
    table = tmp_path / "bare" / "labels.csv"
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(row[:3] for row in rows)
    assert bare.read("test").texts is not None
    bare = open_images(read_dataset(str(bare.ref)))
    assert bare.read("test").texts is None
    assert bare.read("test").sha256 != data.read("test").sha256


def test_what_cannot_be_is_said(room: Path, data: Dataset, trained: dict[str, Path], tmp_path: Path) -> None:
    def train(dataset: str = str(data.ref), **options: Any) -> Path:
        given = {"text_encoder": str(room / "encoder"), "max_tokens": LENGTH, "epochs": 1, "threads": 1, **options}
        return api.train(SourceOptions("cnn"), dataset=dataset, recipe="fusion", options=given, work=tmp_path)

    with pytest.raises(DataError, match="digits: has no texts beside its images"):
        train("digits")
    with pytest.raises(InputError, match="reads 24 at most"):
        train(max_tokens=25)
    with pytest.raises(InputError, match="mixup"):
        train(mixup=0.2)
    with pytest.raises(InputError, match="no such folder"):
        train(text_encoder=str(tmp_path / "none"))
    pickled = tmp_path / "pickled"
    shutil.copytree(room / "encoder", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds pytorch_model\.bin alone"):
        train(text_encoder=str(pickled))
    (pickled / "pytorch_model.bin").rename(pickled / "model.safetensors")
    config = json.loads((pickled / "config.json").read_text())
    (pickled / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(InputError, match="is a gpt2; give one of BERT's class"):
        train(text_encoder=str(pickled))
    with pytest.raises(InputError, match="input_ids is made of the text beside each image"):
        place = exported(trained["concat"], data, room, "onnx")
        verbs.run(bundle=[place], dataset=without_texts(data, tmp_path), mode="quick", results=tmp_path / "r", work=tmp_path)
    with pytest.raises(InputError, match="reads a text beside its image"):
        verbs.train(
            "cnn", recipe="distill", teacher=trained["concat"], dataset=str(data.ref), options={"epochs": 1}, work=tmp_path
        )


def without_texts(data: Dataset, folder: Path) -> str:
    arrays: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        split = data.read(name)
        arrays |= {f"{name}_images": split.images[..., 0], f"{name}_labels": split.labels.reshape(-1, 1)}
    np.savez(folder / "bare.npz", **arrays)
    return f"medmnist:{folder / 'bare.npz'}"
