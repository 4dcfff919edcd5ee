"""What is kept of a training's epochs: all of them beside the model, as JSON and as CSV, and some within it, for reports."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebench.files import write_atomic, write_json
from edgebench.schema import Curves

Epoch = Mapping[str, float]
DRAWN = ("loss", "val_loss", "val_metric")
MOST = 60
"""Epochs that a model, and with it each record, carries."""
DIGITS = 5


def write(folder: Path, history: Sequence[Epoch]) -> None:
    """Write every epoch into a model folder: `history.json`, and `history.csv` with a column for each name."""
    write_json(folder / "history.json", history)
    names = list(dict.fromkeys(name for entry in history for name in entry))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_atomic(folder / "history.csv", text.getvalue().encode())


def curves(history: Sequence[Epoch], metric: str, best: float) -> Curves | None:
    """Take what reports draw of a training: `MOST` epochs at equal distances, with the first, the last and the best.

    metric: what `val_metric` is. None where no epoch has all three values.
    """
    whole = [entry for entry in history if all(math.isfinite(entry.get(name, math.nan)) for name in DRAWN)]
    if not whole:
        return None
    kept = _thinned(whole, best)
    found = {name: tuple(float(f"{entry[name]:.{DIGITS}g}") for entry in kept) for name in DRAWN}
    return Curves(metric=metric, epoch=tuple(int(entry["epoch"]) for entry in kept), **found)


def _thinned(entries: Sequence[Epoch], best: float) -> list[Epoch]:
    if len(entries) <= MOST:
        return list(entries)
    places = {round(step * (len(entries) - 1) / (MOST - 2)) for step in range(MOST - 1)}
    places |= {place for place, entry in enumerate(entries) if entry["epoch"] == best}
    return [entries[place] for place in sorted(places)]
