"""Data sets by name, what a network sees, and a trained network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from edgebench.schema.base import NAME, Frozen, Layout, Role, Task


class DatasetRef(Frozen):
    """A data set by name, and the options that its loader takes."""

    name: str
    options: dict[str, str | int | bool] = {}

    def __str__(self) -> str:
        """Write it as the command line reads it."""
        return ",".join([self.name, *(f"{key}={value}" for key, value in sorted(self.options.items()))])


RESIZE = r"^(stretch|fit|pad(:\d{1,3})?|shortest:[1-9]\d{0,4}\+crop(-floor)?:[1-9]\d{0,4}(x[1-9]\d{0,4})?)$"
"""How an image comes to the input's size; `agent/runtimes/preprocess.py` says what each one does."""


class Preprocessing(Frozen):
    """From uint8 images [n, h, w, c] to a network's input; executed by `agent/runtimes/preprocess.py`."""

    height: int = Field(gt=0, description="rows after resizing")
    width: int = Field(gt=0, description="columns after resizing")
    channels: Literal[1, 3] = Field(description="grey is repeated to 3, of colour is made grey")
    mean: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    std: tuple[float, ...] = Field(description="per channel, after scaling to 0…1")
    layout: Layout = "nchw"
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
        if self.resize is not None and "crop" in self.resize:
            height, _, width = self.resize.rpartition(":")[2].partition("x")
            if (int(height), int(width or height)) != (self.height, self.width):
                raise ValueError(f"resize {self.resize} does not end at the input's {self.height} × {self.width}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing: keys of before stay."""
        usual = {"grey": "mean", "resize": None, "interpolation": None, "antialias": True}
        return {name: value for name, value in handler(self).items() if name not in usual or value != usual[name]}


class TensorSpec(Frozen):
    """One input or output of a bundle's file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = Field(None, description="real = scale × (quantized − zero_point); null for real tensors")
    zero_point: int | None = None

    @property
    def is_image(self) -> bool:
        """Return whether it is an image of whole pixels 0…255, which the file itself normalises."""
        return self.dtype == "uint8" and self.scale is None


class Lineage(Frozen):
    """How a model came to be."""

    recipe: str
    options: dict[str, Any] = {}
    parents: tuple[str, ...] = Field((), description="sha256 of the checkpoints that it was made from")
    dataset: DatasetRef | None = None
    splits: dict[str, str] = Field({}, description="sha256 of each split's images and labels")
    seed: int = 0
    tools: dict[str, str] = {}


class Model(Frozen):
    """A trained network: what it is, and the checkpoint that holds its weights."""

    name: str = Field(pattern=NAME)
    architecture: str = Field(description="a torchvision name, `package.module:factory`, or `exported-program`")
    role: Role = "baseline"
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str = Field(description="of the checkpoint file")
    parameters: int
    lineage: Lineage
    metrics: dict[str, float] = Field({}, description="on the validation split, at the chosen epoch")
