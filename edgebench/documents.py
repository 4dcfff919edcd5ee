"""YAML that people write: read within bounds, and what is wrong with it said with its place and the nearest known key."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgebench import plugins
from edgebench.errors import ProfileError, UnknownName

MOST_BYTES, MOST_DEPTH, MOST_ALIASES = 1 << 20, 50, 100
"""What a profile, target or fleet has at most."""


def mapping(place: str, text: str, kind: str, example: str) -> dict[str, Any]:
    """Read YAML that holds one mapping."""
    try:
        content = yaml.load(text, _Bounded)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        line = str(error).replace("\n", " ")
        raise ProfileError(f"{place}: not valid YAML: {line}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{place}: a {kind} is a mapping of keys; see {example}")
    return content


class _Bounded(yaml.SafeLoader):
    """Reads plain values alone, neither deeper nor with more aliases than any file that people write: both multiply."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._aliases += self.check_event(yaml.AliasEvent)
        if self._depth >= MOST_DEPTH or self._aliases > MOST_ALIASES:
            raise yaml.YAMLError(f"nested deeper than {MOST_DEPTH} levels, or with more than {MOST_ALIASES} aliases")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def text_of(name_or_path: str, package: str, kind: str) -> str:
    """Read a plugin's YAML by name, or a user's file by path."""
    known = plugins.names(package, ".yaml")
    if name_or_path in known:
        return importlib.resources.files(package).joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    if Path(name_or_path).suffix not in {".yaml", ".yml"} and "/" not in name_or_path:
        raise UnknownName(kind, name_or_path, known)
    return file_text(name_or_path, kind)


def file_text(path: str, kind: str) -> str:
    """Read a user's file; `ProfileError` where it cannot be, or is longer than any."""
    try:
        if not Path(path).is_file():
            raise FileNotFoundError("no such file")
        if Path(path).stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: cannot be read ({error}); give a {kind}'s name or a YAML file") from error


def explain(error: ValidationError, type_: type[BaseModel], more_keys: Sequence[str] = (), within: str = "") -> str:
    """Say the first thing that is wrong, with its place (`within` comes before it) and the nearest known key.

    At the top, one of `more_keys` is known as well.
    """
    found = error.errors()
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])  # a misspelt key is missing as well
    place = within + ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys(type_, first["loc"][:-1]) + (list(more_keys) if len(first["loc"]) == 1 else [])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {place!r}: {hint}known: {', '.join(sorted(known)) or 'none'}{more}"
    return f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}{more}"


def _keys(type_: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """List the keys that are known at a place inside a type."""
    found: Any = type_
    for part in place:
        if isinstance(part, int):
            continue
        annotation = found.model_fields[part].annotation
        arguments = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
        found = arguments[0] if arguments else annotation
        if not hasattr(found, "model_fields"):
            return []
    fields: Mapping[str, Any] = found.model_fields
    return sorted(fields)
