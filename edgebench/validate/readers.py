"""Readers beside a file: whether they agree with it and with each other, and whether they are better with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis import agreement, mrmc
from edgebench.analysis.resampling import Floats, Units, numbered
from edgebench.data import Dataset
from edgebench.errors import InputError
from edgebench.validate.decisions import Lines, values
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.table import Identity, Table, read, shown
from edgebench.validate.targets import Target, Targets

READER, RATING, DECISION, AID = "reader", "rating", "decision", "aid"
WITHOUT, WITH = "without aid", "with aid"
WORDS = {
    **dict.fromkeys(("0", "no", "n", "false", "without", "unaided", ""), WITHOUT),
    **dict.fromkeys(("1", "yes", "y", "true", "with", "aided"), WITH),
}
AGREED_BY = 12
"""Of so many raters each pair is shown."""


@dataclass(frozen=True)
class Readings:
    """What readers said of cases, every reader of each case in each way."""

    readers: int
    ways: tuple[str, ...]
    cases: NDArray[np.intp]
    """Their places among the judged samples [n]."""
    ratings: Floats | None
    """The higher, the likelier positive [readers, ways, n]."""
    decisions: NDArray[np.int64] | None
    """Numbers of classes [readers, ways, n]."""


def readings(path: Path, identity: Identity, data: Judged) -> Readings:
    """Read a reader study; `InputError` where a row is wrong, or a reader lacks a case.

    Readers are called by numbers in the order of their names, which are kept nowhere.
    """
    table = read(Path(path))
    table.want(READER)
    if RATING not in table.columns and DECISION not in table.columns:
        raise InputError(f"{table.path}: has no column {RATING} (a number) or {DECISION} (a class); add one of them")
    places = {int(place): number for number, place in enumerate(data.indices)}
    found: dict[tuple[str, str, int], tuple[int, Mapping[str, str]]] = {}
    for line, place, row in identity.place(table).rows["test"]:
        if place not in places:
            continue  # of the test split, but not of the subset that was measured
        way = WORDS.get(row.get(AID, "").lower())
        if way is None:
            raise InputError(f"{table.path}: line {line}: {AID} {shown(row[AID])!r} is neither yes nor no")
        if not row[READER]:
            raise InputError(f"{table.path}: line {line}: names no reader; give each row one")
        key = (row[READER], way, places[place])
        if key in found:
            raise InputError(f"{table.path}: line {line}: the reading of line {found[key][0]} again; keep one of them")
        found[key] = (line, row)
    if not found:
        raise InputError(f"{table.path}: holds no reading of a test sample; the readers must have seen some of them")
    return _crossed(table, found, data.whole)


def _crossed(table: Table, found: Mapping[tuple[str, str, int], tuple[int, Mapping[str, str]]], data: Dataset) -> Readings:
    """Put readings in order; every reader must have read each case in each way."""
    names, cases = sorted({key[0] for key in found}), sorted({key[2] for key in found})
    ways = tuple(way for way in (WITHOUT, WITH) if any(key[1] == way for key in found))
    for number, name in enumerate(names, 1):
        for way in ways:
            missing = [case for case in cases if (name, way, case) not in found]
            if missing:
                what = f"reader {number} of {len(names)} (by name) lacks {len(missing)} of {len(cases)} cases {way}"
                raise InputError(f"{table.path}: {what}; every reader must have read every case in each way")
    rows = [found[name, way, case] for name in names for way in ways for case in cases]
    shape = (len(names), len(ways), len(cases))
    ratings = _ratings(table, rows).reshape(shape) if RATING in table.columns else None
    decisions = _decisions(table, rows, data).reshape(shape) if DECISION in table.columns else None
    return Readings(len(names), ways, np.array(cases, np.intp), ratings, decisions)


def _ratings(table: Table, rows: Sequence[tuple[int, Mapping[str, str]]]) -> Floats:
    found = []
    for line, row in rows:
        try:
            value = float(row[RATING])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{table.path}: line {line}: {RATING} {shown(row[RATING])!r} is no number")
        found.append(value)
    return np.array(found)


def _decisions(table: Table, rows: Sequence[tuple[int, Mapping[str, str]]], data: Dataset) -> NDArray[np.int64]:
    if tasks.part(data.task, "hits") is None:
        raise InputError(f"{table.path}: a decision is one class, and {data.ref} has several labels a sample; give ratings")
    found = []
    for line, row in rows:
        text = row[DECISION]
        if text in data.classes:
            found.append(data.classes.index(text))
        elif text.isdecimal() and len(text) < 7 and int(text) < len(data.classes):
            found.append(int(text))
        else:
            known = ", ".join(data.classes[:12])
            raise InputError(f"{table.path}: line {line}: {DECISION} {shown(text)!r} is no class; classes: {known}")
    return np.array(found, np.int64)


# ---------------------------------------------------------------- agreement


def raters(read_by: Readings, files: Sequence[Scored], data: Judged, units: Units | None) -> dict[str, Any] | None:
    """Compare decisions of the truth, of each file and of each reader without aid, or in the one way that they read.

    Cohen's κ for each pair, Fleiss' for the readers, and for them and the first file. None where readers gave no decisions.
    """
    if read_by.decisions is None:
        return None
    task, count, own = data.whole.task, len(data.whole.classes), read_by.cases
    mine = None if units is None else numbered(units[own])
    said: dict[str, NDArray[np.int64]] = {"truth": data.labels[own]}
    said |= {file.name: np.asarray(tasks.load(task).decisions(file.test[own]), np.int64) for file in files}
    readers = {reader_name(number): decisions[0] for number, decisions in enumerate(read_by.decisions)}
    said |= readers
    shown_ = list(said)[:AGREED_BY]
    pairs = [
        {"first": one, "second": other, **_agreed(said[one], said[other], count, mine)} for one, other in combinations(shown_, 2)
    ]
    among = np.stack(list(readers.values()), axis=1)
    together = np.column_stack([among, said[files[0].name]])
    return {
        "cases": len(own),
        "way": read_by.ways[0],
        "raters": shown_,
        "left_out": len(said) - len(shown_),
        "pairs": pairs,
        "fleiss_readers": values(agreement.fleiss(among, count, mine)),
        "fleiss_with_file": values(agreement.fleiss(together, count, mine)),
        "file": files[0].name,
    }


def reader_name(number: int) -> str:
    """Name a reader by the place of its name among the others'."""
    return f"reader {number + 1}"


