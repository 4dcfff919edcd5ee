"""What a task has to offer, and what it hands over for the parts of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Separated:
    """What ROC and precision-recall curves are drawn of."""

    names: Sequence[str]
    """Of the classes that have a curve."""
    truth: Any
    """Whether each sample is of them: 0 or 1, [n, names]."""
    likely: Any
    """How likely that was held [n, names]."""
    note: str = ""


@dataclass(frozen=True)
class Worst:
    """What the list of the worst samples is made of."""

    loss: Any
    """Of each sample [n]: the highest come first."""
    truth: Any
    """The classes that it is of: 0 or 1, [n, classes]."""
    decided: Any
    """Those that it was decided to be of, likewise."""
    confidence: Any
    """How likely the decision was held [n]."""


class Task(Protocol):
    """A module `tasks/<task>.py`: what a network's scores mean, and how good they are.

    scores: float32 [n, columns], a row a sample. labels: int64, those of the data sets of this task.
    """

    HEADLINE: str
    """The metric that ranks models; empty: nothing is judged, and no more is asked."""

    def misshapen(self, shape: Sequence[int], classes: int | None = None) -> str:
        """Say what labels of this shape lack (`wants one label for each image`), for so many classes if known; empty: nothing."""

    def most(self, classes: int) -> int:
        """Return the highest number that a label may be; the lowest is 0."""

    def classes_in(self, labels: Any) -> int:
        """Count the classes that labels tell of, where a data set has no names for them."""

    def decisions(self, scores: Any) -> Any:
        """Decide: in the shape of labels."""

    def metrics(self, labels: Any, scores: Any) -> dict[str, float]:
        """Compute every metric that is defined on these labels; the headline is among them, where it is."""


class OptionalTask(Protocol):
    """What a task may say besides; what needs it is left out, or refused, where it does not."""

    LIKE: str
    """A task that has all that this one does not say itself."""
    PROBABILITIES: str
    """How scores become probabilities in files that give these too: `softmax` (one class is chosen) or `sigmoid`."""
    ORDERED: bool
    """Whether its classes have an order: how far off a decision is counts as well."""
    GENERATES: bool
    """Whether it is that of language models, which have prompts in place of a data set, and tables of their own."""
    VALIDATION: str
    """Name of the metric that `validation` makes."""

    def hits(self, labels: Any, scores: Any) -> Any:
        """Return whether each sample is decided rightly, bool [n]: models are compared sample by sample."""

    def commonest(self, labels: Any) -> float:
        """Return the accuracy of always deciding for what is commonest."""

    def near_ties(self, reference: Any, outputs: Any) -> Any:
        """Return which samples are decided otherwise where the reference nearly ties, bool [n]."""

    def probabilities(self, scores: Any) -> Any:
        """Turn scores into probabilities [n, columns]."""

    def confusion(self, labels: Any, scores: Any, names: Sequence[str]) -> Sequence[tuple[str, Sequence[str], Any]]:
        """Return the lines of a confusion matrix: what is true, the names of what can be decided, and counts."""

    def separated(self, labels: Any, scores: Any, names: Sequence[str]) -> Separated:
        """Return what curves are drawn of."""

    def calibration(self, labels: Any, scores: Any) -> tuple[str, Any, Any]:
        """Say what is held to be likely, and return whether it is so (0 or 1) [m], and how likely it was held [m]."""

    def worst(self, labels: Any, scores: Any) -> Worst:
        """Rate the samples."""

    def loss(
        self, labels: Any, classes: int, balanced: bool, smoothing: float = 0.0, gamma: float = 0.0
    ) -> Callable[[Any, Any], Any]:
        """Make the loss (logits, labels → scalar, all of torch) that recipes learn by; labels: of the training split.

        One that takes no `smoothing` (of labels) or no `gamma` (of the focal loss) leaves it out, and the option is refused.
        """

    def soft_loss(self, student: Any, teacher: Any, temperature: float) -> Any:
        """Compute by how much a student's logits miss its teacher's, a scalar of torch."""

    def validation(self, classes: int) -> Any:
        """Make the metric of torchmetrics that picks a checkpoint: more is better."""
