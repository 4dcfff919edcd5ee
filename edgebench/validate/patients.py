"""Which patient each sample is of, and which groups it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.analysis.resampling import Units, numbered
from edgebench.data import SPLITS
from edgebench.errors import InputError
from edgebench.validate.options import ValidateOptions
from edgebench.validate.table import FILE, INDEX, Identity, Placed, Table, read, shown

PATIENT = "patient"
AGES = (18.0, 40.0, 65.0)
"""Where ages are parted unless the user says otherwise."""
MOST = 30
"""Of more groups a column makes no table that can be read."""
FEW_VALUES = 8
"""Numbers of so few different values are groups as they are."""
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Column:
    """One way to part the samples."""

    name: str
    groups: tuple[str, ...]
    """In the order in which they are shown."""
    member: NDArray[np.int64]
    """Which of them each judged sample is of [n]."""


@dataclass(frozen=True)
class Patients:
    """What is known of the judged samples."""

    units: Units | None = None
    """Which patient each is of; None: not known, each counts for itself."""
    columns: tuple[Column, ...] = ()
    shared: Mapping[str, int] = field(default_factory=dict)
    """How many of the test split's patients are in another split too, by that."""
    beside: tuple[str, ...] = ()
    """Columns of the file that nobody asked for."""

    @property
    def count(self) -> int | None:
        """Count the patients; None: not known."""
        return None if self.units is None else int(self.units.max(initial=-1)) + 1


def patients(options: ValidateOptions, identity: Identity, judged: NDArray[np.intp]) -> Patients:
    """Read who the patients are; judged: the samples of the test split that are judged. `InputError` where a row is wrong."""
    if options.groups is None:
        return Patients()
    table = read(Path(options.groups))
    for column in options.by:
        table.want(column)
    placed = identity.place(table)
    rows = _by_sample(table, placed, judged)
    if PATIENT not in table.columns:
        units, shared = None, {}
    else:
        units, shared = _units(table, rows), _shared(table, placed, rows)
    columns = tuple(_column(table, name, rows, options.bands.get(name)) for name in options.by)
    beside = tuple(name for name in table.columns if name not in (INDEX, FILE, PATIENT, "split", *options.by))
    return Patients(units, columns, shared, beside)


def _by_sample(table: Table, placed: Placed, judged: NDArray[np.intp]) -> list[tuple[int, Mapping[str, str]]]:
    """Return each judged sample's row, with its line."""
    found: dict[int, tuple[int, Mapping[str, str]]] = {}
    for line, place, row in placed.rows["test"]:
        if place in found:
            raise InputError(f"{table.path}: line {line}: is about the sample of line {found[place][0]} again; keep one of them")
        found[place] = (line, row)
    missing = [int(place) for place in judged if int(place) not in found]
    if missing:
        whole = f"{len(missing)} of {len(judged)} test samples have no row"
        raise InputError(f"{table.path}: {whole}, the first is number {missing[0]} of the split; add them")
    return [found[int(place)] for place in judged]


def _units(table: Table, rows: Sequence[tuple[int, Mapping[str, str]]]) -> Units:
    for line, row in rows:
        if not row[PATIENT]:
            raise InputError(f"{table.path}: line {line}: names no patient; give each sample one, or leave the column out")
    return numbered(np.array([row[PATIENT] for _, row in rows]))


def _shared(table: Table, placed: Placed, rows: Sequence[tuple[int, Mapping[str, str]]]) -> dict[str, int]:
    """Count patients who are in the test split and in another: what was learned of them is no test."""
    mine = {row[PATIENT] for _, row in rows}
    others = {split: {row[PATIENT] for _, _, row in placed.rows[split]} for split in SPLITS if split != "test"}
    return {split: len(mine & names) for split, names in others.items() if mine & names}


def _column(table: Table, name: str, rows: Sequence[tuple[int, Mapping[str, str]]], edges: Sequence[float] | None) -> Column:
    texts = [row[name] for _, row in rows]
    if edges is None and name.lower() == "age":
        edges = AGES
    if edges is not None:
        texts = [_banded(table, name, line, row[name], edges) for line, row in rows]
    texts = [text or NOT_STATED for text in texts]
    distinct = sorted(set(texts), key=_order)
    if len(distinct) > MOST:
        advice = f"give --bands {name}=EDGES" if all(_number(text) is not None for text in distinct) else "join some of them"
        raise InputError(
            f"{table.path}: the column {shown(name)!r} has {len(distinct)} values, more than {MOST} groups; {advice}"
        )
    places = {text: place for place, text in enumerate(distinct)}
    return Column(name, tuple(distinct), np.array([places[text] for text in texts], np.int64))


def _banded(table: Table, name: str, line: int, text: str, edges: Sequence[float]) -> str:
    if not text:
        return NOT_STATED
    value = _number(text)
    if value is None:
        raise InputError(f"{table.path}: line {line}: {name} {shown(text)!r} is no number; mend it, or leave the cell empty")
    if value < edges[0]:
        return f"under {edges[0]:g}"
    place = sum(value >= edge for edge in edges)
    return f"{edges[place - 1]:g} and over" if place == len(edges) else f"{edges[place - 1]:g} to under {edges[place]:g}"


def _number(text: str) -> float | None:
    """Read a number as DICOM and people write ages: 57, 57.5, 057Y."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)[Yy]?", text)
    return float(found[1]) if found else None


def _order(text: str) -> tuple[Any, ...]:
    """Put `under` first, numbers by their value, and what is not stated last."""
    number = re.match(r"\d+(\.\d+)?", text)
    return (text == NOT_STATED, not text.startswith("under "), number is None, float(number[0]) if number else 0.0, text)
