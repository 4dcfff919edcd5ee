"""Files that can run code when they are loaded, and how edgebench knows those that it wrote itself.

torch loads exported programs (`.pt2`) by pickle, by evaluating expressions and
by loading libraries, and finds a file's members otherwise than Python does: no
look into such a file can tell that it is harmless. So only two kinds are
loaded: what this user's edgebench wrote, which it knows by hash from a list in
the user's own state folder, and what the user vouches for.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgebench.errors import StorageWarning, UntrustedFile
from edgebench.files import sha256_file
from edgebench.schema import Bundle

PROGRAM = ".pt2"
MEMBER = re.compile(r"/models/.*\.json$|/data/aotinductor/|^/serialized_exported_program\.json$")
"""What only an exported program has in it; the last until torch 2.7."""

_written: set[str] = set()
"""By this process, where no list can be kept."""


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
    """Raise `UntrustedFile` unless edgebench wrote a bundle's programs, or the user vouches for them."""
    for name in programs(folder, bundle, runtime):
        _check(folder / name, bundle.files[name].sha256, trust)


def check_program(path: Path, trust: bool) -> None:
    """Raise `UntrustedFile` where a file is an exported program, unless edgebench wrote it or the user vouches for it."""
    if is_program(path):
        _check(path, sha256_file(path), trust)


def is_own(folder: Path, bundle: Bundle, runtime: str) -> bool:
    """Return whether edgebench knows all programs of a bundle as its own."""
    return all(_doubt(bundle.files[name].sha256) is None for name in programs(folder, bundle, runtime))


def _check(path: Path, digest: str, trust: bool) -> None:
    doubt = None if trust else _doubt(digest)
    if doubt is not None:
        raise UntrustedFile(
            f"{path}: exported programs can run code when they are loaded, and {doubt}; "
            "give --trust (in Python trust=True) if you know who made it"
        )


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
