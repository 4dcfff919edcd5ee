"""Files that can run code when they are loaded, and how edgebench knows those that it wrote itself.

torch loads exported programs (`.pt2`) by pickle, by evaluating expressions and
by loading libraries, and finds a file's members otherwise than Python does. So
it is given three kinds alone: what this user's edgebench wrote, which it knows
by hash from a list in the user's own state folder; what the user vouches for;
and of any other file a new one, which edgebench writes of what it understood in
it (`agent/programs.py`), after a process without rights has loaded and run that
(`sandbox.py`). This process, and a device, then load it too: what is promised
of them rests on the new file, the trial is a second look.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgebench.agent.programs import Refused
from edgebench.agent.rt_torch import cleaned
from edgebench.errors import StorageWarning, UntrustedFile
from edgebench.files import sha256_file
from edgebench.sandbox import trial
from edgebench.schema import Bundle

PROGRAM = ".pt2"
MEMBER = re.compile(r"/models/.*\.json$|/data/aotinductor/|^/serialized_exported_program\.json$")
"""What only an exported program has in it; the last until torch 2.7."""

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
    try:
        with zipfile.ZipFile(path) as archive:
            names = [f"/{name.lower()}" for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
    return any(MEMBER.search(name) for name in names)


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
    place = _place()
    try:
        folder = place.stat()
        if folder.st_uid != os.getuid() or folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"the list of those that edgebench wrote could be another's ({place}: owner or permissions)"
        (place / digest).stat()
    except FileNotFoundError:
        return "edgebench did not write this one"
    except OSError as error:
        return f"the list of those that edgebench wrote cannot be read ({place}: {error.strerror})"
    return None


def _place() -> Path:
    """Name the folder of notes; a relative one would lie in whatever folder edgebench works in, and be anybody's."""
    named, home = os.environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~")
    if os.path.isabs(named):
        state = Path(named)
    else:
        state = Path(home, ".local", "state") if os.path.isabs(home) else Path(os.devnull)  # where nothing can be
    return state / "edgebench" / "written"
