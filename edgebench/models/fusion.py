"""A network that sees an image and reads a text beside it: an image network without its head, a text encoder, and a head.

The text encoder is BERT's class of transformers (BioBERT, ClinicalBERT and PubMedBERT are of it), from a folder of Hugging
Face's form: its numbers, weights and vocabulary, and nothing that runs.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgebench.errors import CheckpointError, InputError, MissingExtra
from edgebench.files import sha256_file
from edgebench.models import factory, heads, hugging_face
from edgebench.models.tokens import FILE, require_tokenizers
from edgebench.schema import Fusion

KIND = "bert"
FAR = -64.0
"""What is added to the scores of tokens that are none: e^-64 is nothing beside any other's weight in float32, and one INT8
scale holds it and the scores too, which it could not with the 10^38 of transformers' own."""


class Fused(nn.Module):
    """Images [n, c, h, w], ids [n, t] and mask [n, t] → scores [n, classes]."""

    def __init__(self, image: nn.Module, features: int, text: nn.Module, fusion: Fusion, classes: int) -> None:
        super().__init__()
        width, hidden = int(text.config.hidden_size), fusion.hidden  # type: ignore[union-attr, arg-type]
        self.image, self.text = image, text
        self.meet: nn.Module = MEET[fusion.strategy](features, width, fusion)
        self.head = nn.Sequential(nn.Dropout(fusion.dropout), nn.Linear(hidden, classes))
        self.missing = 0.0
        """How likely a sample lacks its image or its text in training, each as often as the other."""

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the scores."""
        seen = self.image(image)
        mask = attention_mask.to(seen.dtype)
        far = (1 - mask)[:, None, None, :] * FAR  # of our own: what transformers makes of a mask depends on what is in it
        words = self.text(input_ids=input_ids, attention_mask=far).last_hidden_state
        if self.training and self.missing:
            drawn = torch.rand(len(seen), device=seen.device)
            seen = seen * (drawn >= self.missing / 2)[:, None]
            words = words * ((drawn < self.missing / 2) | (drawn >= self.missing))[:, None, None]
        scores: Tensor = self.head(self.meet(seen, words, mask))
        return scores


def mean_of(words: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of a text's words [n, t, w] → [n, w] (N. Reimers, I. Gurevych, "Sentence-BERT", 2019)."""
    return (words * mask[:, :, None]).sum(1) / mask.sum(1)[:, None].clamp(min=1)


