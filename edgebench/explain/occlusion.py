"""Cover one cell after the other: a cell counts for as much as the score falls (M. D. Zeiler, R. Fergus 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np

NEEDS = "scores"
SEEDED = False
EVALUATIONS = 0


def masks(cells: int, evaluations: int, random: Any) -> Any:
    """Cover each cell alone."""
    return ~np.eye(cells, dtype=bool)


def attribute(masks: Any, scores: Any, whole: Any) -> Any:
    """Return by how much the score is higher with the cell than without."""
    return whole[:, None] - scores
