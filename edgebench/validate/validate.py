"""Files judged as a clinic would: everything that `edgebench validate` finds, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebench import __version__
from edgebench.analysis.resampling import Units
from edgebench.errors import InputError
from edgebench.files import write_atomic
from edgebench.schema import Progress
from edgebench.validate import decisions, groups, methods, probabilities, readers, scores
from edgebench.validate.options import ValidateOptions
from edgebench.validate.patients import Patients, patients
from edgebench.validate.probabilities import Scaled
from edgebench.validate.scores import Judged, Scored
from edgebench.validate.table import Identity
from edgebench.validate.targets import Targets, targets

MOST_FILES = 12
"""Of more no page can be read."""


@dataclass(frozen=True)
class Validation:
    """What was found: what JSON and the page are made of."""

    found: Mapping[str, Any]

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dict(self.found)

    def write(self, out: Path) -> None:
        """Write it as a page that opens from disk and runs nothing; `MissingExtra` where what draws is not installed."""
        from edgebench.report import validation

        write_atomic(out, validation.render(self.found, __version__).encode())


def validate(named: Sequence[str | Path], dataset: str | None, options: ValidateOptions, progress: Progress) -> Validation:
    """Judge bundles and records on one data set; the first is what the others are compared with."""
    options.check()
    found = scores.sources(named, options)
    if len(found) > MOST_FILES:
        raise InputError(f"{named[0]}: {len(found)} files are too many for one page, {MOST_FILES} at most; name some of them")
    data = scores.judged(found, dataset)
    identity = Identity(data.whole)
    people = patients(options, identity, data.indices)
    read_by = None if options.readers is None else readers.readings(options.readers, identity, data)
    looked_at = targets(data.whole.task, data.whole.classes, data.labels, data.val_labels, options.positive)
    files = [scores.scored(each, data, options, progress) for each in found]
    progress("statistics", 0, 1)
    scaled = {file.name: probabilities.temperature(file, data) for file in files}
    values = {**_header(files, data, people, looked_at), **_figures(files, scaled, data, people, looked_at, options)}
    values["readers"] = None if read_by is None else _readers(read_by, files, data, looked_at, people.units)
    values["flow"] = _flow(data, people, looked_at, values["points"])
    values["notes"] = list(_notes(files, data, people, looked_at))
    values["definitions"] = [list(each) for each in methods.definitions(values)]
    values["methods"] = methods.paragraph(values, options)
    values["kept"] = probabilities.keep(files, scaled) if options.keep_temperature else {}
    return Validation(values)


def _header(files: Sequence[Scored], data: Judged, people: Patients, looked_at: Targets) -> dict[str, Any]:
    return {
        "dataset": str(data.whole.ref),
        "task": data.whole.task,
        "classes": list(data.whole.classes),
        "evaluation_sha256": data.sha256,
        "files": [
            {"name": file.name, "where": file.where, "validation": file.val_where, "validated": file.val is not None}
            for file in files
        ],
        "looked_at": [target.name for target in looked_at.each],
        "columns": [column.name for column in people.columns],
    }


def _figures(
    files: Sequence[Scored],
    scaled: Mapping[str, Scaled],
    data: Judged,
    people: Patients,
    looked_at: Targets,
    options: ValidateOptions,
) -> dict[str, Any]:
    units = people.units
    return {
        "overall": decisions.overall(files, data, units),
        "changes": decisions.changes(files, data, units),
        "areas": decisions.areas(files, data, looked_at, units),
        "roc": decisions.roc_curves(files, data, looked_at),
        "area_tests": decisions.area_tests(files, data, looked_at, units),
        "points": decisions.performances(files, data, looked_at, units, options),
        "predictive": list(options.prevalence),
        "calibration": probabilities.calibrations(files, scaled, data, units),
        "decision_curves": probabilities.decision_curves(files, scaled, data, looked_at, options),
        "subgroups": groups.subgroup_tables(files, data, looked_at, people, options),
        "hurt": groups.hurt_tables(files, data, looked_at, people, options),
    }


def _readers(
    read_by: readers.Readings, files: Sequence[Scored], data: Judged, looked_at: Targets, units: Units | None
) -> dict[str, Any]:
    return {
        "count": read_by.readers,
        "cases": len(read_by.cases),
        "ways": list(read_by.ways),
        "raters": readers.raters(read_by, files, data, units),
        "studies": readers.studies(read_by, data, looked_at, units),
    }


def _flow(data: Judged, people: Patients, looked_at: Targets, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count samples on their way from the data set to the table of decisions (STARD 2015)."""
    return {
        "test": len(data.whole.read("test")),
        "judged": len(data.labels),
        "validation": len(data.val_labels),
        "patients": people.count,
        "classes": [
            {
                "class": target.name,
                "positive": int(target.truth.sum()),
                "negative": int((~target.truth).sum()),
                "files": [
                    {"file": line["file"], "rule": line["rule"], **line["counts"]}
                    for line in _first_points(points)
                    if line["class"] == target.name
                ],
            }
            for target in looked_at.each
        ],
    }


def _first_points(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take each file's first operating point for each class."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in points:
        found.setdefault((line["class"], line["file"]), line)
    return list(found.values())


def _notes(files: Sequence[Scored], data: Judged, people: Patients, looked_at: Targets) -> Iterator[str]:
    if looked_at.note:
        yield looked_at.note
    for file in files:
        if file.val is None:
            yield f"{file.name}: no operating point was chosen and no temperature fitted: {file.val_where}."
    for target in looked_at.each:
        if not target.tested:
            yield f"{target.name}: every judged sample is of one kind, so that sensitivity or specificity is not defined."
        elif not target.tuned:
            yield f"{target.name}: every validation sample is of one kind, so that no operating point can be chosen."
    yield from _of_patients(data, people)
    if len(looked_at.each) > 1 and not looked_at.closely:
        yield "Decision curves, and sensitivity and specificity by group, are given for classes that --positive names."


def _of_patients(data: Judged, people: Patients) -> Iterator[str]:
    for split, count in people.shared.items():
        yield f"{count} patients of the test split are in the {split} split too: what was learned of them is no test."
    if people.count is None:
        yield "Patients are not known: every sample counts for itself. Where a patient has several, intervals are too narrow."
    elif people.count < len(data.labels):
        yield f"{len(data.labels)} samples are of {people.count} patients; intervals and tests take a patient's samples together."
    if people.beside and not people.columns:
        yield f"No groups were asked for; --by names columns: {', '.join(people.beside)}."