def _agreed(one: NDArray[np.int64], other: NDArray[np.int64], count: int, units: Units | None) -> dict[str, Any]:
    return {"same": float((one == other).mean()), "kappa": values(agreement.between(one, other, count, units))}


# ---------------------------------------------------------------- without and with aid


def studies(read_by: Readings, data: Judged, found: Targets, units: Units | None) -> Lines:
    """Compare readers without and with aid: a line for each figure; empty where they read in one way alone.

    Ratings: the area under the ROC curve of each class that is looked at. Decisions: the share of right ones, and for each
    class the mean of sensitivity and specificity, which is the area under the ROC curve of a yes or no.
    """
    if len(read_by.ways) < 2:
        return []
    own = read_by.cases
    mine = None if units is None else numbered(units[own])
    lines: Lines = []
    if read_by.decisions is not None:
        hits = (read_by.decisions == data.labels[own]).astype(np.float64)
        lines.append(_study("share decided rightly", "", lambda: mrmc.shares(hits, mine), read_by, len(own)))
    for target in found.each:
        truth = target.truth[own]
        if read_by.ratings is not None and len(found.each) == 1:
            lines.append(_areas("AUC of ratings", target, truth, read_by.ratings, read_by, mine))
        if read_by.decisions is not None:
            said = (read_by.decisions == target.column).astype(np.float64)
            lines.append(_areas("mean of sensitivity and specificity", target, truth, said, read_by, mine))
    return lines


def _areas(
    figure: str, target: Target, truth: NDArray[np.bool_], said: Floats, read_by: Readings, units: Units | None
) -> dict[str, Any]:
    if truth.all() or not truth.any():
        return {"figure": figure, "class": target.name, "reason": "the cases are all of one kind"}
    return _study(figure, target.name, lambda: mrmc.jackknifed(truth, said, units), read_by, len(truth))


def _study(figure: str, name: str, jackknife: Any, read_by: Readings, cases: int) -> dict[str, Any]:
    line: dict[str, Any] = {"figure": figure, "class": name, "cases": cases, "readers": read_by.readers}
    if read_by.readers < 2:
        return {**line, "reason": "one reader alone says nothing of readers"}
    try:
        found = mrmc.analyse(*jackknife())
    except ValueError as error:
        return {**line, "reason": str(error)}
    rows = [
        {"reader": reader_name(number), "without": float(pair[0]), "with": float(pair[1]), "difference": float(pair[1] - pair[0])}
        for number, pair in enumerate(found.figures)
    ]
    infinite = not math.isfinite(found.df[1])
    return {
        **line,
        "rows": rows,
        "without": values(found.means[0]),
        "with": values(found.means[1]),
        "difference": values(found.difference),
        "f": found.f,
        "p": found.p,
        "df": [found.df[0], None if infinite else found.df[1]],
        "variance": found.variance,
        "covariances": list(found.covariances),
    }
