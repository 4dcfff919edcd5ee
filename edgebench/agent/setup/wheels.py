"""Wheels into an environment, without pip: a device may lack it, or the parts of Python that an old pip wants.

A wheel is a zip whose files belong into site-packages; what lies in `*.data`
has a place of its own (the binary distribution format, PyPA specifications).
"""

import hashlib
import os
import shutil
import stat
import zipfile
from typing import Callable, Optional

BLOCK = 1 << 20


class BadWheel(Exception):
    """A wheel that must not be unpacked; the message says why."""


def sha256(path: str, done: Callable[[int], None]) -> str:
    """Hash a file's bytes; `done` hears of each block's size."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
            done(len(block))
    return digest.hexdigest()


def unpack(path: str, prefix: str, site: str, done: Callable[[int], None]) -> None:
    """Put a wheel's files into an environment; `done` hears of the bytes as they are written.

    Raises `BadWheel` where a name would leave the environment or a file is
    damaged. Scripts are left out: what runs here is imported.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            place = _place(entry.filename, prefix, site)
            if place is None or entry.filename.endswith("/"):
                continue
            try:
                _write(archive, entry, place)
            except (zipfile.BadZipFile, EOFError) as error:
                raise BadWheel("%s: %s is damaged (%s)" % (os.path.basename(path), entry.filename, error))
            done(entry.file_size)


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: str) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with archive.open(entry) as source, open(place, "wb") as copy:
        shutil.copyfileobj(source, copy, BLOCK)
    mode = entry.external_attr >> 16
    if stat.S_ISREG(mode) and mode & 0o111:
        os.chmod(place, os.stat(place).st_mode | stat.S_IXUSR)


def _place(name: str, prefix: str, site: str) -> Optional[str]:
    """Say where a file of a wheel belongs, or None where it is not wanted."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts:
        raise BadWheel("the file name %r leads out of the environment" % name)
    parts = [part for part in parts if part not in ("", ".")]
    if not parts:
        return None
    if not parts[0].endswith(".data"):
        return os.path.join(site, *parts)
    kind, rest = (parts + [""])[1], parts[2:]
    if kind not in ("purelib", "platlib", "data") or not rest:
        return None
    return os.path.join(prefix if kind == "data" else site, *rest)
