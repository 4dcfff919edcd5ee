"""Wheels for another computer's Python: resolved and fetched here, kept for the next time.

pip fetches, one generation of requirements at a time and never with their
dependencies: it would judge the markers in them (`python_version < "3.8"`) by
this computer, not by the device. Those are read from the wheels and judged here.
"""

from __future__ import annotations

import email.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging import tags
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from edgebench.errors import InputError, StorageError, TransportError
from edgebench.files import inside, sha256_file, sha256_json, storage, write_json
from edgebench.schema import Progress

FETCH_SECONDS = 1800.0
GENERATIONS = 30
ROOT = "the target"
OLDEST = {"x86_64": 5, "i686": 5}
"""First glibc 2.x of which there are manylinux wheels; 17 for every other processor."""
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Older names of manylinux_2_x (PEP 600)."""
UNREACHABLE = re.compile(r"NewConnectionError|ConnectTimeout|Name or service not known|ProxyError|connection broken", re.I)


@dataclass(frozen=True)
class Interpreter:
    """The Python that wheels must fit."""

    version: str
    """All of it, for instance 3.6.9."""
    abi: str
    """For instance cp36m."""
    machine: str
    """The interpreter's own: armv7l for a 32-bit one under a 64-bit kernel."""
    glibc: str | None
    macos: str | None
    markers: Mapping[str, str] = field(hash=False)
    """What the device says for PEP 508's environment markers."""

    def __str__(self) -> str:
        """Write it as errors and plans name it."""
        system = f"macOS {self.macos}" if self.macos else f"glibc {self.glibc}"
        return f"Python {self.version} ({self.abi}), {self.machine}, {system}"

    def key(self) -> dict[str, object]:
        """Return what the choice of wheels depends on; a new kernel changes nothing."""
        markers = {name: value for name, value in self.markers.items() if name not in ("platform_release", "platform_version")}
        return {"python": self.version, "abi": self.abi, "platforms": platforms(self), "markers": markers}


@dataclass(frozen=True)
class Wheel:
    """One file of a wheelhouse."""

    name: str
    """Canonical: lower case, with hyphens."""
    version: str
    path: Path
    sha256: str
    bytes: int
    unpacked_bytes: int
    requires: tuple[Requirement, ...] = field(hash=False)
    licence: str = ""
    """As its author says; empty: nothing short."""


@dataclass(frozen=True)
class Wheelhouse:
    """All that an environment needs."""

    wheels: tuple[Wheel, ...]
    kept: bool
    """Everything was here from an earlier time."""


@dataclass
class _Want:
    """What all requirements together ask of one distribution."""

    specifiers: SpecifierSet = field(default_factory=SpecifierSet)
    askers: list[str] = field(default_factory=list)


def platforms(python: Interpreter) -> list[str]:
    """List the platform tags that an interpreter takes, the best first."""
    if python.macos is not None:
        major, minor, *_ = (int(part) for part in f"{python.macos}.0".split("."))
        return list(tags.mac_platforms((major, minor), python.machine))
    _, minor = (int(part) for part in str(python.glibc).split(".")[:2])
    found = []
    for each in range(minor, OLDEST.get(python.machine, 17) - 1, -1):
        found.append(f"manylinux_2_{each}_{python.machine}")
        if each in LEGACY:
            found.append(f"{LEGACY[each]}_{python.machine}")
    return [*found, f"linux_{python.machine}"]


def parse(requirements: Sequence[str]) -> list[Requirement]:
    """Read requirements as pip does; `InputError` says which cannot be read."""
    found = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"requirement {text!r}: {reason}; write it as for pip, for instance onnxruntime==1.10.0") from error
        if requirement.url:
            raise InputError(f"requirement {text!r}: no addresses; name a version, and its folder by PIP_FIND_LINKS")
        found.append(requirement)
    return found


