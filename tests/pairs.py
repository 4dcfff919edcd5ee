"""Digits with a text beside each, and a text encoder of BERT's class, both made here; neither alone says the class.

A class is the digit's parity and what the text speaks of: of the image alone, or of the text alone, half can be right.
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgebench import api
from edgebench.agent.runtimes import preprocess
from edgebench.config import read_dataset
from edgebench.data import Dataset, open_images
from edgebench.models.source import SourceOptions
from edgebench.schema import Network

FILLING = ("the", "of", "a", "chest", "view", "seen", "left", "right", "patient", "today")
SPEAKS = (("opacity", "mass"), ("clear", "normal"))
CLASSES = ("even opaque", "even clear", "odd opaque", "odd clear")
SPLITS = {"train": 448, "val": 160, "test": 120}
STRATEGIES = ("concat", "cross-attention", "gated")
LENGTH = 12
"""Tokens of a text."""


def pairs(seed: int = 0) -> dict[str, tuple[Any, Any, list[str]]]:
    """Return for each split images [n, 8, 8], labels [n] and texts."""
    random = np.random.default_rng(seed)
    digits = open_images(read_dataset("digits"))
    whole = [digits.read(name) for name in ("train", "val", "test")]
    images = np.concatenate([each.images for each in whole])[..., 0]
    numbers = np.concatenate([each.labels for each in whole])
    order, found, first = random.permutation(len(images)), {}, 0
    for name, count in SPLITS.items():
        chosen = order[first : first + count]
        first += count
        spoken = random.integers(0, 2, count)
        texts = []
        for says in spoken:
            words = list(random.choice(FILLING, int(random.integers(1, 7))))
            words.insert(int(random.integers(0, len(words) + 1)), str(random.choice(SPEAKS[says])))
            texts.append(" ".join(words))
        found[name] = (images[chosen], 2 * (numbers[chosen] % 2) + spoken, texts)
    return found


def as_npz(path: Path, found: dict[str, tuple[Any, Any, list[str]]]) -> str:
    """Write them in MedMNIST's format; returns their name as a data set."""
    arrays: dict[str, Any] = {}
    for name, (images, labels, texts) in found.items():
        arrays |= {f"{name}_images": images, f"{name}_labels": labels.reshape(-1, 1), f"{name}_texts": np.array(texts)}
    np.savez(path, **arrays)
    return f"medmnist:{path}"


def as_folder(folder: Path, found: dict[str, tuple[Any, Any, list[str]]], count: int) -> str:
    """Write some of each split as images with a CSV; returns their name as a data set."""
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", "split", "text"])
        for name, (images, labels, texts) in found.items():
            for index in range(count):
                file = f"{name}-{index}.png"
                Image.fromarray(images[index]).save(folder / file)
                rows.writerow([file, CLASSES[labels[index]], name, texts[index]])
    return f"image-folder:{folder},labels=labels.csv,size=8,channels=1,empty=allow"


def text_encoder(folder: Path, layers: int = 1) -> Path:
    """Save a tiny text encoder of random weights with its vocabulary, as transformers does."""
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchao's docstrings, when they are first compiled
        from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLING, *SPEAKS[0], *SPEAKS[1]]
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "words.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(1)
    numbers = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=24, **numbers)
    BertModel(config).save_pretrained(folder)
    return folder


def prepared(folder: Path) -> Path:
    """Write `pairs.npz` and the text encoder `encoder` into a folder."""
    as_npz(folder / "pairs.npz", pairs())
    text_encoder(folder / "encoder")
    return folder


def trained(room: Path) -> dict[str, Path]:
    """Train each strategy on what `prepared` has written; returns the models' folders."""
    options = {
        "text_encoder": str(room / "encoder"),
        "max_tokens": LENGTH,
        "hidden": 48,
        "modality_dropout": 0.1,
        "text_rate": 1.0,
        "epochs": 4,
        "batch_size": 32,
        "augment": "none",
        "threads": 1,
        "learning_rate": 4e-3,
    }
    given: dict[str, Any] = {"dataset": f"medmnist:{room / 'pairs.npz'}", "recipe": "fusion", "work": room / "work"}
    return {
        strategy: api.train(SourceOptions("cnn", name=strategy), options={"fusion": strategy, **options}, **given)
        for strategy in STRATEGIES
    }


def fed(network: Network, data: Dataset, room: Path) -> list[Any]:
    """Make a network's inputs of the test split, as torch's tensors: the image, and tokens and mask by transformers."""
    import torch
    from transformers import AutoTokenizer

    test = data.read("test")
    assert test.texts is not None
    made = AutoTokenizer.from_pretrained(room / "encoder")(
        list(test.texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    images = torch.from_numpy(preprocess.apply(test.images, network.model.preprocessing.model_dump()))
    return [images, made["input_ids"], made["attention_mask"]]
