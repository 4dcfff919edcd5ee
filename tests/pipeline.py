"""A training pipeline as people write it, with Pillow, torchvision and torch alone: its accuracy is the right one.

Each case is drawn by a seed: what its images are, how they come to the network, what the network returns, how its
weights were saved, in which order its classes stand.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

MODES = ("L", "LA", "RGB", "RGBA", "P", "I;16", "1")
COUNTS = {"train": 12, "val": 1, "test": 12}
"""Images of each class."""
SIDES = (9, 10, 13, 14, 17, 18)
"""Of which the convolution makes even ones, which every exporter can pool to two."""
NAMES = {"letters": ("ant", "bee", "cat", "dog"), "numbers": ("2", "9", "10", "11")}
SOURCE = """
import torch

def logits(classes, channels, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 6, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(24, classes))

def softmax(classes, channels, size):
    return torch.nn.Sequential(*logits(classes, channels, size), torch.nn.Softmax(1))

def one(classes, channels, size):
    return logits(1, channels, size)

def sigmoid(classes, channels, size):
    return torch.nn.Sequential(*one(classes, channels, size), torch.nn.Sigmoid())
"""
"""The user's own file, `theirs.py`."""


@dataclass(frozen=True)
class Case:
    """What was drawn."""

    seed: int
    mode: str
    channels: int
    grey_at: str
    """Where colour becomes grey, for a network that takes grey: `first`, or `last`, after resizing."""
    classes: tuple[str, ...]
    """In the order of the network's outputs."""
    order: str
    """Where that comes from: by letters, by value, or from a file."""
    resize: str
    size: tuple[int, int]
    """Height, width."""
    interpolation: str
    antialias: bool
    """Without, images are resized as tensors."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prefix: str
    head: str
    stated: bool
    """Whether the user says what the outputs are."""
    background: str
    """What lies behind transparent pixels: white, black, or none (transparency is dropped)."""
    exif: str
    """`apply`, `ignore`, or `absent`: the images are not turned."""
    saved: str
    """How the checkpoint is wrapped; `class_to_idx` goes with it in `order`, or in another order in `disorder`."""

    @property
    def refused(self) -> str:
        """Return a part of what the refusal says; empty where there is none."""
        if max(self.mean) > 1:
            return "divided by 255"
        return "class_to_idx" if self.saved == "disorder" else ""


def drawn(seed: int) -> Case:
    """Draw a case."""
    rng = random.Random(seed)
    head = rng.choice(("logits", "logits", "softmax", "one", "sigmoid"))
    order = rng.choice(("letters", "letters", "natural", "file"))
    names = list(NAMES["numbers" if order == "natural" else "letters"])
    names = names[: 2 if head in ("one", "sigmoid") else rng.choice((2, 3, 4))]
    if order == "file":
        rng.shuffle(names)
    channels = rng.choice((1, 3))
    resize, size = rng.choice(
        (
            ("stretch", (rng.choice(SIDES), rng.choice(SIDES))),
            ("fit", (rng.choice(SIDES), rng.choice(SIDES))),
            ("pad:114", (17, 17)),
            ("shortest:22+crop:18", (18, 18)),
        )
    )
    scale = 255.0 if rng.random() < 0.1 else 1.0
    antialias = resize != "stretch" or rng.random() < 0.5
    return Case(
        seed,
        rng.choice((*MODES, "mixed")),
        channels,
        rng.choice(("first", "last")),
        tuple(names),
        order,
        resize,
        size,
        rng.choice(("bilinear", "bicubic", "nearest") if antialias else ("bilinear", "bicubic")),
        antialias,
        tuple(round(rng.uniform(0.2, 0.7), 3) * scale for _ in range(channels)),
        tuple(round(rng.uniform(0.15, 0.4), 3) * scale for _ in range(channels)),
        rng.choice(("", "module.", "model.", "net.", "backbone.", "_orig_mod.module.")),
        head,
        rng.random() < 0.5,
        rng.choice(("white", "black", "none")),
        rng.choice(("absent", "apply", "ignore")),
        rng.choice(("plain", "state_dict", "model", "order", "disorder" if rng.random() < 0.3 else "order")),
    )


# ---------------------------------------------------------------- images


def write(case: Case, root: Path) -> None:
    """Write a folder of PNGs: the classes differ in brightness, colour and stripes, and one label in six is another."""
    rng = np.random.default_rng(case.seed)
    for split, count in COUNTS.items():
        for number, name in enumerate(sorted(case.classes)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                truth = int(rng.integers(len(case.classes))) if split != "val" and rng.random() < 0.2 else number
                _image(case, truth, rng).save(folder / f"{index}.png", **_turned(case, rng))


def _turned(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    if case.exif == "absent":
        return {}
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    return {"exif": exif}


def _image(case: Case, truth: int, rng: np.random.Generator) -> Any:
    height, width = (int(side) for side in rng.integers(9, 40, 2))
    rows, columns = np.mgrid[0:height, 0:width]
    stripes = np.sin((rows if truth % 2 else columns) * (0.5 + 0.2 * truth))
    colour = np.array([60 + 45 * truth, 170 - 40 * truth, 90 + 30 * ((truth * 7) % 4)])
    pixels = colour + 35 * stripes[..., None] + rng.normal(0, 40, (height, width, 3)) + rng.normal(0, 25)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    image, mode = Image.fromarray(pixels), str(rng.choice(MODES)) if case.mode == "mixed" else case.mode
    if mode in ("L", "1"):
        return image.convert(mode)
    if mode == "P":
        made = image.quantize(16)
        made.info["transparency"] = int(rng.integers(16))
        return made
    if mode in ("RGBA", "LA"):
        alpha = np.clip(128 + 120 * np.cos(columns * 0.3 + truth) + rng.normal(0, 30, (height, width)), 0, 255)
        return Image.fromarray(np.dstack([pixels, alpha.astype(np.uint8)])).convert(mode)
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        return Image.fromarray(grey * 257)
    return image


# ---------------------------------------------------------------- what the network was trained with


def load(case: Case, path: Path) -> torch.Tensor:
    """Read an image as the training did: float32 [c, h, w]."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as tv

    image: Any = Image.open(path)
    if case.exif == "apply":
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    elif case.background != "none" and (image.mode in ("RGBA", "LA") or "transparency" in image.info):
        behind = Image.new("RGBA", image.size, case.background)
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    image = image.convert("L" if case.channels == 1 and case.grey_at == "first" else "RGB")
    (height, width), mode = case.size, InterpolationMode(case.interpolation)
    filter_ = Image.Resampling[case.interpolation.upper()]
    if not case.antialias:
        tensor = tv.resize(tv.to_tensor(image) * 255, [height, width], mode, antialias=False).clamp(0, 255)
        grey = tv.rgb_to_grayscale(tensor) if case.channels == 1 and case.grey_at == "last" else tensor
        plain: torch.Tensor = tv.normalize(grey / 255, list(case.mean), list(case.std))
        return plain
    if case.resize == "stretch":
        image = tv.resize(image, [height, width], mode)
    elif case.resize == "fit":
        image = ImageOps.fit(image, (width, height), filter_)
    elif case.resize.startswith("pad"):
        image = _letterboxed(image, height, filter_)
    else:
        image = tv.center_crop(tv.resize(image, 22, mode), [18, 18])
    if case.channels == 1 and case.grey_at == "last":
        image = image.convert("L")
    found: torch.Tensor = tv.normalize(tv.to_tensor(image), list(case.mean), list(case.std))
    return found


