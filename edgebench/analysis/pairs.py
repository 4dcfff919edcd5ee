"""Which of two is faster, by pairs of processes: the pair, not the sample, is the unit of inference. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.stats import decided, floored, samples_of, window_counts
from edgebench.analysis.ties import LEAST_SHIFT
from edgebench.schema import Comparison, Trial

QUAD = 4
"""Turns of two sides that make one ratio: A B B A, from which a drift cancels."""


def compare(first: Sequence[Trial], second: Sequence[Trial], *, floor: float | None, least: float = LEAST_SHIFT) -> Comparison:
    """Compare two sides whose processes took turns; the ratio is second over first. ValueError where none did."""
    ratios = log_ratios(first, second)
    if not ratios:
        raise ValueError("a comparison wants two processes at least that took turns")
    return decided(ratios, floored(floor, least), floor, by="window")


def log_ratios(first: Sequence[Trial], second: Sequence[Trial]) -> list[float]:
    """Return the logarithm of each pair's ratio: the median over its rounds A B B A of what the windows' medians give."""
    others = {trial.turns: trial for trial in second if trial.turns is not None}
    pairs = [(trial, others[trial.turns]) for trial in first if trial.turns in others]
    return [float(np.median(_rounds(one, other))) for one, other in pairs]


def _rounds(one: Trial, other: Trial) -> list[float]:
    """Return the log ratio of each round, in which both sides have two windows next to each other."""
    found = []
    turns = sorted([(begin, value, False) for begin, value in _windows(one)] + [(b, v, True) for b, v in _windows(other)])
    for at in range(0, len(turns) - QUAD + 1, QUAD):
        logs = [(math.log(value), second) for _, value, second in turns[at : at + QUAD]]
        sides = [[value for value, second in logs if second is side] for side in (False, True)]
        if len(sides[0]) == len(sides[1]):
            found.append((sum(sides[1]) - sum(sides[0])) / len(sides[0]))
    if not found:
        raise ValueError("two processes that took turns have no whole round, A B B A")
    return found


def _windows(trial: Trial) -> list[tuple[int, float]]:
    """Return when each window began, and its median in nanoseconds."""
    parts: list[NDArray[np.float64]] = np.split(samples_of(trial), np.cumsum(window_counts(trial))[:-1])
    return [(window.begin_ns, float(np.median(part))) for window, part in zip(trial.windows, parts, strict=True)]


def wakeful(trials: Sequence[Trial]) -> float | None:
    """Return which share of a core processes used while they waited for their turns; None where nobody took turns."""
    windows = [window for trial in trials for window in trial.windows if window.waited_ns and window.waited_cpu_ns is not None]
    waited = sum(window.waited_ns or 0 for window in windows)
    return sum(window.waited_cpu_ns or 0 for window in windows) / waited if waited else None
