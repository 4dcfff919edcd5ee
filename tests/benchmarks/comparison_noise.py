"""Comparisons in turn call two that are the same different in 5 % at most, at every kind of simulated noise.

A window's median is what both sides share (drift, jumps, bursts), what its process's layout in memory adds, and what is its
own. Printed for each kind and each true shift: how often the word was faster or slower (at no shift: false alarms, and in
brackets how often the interval excluded 1), how often inconclusive, and the shift that would have been found.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
from cells import arguments, progress
from figures import state
from numpy.typing import NDArray

from edgebench.analysis import pairs, stats
from edgebench.schema import TURNS, Comparison, Trial, Window

DEPENDS = ("edgebench/analysis/", "edgebench/schema/cell.py", "tests/benchmarks/cells.py")
QUIET = False
SHIFTS = (0.0, 0.03, 0.05, 0.10)
TURN_SECONDS = 0.15
"""From one window's begin to the next one's."""
Values = NDArray[np.float64]
Draw = np.random.Generator


def quiet(draw: Draw, count: int) -> Values:
    """Nothing beside the two."""
    return draw.normal(0, 0.003, count)


def drifts(draw: Draw, count: int) -> Values:
    """Wander, by 2 % from window to window, and go one way besides, by up to 30 % a pair."""
    return draw.normal(0, 0.005, count) + np.cumsum(draw.normal(0, 0.02, count)) + draw.normal(0, 0.3) * np.linspace(0, 1, count)


def jumps(draw: Draw, count: int) -> Values:
    """Stay on levels 15 or 40 % apart, for a dozen windows each."""
    levels = draw.choice([0.0, 0.15, 0.4], count)
    changed = np.flatnonzero(draw.random(count) < 0.08)
    held = np.zeros(count)
    for at in changed:
        held[at:] = levels[at]
    return draw.normal(0, 0.01, count) + held


def heavy(draw: Draw, count: int) -> Values:
    """Have tails that have no variance: Student's t with 1.5 degrees of freedom, upwards alone."""
    return np.asarray(0.03 * np.abs(draw.standard_t(1.5, count)))


def bursts(draw: Draw, count: int) -> Values:
    """Be slowed down by half for part of each 0.3 to 3 s, as beside a load that comes and goes."""
    times = TURN_SECONDS * np.arange(count) / draw.uniform(0.3, 3)
    slowed = np.asarray(np.sin(2 * math.pi * (times + draw.random())) > 0.3, np.float64)
    return draw.normal(0, 0.01, count) + 0.4 * slowed


KINDS: dict[str, tuple[Callable[[Draw, int], Values], float]] = {
    "quiet": (quiet, 0.003),
    "drifts": (drifts, 0.003),
    "jumps": (jumps, 0.003),
    "heavy tails": (heavy, 0.003),
    "bursts": (bursts, 0.003),
    "layout 1.5 %": (quiet, 0.015),
    "all of it": (lambda draw, count: drifts(draw, count) + heavy(draw, count) + bursts(draw, count), 0.01),
}
"""What all windows of a pair share, and how much each process's layout adds (standard deviation, a share)."""


def simulated(draw: Draw, kind: str, shift: float, count: int, turns: int) -> Comparison:
    """Compare two sides, the second slower by `shift`, after so many pairs and turns of each."""
    noise, layout = KINDS[kind]
    sides: tuple[list[Trial], list[Trial]] = ([], [])
    for number in range(count):
        order = [*(0, 1, 1, 0) * (turns // 2)] if number % 2 == 0 else [*(1, 0, 0, 1) * (turns // 2)]
        added = draw.normal(0, layout, 2) + np.array([0.0, math.log1p(shift)])
        logs = noise(draw, len(order)) + added[order]
        medians = np.rint(1e6 * np.exp(np.clip(logs, -5, 5))).astype(int)
        for side in (0, 1):
            own = [at for at, each in enumerate(order) if each == side]
            windows = [Window(number, 10 * at, 10 * at + 9, 1) for at in own]
            samples = [int(medians[at]) for at in own]
            sides[side].append(Trial(number, 1, 1, [1], True, 1, samples, [1], [1], True, windows=windows, turns=number))
    return pairs.compare(*sides, floor=None)


def excludes_one(found: Comparison) -> bool:
    """Return whether the interval lies on one side of 1."""
    return found.ratio.low is not None and found.ratio.high is not None and not found.ratio.low <= 1 <= found.ratio.high


def main() -> int:
    """Simulate each kind and shift, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", type=int, default=200, help="of each kind and shift")
    parser.add_argument("--modes", default="quick,standard")
    given = parser.parse_args()
    worst, weakest = ("", 0.0), ("", 1.01)
    for mode in given.modes.split(","):
        spec = TURNS[mode]
        print(f"\n{mode}: {spec.pairs} pairs of {spec.turns} turns a side; {given.comparisons} comparisons each")
        print("| noise | shift | called different | (excludes 1) | same | inconclusive | would have been found |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for kind in KINDS:
            for shift in SHIFTS:
                draw = np.random.default_rng([stats.RESAMPLES, *map(ord, kind), int(1000 * shift), spec.pairs])
                found = [simulated(draw, kind, shift, spec.pairs, spec.turns) for _ in range(given.comparisons)]
                words = {word: sum(each.word == word for each in found) / len(found) for word in ("same", "inconclusive")}
                called = 1 - sum(words.values())
                excluded = sum(map(excludes_one, found)) / len(found)
                detectable = float(np.median([each.detectable or 0 for each in found]))
                shares = (called, excluded, words["same"], words["inconclusive"], detectable)
                print(f"| {kind} | {100 * shift:.0f} % | {' | '.join(f'{100 * each:.1f} %' for each in shares)} |", flush=True)
                progress(f"{mode}, {kind}, {100 * shift:.0f} %")
                if shift == 0:
                    worst = max(worst, (f"{kind}, {mode}", called), key=lambda each: each[1])
                elif shift == 0.05 and mode == "standard":
                    weakest = min(weakest, (kind, called), key=lambda each: each[1])
    text = f"most false alarms {100 * worst[1]:.1f} %{f' ({worst[0]})' if worst[0] else ''}"
    if weakest[0]:
        text += f"; 5 % slower in mode standard found in {100 * weakest[1]:.0f} % at least ({weakest[0]})"
    return state(worst[1] <= 0.05, text, "5 % false alarms at most")


if __name__ == "__main__":
    sys.exit(main())
