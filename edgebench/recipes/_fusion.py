"""What the recipe `fusion` trains on and how: tokens of each split's texts, and rates for what was trained before."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgebench.data import Split
from edgebench.errors import DataError
from edgebench.models import fusion, tokens
from edgebench.recipes import Job
from edgebench.recipes._classifier import Beside
from edgebench.recipes._groups import Group
from edgebench.schema import Preprocessing


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as the model folder keeps it."""

    content: str

    @property
    def sha256(self) -> str:
        """Hash the file that it will be."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def beside(self, job: Job) -> Callable[[Split], Beside]:
        """Return what makes ids and mask of a split's texts; `DataError` there where it has none."""

        def made(split: Split) -> Beside:
            if split.texts is None:
                raise DataError(
                    f"{job.dataset.ref}: has no texts beside its images; give a CSV with a column text, or arrays train_texts"
                )
            with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
                (Path(folder) / tokens.FILE).write_text(self.content, encoding="utf-8")
                found = tokens.encoded(split.texts, Path(folder), self.sha256)
            return tuple(torch.from_numpy(found[part]) for part in tokens.PARTS)

        return made

    def shuffled(self, job: Job, seed: int) -> Beside:
        """Return ids and mask of the validation split with each sample's text given to another, by a seed."""
        val = job.dataset.read("val")
        order = torch.from_numpy(tokens.shuffled(len(val), seed))
        return tuple(each[order] for each in self.beside(job)(val))


def tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """Read the tokenizer of a text encoder's folder, for texts of so many tokens."""
    return Tokenizer(fusion.tokenizer(folder, max_tokens))


def example(spec: Preprocessing) -> Tensor:
    """Make an image of zeros [1, c, h, w], channels first."""
    return torch.zeros(1, spec.channels, *spec.sides)


def groups(network: fusion.Fused, text_rate: float) -> tuple[Group, ...]:
    """Let the text encoder learn at its share of the rate, or not at all; all else at the whole."""
    text = {id(parameter) for parameter in network.text.parameters()}
    rest = tuple(parameter for parameter in network.parameters() if id(parameter) not in text)
    slow = Group(tuple(network.text.parameters()), rate=text_rate or 1.0, begins=0 if text_rate else None)
    return Group(rest), slow
