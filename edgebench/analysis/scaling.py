"""Whether probabilities are right, and one number that makes them so: Brier's score, and temperature scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis.evaluation import BINS, reliability
from edgebench.analysis.resampling import Floats, Units, interval
from edgebench.schema import Interval

COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures beyond are no finite ones."""
CERTAIN = 1e-9
"""A mean negative log-likelihood below is 0 for all that can be told."""
SIMULATED = 1000


@dataclass(frozen=True)
class Fitted:
    """A temperature, and the mean negative log-likelihood of the samples that it was fitted on before and with it."""

    value: float
    before: float
    after: float


@dataclass(frozen=True)
class Calibrated:
    """How right probabilities are."""

    what: str
    ece: float
    ece_by_chance: float
    """What 95 % of as many samples of perfectly calibrated probabilities stay under."""
    brier: Interval | None
    bins: dict[str, Any]
    """As `evaluation.reliability` returns them."""


def loss(task: str, labels: NDArray[Any], logits: Floats, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of labels; logits: [n, classes]."""
    from scipy.special import log_softmax

    scaled = logits / temperature
    if tasks.part(task, "PROBABILITIES") == "sigmoid":
        return float(np.logaddexp(0, np.where(labels > 0, -scaled, scaled)).sum(axis=1).mean())
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())


def fit(task: str, labels: NDArray[Any], logits: Floats) -> Fitted | None:
    """Fit the temperature that logits are divided by, by maximum likelihood (Guo et al. 2017); no decision changes.

    None where no finite one is best: every sample is decided rightly with room to spare, or nothing is known of any.
    """
    from scipy.optimize import minimize_scalar

    ends = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(
        lambda each: loss(task, labels, logits, math.exp(each)), bounds=ends, method="bounded", options={"xatol": 1e-6}
    )
    if min(abs(found.x - end) for end in ends) < 1e-3 or found.fun < CERTAIN:
        return None
    return Fitted(float(math.exp(found.x)), loss(task, labels, logits), float(found.fun))


def calibrated(task: str, labels: NDArray[Any], logits: Floats, temperature: float, units: Units | None) -> Calibrated | None:
    """Rate the probabilities at a temperature; None where a task has none.

    Brier's score is the squared error of probabilities: of the positive class of two, summed over several (Brier 1950), averaged
    over labels that are each by themselves. Its interval is the bootstrap's by patient.
    """
    parts = (tasks.part(task, "calibration"), tasks.part(task, "probabilities"), tasks.part(task, "one_hot"))
    if None in parts:
        return None
    calibration, probabilities, one_hot = parts
    scaled = logits / temperature
    what, right, confidence = calibration(labels, scaled)
    error = (probabilities(scaled) - one_hot(labels, logits.shape[1])) ** 2
    each = error.mean(axis=1) if tasks.part(task, "PROBABILITIES") == "sigmoid" or error.shape[1] == 2 else error.sum(axis=1)
    cells = np.stack([each, np.ones(len(each))], axis=1)
    bins = reliability(right, confidence)
    return Calibrated(
        what=what,
        ece=bins["ece"],
        ece_by_chance=_by_chance(confidence),
        brier=interval(lambda sums: sums[:, 0] / sums[:, 1], cells, units),
        bins=bins,
    )


def _by_chance(confidence: Floats) -> float:
    """Draw what is right as often as it is held likely, and return the ECE that 95 % of the draws stay under (Bröcker 2007)."""
    inside = np.clip(confidence, 0, 1)
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], inside)
    random, found = np.random.default_rng(0), []
    member = np.zeros((len(inside), BINS))
    member[np.arange(len(inside)), place] = 1
    step = max(1, 5_000_000 // max(len(inside), 1))
    for first in range(0, SIMULATED, step):
        right = random.random((min(step, SIMULATED - first), len(inside))) < inside
        found.append(np.abs((right - inside) @ member).sum(axis=1) / len(inside))
    return float(np.quantile(np.concatenate(found), 0.95))
