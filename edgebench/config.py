"""Read and check `profiles/*.yaml`, `targets/*.yaml`, and the user's own targets and fleets.

A user's target may name another one under `extends`, in the catalogue or in a
file beside it, and says only what differs: mappings are merged key by key, lists
and all else replace, and null brings back the default.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgebench import plugins
from edgebench.agent.plugins import PREFIXES
from edgebench.documents import explain as explain
from edgebench.documents import file_text, mapping, text_of
from edgebench.errors import InputError, ProfileError, UnknownName
from edgebench.files import write_atomic
from edgebench.schema import Accepts, DatasetRef, Limits, Profile, RuntimeModule, Target, stages_of
from edgebench.trust import Check, accept, allow, checking, names_code

T = TypeVar("T", bound=BaseModel)


def read_profile(name_or_path: str, trust: bool = False) -> Profile:
    """Read a profile by name or path; `ProfileError` names the file, the key and the nearest known key.

    `UntrustedFile` where it names factories of networks, and nobody vouches for it (`trust`, `edgebench trust`).
    """
    return _profile(name_or_path, checking(trust))


def read_stages(name_or_path: str, trust: bool = False) -> tuple[Profile, ...]:
    """Read a profile by name or path as its stages, in order: one, where it has no `stages`; errors as of `read_profile`."""
    return _stages(name_or_path, checking(trust))


def _profile(name_or_path: str, check: Check) -> Profile:
    profile, *more = _stages(name_or_path, check)
    if more:
        every = ", ".join(each.stage for each in (profile, *more))
        raise ProfileError(f"{name_or_path}: has stages ({every}), and a profile of one is wanted; write that one into a file")
    return profile


def _stages(name_or_path: str, check: Check) -> tuple[Profile, ...]:
    content = mapping(name_or_path, text_of(name_or_path, "edgebench.profiles", "profile"), "profile", "profiles/digits.yaml")
    try:
        spread = stages_of(content)
    except ValueError as error:
        raise ProfileError(f"{name_or_path}: {error}") from error
    stages = [_stage(each, f"{name_or_path}: stage {each['stage']}" if "stages" in content else name_or_path) for each in spread]
    factories = [each for stage in stages for model in stage.models if names_code(each := model.architecture)]
    if factories and name_or_path not in plugins.names("edgebench.profiles", ".yaml"):
        check(Path(name_or_path), [f"the network {each}" for each in dict.fromkeys(factories)], ())
    named = Counter((str(stage.dataset), model.name) for stage in stages for model in stage.models)
    doubled = next((found for found, count in named.items() if count > 1), None)
    if doubled is not None:
        raise ProfileError(f"{name_or_path}: two models on {doubled[0]} are called {doubled[1]}; give each a name of its own")
    return tuple(stages)


def _stage(content: Mapping[str, Any], place: str) -> Profile:
    try:
        profile = Profile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{place}: {explain(error, Profile, ('stages',))}") from error
    known = [model.name for model in profile.models]
    for model in profile.models:
        for kind, other in model.others.items():
            if other not in known:
                raise ProfileError(f"{place}: {UnknownName(kind, other, known)}")
            if model.name in _ancestors(profile, model.name):
                raise ProfileError(f"{place}: model {model.name!r} is its own {kind}; name another model")
        if (model.recipe is None) == (model.checkpoint is None):
            raise ProfileError(f"{place}: model {model.name!r} wants either a recipe or a checkpoint")
        if model.checkpoint is None and model.head is not None:
            raise ProfileError(f"{place}: model {model.name!r}: head belongs to a checkpoint; recipes train logits")
    return profile


def read_values(kind: type[T], content: Mapping[str, Any], what: str) -> T:
    """Check values that were given one by one; `InputError` names the one that does not fit."""
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{what}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}") from error


def _ancestors(profile: Profile, name: str) -> set[str]:
    """Return the teachers and parents of a model, theirs, and so on."""
    others = {model.name: set(model.others.values()) for model in profile.models}
    found, waiting = set[str](), others[name]
    while waiting:
        found |= waiting
        waiting = set[str]().union(*(others.get(each, ()) for each in waiting)) - found
    return found


def read_target(name_or_path: str, host: str | None = None, trust: bool = False) -> Target:
    """Read a target by name or path, and give it the `host` of the command line, if any.

    `ProfileError` names the file, and the key and the nearest known key. A
    target's own plugin files are named relative to the file that lists them.
    `UntrustedFile` where a file names code to be run, and nobody vouches for it
    (`trust`, `edgebench trust`).
    """
    return _target(name_or_path, host, checking(trust))


def read_devices(given: Sequence[str | Target], trust: bool = False) -> list[Target]:
    """Read targets by name or path; each device needs a name of its own."""
    found = [read_target(item, trust=trust) if isinstance(item, str) else item for item in given]
    doubled = [name for name, count in Counter(target.name for target in found).items() if count > 1]
    if doubled:
        raise InputError(f"two devices are called {doubled[0]}; give each a `name:` in a target file, or in the fleet file")
    return found


def code_in(path: Path) -> dict[Path, tuple[tuple[str, ...], tuple[Path, ...]]]:
    """Find what code a profile, target, fleet or model folder names, or what it extends does: by file, with that code's files."""
    found: dict[Path, tuple[tuple[str, ...], tuple[Path, ...]]] = {}

    def note(file: Path, names: Sequence[str], files: Sequence[Path]) -> None:
        before = found.get(file, ((), ()))
        found[file] = ((*before[0], *names), (*before[1], *files))

    if path.is_dir() or path.name == "model.json":
        note(path / "model.json" if path.is_dir() else path, ["the network that it holds"], ())
        return found
    content = mapping(str(path), file_text(str(path), "profile or target"), "file", "profiles/digits.yaml")
    if "devices" in content:
        _fleet(path, note)
    elif "models" in content or "stages" in content:
        _stages(str(path), note)
    else:
        _target(str(path), None, note)
    return found


