"""Data sets by name, what a network sees, and a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgebench.errors import InputError
from edgebench.schema.base import NAME, Frozen, Layout, Role, Warned

SYNTHETIC = "synthetic"
"""The option of any data set that marks it as synthetic, and says how: `tiny`, `full`, or the user's own word."""


class DatasetRef(Frozen):
    """A data set by name, and the options that its loader takes."""

    name: str
    options: dict[str, str | int | bool] = {}

    def __str__(self) -> str:
        """Write it as the command line reads it, what is synthetic beside the name."""
        options = sorted(self.options.items(), key=lambda each: (each[0] != SYNTHETIC, each[0]))
        return ",".join([self.name, *(f"{key}={value}" for key, value in options)])


RESIZE = r"^(stretch|fit|pad(:\d{1,3})?|shortest:[1-9]\d{0,4}\+crop(-floor)?:[1-9]\d{0,4}(x[1-9]\d{0,4})?)$"
"""How an image comes to the input's size; `agent/runtimes/preprocess.py` says what each one does."""


class Preprocessing(Frozen):
    """From uint8 images [n, h, w, c] or volumes [n, d, h, w, c] to a network's input.

    Executed by `agent/runtimes/preprocess.py`. Volumes keep their size: nothing resizes them.
    """

    depth: int | None = Field(None, gt=0, description="slices of a volume; null: an image")
    height: int = Field(gt=0, description="rows after resizing")
    width: int = Field(gt=0, description="columns after resizing")
    channels: Literal[1, 3] = Field(description="grey is repeated to 3, of colour is made grey")
    mean: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    std: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    layout: Layout = Field("nchw", description="channels first or, nhwc, last; of volumes likewise")
    grey: Literal["mean", "luma"] = Field("mean", description="of colour: the channels' mean, or ITU-R 601 luma")
    resize: str | None = Field(
        None,
        pattern=RESIZE,
        description="how an image comes to its size: stretch, fit, pad, pad:114, shortest:256+crop:224; null: stretched",
    )
    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = Field(None, description="null: bilinear")
    antialias: bool = Field(True, description="the filter is widened where the image shrinks")

    @model_validator(mode="after")
    def _ends_at_the_size(self) -> Preprocessing:
        if self.depth is not None and (self.resize, self.interpolation) != (None, None):
            raise ValueError("volumes are not resized: depth goes with neither resize nor interpolation")
        if self.resize is not None and "crop" in self.resize:
            height, _, width = self.resize.rpartition(":")[2].partition("x")
            if (int(height), int(width or height)) != (self.height, self.width):
                raise ValueError(f"resize {self.resize} does not end at the input's {self.height} × {self.width}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing: keys of before stay."""
        usual = {"depth": None, "grey": "mean", "resize": None, "interpolation": None, "antialias": True}
        return {name: value for name, value in handler(self).items() if name not in usual or value != usual[name]}

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input, in its layout."""
        return (1, self.channels, *self.sides) if self.layout == "nchw" else (1, *self.sides, self.channels)

    @property
    def sides(self) -> tuple[int, ...]:
        """Return height and width, before them the depth of a volume."""
        return (self.height, self.width) if self.depth is None else (self.depth, self.height, self.width)

    @property
    def volume(self) -> tuple[int, int, int] | None:
        """Return depth, height and width of the volumes that it takes; None: it takes images."""
        return None if self.depth is None else (self.depth, self.height, self.width)

    @property
    def sees(self) -> str:
        """Write what it sees in words: `28 × 28 × 28 × 1`, the channels last."""
        return " × ".join(map(str, (*self.sides, self.channels)))

    def of_pixels(self) -> Preprocessing:
        """Return the same without normalisation, which the file itself does: values 0…255."""
        return self.model_copy(update={"mean": (0.0,) * self.channels, "std": (1 / 255,) * self.channels})


def read_preprocessing(given: Any) -> Preprocessing:
    """Read a part of something that is being read; `ValueError` in one line where it is none."""
    try:
        return Preprocessing.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("preprocessing", *first["loc"])))
        raise ValueError(f"{where}: {first['msg']}") from error


SMALL = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767), "uint16": (0, 65535)}
"""Types whose whole range is meant where none is stated; others are masks, indices and lengths, or real."""


class Values(Frozen):
    """How a plain tensor is made, where no data set gives it; what does not belong to the source is null."""

    source: Literal["synthetic", "constant", "file"] = "synthetic"
    low: int | float | None = Field(None, description="synthetic: the lowest value; null: as suits the dtype")
    high: int | float | None = Field(None, description="synthetic: the highest, of integers inclusive; null: as suits the dtype")
    value: int | float | bool | None = Field(None, description="constant: every element")
    file: str | None = Field(None, description="file: an .npz of the bundle")
    array: str | None = Field(None, description="file: the array's name in it")
    sha256: str | None = Field(None, description="file: its hash, or the array's")

    def bounds(self, dtype: str) -> tuple[float, float]:
        """Return the lowest and the highest synthetic value: as stated, else 0 and 1, or the whole range of small integers."""
        least, most = SMALL.get(dtype, (0, 1))
        return (least if self.low is None else self.low, most if self.high is None else self.high)


class Tokens(Frozen):
    """Which part of a tokenised text an input is; the text is tokenised on the host, to the input's length."""

    part: Literal["ids", "mask"] = Field(
        description="ids: numbers of tokens; mask: 1 where there is one, 0 where the text is over"
    )
    tokenizer: str = Field(description="sha256 of the tokenizer.json that makes them")


class TensorSpec(Frozen):
    """One input or output of a model or a file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = Field(None, description="real = scale × (quantized − zero_point); null for real tensors")
    zero_point: int | None = None


class Input(TensorSpec):
    """One input, and how it is made: an image or a volume by preprocessing, else a plain tensor by its values."""

    preprocessing: Preprocessing | None = Field(
        None, description="from uint8 images [n, h, w, c] or volumes [n, d, h, w, c]; null: a plain tensor"
    )
    values: Values | None = Field(None, description="of a plain tensor; null: synthetic, in a range that suits the dtype")
    carry: str | None = Field(None, description="the output that is fed back into it from the second inference on")
    tokens: Tokens | None = Field(None, description="of the text beside each image; null: of no text")

    @model_serializer(mode="wrap")
    def _without_tokens_where_there_are_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing: keys and hashes of before stay."""
        return {name: value for name, value in handler(self).items() if name != "tokens" or value is not None}

    @property
    def is_image(self) -> bool:
        """Return whether it is made of an image or a volume by preprocessing."""
        return self.preprocessing is not None

    @property
    def is_volume(self) -> bool:
        """Return whether it is made of a volume by preprocessing."""
        return self.preprocessing is not None and self.preprocessing.volume is not None

    @property
    def takes_pixels(self) -> bool:
        """Return whether it is an image of whole pixels 0…255, which the file itself normalises."""
        return self.is_image and self.dtype == "uint8" and self.scale is None


def image_input(spec: Preprocessing, name: str = "input") -> Input:
    """Describe the input of a network that takes one image or volume: float32, in the layout of its preprocessing."""
    return Input(name=name, shape=spec.shape, dtype="float32", scale=None, zero_point=None, preprocessing=spec)


def one_image(whose: str, inputs: Sequence[Input]) -> Input:
    """Return the one input that is an image or a volume; `InputError` where there is none, or several."""
    images = [each for each in inputs if each.is_image]
    if len(images) != 1:
        names = ", ".join(each.name for each in inputs)
        raise InputError(f"{whose}: has {len(images) or 'no'} image inputs (it takes: {names}), and one is needed here")
    return images[0]


class Lineage(Frozen):
    """How a model came to be."""

    recipe: str
    options: dict[str, Any] = {}
    parents: tuple[str, ...] = Field((), description="sha256 of the checkpoints that it was made from")
    dataset: DatasetRef | None = None
    splits: dict[str, str] = Field({}, description="sha256 of each split's images and labels")
    seed: int = 0
    tools: dict[str, str] = {}


class Pruned(Frozen):
    """That a network's layers have the shapes of its weights, not its architecture's, and what shapes do not say."""

    heads: dict[str, int] = Field({}, description="of each layer of attention, by its path")


class Curves(Frozen):
    """How a training went: its losses and its validation metric after each epoch, after some of them where there were many."""

    metric: str = Field(description="which one `val_metric` is")
    epoch: tuple[int, ...] = Field(min_length=1, max_length=100, description="counted from 0")
    loss: tuple[float, ...] = Field(description="of the training split, as it was augmented; the mean over the epoch's batches")
    val_loss: tuple[float, ...] = Field(description="of the validation split as it is")
    val_metric: tuple[float, ...] = Field(description="of the validation split")

    @model_validator(mode="after")
    def _are_as_long(self) -> Curves:
        if {len(values) for values in (self.loss, self.val_loss, self.val_metric)} != {len(self.epoch)}:
            raise ValueError("every curve has one value for each epoch")
        return self


class NewHead(Frozen):
    """What stands in the place of an architecture's own last layers, on the mean of its features."""

    hidden: int | None = Field(None, ge=1, description="width of a layer with ReLU between features and classes; null: none")
    dropout: float = Field(0.0, ge=0, lt=1, description="before each dense layer, in training")


class Fusion(Frozen):
    """How a network that sees an image reads a text beside it: by which encoder, and where the two meet."""

    strategy: Literal["concat", "cross-attention", "gated"] = Field(
        description="both side by side; the image asking the words; or a gate that weighs one against the other"
    )
    hidden: int = Field(ge=1, description="width of what both come to")
    heads: int = Field(ge=1, description="cross-attention: heads")
    dropout: float = Field(ge=0, lt=1, description="before the last layer, in training")
    max_tokens: int = Field(ge=2, description="longer texts are cut off, shorter ones filled up")
    encoder: dict[str, Any] = Field(description="the text encoder's config.json, as far as it is not the default")
    encoder_sha256: str = Field(description="of the text encoder's config and the weights that it began with")
    tokenizer: str = Field(description="sha256 of the model folder's tokenizer.json")


HEADS = ("logits", "softmax", "sigmoid")
"""What scores can be said to be."""
FEW = ("warnings", "pruned", "ranges", "new_head", "curves", "fusion")
"""What is left out of a model where there is nothing of it."""


class Model(Frozen):
    """A trained network: what it is, and the checkpoint that holds its weights."""

    name: str = Field(pattern=NAME)
    architecture: str = Field(description="a torchvision name, `package.module:factory`, `exported-program`, or `file`")
    role: Role = "baseline"
    task: str = Field(description="the plugin that decodes and judges its outputs; `none`: nothing is judged")
    classes: tuple[str, ...]
    inputs: tuple[Input, ...] = Field(min_length=1, description="in the order in which the network takes them")
    sha256: str = Field(description="of the checkpoint file, or of the file that was brought")
    parameters: int
    lineage: Lineage
    metrics: dict[str, float] = Field({}, description="on the validation split, at the chosen epoch; and what a recipe counted")
    warnings: tuple[Warned, ...] = Field((), description="why to look twice at them; left out where there is nothing")
    pruned: Pruned | None = Field(None, description="null: the shapes are the architecture's")
    ranges: str | None = Field(None, description="sha256 of ranges.json, the activations' learned ranges; null: there are none")
    curves: Curves | None = Field(None, description="null: nothing is known of its training")
    new_head: NewHead | None = Field(None, description="null: the last layers are the architecture's own")
    fusion: Fusion | None = Field(None, description="null: it reads no text beside its image")

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_written_before(cls, given: Any) -> Any:
        """Read `preprocessing`, as models of one image were written, as the input that it describes."""
        if not isinstance(given, Mapping) or "preprocessing" not in given or "inputs" in given:
            return given
        spec = read_preprocessing(given["preprocessing"])
        kept = {name: value for name, value in given.items() if name != "preprocessing"}
        return {**kept, "inputs": [image_input(spec).model_dump(mode="json")]}

    @model_serializer(mode="wrap")
    def _without_what_few_have(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing: keys of before stay."""
        return {name: value for name, value in handler(self).items() if name not in FEW or value}

    @property
    def image(self) -> Input:
        """Return the one input that is an image; `InputError` where there is none, or several."""
        return one_image(self.name, self.inputs)

    @property
    def preprocessing(self) -> Preprocessing:
        """Return that of the one image input; `InputError` where there is none, or several."""
        spec = self.image.preprocessing
        assert spec is not None
        return spec

    @property
    def head(self) -> str | None:
        """Return what its scores are, where somebody said it: logits, softmax or sigmoid."""
        said = self.lineage.options.get("head")
        return said if said in HEADS else None  # a recipe's option of that name says which layers there are

    def keyed(self) -> dict[str, Any]:
        """Return what keys hold of it; a model of one image as it was written when every model was one."""
        written = self.model_dump(mode="json", exclude={"warnings", "curves"})
        spec = self.inputs[0].preprocessing
        if spec is not None and self.inputs == (image_input(spec),):
            del written["inputs"]
            written["preprocessing"] = spec.model_dump(mode="json")
        return written
