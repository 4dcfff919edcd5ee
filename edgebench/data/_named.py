"""Data sets that are known by name: what each requires, and synthetic data in its exact form, which is marked for good.

What `synthesize` writes has a file `synthetic.json` beside it. Whatever opens data below that folder gets the option
`synthetic` (`tiny` or `full`), and with it every model, record and table that names the data set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from edgebench import plugins
from edgebench.data._files import open_regular
from edgebench.errors import DataError
from edgebench.files import parse_json, write_atomic
from edgebench.schema import SYNTHETIC, DatasetRef

Options = Mapping[str, str | int | bool]
MARK, PART = "synthetic.json", ".synthetic.part"
MARK_BYTES = 1 << 20
UP = 4
"""Folders above data in which a mark counts: no further up than the data of any set lie."""


@dataclass(frozen=True)
class Requirements:
    """What a data set is, as published, and how to get it."""

    what: str
    """What it holds, from whom, and what of it is said to be unusual; one paragraph."""
    fetch: str | None
    """The command that fetches it; None: nothing is fetched."""
    bytes: int | None
    """Of what is fetched; None: nothing is, or nobody published it."""
    counts: Mapping[str, int]
    """Samples by split, as edgebench splits it unless options say otherwise."""
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Samples by split (or `all`, where that alone is published) and class; empty: not published, or not by class."""
    unpacked_bytes: int | None = None
    """Of its files on the disk."""
    check: str = ""
    """How what is read is checked: by which sums or counts."""


class NamedData(Protocol):
    """A module `data/<name>.py` of a public data set offers these beside `OPTIONS` and `load`."""

    SYNTHESIS: tuple[str, ...] = ()
    """Options of `synthesize` alone, which `load` does not know."""

    def requirements(self, options: Options) -> Requirements:
        """Say what it requires, from what is known without its files."""

    def synthesize(self, folder: Path, *, tiny: bool, seed: int, options: Options) -> Mapping[str, Path | str | int | bool]:
        """Write files of its exact form into an empty folder: names, sizes, splits, labels, shares of the classes.

        Pixels carry a signal that can be learnt, though not without errors. `tiny`: tens of samples, each class in each split.
        Returns the options by which `load` reads them; paths are relative to the folder, whose files are moved afterwards.
        """

    def location(self, options: Options) -> Path | None:
        """Return the file or folder that `load` reads; without it, the option `source`."""


def requirements(name: str, options: Options | None = None) -> Requirements:
    """Say what a data set requires; `DataError` where it is the user's own files, of which nothing is known."""
    plugin = plugins.load("edgebench.data", name, "data set")
    if not hasattr(plugin, "requirements"):
        raise DataError(f"{name}: is no public data set that is fetched, but comes with a library, or is your own files")
    found: Requirements = plugin.requirements(options or {})
    return found


def synthesize(name: str, folder: Path, *, tiny: bool, seed: int = 0, options: Options | None = None) -> DatasetRef:
    """Write synthetic data in the exact form of a data set; returns what opens them, marked as synthetic.

    `options` are those of the data set (which of MedMNIST's, a size, …), and those that its `SYNTHESIS` names. Options that
    say how it is read stay as they are in what is returned. `DataError` where the folder holds other files already.
    """
    plugin = plugins.load("edgebench.data", name, "data set")
    given = {key: value for key, value in (options or {}).items() if key != SYNTHETIC}
    if not hasattr(plugin, "synthesize"):
        raise DataError(f"{name}: reads your own files, which have no form of their own; choose one of {', '.join(_named())}")
    alone: tuple[str, ...] = plugins.declared(plugin, "SYNTHESIS", ())
    known = {*plugin.OPTIONS, *alone, "classes"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise DataError(f"{name}: unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}")
    form = "tiny" if tiny else "full"
    how = {"data": name, "form": form, "seed": seed, "options": {key: given[key] for key in sorted(given)}}
    with _written(folder, how) as staging:
        found = plugin.synthesize(staging, tiny=tiny, seed=seed, options=given)
    kept = {key: value for key, value in given.items() if key not in alone}
    placed = {key: str(folder / value) if isinstance(value, Path) else value for key, value in found.items()}
    return DatasetRef(name=name, options={**kept, **placed, SYNTHETIC: form})


@contextmanager
def _written(folder: Path, how: Mapping[str, Any]) -> Iterator[Path]:
    """Give a folder to write into; what is in it at the end is marked and moved to `folder`, in place of synthetic data there."""
    folder.mkdir(parents=True, exist_ok=True)
    marked, staging = _marks(folder / MARK), folder / PART
    strangers = sorted({path.name for path in folder.iterdir()} - set(marked) - {MARK, PART})
    if strangers:
        raise DataError(f"{folder}: holds {strangers[0]} already, which is not synthetic; give an empty folder")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        made = sorted(staging.iterdir())
        write_mark(folder, {**marked, **{path.name: how for path in made}})
        for path in made:
            place = folder / path.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(path, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def mark_of(plugin: ModuleType, options: Options) -> dict[str, Any] | None:
    """Return how the data that options name were synthesized; None where nothing says that they were."""
    place = plugin.location(options) if hasattr(plugin, "location") else options.get("source")
    if place is None:
        return None
    path = Path(str(place)).expanduser()
    try:
        path = path.resolve()
    except (OSError, RuntimeError):
        return None  # its loader says what is wrong with it
    for folder in (path, *path.parents)[: UP + 1]:
        marks = _marks(folder / MARK)
        if marks:
            inner = path.relative_to(folder).parts
            found = marks.get(inner[0] if inner else ".") or marks.get(".") or (None if inner else next(iter(marks.values())))
            if found is not None:
                return dict(found)
    return None


def told(mark: Mapping[str, Any]) -> str:
    """Say in one line what data are that bear a mark."""
    return (
        f"these are synthetic data in the form of {mark['data']} ({mark['form']}, seed {mark['seed']}): figures on them say "
        "nothing of real images"
    )


def _named() -> list[str]:
    every = plugins.names("edgebench.data")
    return [name for name in every if hasattr(plugins.load("edgebench.data", name, "data set"), "synthesize")]


def write_mark(folder: Path, marks: Mapping[str, Mapping[str, Any]]) -> None:
    """Mark what lies in a folder, by its names there; `.` is all of it."""
    write_atomic(folder / MARK, (json.dumps({"synthetic": marks}, indent=1, sort_keys=True) + "\n").encode())


def _marks(path: Path) -> dict[str, dict[str, Any]]:
    """Read a mark; empty where there is none, or another file of that name."""
    if not path.is_file():
        return {}
    with open_regular(path) as stream:
        content = stream.read(MARK_BYTES)
    try:
        found = parse_json(content)["synthetic"]
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        return {}
    return {name: {**each, **{word: _word(each.get(word)) for word in ("data", "form", "seed")}} for name, each in found.items()}


def _word(value: Any) -> str:
    """Return what a mark says, which becomes part of names: a word of letters and digits, whoever wrote it."""
    return str(value) if re.fullmatch(r"[\w-]{1,32}", str(value)) else "unknown"
