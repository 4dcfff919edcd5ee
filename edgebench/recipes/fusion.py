"""Train a network that sees an image and reads the text beside it: an image network, a text encoder, and where they meet.

`fusion` says where: `concat` puts both side by side; `cross-attention` lets the image ask the words; `gated` weighs one
against the other. The text encoder is a folder of BERT's class as `save_pretrained()` writes it (BioBERT is one); its texts
are tokenised on this computer, and the device takes three inputs: the image, `input_ids` and `attention_mask`.

What a network would decide with another sample's text is the control: as good as with its own, and it does not read.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, model_validator

from edgebench.data import Dataset
from edgebench.errors import InputError
from edgebench.recipes import Job, Work, train
from edgebench.schema import Lineage, Network

if TYPE_CHECKING:
    from edgebench.schema import Fusion

CONTROL = "shuffled_text"
"""Before the name of the validation metric: what the network has where each sample gets another's text."""


class Options(train.Training):
    """What can be set beside the options of a training."""

    fusion: Literal["concat", "cross-attention", "gated"] = Field("concat", description="where image and text meet")
    text_encoder: str = Field(description="a folder of Hugging Face's form: config.json, *.safetensors, tokenizer")
    max_tokens: int = Field(64, ge=2, le=512, description="longer texts are cut off, shorter ones filled up")
    modality_dropout: float = Field(0.0, ge=0, lt=1, description="how likely a sample lacks its image or its text in training")
    hidden: int = Field(128, ge=1, description="width of what image and text come to")
    heads: int = Field(4, ge=1, description="cross-attention: heads, of which hidden is a multiple")
    dropout: float = Field(0.1, ge=0, lt=1, description="before the last layer, in training")
    text_rate: float = Field(0.1, ge=0, description="share of the learning rate that the text encoder has; 0: it does not learn")
    pretrained: bool = Field(False, description="begin with the image weights that torchvision or timm publishes")

    @model_validator(mode="after")
    def _fit_a_text(self) -> Options:
        if self.mixup:
            raise ValueError("mixup mixes images, and texts cannot be mixed; leave it out")
        if self.fusion == "cross-attention" and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of {self.heads} heads")
        return self


def check(name: str, options: BaseModel, given: Collection[str]) -> None:
    """Refuse a text encoder that cannot be read, and one that reads fewer tokens."""
    from edgebench.models import require_torch

    assert isinstance(options, Options)
    require_torch("the recipe fusion")
    _described(options, "")


def stand_in(options: Mapping[str, Any], folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Return options with a small text encoder of random weights, written below `folder`, in the place of a published one."""
    from edgebench.models import random_bert

    texts = dataset.read("train").texts or ()
    return {**options, "text_encoder": str(random_bert.write(folder / "random-bert", texts))}


def files(options: Options) -> tuple[Path, ...]:
    """Name the files that go in: the text encoder's config, weights and vocabulary."""
    from edgebench.models import fusion

    return fusion.files(Path(options.text_encoder))


def work(options: Options, dataset: Dataset) -> Work:
    """Count what all epochs take."""
    return train.work(options, dataset)


def begun(options: Options, network: Network) -> Network:
    """Return the network that is trained in the place of an image network: what formats can make of it is asked before."""
    from edgebench.models import count_parameters, fusion, tokens

    described = _described(options, "0" * 64)
    module = fusion.fused(network.module, described, len(network.model.classes), network.example()[0]).eval()
    inputs = (*network.model.inputs, *tokens.inputs_of(described))
    update = {"fusion": described, "inputs": inputs, "parameters": count_parameters(module)}
    update["sha256"] = f"untrained {uuid.uuid4().hex}"
    return replace(network, model=network.model.model_copy(update=update), module=module)


def _described(options: Options, tokenizer: str) -> Fusion:
    """Describe what is to be trained; `InputError` where the text encoder reads fewer tokens."""
    from edgebench.models import fusion
    from edgebench.schema import Fusion

    encoder, digest = fusion.described(Path(options.text_encoder))
    most = int(encoder.get("max_position_embeddings", 512))  # BERT's own, which its configuration leaves out
    if options.max_tokens > most:
        raise InputError(f"max_tokens {options.max_tokens}: {options.text_encoder} reads {most} at most; give no more")
    return Fusion(
        strategy=options.fusion,
        hidden=options.hidden,
        heads=options.heads,
        dropout=options.dropout,
        max_tokens=options.max_tokens,
        encoder=encoder,
        encoder_sha256=digest,
        tokenizer=tokenizer,
    )


def make(job: Job, options: Options, lineage: Lineage, folder: Path) -> None:
    """Train, keep the epoch with the best validation metric, judge it with others' texts, and write the model folder."""
    from edgebench import models
    from edgebench.models import fusion
    from edgebench.models.normalization import preprocessing
    from edgebench.recipes import _classifier, _fusion

    text = _fusion.tokenizer(Path(options.text_encoder), options.max_tokens)
    described = _described(options, text.sha256)
    loss = _classifier.label_loss(job.dataset, options)
    spec = preprocessing(job.dataset, job.input, options.pretrained)
    training = _classifier.training_folder(folder)
    with _classifier.quietly(options, training):
        given = (job.architecture, len(job.dataset.classes), job.input.channels, job.input.size, options.pretrained)
        image = models.build(*given, volume=spec.volume)
        network = fusion.fused(image, described, len(job.dataset.classes), _fusion.example(spec))
        network.text.load_state_dict(fusion.pretrained(Path(options.text_encoder)).state_dict())
        network.missing = options.modality_dropout
        found = _classifier.learn(
            job, options, network, loss, spec, training, _fusion.groups(network, options.text_rate), text.beside(job)
        )
        others = text.shuffled(job, options.seed)
        own = _classifier.metric_name(job)
        metrics: dict[str, Any] = {**found.metrics, f"{CONTROL}_{own}": _classifier.judge(job, network, spec, others)}
    kept = _classifier.Text(described, text.content)
    _classifier.write(job, network, spec, lineage, folder, replace(found, metrics=metrics), text=kept)
