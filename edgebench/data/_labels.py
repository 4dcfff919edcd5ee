"""Class names and labels that stand in files: lists of classes, data.yaml, tables of files and labels."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgebench.data._dealing import ALIASES
from edgebench.data._files import described, open_regular
from edgebench.errors import DataError

MOST_BYTES = 1 << 26
FILE_COLUMNS = ("file", "path", "filename", "filepath", "file_name", "image", "image_path", "name", "id")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "diagnosis")
TEXT_COLUMN = "text"
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold")


def read_text(path: Path) -> str:
    """Read a small text file; `DataError` for one that is none."""
    with open_regular(path) as stream:
        content = stream.read(MOST_BYTES + 1) or b""
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB; give a smaller file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 ({described(error)}); save it as UTF-8") from error


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a mapping of plain values; `DataError` where it is none."""
    import yaml

    text = read_text(path)
    if text.count("*") + text.count("&") > 64:
        raise DataError(f"{path}: more anchors and aliases than a data set's file has; write the values out")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: no valid YAML ({described(error)}); mend it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: no mapping of keys; a data.yaml has names, train, val and test")
    return content


def class_names(path: Path) -> tuple[str, ...]:
    """Read classes in their order: a name a line, a JSON list, `class_to_idx`, or `names` of a data.yaml."""
    ending = path.suffix.lower()
    if ending in (".yaml", ".yml"):
        content: Any = read_yaml(path).get("names")
    elif ending == ".json":
        try:
            content = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: no valid JSON ({described(error)}); mend it") from error
        content = content.get("class_to_idx", content.get("names", content)) if isinstance(content, dict) else content
    else:
        content = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return in_order(content, path)


def in_order(content: Any, path: Path) -> tuple[str, ...]:
    """Put names into their order: a list, {name: number} or {number: name}; `DataError` for anything else."""
    if isinstance(content, dict):
        numbers = content if all(isinstance(value, int) for value in content.values()) else None
        pairs = {int(key): str(value) for key, value in content.items() if str(key).isdecimal()} if numbers is None else {}
        if numbers is not None:
            pairs = {int(value): str(key) for key, value in numbers.items()}
        if len(pairs) != len(content) or sorted(pairs) != list(range(len(pairs))):
            raise DataError(f"{path}: its classes are not numbered 0, 1, 2, … without a gap; number them so")
        content = [pairs[index] for index in range(len(pairs))]
    if not isinstance(content, list) or not content or not all(isinstance(name, (str, int)) for name in content):
        raise DataError(f"{path}: no list of class names; write one a line, or names: [first, second] as YAML")
    names = tuple(str(name) for name in content)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{path}: the class {twice!r} stands in it twice; name each once")
    return names


def ordered(names: Sequence[str], sort: str) -> tuple[str, ...]:
    """Sort class names by their letters, as torchvision's ImageFolder does, or with whole numbers by their value."""
    if sort not in ("name", "natural"):
        raise DataError(f"--dataset: sort={sort} is neither name nor natural; give one of them")
    return tuple(sorted(names, key=_natural if sort == "natural" else None))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]


def ambiguous(names: Sequence[str]) -> str | None:
    """Say how classes that are all numbers are ordered, where the two orders differ."""
    if not all(name.isdecimal() for name in names):
        return None
    letters, natural = ordered(names, "name"), ordered(names, "natural")
    if letters == natural:
        return None
    return (
        f"the classes are numbers in the order {', '.join(letters[:3])}, … (by letters, as torchvision's ImageFolder has them); "
        f"if the model was trained in the order {', '.join(natural[:3])}, … give the data set option sort=natural, "
        "or classes=FILE with the names in order"
    )


class Row(NamedTuple):
    """What a table says of one file."""

    file: Path
    label: str
    split: str | None
    """None: not said."""
    text: str | None
    """None: the table has no column of that name."""


def table(path: Path, root: Path) -> list[Row]:
    """Read a CSV of files and labels, with the split and a text of each where it has such columns; `DataError` names the line."""
    try:
        dialect: Any = csv.Sniffer().sniff(read_text(path)[:4096], ",;\t")
    except csv.Error:
        dialect = csv.excel
    rows = csv.reader(io.StringIO(read_text(path), newline=""), dialect)  # a text may hold line breaks
    try:
        heads = [head.strip().lower() for head in next(rows, [])]
        columns = [_column(heads, known, path) for known in (FILE_COLUMNS, LABEL_COLUMNS)]
        split_column = next((heads.index(name) for name in SPLIT_COLUMNS if name in heads), None)
        text_column = heads.index(TEXT_COLUMN) if TEXT_COLUMN in heads else None
        found: dict[Path, Row] = {}
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            place = f"{path}:{rows.line_num}"
            if len(row) < len(heads):
                raise DataError(f"{place}: {len(row)} cells for {len(heads)} columns; write all of them")
            name, label = (row[column].strip() for column in columns)
            file, split = root / name, None if split_column is None else row[split_column].strip().lower()
            if not name or not label:
                raise DataError(f"{place}: no {'file' if not name else 'label'} in it; write it, or remove the line")
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(f"{place}: {name} leads out of {root}; write paths from there on")
            if split is not None and split not in ALIASES:
                raise DataError(f"{place}: the split {split!r} is none of {', '.join(ALIASES)}; rename it")
            text = None if text_column is None else row[text_column].strip()
            made = Row(file, label, None if split is None else ALIASES[split], text)
            _agree(made, found.get(file, made), place, name)
            found[file] = made
    except csv.Error as error:
        raise DataError(f"{path}: no valid CSV ({described(error)}); mend it") from error
    return list(found.values())


def _agree(row: Row, above: Row, place: str, name: str) -> None:
    """Refuse a file that a table names twice with other things said of it."""
    if above.label != row.label:
        raise DataError(f"{place}: {name} is {row.label} here and {above.label} above; keep one")
    if above.text != row.text:
        raise DataError(f"{place}: {name} has another text here than above; keep one")


def _column(heads: Sequence[str], known: Sequence[str], path: Path) -> int:
    for name in known:
        if name in heads:
            return heads.index(name)
    raise DataError(f"{path}: no column {known[0]!r} among {', '.join(heads)[:200] or 'none'}; name it so")
