"""A folder with a model file: `bundle.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from edgebench.schema.base import BUNDLE_SCHEMA, NAME, Frozen, Warned
from edgebench.schema.generation import Prompts
from edgebench.schema.model import Input, Model, TensorSpec, one_image, read_preprocessing

PLACEMENT = "placement"
"""Under which of a bundle's details its `Placement` stands."""


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

    top1_agreement: float | None = Field(description="share of samples that are decided as the file itself says; null: none is")
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
    top1_agreement: float | None = Field(description="share of samples with the same decision; null: nothing is decided")
    near_ties: int | None = Field(
        None, description="other decisions where the torch model's two scores lie within 1 % of their range; see `build.gate`"
    )
    metric: float | None = Field(None, description="headline metric of the file on these samples")
    commonest: float | None = Field(None, description="accuracy of always deciding for the commonest class of these samples")
    runtime: str = Field("", description="what ran the file on the exporting host; empty: the bundle's own runtime")
    metric_drop: float | None = Field(None, description="metric of the torch model minus that of the file")
    relative_error: float | None = Field(
        None, description="largest difference of any value, as a share of its output's span in torch over these samples"
    )
    unexplained_error: float | None = Field(
        None, description="the same against torch with its weights rounded as the precision rounds them; see `bundle.closeness`"
    )
    allowed_error: float | None = Field(None, description="most that `unexplained_error` may be in this precision and network")
    correlation: float | None = Field(None, description="least correlation of any output's values with torch's")
    as_run: AsRun | None = Field(None, description="null: the runtime has one way of running it, or the target is elsewhere")


class FileEntry(Frozen):
    """One file of a bundle."""

    sha256: str
    bytes: int


class Limits(Frozen):
    """What a target's runtime can load of a format, and how it wants that: each exporter's `Limits` has fields of its own.

    Written are only those that differ from their default, so that a limit that comes later changes no bundle's key.
    """

    ALWAYS: ClassVar[Mapping[str, Any]] = {}
    """What is written beside them, whether it is a field or not."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_written(cls, given: Any) -> Any:
        """Read back what is always written where that is no field."""
        if not isinstance(given, Mapping):
            return given
        beside = {name: value for name, value in cls.ALWAYS.items() if name not in cls.model_fields}
        return {name: value for name, value in given.items() if name not in beside or value != beside[name]}

    @model_serializer(mode="wrap")
    def _written_only_where_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        given = {name: value for name, value in write(self).items() if getattr(self, name) != fields[name].default}
        return {**self.ALWAYS, **given}


class Unmapped(Frozen):
    """Operators of one kind that a compiler left to the processor."""

    operator: str
    count: int
    layer: str = Field(description="of the first of them, as the torch model calls it; empty: not known")
    status: str = Field(description="why, as the compiler says; empty: it does not say")


class Placement(Frozen):
    """Where a format's compiler placed the operators of a file; what else the compiler tells is kept with it."""

    operators: int = Field(description="of the file, before it was compiled")
    mapped: int = Field(description="operators that run on the accelerator")
    operators_share: float = Field(description="mapped / operators")
    macs_share: float | None = Field(None, description="share of the multiply-accumulates on the accelerator; null: not known")
    cpu: tuple[Unmapped, ...] = Field((), description="what stays on the processor; what causes it before what follows from it")

    model_config = ConfigDict(extra="allow")


class Finish(Frozen):
    """What the device itself makes of the bundle, once: a TensorRT engine is tied to its GPU and version."""

    options: dict[str, Any] = Field({}, description="for the runtime's `finish`; part of what the result is cached by")
    timeout_seconds: float = Field(3600, gt=0)


class Temperature(Frozen):
    """What logits are divided by before they become probabilities, fitted on validation data; decisions stay as they are."""

    value: float = Field(gt=0, allow_inf_nan=False)
    split: Literal["val"] = "val"
    samples: int = Field(gt=0, description="that it was fitted on")
    split_sha256: str = Field(description="of their images and labels")
    dataset: str = Field(description="as the command line writes it")
    before: float = Field(description="mean negative log-likelihood of their labels, without it")
    after: float = Field(description="the same, with it")
    scores: str = Field(description="what computed the scores that it was fitted on")
    bundle_sha256: str = Field("", description="of the bundle that it goes with")
    sha256: str = Field("", description="of all above")


class Golden(Frozen):
    """Right outputs that came with a file: a device's own must be so near, |other − right| ≤ atol + rtol × |right|."""

    file: str = Field(description="an .npz of the bundle")
    outputs: dict[str, str] = Field(description="by an output's name, its array there: [samples, …]")
    samples: int = Field(gt=0, description="of how many samples, from the first on")
    rtol: float = Field(ge=0)
    atol: float = Field(ge=0)


