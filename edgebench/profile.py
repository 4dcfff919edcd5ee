"""Read and check `profiles/*.yaml` and `targets/*.yaml`."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgebench import discovery
from edgebench.errors import ProfileError, UnknownName
from edgebench.schema import DatasetRef, Profile, Target

T = TypeVar("T", bound=BaseModel)


def read_profile(name_or_path: str) -> Profile:
    """Read a profile by name or path; `ProfileError` names the file, the key and the nearest known key."""
    profile = _read(name_or_path, "edgebench.profiles", "profile", Profile)
    known = [model.name for model in profile.models]
    for model in profile.models:
        if model.teacher is not None and model.teacher not in known:
            raise ProfileError(f"{name_or_path}: {UnknownName('teacher', model.teacher, known)}")
        if model.name in _ancestors(profile, model.name):
            raise ProfileError(f"{name_or_path}: model {model.name!r} is its own teacher; name another model")
        if (model.recipe is None) == (model.checkpoint is None):
            raise ProfileError(f"{name_or_path}: model {model.name!r} wants either a recipe or a checkpoint")
    return profile


def _ancestors(profile: Profile, name: str) -> set[str]:
    """Return the teachers of a model, their teachers, and so on."""
    teachers = {model.name: model.teacher for model in profile.models}
    found: set[str] = set()
    teacher = teachers[name]
    while teacher is not None and teacher not in found:
        found.add(teacher)
        teacher = teachers.get(teacher)
    return found


def read_target(name_or_path: str) -> Target:
    """Read a target by name or path; its own plugin files are named relative to it."""
    target = _read(name_or_path, "edgebench.targets", "target", Target)
    folder = Path(name_or_path).resolve().parent
    plugins = tuple(str(folder / plugin) for plugin in target.agent_plugins)
    for plugin in plugins:
        if not Path(plugin).is_file():
            raise ProfileError(f"{name_or_path}: agent_plugins: no file {plugin}")
    return target.model_copy(update={"agent_plugins": plugins})


def read_dataset(text: str) -> DatasetRef:
    """Read `digits`, `medmnist:pathmnist,size=28` or `image-folder:/path,val=0.2`."""
    head, *rest = text.split(",")
    name, _, argument = head.partition(":")
    options: dict[str, str | int | bool] = {}
    if argument:
        options["source"] = argument
    for part in rest:
        key, found, value = part.partition("=")
        if not found or not key:
            raise ProfileError(f"--dataset {text}: {part!r} is not key=value")
        options[key] = int(value) if value.isdigit() else value
    return DatasetRef(name=name, options=options)


def _read(name_or_path: str, package: str, kind: str, type_: type[T]) -> T:
    """Load one YAML file and check it against its type."""
    text = _text(name_or_path, package, kind)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise ProfileError(f"{name_or_path}: not valid YAML: {line}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{name_or_path}: a {kind} is a mapping of keys; see profiles/digits.yaml")
    try:
        return type_.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{name_or_path}: {explain(error, type_)}") from error


def _text(name_or_path: str, package: str, kind: str) -> str:
    """Read a plugin's YAML by name, or a user's file by path."""
    known = discovery.names(package, ".yaml")
    if name_or_path in known:
        return importlib.resources.files(package).joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and "/" not in name_or_path:
        raise UnknownName(kind, name_or_path, known)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{name_or_path}: cannot be read ({error}); give a {kind}'s name or a YAML file") from error


def explain(error: ValidationError, type_: type[BaseModel]) -> str:
    """Say the first thing that is wrong, with its place and the nearest known key."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys(type_, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {place!r}: {hint}known: {', '.join(known)}{more}"
    return f"{place}: {first['msg']}{more}"


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