class Concat(nn.Module):
    """Puts the image's features beside the mean of the words, and a layer over both."""

    def __init__(self, features: int, width: int, fusion: Fusion) -> None:
        super().__init__()
        self.both = nn.Linear(features + width, fusion.hidden)

    def forward(self, seen: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Return [n, hidden]."""
        return torch.relu(self.both(torch.cat([seen, mean_of(words, mask)], 1)))


class Gated(nn.Module):
    """Weighs image against text, each feature by a gate that sees both (J. Arevalo et al., "Gated multimodal units", 2017)."""

    def __init__(self, features: int, width: int, fusion: Fusion) -> None:
        super().__init__()
        self.of_image, self.of_text = nn.Linear(features, fusion.hidden), nn.Linear(width, fusion.hidden)
        self.gate = nn.Linear(features + width, fusion.hidden)
        self.over = nn.Linear(fusion.hidden, fusion.hidden)

    def forward(self, seen: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Return [n, hidden]."""
        read = mean_of(words, mask)
        gate = torch.sigmoid(self.gate(torch.cat([seen, read], 1)))
        mixed = gate * torch.tanh(self.of_image(seen)) + (1 - gate) * torch.tanh(self.of_text(read))
        return torch.relu(self.over(mixed))


class CrossAttention(nn.Module):
    """Lets the image ask the words: its features are the query, then a layer over both, as in a transformer's decoder.

    A. Vaswani et al., "Attention is all you need", 2017, section 3.2.3.
    """

    def __init__(self, features: int, width: int, fusion: Fusion) -> None:
        super().__init__()
        hidden = fusion.hidden
        self.heads, self.each = fusion.heads, hidden // fusion.heads
        self.of_image = nn.Linear(features, hidden)
        self.query, self.key, self.value = nn.Linear(hidden, hidden), nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.out, self.norm, self.last = nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.over = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))

    def forward(self, seen: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Return [n, hidden]."""
        asks = self.of_image(seen)
        query = self.query(asks).reshape(-1, 1, self.heads, self.each).transpose(1, 2)
        key, value = (
            layer(words).reshape(-1, words.shape[1], self.heads, self.each).transpose(1, 2) for layer in (self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(self.each) + (1 - mask)[:, None, None, :] * FAR
        found = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(-1, self.heads * self.each)
        both = self.norm(asks + self.out(found))
        mixed: Tensor = self.last(both + self.over(both))
        return mixed


MEET: dict[str, Any] = {"concat": Concat, "gated": Gated, "cross-attention": CrossAttention}


def fused(image: nn.Module, fusion: Fusion, classes: int, example: Tensor) -> Fused:
    """Take an image network's head off, and let it meet a text encoder of random weights; `InputError` where it has no head.

    example: an image [1, c, h, w].
    """
    return Fused(image, heads.cut(image, example), encoder(fusion), fusion, classes)


def encoder(fusion: Fusion) -> nn.Module:
    """Build the text encoder, with random weights."""
    transformers = _transformers("reading text")
    try:
        with hugging_face.quiet():
            config = transformers.BertConfig(**fusion.encoder)
            made: nn.Module = transformers.BertModel(_plain(config), add_pooling_layer=False)
    except Exception as error:  # whatever its layers make of the configuration
        raise InputError(f"the text encoder: {factory.told(error)}; check its {hugging_face.CONFIG}") from error
    return made


def _plain(config: Any) -> Any:
    """Let attention be written out in operators, as tracers read it."""
    config._attn_implementation = "eager"
    return config


def _transformers(what: str) -> Any:
    require_tokenizers(what)
    try:
        return hugging_face.library()
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "text", "transformers") from error


# ---------------------------------------------------------------- a folder of Hugging Face's


def files(folder: Path) -> tuple[Path, ...]:
    """Name the files of a text encoder's folder that a model is made of: config, weights, vocabulary.

    `InputError` where one is missing, `CheckpointError` where the weights are pickled.
    """
    if not (folder / hugging_face.CONFIG).is_file():
        what = f"no {hugging_face.CONFIG} in it" if folder.is_dir() else "no such folder"
        raise InputError(f"text_encoder {folder}: {what}; give a folder that save_pretrained() has written")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        other = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.h5"))), None)
        has = f"holds {other.name} alone" if other is not None else "holds no weights"
        raise CheckpointError(f"text_encoder {folder}: {has}; edgebench reads safetensors: save_pretrained(…) writes them")
    words = [path for path in (folder / FILE, folder / "vocab.txt", folder / "tokenizer_config.json") if path.is_file()]
    if not words or words[0].name == "tokenizer_config.json":
        raise InputError(f"text_encoder {folder}: no {FILE} and no vocab.txt in it; save its tokenizer there too")
    return (folder / hugging_face.CONFIG, *weights, *words)


def described(folder: Path) -> tuple[dict[str, Any], str]:
    """Return a text encoder's configuration as models keep it, and the hash of that and its weights.

    `InputError` where it is of another class than BERT's, or names code of its own; else raises as `files` does.
    """
    _, *rest = files(folder)
    said = hugging_face.read_json(folder / hugging_face.CONFIG)
    if "auto_map" in said or said.get("model_type") != KIND:
        kind = "names code of its own (auto_map)" if "auto_map" in said else f"is a {said.get('model_type')}"
        raise InputError(f"text_encoder {folder}: {kind}; give one of BERT's class (model_type {KIND}), as BioBERT is")
    weights = [path for path in rest if path.suffix == ".safetensors"]
    try:
        config = _transformers(f"reading {folder}").BertConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"text_encoder {folder}: {factory.told(error)}; save it again with save_pretrained()") from error
    left_out = ("architectures", "transformers_version", "model_type", "dtype", "torch_dtype")
    numbers = {name: value for name, value in config.to_diff_dict().items() if name not in left_out}
    digest = hashlib.sha256("".join(sha256_file(path) for path in (folder / hugging_face.CONFIG, *weights)).encode())
    return numbers, digest.hexdigest()


def pretrained(folder: Path) -> nn.Module:
    """Read a text encoder with its weights; `CheckpointError` where they do not fit, or leave a layer at random."""
    try:
        with hugging_face.quiet():
            made, found = _transformers(f"reading {folder}").BertModel.from_pretrained(
                str(folder),
                add_pooling_layer=False,
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # of a foreign file
        raise CheckpointError(f"text_encoder {folder}: {factory.told(error)}; save it again with save_pretrained()") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise CheckpointError(f"text_encoder {folder}: holds no weights for {', '.join(missing[:3])}; save it again, whole")
    encoder: nn.Module = made.float()
    return encoder


def tokenizer(folder: Path, max_tokens: int) -> str:
    """Read a folder's tokenizer, and write it as `tokenizer.json` is: it cuts and fills up texts to so many tokens."""
    try:
        with hugging_face.quiet():
            auto = _transformers(f"reading {folder}").AutoTokenizer
            read = auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, use_fast=True)
    except Exception as error:  # of a foreign file
        raise InputError(f"text_encoder {folder}: {factory.told(error)}; save its tokenizer again") from error
    if read.pad_token_id is None:
        raise InputError(f"text_encoder {folder}: its tokenizer has no token that fills up; save it with one")
    backend = read.backend_tokenizer
    backend.enable_truncation(max_length=max_tokens)
    backend.enable_padding(length=max_tokens, pad_id=read.pad_token_id, pad_token=read.pad_token)
    text: str = backend.to_str(pretty=False)
    return text
