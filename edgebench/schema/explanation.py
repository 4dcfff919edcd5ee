"""What a model looks at: maps of images, how far they can be relied on, and how far another file's are from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, Field

from edgebench.schema.base import NAME, Frozen
from edgebench.schema.model import DatasetRef
from edgebench.schema.record import Sidecar

Grid = tuple[int, int]
"""Rows and columns of cells that an image is divided into; a map has a value for each."""


class Agreement(Frozen):
    """How alike maps are, pair by pair; null: no pair of maps could be compared."""

    samples: int = Field(description="pairs that were compared")
    correlation: float | None = Field(description="median of Spearman's rank correlations")
    low: float | None = Field(None, description="their lower quartile")
    overlap: float | None = Field(description="median of the top tenths' intersection over union")


class Drift(Frozen):
    """A file's maps beside a reference's, of the same samples and the same class."""

    reference: str = Field(description="the reference, named as bundles are")
    reference_sha256: str = Field(description="of its bundle, or of its checkpoint")
    same_model: bool = Field(description="both have the same checkpoint; else the reference is a teacher, a parent, or another")
    found: Agreement = Field(description="file against reference")
    own: Agreement = Field(description="the lower of both files' agreement with themselves: no more can be expected")
    other: Agreement = Field(description="file against the reference's map of another image: no less can be expected")
    lost: int = Field(
        description="samples where the file's map is the same everywhere and the reference's is not; they count as 0"
    )
    undefined: int = Field(description="samples left out, where the reference's map is the same everywhere")
    decided_alike: float = Field(description="share of the samples that both decide alike")


class Curves(Frozen):
    """What the explained class is held likely where cells are covered or shown in the order of a map; means over samples."""

    deletion: float = Field(description="area under the curve where the most important cells are covered first; less is better")
    insertion: float = Field(description="where they are shown first on a covered image; more is better")
    random_deletion: float = Field(description="the same by a random order")
    random_insertion: float = Field(description="the same by a random order")


class ExplainedFile(Frozen):
    """What was explained, and where it ran."""

    model: str = Field(pattern=NAME)
    model_sha256: str
    format: str = Field(pattern=NAME, description="`network`: the torch network itself, in the process of edgebench")
    precision: str = Field(pattern=NAME)
    sha256: str = Field(description="of the bundle, or of the checkpoint")
    target: str = Field(pattern=NAME, description="`host` for networks")
    device: str = Field(description="hash of what tells devices apart; empty for networks")
    runtime: str
    runtime_version: str
    options: dict[str, Any] = Field({}, description="of the runtime")

    @property
    def name(self) -> str:
        """Name it as bundles are."""
        return f"{self.model}.{self.format}.{self.precision}"


class Explanation(Frozen):
    """One method's maps of some samples, computed by one file on one device."""

    schema_version: int = Field(1, alias="schema")
    key: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of all that decides the maps")
    file: ExplainedFile
    dataset: DatasetRef
    evaluation_sha256: str = Field(description="of the test split")
    samples: tuple[int, ...] = Field(description="indices into the test split")
    chosen: tuple[Literal["random", "worst"], ...] = Field(
        description="how each was chosen; figures are of the random ones, if any"
    )
    classes: tuple[int, ...] = Field(description="the class that each map is about")
    predicted: tuple[int, ...] = Field(description="the class that the file holds most likely")
    likely: tuple[float, ...] = Field(description="how likely it holds the explained class, 0…1")
    method: str = Field(pattern=r"^[a-z][a-z+-]{0,40}$")
    settings: dict[str, Any] = Field({}, description="grid, baseline, evaluations, seed, layer")
    grid: Grid
    seconds_per_image: float = Field(description="wall time of one map, transfers included")
    inferences_per_image: int = Field(description="inferences, or steps of a gradient, that one map takes")
    own: Agreement = Field(description="between two seeds; of methods without one, between two runs")
    curves: Curves
    infidelity: float | None = Field(
        description="mean (map's prediction − change of the score)² / mean change²; 0 is perfect, 1 tells nothing"
    )
    correlations: tuple[float | None, ...] = Field((), description="of each sample with the reference, where there is one")
    drift: Drift | None = Field(None, description="null: nothing was compared with it")
    started_at: str = Field(description="UTC, ISO 8601")
    maps: Sidecar | None = Field(None, description="an .npz: maps, again [n, rows, columns], and the curves")
    sheet: Sidecar | None = Field(None, description="a PNG: image and maps side by side")
    sha256: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())


class Explainer(Protocol):
    """A module `explain/<method>.py`, and what each method says of itself."""

    NEEDS: Literal["scores", "gradients"]
    """What it asks: the scores of changed images, which any file gives, or gradients, which a torch network has."""
    SEEDED: bool
    """Whether its maps depend on a seed."""
    REQUIRES: tuple[tuple[str, str], ...] = ()
    """(module, extra) pairs that must be importable."""


class ByScores(Explainer, Protocol):
    """A method that covers parts of an image and looks at the scores."""

    EVALUATIONS: int
    """How many covered images it asks for, unless told; 0: it needs a fixed number."""

    def masks(self, cells: int, evaluations: int, random: Any) -> Any:
        """Say which cells are shown: bool [m, cells], the same for each image."""

    def attribute(self, masks: Any, scores: Any, whole: Any) -> Any:
        """Give each cell its share: scores [n, m] of covered images and whole [n] of whole ones → [n, cells], float64."""


class ByGradients(Explainer, Protocol):
    """A method that asks a torch network for gradients."""

    STEPS: int
    """Passes through the network that one map takes."""
    LAYERED: bool = False
    """Whether it looks at one layer, which `settings["layer"]` names."""

    def explain(self, network: Any, inputs: Any, classes: Sequence[int], settings: Mapping[str, Any]) -> Any:
        """Explain inputs (a float32 tensor [n, c, h, w]): float64 maps [n, rows, columns] over the input."""
