"""Which DICOM files are samples of a data set: by folders of classes, or by a table of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebench.data._dicom_files import is_dicom
from edgebench.data._dicom_headers import patient_hash
from edgebench.data._dicom_labels import Line, Table, lines_of_files, lines_of_patients, read_table
from edgebench.data._files import inside
from edgebench.data._folders import DICOM_ENDINGS, Found, class_folders, images, splits
from edgebench.errors import DataError

DIRECTORY = "dicomdir"
"""A list of the files beside it, which is none of them."""
Patients = Callable[[Sequence[Path]], Mapping[Path, bytes | None]]


@dataclass(frozen=True)
class Entry:
    """A file, and what folders or a table say of it."""

    file: Path
    label: str
    split: str
    """Empty where nothing says it."""
    patient: str | None = None


def by_folders(root: Path, home: Path, notes: list[str]) -> list[Entry]:
    """List the files of class folders, in splits or not; `DataError` where there are no classes."""
    found = Found()
    named = splits(root, home, found) or {"": root}
    first = named.get("train", next(iter(named.values())))
    classes = {path.name for path in class_folders(first, home, Found())}
    if len(classes) < 2:
        raise DataError(
            f"dicom: {first} holds {len(classes)} class folders, and two at least are wanted; "
            "give a folder per class, or labels=FILE with a CSV"
        )
    entries = []
    for split, folder in named.items():
        for place in class_folders(folder, home, found):
            if place.name not in classes:
                raise DataError(f"dicom: {place}: no class of that name in train/; rename or move it")
            entries += [Entry(path, place.name, split) for path in _files(place, home, found)]
    _left_out(root, found, notes)
    return entries


def by_table(root: Path, home: Path, path: Path, patients: Patients, notes: list[str]) -> list[Entry]:
    """List the files that a table has labels for; `DataError` where it has none of them.

    Lines for patients mean the files that are called as they are, where there are such (RSNA's), else those whose header names
    the patient.
    """
    found, table = Found(), read_table(path)
    files = list(_files(root, home, found))
    stems = {file.stem for file in files}
    if table.of_files or any(line.key in stems for line in table.lines):
        lines = lines_of_files(table, files, root)
    else:
        lines = lines_of_patients(table, patients(files), {line.key: patient_hash(line.key) for line in table.lines})
    if not lines:
        what = "files" if table.of_files else "files or patients"
        raise DataError(
            f"{path}: none of its {len(table.lines)} lines names one of the {len(files)} {what} in {root}; look at both"
        )
    used = {line.number for line in lines.values()}
    if len(used) < len(table.lines):
        notes.append(f"{path}: {len(table.lines) - len(used)} of what it names is not in {root}")
    if len(lines) < len(files):
        notes.append(f"{root}: left out {len(files) - len(lines)} DICOM files that {path} does not name")
    found.others = [each for each in found.others if each.name != path.name]
    _left_out(root, found, notes)
    _check_splits(table, lines)
    return [Entry(file, line.label, line.split or "", line.patient) for file, line in sorted(lines.items())]


def _check_splits(table: Table, lines: Mapping[Path, Line]) -> None:
    named = {line.split for line in lines.values()} - {None}
    if named and not {"train", "test"} <= named:
        raise DataError(
            f"{table.path}: says of files that they are {', '.join(map(str, sorted(named, key=str)))}; it wants train and test"
        )
    unsaid = next((line.number for line in lines.values() if named and line.split is None), None)
    if unsaid is not None:
        raise DataError(f"{table.path}:{unsaid}: says no split, and other lines do; write it")


def _files(folder: Path, home: Path, found: Found) -> list[Path]:
    listed = [path for path in images(folder, home, found, DICOM_ENDINGS, is_dicom) if path.name.lower() != DIRECTORY]
    return [path for path in listed if inside(path, home).is_file()]


def _left_out(root: Path, found: Found, notes: list[str]) -> None:
    """Count what is no DICOM file; its names may be persons'."""
    if found.others:
        notes.append(f"{root}: left out {len(found.others)} files or folders that are no DICOM files of a class")
