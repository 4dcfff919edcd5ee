"""Text beside images: tokens, training, files and runs; right values come from transformers, torch and the runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import verbs
from numpy.typing import NDArray
from pairs import CLASSES, as_folder, as_npz, pairs, text_encoder

from edgebench import api, models
from edgebench.agent.runtimes import preprocess
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import Predictor
from edgebench.config import read_dataset
from edgebench.data import Dataset, open_images
from edgebench.errors import CheckpointError, DataError, InputError
from edgebench.models import tokens
from edgebench.models.source import SourceOptions
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
            **{"fusion": strategy, "text_encoder": str(room / "encoder"), "max_tokens": LENGTH, "hidden": 48},
            **{"modality_dropout": 0.1, "text_rate": 1.0, "epochs": 4, "batch_size": 32, "augment": "none", "threads": 1},
            **{"learning_rate": 4e-3},
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


def test_a_trained_network_reads_and_without_its_own_texts_is_far_worse(trained: dict[str, Path], data: Dataset, room: Path) -> None:
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
