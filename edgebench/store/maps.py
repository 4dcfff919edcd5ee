"""Compute what an explanation says again from the maps that lie beside it, and beside what it was compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis import saliency
from edgebench.errors import RecordError
from edgebench.schema.explanation import Explanation
from edgebench.store import explanations as store

Arrays = Mapping[str, NDArray[Any]]
AREAS = ("deletion", "insertion", "random_deletion", "random_insertion")
RESTS = ("likely", "predicted", "infidelity", "seconds_per_image")
"""What maps do not tell."""


class Others:
    """The explanations of a folder by what others name them by."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._held: dict[tuple[object, ...], list[Explanation]] | None = None

    def of(self, each: Explanation) -> list[Explanation]:
        """List what an explanation may have been compared with: the same samples and classes by the file that it names."""
        if self._held is None:
            self._held = {}
            for other in _readable(self.results):
                self._held.setdefault(_asked(other, other.file.name, other.file.sha256), []).append(other)
        assert each.drift is not None
        return self._held.get(_asked(each, each.drift.reference, each.drift.reference_sha256), [])


def _readable(results: Path) -> Iterator[Explanation]:
    for path in store.paths(results):
        try:
            yield store.read(path)
        except RecordError:
            continue  # which is told where its own turn comes


def _asked(each: Explanation, name: str, sha256: str) -> tuple[object, ...]:
    return name, sha256, each.method, each.evaluation_sha256, each.samples, each.classes, each.grid


def arrays_of(results: Path, each: Explanation) -> Arrays:
    """Read an explanation's maps, and check its sheet; `RecordError` where either is not what it was."""
    store.sheet(results, each, store.MOST_MAPS)
    found = store.arrays(results, each)
    if found["maps"].shape != (len(each.samples), *each.grid):
        raise RecordError(f"its maps are {found['maps'].shape}, not one of {each.grid} for each sample; explain again")
    return found


def alone(each: Explanation, arrays: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the written and the computed figures that its own maps decide."""
    own = saliency.compare(arrays["maps"][arrays["repeated"]], arrays["again"]).agreement()
    areas = {name: float(np.mean([saliency.area(line) for line in arrays[name]])) for name in AREAS}
    return {"own": each.own, "curves": each.curves}, {"own": own, "curves": areas}


def beside(each: Explanation, arrays: Arrays, other: Explanation, others: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the written and the computed figures of its drift from another's maps."""
    drift = each.drift
    assert drift is not None
    some = [place for place, how in enumerate(each.chosen) if how == "random"] or list(range(len(each.chosen)))
    mine, reference = arrays["maps"], others["maps"]
    found = saliency.compare(reference[some], mine[some])
    computed = {
        "found": found.agreement(),
        "own": saliency.lower(other.own, each.own),
        "other": saliency.compare(saliency.shuffled(reference[some]), mine[some]).agreement(),
        "lost": found.lost,
        "undefined": found.undefined,
        "decided_alike": float(np.mean([each.predicted[place] == other.predicted[place] for place in some])),
        "same_model": other.file.model_sha256 == each.file.model_sha256,
    }
    stored = {name: getattr(drift, name) for name in computed}
    pairs = saliency.compare(reference, mine).correlations
    return {"drift": stored, "correlations": each.correlations}, {"drift": computed, "correlations": pairs}
