"""The seam to experiment trackers: what one is told of a record or a model, and what it has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Cells = Sequence[str | int | float | bool | None]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker gets it; in every tracker it is the same."""

    sha256: str
    """Of the record, the model's checkpoint, or the leaderboard: by it a run is found again."""
    kind: Literal["record", "model", "leaderboard"]
    name: str
    group: str
    """The model's name."""
    begin_ms: int
    """Since 1970, UTC."""
    end_ms: int
    failed: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """(step, value) pairs by name, units in it; one of step 0 where there is nothing to count."""
    tags: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str] = ()
    """A few words that people look for."""
    note: str = ""
    """What people read first, as Markdown."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By name."""
    tables: Mapping[str, tuple[Sequence[str], Sequence[Cells]]] = field(default_factory=dict)
    """Headings and rows, by name."""
    parents: Sequence[str] = ()
    """Models (sha256) that it was made from, the first that the tracker knows is the one that it stands below."""
    dataset: tuple[str, str] | None = None
    """What it was judged on, and the sha256 of those samples."""


class TrackerModule(Protocol):
    """A module `edgebench/track/<name>.py`; what holds a connection is its `Tracker`."""

    REQUIRES: tuple[tuple[str, str], ...]
    """(module, extra) pairs that must be importable."""

    def check(self, where: str) -> str:
        """Return the address that is meant by what follows the name; `ValueError` says how one is written."""


class Tracker(Protocol):
    """A connection to a tracker: the class of this name in a `TrackerModule`. What it raises is told, and stops nothing."""

    def __init__(self, where: str, folder: Path) -> None:
        """Connect; `folder` takes what it keeps on this computer."""

    def has(self, kind: str, sha256: str) -> bool:
        """Return whether a run is there, and whole."""

    def put(self, run: TrackedRun) -> None:
        """Write a run, or what is missing of it."""

    def close(self) -> None:
        """End the connection."""
