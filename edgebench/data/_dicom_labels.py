"""Labels of DICOM files: a table with a line for each file or patient, as RSNA's and others' are.

Which file or patient a line means stays out of every message: lines are told by their numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgebench.data._dealing import ALIASES
from edgebench.data._labels import LABEL_COLUMNS, SPLIT_COLUMNS, read_text
from edgebench.errors import DataError

FILE_COLUMNS = (
    *("file", "path", "filename", "filepath", "file_name", "image", "image_path"),
    *("image_id", "dicom_id", "dicom", "sopinstanceuid", "id"),
)
PATIENT_COLUMNS = ("patientid", "patient_id", "patient", "subject", "subject_id", "participant_id", "case_id")


@dataclass(frozen=True)
class Line:
    """What a table says of a file or a patient."""

    number: int
    key: str
    label: str
    split: str | None
    patient: str | None


@dataclass(frozen=True)
class Table:
    """A table of labels; `of_files`: its lines name files, else patients."""

    path: Path
    of_files: bool
    lines: tuple[Line, ...]


def read_table(path: Path) -> Table:
    """Read a CSV of labels: columns of FILE_COLUMNS or PATIENT_COLUMNS, of LABEL_COLUMNS, and of SPLIT_COLUMNS if there is one.

    Of several lines for one with labels 0 and 1 (RSNA has one for each box) the greatest counts; `DataError` where others differ.
    """
    text = read_text(path)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096], ",;\t")
    except csv.Error:
        dialect = csv.excel
    rows = csv.reader(text.splitlines(), dialect)
    try:
        heads = [head.strip().lower() for head in next(rows, [])]
        cells = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, 2) if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path}: no valid CSV ({type(error).__name__}); mend it") from None
    file, patient = _column(heads, FILE_COLUMNS), _column(heads, PATIENT_COLUMNS)
    label, split = _column(heads, LABEL_COLUMNS), _column(heads, SPLIT_COLUMNS)
    key = patient if file is None else file
    if key is None or label is None:
        lacking = "'file' or 'patient_id'" if key is None else "'label'"
        raise DataError(f"{path}: no column {lacking}; name one so in its first line")
    short = next((number for number, row in cells if len(row) < len(heads) or not row[key] or not row[label]), None)
    if short is not None:
        raise DataError(f"{path}:{short}: lacks a cell, its file or its label; write it, or remove the line")
    lines = [
        Line(
            number, row[key], row[label], None if split is None else row[split].lower(), None if patient is None else row[patient]
        )
        for number, row in cells
    ]
    return Table(path, file is not None, _merged(path, lines))


def _column(heads: Sequence[str], known: Iterable[str]) -> int | None:
    return next((heads.index(name) for name in known if name in heads), None)


def _merged(path: Path, lines: Sequence[Line]) -> tuple[Line, ...]:
    """Make one line of those that mean the same."""
    marks = {line.label for line in lines} <= {"0", "1"}
    found: dict[str, Line] = {}
    for line in lines:
        if line.split is not None and line.split not in ALIASES:
            raise DataError(f"{path}:{line.number}: its split is none of {', '.join(ALIASES)}; rename it")
        line = line if line.split is None else replace(line, split=ALIASES[line.split])
        known = found.setdefault(line.key, line)
        if known.label != line.label and not marks:
            raise DataError(f"{path}:{line.number}: another label than line {known.number} gives to the same; keep one")
        if (known.split, known.patient) != (line.split, line.patient):
            raise DataError(
                f"{path}:{line.number}: another split or patient than line {known.number} gives to the same; keep one"
            )
        found[line.key] = max(known, line, key=lambda each: (each.label, -each.number))
    return tuple(found.values())


def lines_of_files(table: Table, files: Sequence[Path], root: Path) -> dict[Path, Line]:
    """Find the file that each line means, by its path from `root` on, its name, or its name without an ending."""
    named: dict[str, list[Path]] = {}
    for file in files:
        inner = file.relative_to(root)
        for name in dict.fromkeys((inner.as_posix(), inner.with_suffix("").as_posix(), file.name, file.stem)):
            named.setdefault(name, []).append(file)
    found: dict[Path, Line] = {}
    for line in table.lines:
        meant = named.get(line.key.removeprefix("./"), [])
        if len(meant) > 1:
            raise DataError(f"{table.path}:{line.number}: {len(meant)} files are called so; write their paths from {root} on")
        for file in meant:
            if file in found:
                raise DataError(f"{table.path}:{line.number}: the same file as in line {found[file].number}; keep one")
            found[file] = line
    return found


def lines_of_patients(table: Table, patients: Mapping[Path, bytes | None], hashes: Mapping[str, bytes]) -> dict[Path, Line]:
    """Find the line of each file's patient; `hashes` has those of the table's keys."""
    by_hash = {hashes[line.key]: line for line in table.lines}
    return {file: by_hash[patient] for file, patient in patients.items() if patient is not None and patient in by_hash}
