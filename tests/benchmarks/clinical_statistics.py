"""Clinical intervals cover the truth in 93 % of the cases at least, and tests of equal things reject in 4 to 6 %.

Drawn from what is known: scores of two normal distributions, decisions of known rates, patients with several samples whose
scores go together, readers and cases that vary. McNemar's exact test is left out: it is meant to reject less often.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import state
from scipy.stats import norm

from edgebench.analysis import agreement, delong, mrmc, operating, scaling, shares, subgroups
from edgebench.analysis.resampling import interval
from edgebench.schema import Interval

DEPENDS = (
    "edgebench/analysis/agreement.py",
    "edgebench/analysis/delong.py",
    "edgebench/analysis/mrmc.py",
    "edgebench/analysis/operating.py",
    "edgebench/analysis/resampling.py",
    "edgebench/analysis/scaling.py",
    "edgebench/analysis/shares.py",
    "edgebench/analysis/subgroups.py",
)

Draw = np.random.Generator
LEAST, LEVEL, BETWEEN = 0.93, 0.05, (0.04, 0.06)
SKILL = 1.2
AREA = float(norm.cdf(SKILL / np.sqrt(2)))
SENSITIVITY, SPECIFICITY, PREVALENCE = 0.85, 0.8, 0.1
DRAWS = 500
"""Of a bootstrap; fewer than is usual, for the sake of time."""
PERMUTATIONS = 199
"""Any number whose successor is a multiple of twenty gives a test of just 5 %."""


def covers(found: Interval | None, true: float) -> bool:
    """Return whether an interval holds the truth."""
    return found is not None and found.low is not None and found.high is not None and found.low <= true <= found.high


def two_normals(draw: Draw, positive: int, negative: int, skill: float = SKILL) -> tuple[Any, Any]:
    """Draw truth and scores whose area is known."""
    truth = np.arange(positive + negative) < positive
    return truth, draw.standard_normal(len(truth)) + skill * truth


def patients(draw: Draw, count: int, each: int) -> tuple[Any, Any, Any]:
    """Draw patients, half of them positive, whose samples' scores share half of their variance; the area is `AREA`."""
    units = np.repeat(np.arange(count), each)
    truth = (np.arange(count) < count // 2)[units]
    own, shared = draw.standard_normal(len(units)), draw.standard_normal(count)[units]
    return units, truth, np.sqrt(0.5) * (own + shared) + SKILL * truth


def decisions(draw: Draw, positive: int, negative: int) -> tuple[Any, Any]:
    """Draw truth and decisions of known sensitivity and specificity."""
    truth = np.arange(positive + negative) < positive
    return truth, draw.random(len(truth)) < np.where(truth, SENSITIVITY, 1 - SPECIFICITY)


# ---------------------------------------------------------------- coverage


def wilson(draw: Draw) -> bool:
    """Share of 60 samples."""
    return covers(shares.share(draw.random(60) < SENSITIVITY), SENSITIVITY)


def wilson_by_patient(draw: Draw) -> bool:
    """Share of 60 patients with four samples each, whose hits go together."""
    hard = draw.random(60) < 0.5
    units = np.repeat(np.arange(60), 4)
    return covers(shares.share(draw.random(240) < np.where(hard[units], 0.6, 0.95), units), 0.775)


def area(draw: Draw) -> bool:
    """DeLong on the logit scale, of 20 positive and 40 negative samples."""
    return covers(delong.area(*two_normals(draw, 20, 40)), AREA)


def area_by_patient(draw: Draw) -> bool:
    """The same of 60 patients with three samples each."""
    units, truth, scores = patients(draw, 60, 3)
    return covers(delong.area(truth, scores, units), AREA)


def predictive(draw: Draw) -> bool:
    """PPV at a stated prevalence, of 50 samples of either kind."""
    true = SENSITIVITY * PREVALENCE / (SENSITIVITY * PREVALENCE + (1 - SPECIFICITY) * (1 - PREVALENCE))
    return covers(operating.predictive(*decisions(draw, 50, 50), PREVALENCE).ppv, true)


def change(draw: Draw) -> bool:
    """Difference of two files' shares on the same 80 samples."""
    found = draw.choice(4, 80, p=(0.7, 0.12, 0.08, 0.1))
    changed = shares.changed((found == 0) | (found == 2), (found == 0) | (found == 1))
    return changed is not None and covers(changed.difference, 0.04)


def f1_and_mcc(draw: Draw) -> tuple[bool, bool]:
    """F1 and MCC by the bootstrap, of 50 positive and 100 negative samples on average."""
    truth = draw.random(150) < 1 / 3
    decided = draw.random(150) < np.where(truth, SENSITIVITY, 1 - SPECIFICITY)
    cells = np.array([[SENSITIVITY / 3, (1 - SPECIFICITY) * 2 / 3, (1 - SENSITIVITY) / 3, SPECIFICITY * 2 / 3]])
    table = np.stack([truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided], axis=1)
    known = [(statistic, float(statistic(cells)[0])) for statistic in (operating.f1, operating.mcc)]
    found = [covers(interval(statistic, table, None, DRAWS, _seed(draw)), true) for statistic, true in known]
    return found[0], found[1]


def kappa(draw: Draw) -> bool:
    """Cohen's κ of 100 samples that two raters decide, both right in 80 % of an even mix."""
    truth = draw.integers(0, 2, 100)
    first, second = (np.where(draw.random(100) < 0.8, truth, 1 - truth) for _ in range(2))
    return covers(agreement.between(first, second, 2), 2 * (0.8**2 + 0.2**2) - 1)


def readers_apart(draw: Draw) -> bool:
    """Difference of five readers' mean areas without and with aid, on 80 cases; both ways have the same truth."""
    return covers(mrmc.analyse(*mrmc.jackknifed(*_study(draw))).difference, 0.0)


# ---------------------------------------------------------------- errors of the first kind


def two_areas(draw: Draw) -> bool:
    """DeLong's test of two scores that are equally good, of 40 and 60 samples."""
    truth, shared = two_normals(draw, 40, 60, SKILL * 1.5)
    first, second = (shared + draw.standard_normal(100) for _ in range(2))
    found = delong.compare(truth, first, second)
    return found is not None and found.p is not None and found.p < LEVEL


def reader_study(draw: Draw) -> bool:
    """Obuchowski and Rockette with Hillis' degrees of freedom: five readers, 80 cases."""
    found = mrmc.analyse(*mrmc.jackknifed(*_study(draw)))
    return found.p is not None and found.p < LEVEL


def _study(draw: Draw) -> tuple[Any, Any]:
    """Draw after Roe and Metz (1997): variance of readers, of cases, and of both together, the same in both ways."""
    truth = np.arange(80) < 35
    reader, both = draw.normal(0, 0.2, (5, 1, 1)), draw.normal(0, 0.15, (5, 2, 1))
    case, of_way = draw.standard_normal(80) * 0.6, draw.normal(0, 0.4, (1, 2, 80))
    of_reader, rest = draw.normal(0, 0.4, (5, 1, 80)), draw.normal(0, 0.5, (5, 2, 80))
    return truth, (SKILL + reader + both) * truth + case + of_way + of_reader + rest


def groups(draw: Draw) -> bool:
    """Permutation of three groups of 90 samples with the same share."""
    found = subgroups.means(draw.random(90) < 0.8, draw.choice(3, 90, p=(0.6, 0.3, 0.1)), None, PERMUTATIONS, _seed(draw))
    return found is not None and found.p <= LEVEL


def groups_by_patient(draw: Draw) -> bool:
    """The same of 60 patients with four samples each, whose hits go together."""
    units = np.repeat(np.arange(60), 4)
    hits = draw.random(240) < np.where((draw.random(60) < 0.5)[units], 0.6, 0.95)
    found = subgroups.means(hits, draw.integers(0, 2, 60)[units], units, PERMUTATIONS, _seed(draw))
    return found is not None and found.p <= LEVEL


def group_areas(draw: Draw) -> bool:
    """Permutation of two groups that are told apart as well, one with a fifth and one with half of its samples positive."""
    member = np.repeat([0, 1], 60)
    truth = draw.random(120) < np.where(member == 0, 0.2, 0.5)
    scores = draw.standard_normal(120) + SKILL * truth
    found = subgroups.areas(truth, scores, member, None, PERMUTATIONS, _seed(draw))
    return found is not None and found.p <= LEVEL


def calibrated(draw: Draw) -> bool:
    """ECE of 300 decisions that are right as often as they are held likely, against the bound by chance."""
    logits = draw.normal(0, 1.5, (300, 2))
    likely = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    found = scaling.calibrated("binary", (draw.random(300) < likely).astype(np.int64), logits, 1.0, None)
    return found is not None and found.ece > found.ece_by_chance


def _seed(draw: Draw) -> int:
    return int(draw.integers(1 << 31))


def share_of(case: Callable[[Draw], bool], repeats: int) -> float:
    """Return how often it is so, by a seed of the case's own."""
    draw = np.random.default_rng(sum(case.__name__.encode()))
    return float(np.mean([case(draw) for _ in range(repeats)]))


def main() -> int:
    """State coverage, and errors of the first kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--permutations", action="store_true", help="the permutation tests alone")
    given = parser.parse_args()
    repeats, testing = given.repeats, (groups, groups_by_patient, group_areas)
    if given.permutations:
        return _first_kind({case.__name__: share_of(case, 2 * repeats) for case in testing})
    covering = (wilson, wilson_by_patient, area, area_by_patient, predictive, change, kappa, readers_apart)
    covered = {case.__name__: share_of(case, repeats) for case in covering}
    draw = np.random.default_rng(0)
    both = np.mean([f1_and_mcc(draw) for _ in range(repeats)], axis=0)
    covered |= {"f1": float(both[0]), "mcc": float(both[1])}
    rejected = {case.__name__: share_of(case, 2 * repeats) for case in (two_areas, reader_study, *testing, calibrated)}
    code = state(min(covered.values()) >= LEAST, f"coverage: {_told(covered)}", "93 % at least")
    return code or _first_kind(rejected)


def _first_kind(rejected: dict[str, float]) -> int:
    low, high = BETWEEN
    return state(all(low <= share <= high for share in rejected.values()), f"first kind: {_told(rejected)}", "4 to 6 %")


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {100 * share:.1f} %" for name, share in found.items())


if __name__ == "__main__":
    sys.exit(main())
