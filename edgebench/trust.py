"""Files that can run code when they are loaded, or name code to be run, and how edgebench knows the user's own.

torch loads exported programs (`.pt2`) by pickle, by evaluating expressions and
by loading libraries, and finds a file's members otherwise than Python does. So
it is given three kinds alone: what this user's edgebench wrote, which it knows
by hash from a list in the user's own state folder; what the user vouches for;
and of any other file a new one, which edgebench writes of what it understood in
it (`agent/runtimes/programs.py`), after a process without rights has loaded and run that
(`sandbox.py`). This process, and a device, then load it too: what is promised
of them rests on the new file, the trial is a second look.

Targets, fleets, profiles and model folders can name code: an interpreter, a
meter's program, plugins, a network's factory. It runs once the user has said so
for those very bytes (`edgebench trust FILE`), or says so for this command.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgebench.agent.runtimes.programs import Refused
from edgebench.agent.runtimes.rt_torch import cleaned
from edgebench.architectures import is_listed
from edgebench.errors import StorageWarning, UntrustedFile
from edgebench.files import archive_names, sha256_file, storage
from edgebench.sandbox import trial
from edgebench.schema import Bundle

PROGRAM = ".pt2"
MEMBER = re.compile(r"/models/.*\.json$|/data/aotinductor/|^/serialized_exported_program\.json$")
"""What only an exported program has in it; the last until torch 2.7."""

LIBRARIES = ("timm:", "hf:")
"""Beginnings of architectures that an installed library builds; of the folder that one may name nothing runs."""

CAN_RUN = "exported programs can run code when they are loaded"
VOUCH = "give --trust (in Python trust=True) if you know who made it"
LARGEST = 4 << 30

_written: set[str] = set()
"""By this process, where no list can be kept."""
_tried: dict[str, str | None] = {}
"""What speaks against files that this process tried apart, by their hashes."""


def is_program(path: Path) -> bool:
    """Return whether a file is an exported program of torch's: by its name, or by what a zip of any name holds."""
    if path.suffix.lower() == PROGRAM:
        return True
    return any(MEMBER.search(f"/{name.lower()}") for name in archive_names(path))


def programs(folder: Path, bundle: Bundle, runtime: str) -> Iterator[str]:
    """Name a bundle's files that could run code where this runtime loads them: all that torch opens, whatever it looks like."""
    for name in bundle.files:
        if (name == bundle.entry and "torch" in (bundle.format, bundle.runtime, runtime)) or is_program(folder / name):
            yield name


def check_bundle(folder: Path, bundle: Bundle, runtime: str, trust: bool) -> None:
    """Raise `UntrustedFile` unless edgebench wrote a bundle's programs, the user vouches for them, or they pass."""
    for name in programs(folder, bundle, runtime):
        _check(folder / name, bundle.files[name].sha256, trust)


def check_program(path: Path, trust: bool) -> bytes | None:
    """Return what torch may load in an exported program's place; None where it may load the file itself.

    That is: no exported program, one that edgebench wrote, or that the user vouches
    for. `UntrustedFile` where it is another's, and is refused, or cannot be tried here.
    """
    return _check(path, sha256_file(path), trust) if is_program(path) else None


def check_written(path: Path, names: str, trust: bool) -> None:
    """Raise `UntrustedFile` for a file that names code, unless edgebench wrote it or the user vouches for it."""
    if not trust and _doubt(sha256_file(path)) is not None:
        refuse_foreign(path, [names], ())


def names_code(architecture: str) -> bool:
    """Return whether an architecture is a factory of the user's, `package.module:factory`, rather than a name of a library's."""
    return ":" in architecture and not architecture.startswith(LIBRARIES) and not is_listed(architecture)


def is_own(folder: Path, bundle: Bundle, runtime: str) -> bool:
    """Return whether edgebench knows all programs of a bundle as its own."""
    return all(_doubt(bundle.files[name].sha256) is None for name in programs(folder, bundle, runtime))