def resolve(requirements: Sequence[str], python: Interpreter, folder: Path, progress: Progress) -> Wheelhouse:
    """Find and fetch the wheels that fit a device, and theirs in turn.

    What was resolved before is not asked again: the same requirements for the
    same Python give the same wheels, also without a network. `folder` is this
    computer's wheelhouse. Raises `InputError` where something has no wheel for
    the device, `TransportError` where the package index cannot be reached.
    """
    roots = parse(requirements)
    house = folder / sha256_json(python.key())[:16]
    lock = house / f"{sha256_json(sorted(str(root) for root in roots))[:16]}.json"
    kept = _kept(lock)
    if kept is not None:
        return Wheelhouse(kept, kept=True)
    with storage(house):
        house.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Wheel] = {}
    for _ in range(GENERATIONS):
        wants = _wants(roots, chosen, python)
        missing = {name: want for name, want in wants.items() if name not in chosen or not _meets(chosen[name], want)}
        if not missing:
            wheels = tuple(chosen[name] for name in sorted(wants))
            write_json(lock, {wheel.path.name: wheel.sha256 for wheel in wheels})
            return Wheelhouse(wheels, kept=False)
        chosen |= {wheel.name: wheel for wheel in _fetch(missing, python, house, progress)}
    clash = "; ".join(asker for want in missing.values() for asker in dict.fromkeys(want.askers))
    raise InputError(f"{', '.join(requirements)}: no versions that fit one another were found ({clash}); name them yourself")


def _kept(lock: Path) -> tuple[Wheel, ...] | None:
    """Read what an earlier resolution chose; None where there is none, or a file is missing or was changed."""
    try:
        files: dict[str, str] = json.loads(lock.read_text(encoding="utf-8"))
        wheels = tuple(read(inside(lock.parent, name)) for name in files)
    except (OSError, ValueError, InputError):
        return None
    return wheels if [wheel.sha256 for wheel in wheels] == list(files.values()) else None


def read(path: Path) -> Wheel:
    """Read what a wheel says of itself; `InputError` where it is damaged."""
    try:
        name, version, *_ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            [metadata] = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            head = email.parser.BytesParser().parsebytes(archive.read(metadata), headersonly=True)
            unpacked = sum(entry.file_size for entry in archive.infolist())
        requires = tuple(Requirement(text) for text in head.get_all("Requires-Dist", []))
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path.name}: not a wheel that can be read ({error}); remove {path} and run again") from error
    licence = str(head.get("License-Expression") or head.get("License") or "")
    said = licence if len(licence) <= 60 and "\n" not in licence else ""
    return Wheel(str(name), str(version), path, sha256_file(path), path.stat().st_size, unpacked, requires, said)


def _wants(roots: Sequence[Requirement], chosen: Mapping[str, Wheel], python: Interpreter) -> dict[str, _Want]:
    """Follow the requirements through the wheels chosen so far, as the device would see them."""
    found: dict[str, _Want] = {}
    seen: set[str] = set()
    queue = [(root, "", ROOT) for root in roots]
    while queue:
        requirement, extra, asker = queue.pop(0)
        if not _applies(requirement, python, extra):
            continue
        name = canonicalize_name(requirement.name)
        want = found.setdefault(name, _Want())
        if f"{requirement} for {asker}" in seen:
            continue
        seen.add(f"{requirement} for {asker}")
        want.specifiers &= requirement.specifier
        want.askers.append(f"{asker} wants {requirement.name}{requirement.specifier}")
        if name in chosen:
            by = f"{name} {chosen[name].version}"
            queue += [(each, extra, by) for extra in ("", *sorted(requirement.extras)) for each in chosen[name].requires]
    return found


def _applies(requirement: Requirement, python: Interpreter, extra: str) -> bool:
    """Return whether a requirement's marker holds on the device; `InputError` where it cannot be judged there."""
    try:
        return requirement.marker is None or requirement.marker.evaluate({**python.markers, "extra": extra})
    except ValueError as error:
        raise InputError(f"{requirement}: its marker cannot be judged for {python} ({error})") from error


def _meets(wheel: Wheel, want: _Want) -> bool:
    return want.specifiers.contains(wheel.version, prereleases=True)