def _target(name_or_path: str, host: str | None, check: Check) -> Target:
    content = _target_content(name_or_path, (), check)
    if host is None:
        return _as_target(content, name_or_path)
    return _as_target({**content, "host": host}, f"{name_or_path}, --host")


def read_fleet(path: Path, trust: bool = False) -> list[Target]:
    """Read a list of devices: `devices: [{target: jetson-nano, host: nano@jetson.local, name: nano-2}, …]`.

    Each entry may override what a file that extends its target may. Raises
    `ProfileError` where two have the same name, `UntrustedFile` as `read_target` does.
    """
    return _fleet(path, checking(trust))


def _fleet(path: Path, check: Check) -> list[Target]:
    content = mapping(str(path), file_text(str(path), "fleet"), "fleet", "{devices: [{target: …, host: …}]}")
    devices = content.get("devices")
    if set(content) != {"devices"} or not isinstance(devices, list) or not devices:
        raise ProfileError(f"{path}: a fleet has one key, devices, with a list of {{target: …, host: …}}")
    fleet = [_device(entry, f"{path}: devices.{number}", path, check) for number, entry in enumerate(devices)]
    names = [target.name for target in fleet]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProfileError(f"{path}: {names.count(twice)} devices are named {twice!r}; give each a name: of its own")
    return fleet


def _device(entry: object, place: str, file: Path, check: Check) -> Target:
    """Build one device of a fleet."""
    if not isinstance(entry, dict) or not isinstance(entry.get("target"), str) or "extends" in entry:
        raise ProfileError(f"{place}: a device is a mapping with target: and what a target file may have, without extends:")
    own = {key: value for key, value in entry.items() if key != "target"}
    return _as_target(_extended({**own, "extends": entry["target"]}, place, file, (), check), place)


def write_target(path: Path, base: str, changes: Mapping[str, Any], replace: bool = False) -> Target:
    """Write a user's own target file that extends `base`, and read it back.

    Raises `ProfileError` where it would not be a target (then nothing is written), `InputError`
    where there is a file already that is not to be replaced.
    """
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(f"{path}: a target file ends in .yaml")
    if path.exists() and not replace:
        raise InputError(f"{path}: is there already; choose another file, or replace it with --force")
    known = plugins.names("edgebench.targets", ".yaml")
    if base not in known and Path(base).suffix not in {".yaml", ".yml"}:
        raise UnknownName("target", base, known)
    content = {"extends": base if base in known else os.path.relpath(os.path.realpath(base), path.parent.resolve()), **changes}
    _as_target(_extended(content, str(path), path, (), accept), str(path))
    write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    allow(path)  # the user has just said what is in it
    return read_target(str(path.absolute()), trust=True)


def _target_content(name_or_path: str, before: tuple[str, ...], check: Check) -> dict[str, Any]:
    """Load a target with all that it extends; its plugins' paths are absolute."""
    if "\0" in name_or_path:
        raise ProfileError(f"{name_or_path!r}: no file has such a name; give a target's name or a YAML file")
    named = name_or_path in plugins.names("edgebench.targets", ".yaml")
    identity = name_or_path if named else os.path.realpath(name_or_path)
    if identity in before:
        raise ProfileError(f"{name_or_path}: extends itself: {' → '.join([*map(_shown, before), _shown(identity)])}")
    content = mapping(name_or_path, text_of(name_or_path, "edgebench.targets", "target"), "target", "targets/cpu.yaml")
    return _extended(content, name_or_path, None if named else Path(name_or_path), (*before, identity), check)


