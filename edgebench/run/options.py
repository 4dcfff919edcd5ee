"""What the verbs that make and measure can be asked for, in groups: each option stands here once, with its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebench.config import read_values
from edgebench.schema import MeterSpec, Mode, Subset
from edgebench.store.layout import RESULTS

WORK = Path(".edgebench")


@dataclass(frozen=True)
class MeasureOptions:
    """How cells are measured."""

    mode: Mode = "quick"
    """How long: quick, standard, strict or sustained, see `schema.MODES`."""
    scenario: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `schema.Scenario` that replace the profile's, or its defaults."""
    meters: Sequence[MeterSpec] = ()
    """Power meters in place of the target's own."""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    """The runtime's own options, over the target's."""
    pairs: int | None = None
    """Pairs of processes that a comparison takes; as the mode says unless given."""
    samples: int | None = None
    """So many of the test split's samples, each class in its share; as a profile says, or all of them, unless given."""
    seed: int = 0
    """Which ones."""

    @property
    def subset(self) -> Subset | None:
        """Return which samples of the test split are judged; None: all."""
        return None if self.samples is None else read_values(Subset, {"samples": self.samples, "seed": self.seed}, "samples")


@dataclass(frozen=True)
class RunOptions:
    """Where things are kept, what is done again, and how devices are reached."""

    results: Path = RESULTS
    """The folder of records."""
    work: Path = WORK
    """The folder of models and bundles, and of what this computer keeps as a device."""
    repeat: bool = False
    """Measure finished cells again."""
    dry_run: bool = False
    """Say what there is to do, and do nothing."""
    resume: bool = False
    """Take up what devices went on measuring after the connection to them was lost."""
    reconnect_seconds: float = 60.0
    """How long to look for a device that was lost."""
    accept_new_host_key: bool = False
    """Trust a device that was never seen before, and remember its key."""
    trust: bool = False
    """Vouch for exported programs (`.pt2`, bundles of the format torch) that edgebench did not write here: they can run code."""

    def __post_init__(self) -> None:
        """Take folders as text too."""
        object.__setattr__(self, "results", Path(self.results))
        object.__setattr__(self, "work", Path(self.work))


@dataclass(frozen=True)
class ExportOptions:
    """What file is written, where, and what it must keep to."""

    out: Path = Path("bundles")
    """The folder that the bundle's folder is written into."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `schema.CalibrationPlan`."""
    dynamic_batch: bool = False
    """Let the file take any batch size."""
    goals: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `schema.Goals`; accuracy is judged where a goal names it."""
    samples: int | None = None
    """Parity is judged on so many samples of the test split, each class in its share; on 256 unless given."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How a network is quantized: whole, or by a search for the mixture that is fastest on the target."""

    search: bool = False
    """Find which nodes should stay in floating point, measuring on the target."""
    by: str = "block"
    """search: what changes precision together, block or node."""
    max_degradation: float | None = None
    """Most that the headline metric may lose against float32, as a share of 1; 0.005 in a search unless given."""
    minutes: float = 10.0
    """search: start nothing new after so long."""
    samples: int = 256
    """search: held-out samples that accuracy is judged on; none of them is of the test split."""
    out: Path = Path("bundles")
    """The folder that the bundle's folder is written into."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `schema.CalibrationPlan`."""
    calibration_file: Path | None = None
    """A file as it is: its calibration samples, a `.npz` by the inputs' names; without, the training split."""


@dataclass(frozen=True)
class ExplainOptions:
    """What is explained, and how."""

    methods: Sequence[str] = ("occlusion",)
    """Names of `edgebench/explain/`; files that are deployed give no gradients, and get those that need none."""
    samples: int = 16
    """Of the test split, drawn at random; figures are of these."""
    worst: int = 8
    """And so many that the first file is worst at."""
    seed: int = 0
    of_class: str = "predicted"
    """The class that maps are about: as the first file predicts, `true`, a name, or a number from 0."""
    cells: int = 8
    """An image is divided into so many rows and columns."""
    baseline: str = "mean"
    """What covers a cell: the mean that inputs are normalised with, black, or the blurred image."""
    evaluations: int | None = None
    """Covered images that lime and kernel-shap ask for; as each method says unless given."""
    layer: str | None = None
    """The layer that grad-cam and grad-cam++ look at; the last one with maps of 4 × 4 cells unless given."""
    min_correlation: float | None = None
    """Least rank correlation of each file's maps with the first one's."""


@dataclass(frozen=True)
class CompressOptions:
    """What a search for the best way to compress a model must keep to, what it may choose, and how long it takes."""

    limits: Mapping[str, str | float] = field(default_factory=dict)
    """Names of `report.limits.KINDS`; text as `20ms`, numbers in nanoseconds, bytes, joules and shares of 1."""
    sort: str | None = None
    """What is best of all that keeps to the limits: a name of `report.tables.SORTS`.

    Unless given: latency, or the metric where no least one is among the limits.
    """
    budget_seconds: float = 3600.0
    """Start nothing new after so long, all the processes that worked on the search together."""
    students: Sequence[str] | None = None
    """Architectures that may be distilled; a few small ones unless given."""
    ratios: Sequence[float] | None = None
    """Shares of channels that may be taken out; from a quarter to seven eighths unless given."""
    formats: Sequence[str] = ()
    """Only these; all that the target runs and that can be written here unless given."""
    mixed_minutes: float = 3.0
    """How long the nodes of one network that should stay in floating point are searched; 0: no mixtures."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of train, distill, prune and qat."""
    out: Path | None = None
    """The folder of the search; named by what is searched, below `compressed`, unless given."""
