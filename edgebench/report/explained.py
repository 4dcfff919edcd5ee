"""What is told of a record's explanations: figures of each method, and the sheet of pictures that they share."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgebench.analysis.timeline import Missing
from edgebench.errors import RecordError
from edgebench.schema import Record
from edgebench.schema.explanation import Agreement, Drift, Explanation
from edgebench.store import explanations as store
from edgebench.store.layout import EXPLANATIONS
from edgebench.store.row import Entry

SHEET_BYTES = 1_500_000
"""Of one sheet at most; a larger one is left beside the records."""
COMMAND = "`edgebench explain` was not run on this bundle on this device"


def stamp(results: Path, entry: Entry) -> tuple[tuple[str, int, int], ...]:
    """Return what changes where the explanations of a record's file do."""
    found = []
    for path in _paths(results, entry.target, entry.name.replace(" ", ".")):
        try:
            status = path.stat()
        except OSError:  # gone in the meantime
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _paths(results: Path, target: str, name: str) -> list[Path]:
    folder = results / EXPLANATIONS / target
    return sorted(path for path in folder.iterdir() if path.name.startswith(f"{name}.")) if folder.is_dir() else []


def told(results: Path, record: Record) -> list[dict[str, Any]]:
    """Describe each explanation of a record's bundle on its device: method, lines of what is what, and its sheet's hash.

    Raises `Missing` where there is none.
    """
    found = [_told(each) for each in _of(results, record)]
    if not found:
        raise Missing(COMMAND)
    return found


def sheets(results: Path, record: Record) -> dict[str, str]:
    """Return the sheets of pictures by their hashes, PNG in base64; those that are too large or were changed are left out."""
    found = {}
    for each in _of(results, record):
        try:
            content = store.sheet(results, each, SHEET_BYTES)
        except RecordError:
            continue
        if content is not None and each.sheet is not None:
            found[each.sheet.sha256] = base64.b64encode(content).decode("ascii")
    return found


def _of(results: Path, record: Record) -> list[Explanation]:
    """Read the explanations of this very file, as this device ran it."""
    cell = record.cell
    wanted = (cell.bundle_sha256, cell.target, cell.device, dict(cell.options))
    found = []
    for path in _paths(results, cell.target, f"{cell.model}.{cell.format}.{cell.precision}"):
        if not path.name.endswith(".json"):
            continue
        try:
            each = store.read(path)
        except RecordError:
            continue  # tables name it
        if (each.file.sha256, each.file.target, each.file.device, each.file.options) == wanted:
            found.append(each)
    return found


def _told(each: Explanation) -> dict[str, Any]:
    return {
        "method": each.method,
        "lines": [*_lines(each), *(_drift(each.drift) if each.drift is not None else ())],
        "sheet": None if each.sheet is None else each.sheet.sha256,
    }


def _lines(each: Explanation) -> Iterator[tuple[str, str]]:
    curves, count = each.curves, sum(how == "random" for how in each.chosen) or len(each.chosen)
    yield "samples", f"{count} of {each.dataset}; {each.grid[0]} × {each.grid[1]} cells"
    yield "deletion", f"{curves.deletion:.3f}, in random order {curves.random_deletion:.3f}"
    yield "insertion", f"{curves.insertion:.3f}, in random order {curves.random_insertion:.3f}"
    yield "infidelity", "the score never changes" if each.infidelity is None else f"{each.infidelity:.3f}"
    yield "agrees with itself", said(each.own)
    yield "time", f"{each.seconds_per_image:.3f} s an image, {each.inferences_per_image} inferences"


def _drift(drift: Drift) -> Iterator[tuple[str, str]]:
    yield "against", drift.reference + ("" if drift.same_model else ", another model")
    yield "maps' correlation", said(drift.found)
    yield "at best", f"{said(drift.own)}, as they agree with themselves"
    yield "by chance", f"{said(drift.other)}, with another image's map"
    yield "decided alike", f"{100 * drift.decided_alike:.0f} %"
    if drift.lost:
        yield "lost", f"{drift.lost} of {drift.found.samples} maps are the same everywhere, and count as 0"


def said(agreement: Agreement) -> str:
    """Write a correlation and an overlap."""
    values = (agreement.correlation, agreement.overlap)
    correlation, overlap = ("none" if value is None else f"{value:.2f}" for value in values)
    return f"ρ {correlation}, top tenth {overlap}"