def _extended(content: dict[str, Any], place: str, file: Path | None, before: tuple[str, ...], check: Check) -> dict[str, Any]:
    """Put a target's own keys over those of the target that it extends, which is checked by itself; `file` is a user's."""
    own = {key: value for key, value in content.items() if key != "extends"}
    folder = file.resolve().parent if file is not None else Path()
    if "agent_plugins" in own:
        own["agent_plugins"] = _plugins(own["agent_plugins"], place, folder)
    if file is not None and (named := _named_code(own)):
        check(file, named, [Path(each) for each in _listed(own, "agent_plugins")])
    if "extends" not in content:
        return own
    base = content["extends"]
    if not isinstance(base, str):
        raise ProfileError(f"{place}: extends: name one target, or a file relative to this one")
    origin = base if base in plugins.names("edgebench.targets", ".yaml") else os.path.normpath(folder.resolve() / base)
    if origin != base and Path(base).suffix not in {".yaml", ".yml"}:
        raise ProfileError(f"{place}: extends: {UnknownName('target', base, plugins.names('edgebench.targets', '.yaml'))}")
    inherited = _target_content(origin, before, check)
    _as_target(inherited, origin)
    merged = {**inherited, **{key: _over(inherited.get(key), value) for key, value in own.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def _named_code(own: Mapping[str, Any]) -> list[str]:
    """Say what code a target's file names: plugins, an interpreter, what setup brings, and options that are programs."""
    found = [f"the plugin {Path(each).name}" for each in _listed(own, "agent_plugins")]
    found += [f"the interpreter {own['python']}"] if own.get("python") else []
    found += [f"the package {each}" for each in _listed(own.get("setup"), "requirements")]
    for folder, key, called in (("meters", "meters", "name"), ("runtimes", "accepts", "runtime")):
        for each in _listed(own, key, dict):
            if each.get(called) in plugins.on_device(folder) and isinstance(each.get("options"), dict):
                runs = plugins.declared(plugins.load_device(folder, str(each[called])), "RUNS", RuntimeModule.RUNS)
                found += [f"the program {each['options'][name]}" for name in runs if name in each["options"]]
    return found


def _listed(content: object, key: str, kind: type = str) -> list[Any]:
    """Return what of a list is of a kind, before its types are checked: they say what is wrong with the rest."""
    found = content.get(key) if isinstance(content, dict) else None
    return [each for each in found if isinstance(each, kind)] if isinstance(found, list) else []


def _over(inherited: object, own: object) -> object:
    """Lay one value over another: mappings key by key, where null takes a key away."""
    if isinstance(inherited, dict) and isinstance(own, dict):
        return {key: value for key, value in {**inherited, **own}.items() if value is not None}
    return own


def _plugins(given: object, place: str, folder: Path) -> object:
    """Name plugin files absolutely; `ProfileError` where one is missing, or is called like nothing that the agent loads."""
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        return given  # its type says what is wrong
    found = [folder / item for item in given]
    if strange := [item for item, path in zip(given, found, strict=True) if not path.resolve().is_relative_to(folder)]:
        raise ProfileError(f"{place}: agent_plugins: {strange[0]}: leads out of {folder}; put the file beside the target's")
    ours = {f"{prefix}{name}.py" for kind, prefix in PREFIXES.items() for name in plugins.on_device(kind)}
    for path in found:
        if not path.is_file():
            raise ProfileError(f"{place}: agent_plugins: no file {path}")
        if not re.fullmatch(r"(rt|meter)_[a-z0-9_]+\.py", path.name) or path.name in ours:
            wanted = "call it rt_<name>.py or meter_<name>.py, unlike edgebench's own"
            raise ProfileError(f"{place}: agent_plugins: {path.name}: {wanted}")
    return [str(path) for path in found]


def _as_target(content: dict[str, Any], place: str) -> Target:
    try:
        target = Target.model_validate(content)
        if target.host is not None:
            plugins.check_host(target.transport, target.host)
    except ValidationError as error:
        raise ProfileError(f"{place}: {explain(error, Target, ('extends',))}") from error
    except ValueError as error:
        raise ProfileError(f"{place}: host: {error}") from error
    accepts = [with_limits(each, place, f"accepts.{number}.") for number, each in enumerate(target.accepts)]
    return target.model_copy(update={"accepts": tuple(accepts)})


def limits_of(format: str) -> type[Limits] | None:
    """Find which limits a format has; None where there is no such exporter here, or it cannot be loaded."""
    if format not in plugins.names("edgebench.exporters"):
        return None
    try:
        return plugins.declared(plugins.load("edgebench.exporters", format, "format"), "Limits", Limits)
    except ImportError:  # an export says so
        return None


def with_limits(accepts: Accepts, place: str, key: str = "") -> Accepts:
    """Check a target's limits of a format, and write them as its exporter does; as they are where it is not known.

    `ProfileError` names the place, the format, and the key (`key` is what it begins with) with the nearest known one.
    """
    kind = limits_of(accepts.format)
    if kind is None:
        return accepts
    try:
        limits = kind.model_validate(accepts.limits)
    except ValidationError as error:
        raise ProfileError(f"{place}: {accepts.format}: {explain(error, kind, within=f'{key}limits.')}") from error
    return accepts.model_copy(update={"limits": limits.model_dump(mode="json")})


def _shown(identity: str) -> str:
    return os.path.basename(identity)


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
        options[key] = int(value) if value.isdecimal() and len(value) < 19 else value
    return DatasetRef(name=name, options=options)