def _check(path: Path, digest: str, trust: bool) -> bytes | None:
    doubt = None if trust else _doubt(digest)
    if doubt is None:
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"is larger than {LARGEST >> 30} GB")
        content = cleaned(path.read_bytes())
    except Refused as refused:
        raise UntrustedFile(f"{path}: {CAN_RUN}, and {doubt} ({refused}); {VOUCH}") from refused
    key = hashlib.sha256(content).hexdigest()
    if key not in _tried:
        _tried[key] = trial(content)
    if _tried[key] is not None:
        raise UntrustedFile(f"{path}: {CAN_RUN}, and {doubt} ({_tried[key]}); {VOUCH}")
    return content


# ---------------------------------------------------------------- the list


def remember(digest: str) -> None:
    """Note a file that edgebench wrote, or copied for a user who vouched for it; warns where that cannot be kept.

    An empty file for each: whole or not there at all, whoever else writes at the same time.
    """
    _written.add(digest)
    place = _place()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(place / digest, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        warnings.warn(
            f"{place}: no note could be kept of an exported program that was written ({error.strerror}); "
            "from the next command on it counts as foreign; make room there, or set XDG_STATE_HOME to another folder",
            StorageWarning,
            stacklevel=2,
        )


def _doubt(digest: str) -> str | None:
    """Say why edgebench does not know a file as its own; None where it does."""
    if digest in _written:
        return None
    return _absent(_place(), digest, "the list of those that edgebench wrote", "edgebench did not write this one")


def _absent(place: Path, digest: str, which: str, reason: str) -> str | None:
    """Say why a list does not hold a file: `reason` where it is not there, else what is wrong with the list."""
    try:
        folder = place.stat()
        if folder.st_uid != os.getuid() or folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{which} could be another's ({place}: owner or permissions)"
        (place / digest).stat()
    except FileNotFoundError:
        return reason
    except OSError as error:
        return f"{which} cannot be read ({place}: {error.strerror})"
    return None


def _place() -> Path:
    return _own("XDG_STATE_HOME", ".local/state") / "written"


def _own(variable: str, usual: str) -> Path:
    """Name edgebench's folder among the user's own; a relative one would lie in whatever folder it works in, and be anybody's."""
    named, home = os.environ.get(variable, ""), os.path.expanduser("~")
    if os.path.isabs(named):
        return Path(named, "edgebench")
    return Path(home, usual, "edgebench") if os.path.isabs(home) else Path(os.devnull)  # where nothing can be


# ---------------------------------------------------------------- files that name code


Check = Callable[[Path, Sequence[str], Sequence[Path]], None]
"""Is told a file, what code it names, and the files of that code; raises where it must not run."""


def refuse_foreign(path: Path, names: Sequence[str], files: Sequence[Path]) -> None:
    """Raise `UntrustedFile` unless the user has said that this file may run what it names."""
    for each in (path, *files):
        doubt = _absent(_trusted(), sha256_file(each), "the list of files that you trust", "nobody said yet that it may")
        if doubt is not None:
            beside = "" if each == path else f" for {each.name} as it is"
            raise UntrustedFile(
                f"{path}: names code to be run ({'; '.join(names)}), and {doubt}{beside}; look at it, then say so once: "
                f"edgebench trust {path}"
            )


def accept(path: Path, names: Sequence[str], files: Sequence[Path]) -> None:
    """Let everything run: the `Check` of whoever vouches for a command's files, or only looks at them."""


def checking(trust: bool) -> Check:
    """Return the check of a command to which `--trust` was given, or not."""
    return accept if trust else refuse_foreign


def allow(path: Path, files: Sequence[Path] = ()) -> None:
    """Let a file run the code that it names from now on, as long as it and that code stay as they are."""
    place = _trusted()
    with storage(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (path, *files):
            (place / sha256_file(each)).write_text(str(each.resolve()), encoding="utf-8", errors="surrogateescape")


def allowed() -> dict[str, str]:
    """List what may run code: hashes, and the path of each when it was allowed."""
    place = _trusted()
    paths = sorted(place.iterdir()) if place.is_dir() else []
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()}


def forget(path: Path) -> bool:
    """Take a file from the list, by its content or by the path that it had; return whether it was there."""
    digest, name = sha256_file(path) if path.is_file() else "", str(path.resolve())
    found = [each for each, known in allowed().items() if each == digest or known == name]
    for each in found:
        (_trusted() / each).unlink(missing_ok=True)
    return bool(found)


def _trusted() -> Path:
    return _own("XDG_CONFIG_HOME", ".config") / "trusted"