def _fetch(wants: Mapping[str, _Want], python: Interpreter, house: Path, progress: Progress) -> list[Wheel]:
    """Let pip fetch one wheel for each; they are in the house when this returns."""
    with storage(house, own=False), tempfile.TemporaryDirectory(dir=house, prefix=".fetch-") as place:
        lines = []
        for line in _pip(_arguments(wants, python, place)):
            lines.append(line)
            if line.strip().startswith("Downloading "):
                progress(f"fetching {line.strip().removeprefix('Downloading ').rsplit('/', 1)[-1]}", 0, 1)
        arrived = sorted(Path(place).glob("*.whl"))
        if len(arrived) != len(wants):
            raise _explain("\n".join(lines), wants, python)
        for path in arrived:
            os.replace(path, house / path.name)
    return [read(house / path.name) for path in arrived]


def _arguments(wants: Mapping[str, _Want], python: Interpreter, place: str) -> list[str]:
    fixed = ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--progress-bar", "off", "--retries", "2"]
    abis = [argument for abi in (python.abi, "abi3", "none") for argument in ("--abi", abi)]
    accepted = [argument for tag in platforms(python) for argument in ("--platform", tag)]
    named = [f"{name}{want.specifiers}" for name, want in wants.items()]
    return [*fixed, "--dest", place, "--python-version", python.version, *abis, *accepted, "--", *named]


def _pip(arguments: Sequence[str]) -> Iterator[str]:
    """Run `pip download` and yield its lines; `TransportError` where it takes too long."""
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    assert process.stdout is not None
    late = threading.Timer(FETCH_SECONDS, process.kill)
    late.daemon = True
    late.start()
    try:
        yield from process.stdout
        process.wait()
    finally:
        expired = not late.is_alive()
        late.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if expired:
        raise TransportError(f"pip did not fetch the wheels within {FETCH_SECONDS / 60:.0f} min; run again, what arrived is kept")


def _explain(output: str, wants: Mapping[str, _Want], python: Interpreter) -> Exception:
    """Turn what pip said into one line: which requirement has no wheel, and what has one."""
    if "No module named pip" in output:
        return InputError(f"{sys.executable} has no pip, which fetches the wheels; run: {sys.executable} -m ensurepip --upgrade")
    if "No space left on device" in output:
        return StorageError("the disk is full; free some space, or choose another folder by --work")
    match = re.search(r"satisfies the requirement (.+?) \(from versions: (.*)\)", output)
    if match is None or (match[2] == "none" and UNREACHABLE.search(output)):
        last = [line.strip() for line in output.splitlines() if line.strip()]
        why = "the package index cannot be reached" if UNREACHABLE.search(output) else "pip ended without the wheels"
        remedy = "connect this computer to it once, or name a folder of wheels by PIP_FIND_LINKS"
        return TransportError(f"{why}; {remedy} ({last[-1][:300] if last else 'it said nothing'})")
    name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", match[1], maxsplit=1)[0])
    askers = list(dict.fromkeys(wants[name].askers)) if name in wants else []
    near = nearest(match[1], match[2])
    hint = f"the nearest that has one is {name}=={near}" if near else f"no version of {name} has one; is the name right?"
    more = f" ({'; '.join(askers)})" if len(askers) > 1 or not "".join(askers).startswith(ROOT) else ""
    return InputError(f"{match[1]} has no wheel for {python}: {hint}{more}")


def nearest(requirement: str, versions: str) -> str | None:
    """Choose, of the versions that pip lists, the one that a user would take instead; None where there is none."""
    known = sorted(version for text in versions.split(",") if (version := _version(text.strip())) and not version.is_prerelease)
    wanted = re.search(r"==\s*([\w.!+-]+)", requirement)
    exact = _version(wanted[1]) if wanted else None
    below = [version for version in known if exact is None or version <= exact]
    chosen = below[-1] if below else known[0] if known else None
    return None if chosen is None else str(chosen)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
