"""A runtime made 5 % slower is found in 90 % of the comparisons at least.

The slower runtime infers, then looks at the clock for 5 % of the time that this took. Both take turns window by window, as
`edgebench compare` lets them; beside it, from fewer comparisons made in between, the same trial by trial. `--load`: beside a
bursty load on each core.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from cells import FEWER, UNWARMED, arguments, bundle, by_trial, in_turn, pairs, progress, session, share, subject, workplace
from figures import state
from load import bursty

from edgebench.schema import Comparison, TurnSpec

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "tests/benchmarks/cells.py",
    "tests/benchmarks/load.py",
    "tests/doubles/rt_delayed.py",
)
QUIET = True
"""Noise would decide it."""
STANDARD = TurnSpec(pairs=12, turns=6, cap_seconds=20, seconds=0.06)
"""As many pairs as the mode standard has, with fewer and shorter turns: about twenty seconds."""
EVERY = 4
"""One comparison trial by trial after so many in turn."""


def main() -> int:
    """Run the comparisons, print what they came to on the way, and the rate."""
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", type=int, default=30)
    parser.add_argument("--slower", type=float, default=0.05, help="by which share the second is slower")
    parser.add_argument("--load", action="store_true", help="beside a bursty load of another process on each core")
    given = parser.parse_args()
    os.environ["EDGEBENCH_DELAY"] = str(given.slower)
    found: list[Comparison] = []
    apart: list[Comparison] = []
    with workplace() as folder:
        opened = session(folder, FEWER, STANDARD)
        made = bundle(folder)
        first, second = subject(opened, made, UNWARMED), subject(opened, made, UNWARMED, runtime="delayed")
        print(f"{given.comparisons} comparisons of {opened.turns}; load: {given.load}")
        with bursty(given.load):
            for number in range(1, given.comparisons + 1):
                found.append(in_turn(opened, first, second))
                if number % EVERY == 0:
                    apart += [by_trial(pair) for pair in pairs(opened, first, second, 1)]
                    say(found, apart)
                progress(f"comparison {number} of {given.comparisons}")
    say(found, apart)
    beside, slower = "beside a load" if given.load else "alone", f"{100 * given.slower:g} % slower"
    text = f"{beside}: {slower} found in {share(found, 'slower')}, {share(found, 'inconclusive')} inconclusive"
    rate = sum(each.word == "slower" for each in found) / len(found)
    return state(rate >= 0.9, f"{text}; trial by trial found in {share(apart, 'slower')}", "90 % at least")


def say(found: list[Comparison], apart: list[Comparison]) -> None:
    """Print how it stands."""
    for name, each in (("windows in turn", found), ("trials in turn", apart)):
        ratios = [one.ratio.value for one in each] or [1.0]
        findable = 100 * float(np.median([one.detectable or 0 for one in each] or [0]))
        words = f"called faster {share(each, 'faster')}, {share(each, 'inconclusive')} inconclusive"
        spread = f"ratios {min(ratios):.3f} … {np.median(ratios):.3f} … {max(ratios):.3f}"
        print(f"{name}: found in {share(each, 'slower')}, {words}; {spread}; would have found {findable:.1f} %", flush=True)


if __name__ == "__main__":
    sys.exit(main())