class Bundle(Frozen):
    """A folder with a model file and everything needed to run it: `bundle.json`."""

    schema_version: int = Field(BUNDLE_SCHEMA, alias="schema")
    model: Model
    format: str = Field(pattern=NAME)
    precision: str = Field(pattern=NAME)
    runtime: str = Field(pattern=NAME, description="the agent's `rt_<runtime>.py`")
    entry: str = Field(description="the file that the runtime loads")
    files: dict[str, FileEntry]
    inputs: tuple[Input, ...] = Field(description="what the file takes, in the order of the model's inputs")
    outputs: tuple[TensorSpec, ...] = Field(description="what the file gives")
    scored: str | None = Field(None, description="the output that holds the scores; null: none is judged")
    calibration: Calibration | None = None
    golden: Golden | None = Field(None, description="null: nothing is known of what the outputs should be")
    parity: Parity | None = Field(None, description="null: a file that was brought, with nothing to compare it with")
    parity_samples: tuple[int, ...] = Field((), description="indices into the test split of the parity samples")
    macs: int | None = Field(None, description="multiply-accumulates of one inference, counted by torch")
    limits: dict[str, Any] = Field(description="of the target that it was made for, as the exporter's `Limits` write them")
    dynamic_batch: bool = Field(False, description="the file takes any batch size, not 1 alone")
    finish: Finish | None = Field(None, description="null: the files are run as they are")
    details: dict[str, Any] = Field({}, description="facts of the format: opset, IR version, …")
    warnings: tuple[Warned, ...] = Field((), description="why to look twice at what was measured")
    tools: dict[str, str] = {}
    key: str = Field(description="sha256 of all that went in; the same key is never exported twice")
    sha256: str = Field("", description="of all but the temperature, which has its own")
    temperature: Temperature | None = Field(None, description="null: nothing was fitted; see `edgebench validate`")
    prompts: Prompts | None = Field(None, description="null: no language model")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @model_serializer(mode="wrap")
    def _what_few_have_where_there_is_some(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave temperature and prompts out where there are none, as in bundles of before there were any."""
        return {name: value for name, value in write(self).items() if name not in ("temperature", "prompts") or value is not None}

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_was_written(cls, given: Any) -> Any:
        """Read a bundle of the time when each took one image and gave one row of scores."""
        if not isinstance(given, Mapping):
            return given
        taken, made, spec = (given.get(name) for name in ("input", "output", "preprocessing"))
        if not isinstance(taken, Mapping) or not isinstance(made, Mapping) or not isinstance(spec, Mapping):
            return given
        spec = dict(spec)
        if given.get("runtime") == "coreml" and taken.get("dtype") == "float32":  # of pixels, which the file normalises
            spec = read_preprocessing(spec).of_pixels().model_dump(mode="json")
        kept = {name: value for name, value in given.items() if name not in ("schema", "input", "output", "preprocessing")}
        written = {"inputs": [{**taken, "preprocessing": spec}], "outputs": [made], "scored": made.get("name")}
        return {**kept, **written, "schema": BUNDLE_SCHEMA}

    @field_validator("details")
    @classmethod
    def _placement_can_be_read(cls, details: dict[str, Any]) -> dict[str, Any]:
        try:
            if details.get(PLACEMENT) is not None:
                Placement.model_validate(details[PLACEMENT])
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, (PLACEMENT, *first['loc'])))}: {first['msg']}") from error
        return details

    @property
    def name(self) -> str:
        """Name it as tables do."""
        return f"{self.model.name}.{self.format}.{self.precision}"

    @property
    def image(self) -> Input:
        """Return the one input that is an image; `InputError` where there is none, or several."""
        return one_image(self.name, self.inputs)

    @property
    def judged(self) -> tuple[TensorSpec, ...]:
        """List the outputs that accuracy is computed from: the scored one, or none."""
        return tuple(each for each in self.outputs if each.name == self.scored)

    @property
    def placement(self) -> Placement | None:
        """Tell where the file's compiler placed the operators; None where the runtime does that."""
        found = self.details.get(PLACEMENT)
        return None if found is None else Placement.model_validate(found)

    @property
    def size_bytes(self) -> int:
        """Size on disk of the file that the runtime loads, or of the whole folder where that is a package."""
        folder, package, _ = self.entry.partition("/")
        return sum(
            entry.bytes for name, entry in self.files.items() if name == self.entry or (package and name.startswith(f"{folder}/"))
        )
