"""Patients and readers of the digits' test split, made up, with words in them that must never come out."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgebench.config import read_dataset
from edgebench.data import open_images

PERSONAL = ("Mustermann", "PID-", "Dr. No", "1975-12-31")


def write(path: Path, columns: str, rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns.split(","))
        writer.writerows(rows)
    return path


def tables(folder: Path) -> tuple[Path, Path]:
    """Write who the patients are, two samples each, and what three readers said of sixty samples without and with aid."""
    draw, labels = np.random.default_rng(0), open_images(read_dataset("digits")).read("test").labels
    rows = [
        (index, f"PID-{index // 2}", "fm"[(index // 2) % 2], 20 + (index // 2) % 60, "Erika Mustermann", "1975-12-31")
        for index in range(360)
    ]
    said = []
    for index in range(60):
        for reader in ("Dr. No", "Dr. Yes", "Dr. Maybe"):
            for aid, right in (("no", 0.6), ("yes", 0.9)):
                decision = labels[index] if draw.random() < right else draw.integers(0, 10)
                said.append((index, reader, aid, decision, round(float(labels[index] == 3) + draw.normal(0, 1 - right), 3)))
    groups = write(folder / "groups.csv", "index,patient,sex,age,name,born", rows)
    return groups, write(folder / "readers.csv", "index,reader,aid,decision,rating", said)
