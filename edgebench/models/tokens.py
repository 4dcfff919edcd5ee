"""Texts as the numbers that a network takes: tokenised on the host, by the tokenizer that lies beside the model.

`tokenizer.json` is the form of the library `tokenizers`; ours holds the length that texts are cut or filled up to.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import CheckpointError, InputError, MissingExtra
from edgebench.files import sha256_file
from edgebench.schema import Fusion, Input, Tokens, Values

FILE = "tokenizer.json"
PARTS = {"ids": "input_ids", "mask": "attention_mask"}
"""What inputs are called that are made of a text, as transformers calls them."""


def inputs_of(fusion: Fusion) -> tuple[Input, ...]:
    """Describe the inputs that stand beside the image: ids and mask, int64 [1, tokens]."""
    words = int(fusion.encoder.get("vocab_size", 30522))  # BERT's own, which transformers leaves out
    made = {"ids": Values(low=0, high=words - 1), "mask": Values(source="constant", value=1)}
    return tuple(
        Input(
            name=PARTS[part],
            shape=(1, fusion.max_tokens),
            dtype="int64",
            values=made[part],
            tokens=Tokens(part=part, tokenizer=fusion.tokenizer),
        )
        for part in ("ids", "mask")
    )


def require_tokenizers(what: str) -> None:
    """Raise `MissingExtra` where the library is not installed."""
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtra(what, "text", "tokenizers")


def encoded(texts: Sequence[str], folder: Path, sha256: str) -> dict[str, NDArray[np.int64]]:
    """Tokenise texts with the tokenizer of a folder, a model's or a bundle's: `ids` and `mask`, int64 [n, tokens].

    `CheckpointError` where the folder's is not the one that the network knows.
    """
    require_tokenizers("reading text")
    check(folder, sha256)
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(folder / FILE)).encode_batch(list(texts))
    length = len(found[0].ids) if found else 0
    return {
        "ids": np.array([each.ids for each in found], np.int64).reshape(-1, length),
        "mask": np.array([each.attention_mask for each in found], np.int64).reshape(-1, length),
    }


def check(folder: Path, sha256: str) -> None:
    """Raise `CheckpointError` where a folder's tokenizer is not the one that a network knows."""
    path = folder / FILE
    if not path.is_file() or sha256_file(path) != sha256:
        raise CheckpointError(f"{path}: missing or changed since it was written; make the model or the bundle again")


def samples(given: Input, texts: Sequence[str] | None, folder: Path, where: str) -> NDArray[Any]:
    """Return the samples [n, *shape] of an input that is made of text, in its dtype; `InputError` where there are no texts."""
    assert given.tokens is not None
    if texts is None:
        raise InputError(
            f"{where}: {given.name} is made of the text beside each image, and the data set has none; "
            "give one with texts (a column text, or arrays train_texts)"
        )
    return encoded(texts, folder, given.tokens.tokenizer)[given.tokens.part].reshape(-1, *given.shape).astype(given.dtype)


def shuffled(count: int, seed: int) -> NDArray[np.intp]:
    """Return whose text each sample gets in place of its own: a permutation by a seed in which none keeps its own.

    Sattolo's algorithm ("An algorithm to generate a random cyclic permutation", 1986): one cycle through all.
    """
    random, found = np.random.default_rng(seed), np.arange(count)
    for last in range(count - 1, 0, -1):
        other = int(random.integers(0, last))
        found[[last, other]] = found[[other, last]]
    return found
