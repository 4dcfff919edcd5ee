"""Synthetic files in the form of Kaggle's chest X-rays: names, sizes, and sentences of reports beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgebench.data._radiographs import opacities, radiograph, shadows
from edgebench.data._textures import generator
from edgebench.files import PROGRESS

MEAN, SPREAD = (1328, 971), 0.27
"""Width and height in the mean, and the deviation of their logarithms."""
WIDTHS, HEIGHTS = (384, 2916), (127, 2713)
ASPECT = 0.09
QUALITY, COLOUR = 80, 0.07
"""Of JPEG; the part of images with pneumonia that are stored in colour, grey though they are."""
BACTERIA = 0.65
"""Part of the pneumonias."""
AGREES = 0.85
"""Part of the reports that tell of what is there."""
LEAST_SIDE = 32
OPENINGS = (
    "Frontal view of the chest.",
    "Single frontal radiograph.",
    "Chest film of a child.",
    "AP view with adequate inspiration.",
    "Portable frontal view.",
)
FINDINGS = (
    (
        "The lungs are clear.",
        "No focal consolidation is seen.",
        "Lung fields appear normal on both sides.",
        "There is no airspace disease.",
    ),
    (
        "There is a patchy opacity in the lower lobe.",
        "Focal consolidation suggests an infection.",
        "Airspace disease is seen on one side.",
        "Diffuse interstitial markings are increased.",
    ),
)
CLOSINGS = (
    "The heart is of normal size.",
    "No pleural effusion.",
    "Bony structures are unremarkable.",
    "No pneumothorax.",
    "The mediastinum is in the midline.",
)


def write_folder(
    root: Path, counts: Mapping[str, Sequence[int]], classes: Sequence[str], scale: int, texts: bool, seed: int
) -> None:
    """Write a folder per split and class, and `reports.csv` where texts are wanted."""
    rows: list[tuple[str, str, str, str]] = []
    done, total = 0, sum(sum(each) for each in counts.values())
    for split, each in counts.items():
        for label, (name, count) in enumerate(zip(classes, each, strict=True)):
            place = root / split / name
            place.mkdir(parents=True)
            random = generator(seed, "chest-xray", split, name)
            for file in _files(label, split, count, random):
                _write(place / file, label, scale, random)
                rows.append((f"{split}/{name}/{file}", name, split, _report(label, random)))
                PROGRESS.get()("draw chest X-rays", done := done + 1, total)
    if texts:
        with (root / "reports.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("file", "label", "split", "text"))
            writer.writerows(rows)


def _files(label: int, split: str, count: int, random: np.random.Generator) -> Iterator[str]:
    """Name files as they are published: patients with one to four images, bacteria or virus in the name of a pneumonia."""
    person, made = {"train": 1, "val": 1900, "test": 2000}[split], 0
    while made < count:
        several = min(int(random.choice([1, 1, 1, 2, 2, 3, 4])), count - made)
        start = "NORMAL2-IM" if random.random() < 0.5 else "IM"
        kind = "bacteria" if random.random() < BACTERIA else "virus"
        for number in range(1, several + 1):
            yield f"person{person}_{kind}_{made + number}.jpeg" if label else f"{start}-{person:04d}-{number:04d}.jpeg"
        person, made = person + 1, made + several


def _write(path: Path, label: int, scale: int, random: np.random.Generator) -> None:
    """Draw an image in a size as the published ones have, in percent of it."""
    from PIL import Image

    larger = random.normal(0, SPREAD)
    width, height = (
        int(np.clip(mean * np.exp(larger + turn * random.normal(0, ASPECT)), *ends))
        for mean, ends, turn in ((MEAN[0], WIDTHS, 1), (MEAN[1], HEIGHTS, -1))
    )
    found = opacities(random, int(random.integers(1, 4))) if label else shadows(random)
    pixels = radiograph(random, found, max(LEAST_SIDE, width * scale // 100), max(LEAST_SIDE, height * scale // 100))
    image = Image.fromarray(pixels)
    image = image.convert("RGB") if label and random.random() < COLOUR else image
    image.save(path, "JPEG", quality=QUALITY)


def _report(label: int, random: np.random.Generator) -> str:
    """Write two or three sentences, of which one tells the class, mostly rightly."""
    told = label if random.random() < AGREES else 1 - label
    sentences = [str(random.choice(OPENINGS)), str(random.choice(FINDINGS[told])), str(random.choice(CLOSINGS))]
    return " ".join(sentences[int(random.integers(2)) :])
