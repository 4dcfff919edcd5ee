"""Whom a file fails: groups of patients side by side, and whether another file of the model hurts one more than another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import tasks
from edgebench.analysis import delong, shares, subgroups
from edgebench.analysis.resampling import Floats, Units, numbered
from edgebench.analysis.shares import Bools
from edgebench.validate.decisions import Lines, Point, change, corrected, points, values
from edgebench.validate.options import ValidateOptions
from edgebench.validate.patients import Column, Patients
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.targets import Target, Targets, log_odds

EVERYBODY = "all"
RIGHT = "decided rightly"


@dataclass(frozen=True)
class Measure:
    """A share of some samples: which of them count, and which of those are hits."""

    name: str
    among: Bools
    hits: Bools
    target: str = ""
    """The class that it is about; empty: all of them."""
    rule: str = ""
    """How the operating point was chosen."""


def _measures(file: Scored, data: Judged, found: Targets, options: ValidateOptions) -> Iterator[Measure]:
    """List what groups are compared by: right decisions, and of each class looked at closely sensitivity and specificity."""
    task, everybody = data.whole.task, np.ones(len(data.labels), bool)
    if tasks.part(task, "hits") is not None:
        yield Measure(RIGHT, everybody, np.asarray(tasks.load(task).decisions(file.test) == data.labels))
    for target in found.each if found.closely else ():
        point = _point(file, task, target, options)
        yield Measure("sensitivity", target.truth, point.decided, target.name, point.rule)
        yield Measure("specificity", ~target.truth, ~point.decided, target.name, point.rule)


def _point(file: Scored, task: str, target: Target, options: ValidateOptions) -> Point:
    """Return the operating point that groups are judged at: the first."""
    return next(points(file, task, target, options))


# ---------------------------------------------------------------- one file, group by group


def subgroup_tables(files: Sequence[Scored], data: Judged, found: Targets, people: Patients, options: ValidateOptions) -> Lines:
    """Return a table for each file and column; the p values of one file are corrected for each other."""
    tables: Lines = []
    for file in files:
        mine = [_table(file, column, data, found, people.units, options) for column in people.columns]
        tested = corrected([test for table in mine for test in table["tests"]])
        for table in mine:
            count = len(table["tests"])
            tables.append({**table, "tests": tested[:count]})
            tested = tested[count:]
    return tables


def _table(
    file: Scored, column: Column, data: Judged, found: Targets, units: Units | None, options: ValidateOptions
) -> dict[str, Any]:
    measures = list(_measures(file, data, found, options))
    odds = {target.name: log_odds(data.whole.task, file.test, target.column) for target in found.each if found.closely}
    kinds = [target for target in found.each if target.name in odds]
    everybody = np.zeros(len(column.member), np.int64)
    rows = [
        _row(name, member == place, measures, kinds, odds, units)
        for member, names in ((everybody, (EVERYBODY,)), (column.member, column.groups))
        for place, name in enumerate(names)
    ]
    tests = [
        {"measure": each.name, "class": each.target, **_tested(_means(each.hits, each.among, column.member, units))}
        for each in measures
    ]
    for target in kinds:
        area = subgroups.areas(target.truth, odds[target.name], column.member, units)
        tests.append({"measure": "AUC", "class": target.name, **_tested(area)})
    return {
        "file": file.name,
        "column": column.name,
        "rows": rows,
        "tests": tests,
        "rule": next((each.rule for each in measures if each.rule), ""),
    }


def _row(
    name: str,
    inside: Bools,
    measures: Sequence[Measure],
    kinds: Sequence[Target],
    odds: dict[str, Floats],
    units: Units | None,
) -> dict[str, Any]:
    mine = None if units is None else numbered(units[inside])
    said = [
        {
            "measure": each.name,
            "class": each.target,
            "samples": int((each.among & inside).sum()),
            "value": values(_share(each.hits, each.among & inside, units)),
        }
        for each in measures
    ]
    for target in kinds:
        area = delong.area(target.truth[inside], odds[target.name][inside], mine)
        said.append({"measure": "AUC", "class": target.name, "samples": int(inside.sum()), "value": values(area)})
    smallest = [int(side.sum()) for target in kinds for side in (target.truth & inside, ~target.truth & inside)]
    few = int(inside.sum()) < subgroups.FEW or min(smallest, default=subgroups.FEW) < subgroups.FEW_OF_A_KIND
    patients = None if mine is None else int(mine.max(initial=-1)) + 1
    return {
        "group": name,
        "samples": int(inside.sum()),
        "patients": patients,
        "few": few and name != EVERYBODY,
        "positive": {target.name: int((target.truth & inside).sum()) for target in kinds},
        "measures": said,
    }


def _share(hits: Bools, among: Bools, units: Units | None) -> Any:
    return shares.share(hits[among], None if units is None else numbered(units[among]))


def _means(found: NDArray[Any], among: Bools, member: NDArray[np.int64], units: Units | None) -> subgroups.Tested | None:
    mine = None if units is None else numbered(units[among])
    return subgroups.means(found[among], member[among], mine) if among.any() else None


def _tested(found: subgroups.Tested | None) -> dict[str, Any]:
    return {"gap": None, "p": None} if found is None else {"gap": found.largest_gap, "p": found.p}


# ---------------------------------------------------------------- two files, group by group


def hurt_tables(files: Sequence[Scored], data: Judged, found: Targets, people: Patients, options: ValidateOptions) -> Lines:
    """Compare what each further file changes in each group: a table for each file, column and measure.

    Each file decides at its own operating point. The permutation test asks whether the change differs between groups; its p is
    corrected for all tables.
    """
    tables: Lines = []
    before = list(_measures(files[0], data, found, options))
    for file in files[1:]:
        after = list(_measures(file, data, found, options))
        for column in people.columns:
            for one, other in zip(before, after, strict=True):
                named = {"first": files[0].name, "second": file.name, "column": column.name}
                tables.append({**named, **_changed(one, other, column, people.units)})
    return corrected(tables)


def _changed(one: Measure, other: Measure, column: Column, units: Units | None) -> dict[str, Any]:
    """Compare one measure's hits before and after, group by group."""
    rows = []
    for place, name in enumerate((EVERYBODY, *column.groups)):
        inside = one.among & (np.ones(len(column.member), bool) if not place else column.member == place - 1)
        mine = None if units is None else numbered(units[inside])
        few = bool(place) and int(inside.sum()) < subgroups.FEW
        rows.append({"group": name, "few": few, **change(shares.changed(one.hits[inside], other.hits[inside], mine))})
    moved = other.hits.astype(np.int64) - one.hits.astype(np.int64)
    tested = _tested(_means(moved, one.among, column.member, units))
    return {"measure": one.name, "class": one.target, "rule": one.rule, "rows": rows, **tested}
