"""Files that are whole or not there at all, and the hashes that prove it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any

from edgebench import leftovers
from edgebench.errors import InputError, StorageError

PROGRESS: ContextVar[Callable[[str, float, float], None]] = ContextVar("PROGRESS", default=lambda *_: None)
"""Whom to tell how far the files of a data set are read, where that takes long."""


def sha256_file(path: Path) -> str:
    """Hash a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def archive_names(path: Path) -> list[str]:
    """List a zip's members; none where it is no zip, or a broken one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []


def canonical(value: object) -> bytes:
    """Write a JSON value in its one canonical form: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(value: object) -> str:
    """Hash a JSON value, whatever the order of its keys."""
    return hashlib.sha256(canonical(value)).hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Read JSON that came from outside; `ValueError` where a key stands twice in one object, of which readers take either."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:80]!r} stands twice in it")
    return found


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Add the hash of everything else under `sha256`."""
    body = {key: value for key, value in content.items() if key != "sha256"}
    return {**body, "sha256": sha256_json(body)}


def is_sealed(content: dict[str, Any]) -> bool:
    """Return whether the `sha256` inside still is the hash of the rest."""
    return bool(content.get("sha256") == seal(content)["sha256"])


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one.

    Raises `StorageError` where the folder cannot be written or the disk is
    full; nothing half-written stays behind, and what killed processes left in
    the folder goes (`leftovers` says when).
    """
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        leftovers.sweep(path.parent)
        name, handle = leftovers.new_file(path)
        try:
            with os.fdopen(handle, "wb") as stream:  # its lock is held until it has its name
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: object) -> None:
    """Write a JSON file that people can read and diff."""
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextmanager
def new_folder(path: Path, manifest: str) -> Iterator[Path]:
    """Fill a folder beside `path` and move it there when the block succeeds.

    It may replace a folder with the same kind of manifest, and nothing else.
    """
    if path.exists() and not (path / manifest).is_file():
        raise StorageError(f"{path}: is there already and holds no {manifest}; remove it, or choose another folder")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        leftovers.sweep(path.parent)
        staging, lock = leftovers.new_folder(path)
    try:
        with storage(path, own=False):
            yield staging
            _move(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _move(staging: Path, path: Path) -> None:
    """Put a folder in the place of another, which goes."""
    if not path.exists():
        os.replace(staging, path)
        return
    old = staging.with_name(staging.name + leftovers.REPLACED)
    with leftovers.locked(path):  # before it has a name by which others would take it for left behind
        os.replace(path, old)
        os.replace(staging, path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def storage(path: Path, *, own: bool = True) -> Iterator[None]:
    """Turn the operating system's refusals to store into one clear line.

    own: the block stores and does nothing else; other code may miss a file for reasons of its own.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space or choose another folder",
            errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
            errno.EACCES: "permission denied; choose a folder that you may write to",
            errno.EPERM: "permission denied; choose a folder that you may write to",
            errno.EROFS: "the file system is read-only; choose another folder",
            errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
            errno.EEXIST: "a file stands where a folder is needed; choose another path",
            errno.EISDIR: "a folder stands where a file is needed; name a file",
            errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
            errno.EFBIG: "larger than its file system or `ulimit -f` allows; choose another folder or raise the limit",
            errno.EIO: "the disk reports an error; check it, or choose another folder",
        }
        if own:
            reasons[errno.ENOENT] = "nothing can be made there; choose another folder"
        if error.errno in reasons:
            raise StorageError(f"{path}: {reasons[error.errno]}") from error
        raise


def inside(folder: Path, name: str) -> Path:
    """Join a name that came from outside; `InputError` where it would leave the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or not pure.parts:
        raise InputError(f"{folder}: the file name {name!r} leads out of the folder; refuse this file and fetch it anew")
    return folder / pure


def below(folder: Path) -> Iterator[Path]:
    """List the files below a folder in order; links are listed and never followed."""
    if folder.is_symlink():
        yield folder
        return
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (Path(place, name) for name in sorted([*names, *links]))
