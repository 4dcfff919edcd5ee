"""A folder with a model file: `bundle.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from edgebench.schema.base import BUNDLE_SCHEMA, NAME, Frozen
from edgebench.schema.model import Model, Preprocessing, TensorSpec


class Calibration(Frozen):
    """Which samples set the quantization ranges."""

    split: Literal["train"] = "train"
    samples: int
    sha256: str = Field(description="of the calibration images")
    method: str = Field(description="min-max, entropy or percentile")
    percentile: float | None = Field(None, description="share of the values inside the range, in percent; null: another method")
    dataset: str | None = Field(None, description="as the command line writes it")
    excluded: int = Field(0, description="training samples left out because the evaluation split holds the same image")


class AsRun(Frozen):
    """What the runtime makes of a quantized file on the exporting host, where that is the target: kernels may be fused."""

    top1_agreement: float = Field(description="share of samples that are decided as the file itself says")
    max_abs: float = Field(description="largest difference of any output value to what the file itself says")
    metric: float | None = Field(None, description="headline metric on these samples")
    metric_drop: float | None = Field(None, description="metric of the torch model minus this one")
    saturates: bool | None = Field(None, description="whether the processor's INT8 kernels may saturate; null: not known")


class Parity(Frozen):
    """The exported file against the torch model it came from, on the same samples; operator by operator, as it is written."""

    samples: int
    source: str = Field(description="`test`, or `synthetic` where no data set was given")
    max_abs: float = Field(description="largest difference of any output value")
    cosine: float = Field(description="smallest cosine similarity of any sample's outputs")
    top1_agreement: float = Field(description="share of samples with the same decision")
    near_ties: int | None = Field(
        None, description="other decisions where the torch model's two scores lie within 1 % of their range; see `build.gate`"
    )
    metric: float | None = Field(None, description="headline metric of the file on these samples")
    runtime: str = Field("", description="what ran the file on the exporting host; empty: the bundle's own runtime")
    metric_drop: float | None = Field(None, description="metric of the torch model minus that of the file")
    as_run: AsRun | None = Field(None, description="null: the runtime has one way of running it, or the target is elsewhere")


class FileEntry(Frozen):
    """One file of a bundle."""

    sha256: str
    bytes: int


class Limits(Frozen):
    """What a target's runtime can load, and which quantized style its kernels want."""

    opset: int | None = Field(None, description="highest ONNX operator set")
    ir: int | None = Field(None, description="highest ONNX IR version")
    activations: Literal["uint8", "int8"] = Field("int8", description="signedness of ONNX INT8 activations")
    per_channel: bool = Field(True, description="one weight scale per output channel")
    weight_bits: Literal[7, 8, "auto"] = Field(
        8, description="of ONNX INT8 weights; auto: 7 on x86 without VNNI, whose kernels saturate with 8; else 8"
    )
    operators: dict[str, int] = Field(
        {}, description="highest version of each TFLite operator, 0: none; `*` stands for any end of a name; empty: no limit"
    )
    version: str | None = Field(
        None, description="what must load the file at least: TensorRT 8.2, Core ML's iOS16 or macOS13, Edge TPU runtime 14"
    )
    symmetric: bool = Field(False, description="ONNX INT8 activations have zero point 0")
    quantized: tuple[str, ...] = Field((), description="ONNX operators that INT8 quantizes; empty: all that the quantizer knows")
    explicit: bool = Field(True, description="TensorRT INT8 as Q/DQ nodes; false: a calibration cache beside the file")
    input: Literal["image", "tensor"] = Field(
        "image",
        description="Core ML: an image, or a float32 tensor [1, c, h, w] of pixels 0…255; both are normalised in the model",
    )

    @model_serializer(mode="wrap")
    def _written_only_where_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as ever: bundles made before there was a limit keep their keys."""
        later: dict[str, Any] = {"operators": {}, "version": None, "symmetric": False, "quantized": (), "explicit": True}
        later |= {"input": "image", "weight_bits": 8}
        return {name: value for name, value in write(self).items() if name not in later or getattr(self, name) != later[name]}


class Finish(Frozen):
    """What the device itself makes of the bundle, once: a TensorRT engine is tied to its GPU and version."""

    options: dict[str, Any] = Field({}, description="for the runtime's `finish`; part of what the result is cached by")
    timeout_seconds: float = Field(3600, gt=0)


class Bundle(Frozen):
    """A folder with a model file and everything needed to run it: `bundle.json`."""

    schema_version: int = Field(BUNDLE_SCHEMA, alias="schema")
    model: Model
    format: str = Field(pattern=NAME)
    precision: str = Field(pattern=NAME)
    runtime: str = Field(pattern=NAME, description="the agent's `rt_<runtime>.py`")
    entry: str = Field(description="the file that the runtime loads")
    files: dict[str, FileEntry]
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing = Field(description="the model's, in this file's layout")
    calibration: Calibration | None = None
    parity: Parity
    parity_samples: tuple[int, ...] = Field((), description="indices into the test split of the parity samples")
    macs: int | None = Field(None, description="multiply-accumulates of one inference, counted by torch")
    limits: Limits
    dynamic_batch: bool = Field(False, description="the file takes any batch size, not 1 alone")
    finish: Finish | None = Field(None, description="null: the files are run as they are")
    details: dict[str, Any] = Field({}, description="facts of the format: opset, IR version, …")
    tools: dict[str, str] = {}
    key: str = Field(description="sha256 of all that went in; the same key is never exported twice")
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @property
    def name(self) -> str:
        """Name it as tables do."""
        return f"{self.model.name}.{self.format}.{self.precision}"

    @property
    def size_bytes(self) -> int:
        """Size on disk of the file that the runtime loads, or of the whole folder where that is a package."""
        folder, package, _ = self.entry.partition("/")
        return sum(
            entry.bytes for name, entry in self.files.items() if name == self.entry or (package and name.startswith(f"{folder}/"))
        )