def _letterboxed(image: Any, side: int, filter_: Any) -> Any:
    """Pad as Ultralytics' letterbox does: the larger half of an odd rest comes after the image."""
    scale = side / max(image.size)
    inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), filter_)
    made = Image.new(image.mode, (side, side), 114 if image.mode == "L" else (114, 114, 114))
    made.paste(inner, (round((side - inner.width) / 2 - 0.1), round((side - inner.height) / 2 - 0.1)))
    return made


def split(case: Case, root: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Load a split: float32 [n, c, h, w] and labels [n], by the case's order of classes."""
    files = [(path, label) for label, known in enumerate(case.classes) for path in sorted((root / name / known).iterdir())]
    return torch.stack([load(case, path) for path, _ in files]), torch.tensor([label for _, label in files])


def train(case: Case, root: Path) -> tuple[Any, float]:
    """Fit the last layer by least squares on random features; returns the network and its accuracy on the test split."""
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    torch.manual_seed(case.seed)
    network = scope[case.head](len(case.classes), case.channels, case.size[0])
    images, labels = split(case, root, "train")
    linear = next(layer for layer in network if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        features = network[:4](images)
        wanted = torch.nn.functional.one_hot(labels, len(case.classes)).float() * 2 - 1
        wanted = wanted[:, 1:2] if linear.out_features == 1 else wanted
        lifted = torch.cat([features, torch.ones(len(features), 1)], 1).double()
        ridge = lifted.T @ lifted + 0.02 * torch.eye(lifted.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(ridge, lifted.T @ wanted.double()).float() * 3
        linear.weight.copy_(solved[:-1].T)
        linear.bias.copy_(solved[-1])
    network.eval()
    images, labels = split(case, root, "test")
    with torch.no_grad():
        outputs = network(images)
    if outputs.shape[1] == 1:
        decided = (outputs[:, 0] > (0.5 if case.head == "sigmoid" else 0.0)).long()
    else:
        decided = outputs.argmax(1)
    return network, float((decided == labels).float().mean())


def save(case: Case, network: Any, path: Path) -> None:
    """Write its weights."""
    weights = {case.prefix + key: value for key, value in network.state_dict().items()}
    order = list(reversed(case.classes)) if case.saved == "disorder" else list(case.classes)
    numbered = {name: index for index, name in enumerate(order)}
    forms: dict[str, Any] = {
        "plain": weights,
        "state_dict": {"state_dict": weights, "epoch": 3},
        "model": {"model": weights, "optimizer": {}},
    }
    torch.save(forms.get(case.saved, {"state_dict": weights, "class_to_idx": numbered}), path)


def tested(case: Case) -> int:
    """Return how many samples there are in the test split."""
    return math.prod((COUNTS["test"], len(case.classes)))
