"""Requests about files: what the cache folder holds, what it receives, and what it gives up for that."""

import hashlib
import io
import os
import shutil
import time
from typing import IO, Callable, Dict, List, Tuple

from .checks import hexadecimal, inside, whole
from .messages import Json, Refused, in_background, read_request, refusal, say, write_all
from .runs import Run

MARGIN = 16 << 20
"""Free space that is left to the device."""
IDLE_HEARTBEAT_SECONDS = 15.0
"""A host that vanished is noticed when it does not take these."""
CONTENT = ("agents", "bundles", "sets", "wheels")
PARTIAL = "partial"


def serve(root: str, source: IO[bytes]) -> None:
    """Answer requests until the connection ends; whatever else goes wrong than a refusal ends it."""
    store = Store(root)
    answers: Dict[str, Callable[..., Json]] = {"look": store.look, "push": store.push}
    say({"edgebench": 1})
    in_background(_pulse)
    for line in iter(source.readline, b""):
        request = read_request(line)
        wanted = request.pop("do", None)
        try:
            if wanted not in answers:
                raise Refused("failed", "nothing answers to %r" % (wanted,))
            say(answers[wanted](source=source, **request))
        except Refused as refused:
            say(refusal(refused))


def _pulse() -> None:
    """Give a sign of life."""
    try:
        while True:
            time.sleep(IDLE_HEARTBEAT_SECONDS)
            say({})
    except OSError:
        os._exit(0)


class Store(object):
    """The cache folder."""

    def __init__(self, root: str) -> None:
        self.root = root

    def look(self, source: IO[bytes], name: str, size: int) -> Json:
        """Say where a file is, if it is there whole."""
        path = _content(self.root, name)
        there = os.path.isfile(path) and os.path.getsize(path) == whole(size)
        if there:
            _touch(self._unit(name))
        return {"path": path, "there": there}

    def push(self, source: IO[bytes], name: str, size: int, sha256: str, limit: int, needed: List[str]) -> Json:
        """Receive a file, from where an earlier connection left off; it gets its name when its hash is right."""
        path = _content(self.root, name)
        partial = inside(self.root, PARTIAL + "/" + hexadecimal(sha256))
        os.makedirs(os.path.dirname(partial), exist_ok=True)
        have = os.path.getsize(partial) if os.path.isfile(partial) else 0
        if have > whole(size):
            os.unlink(partial)
            have = 0
        self.make_room(size - have, whole(limit), [partial] + [self._unit(each) for each in needed])
        say({"offset": have})
        if self._receive(source, partial, have, size) != sha256:
            _remove(partial)
            return {"kind": "hash", "error": "%s arrived with another hash" % name}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(partial, path)
        return {"path": path}

    def _receive(self, source: IO[bytes], partial: str, have: int, size: int) -> str:
        """Write what arrives to its place; returns the hash of all. What has arrived stays when the connection breaks.

        A session of a connection that broke may still be writing here: the same bytes to the same places.
        """
        digest = hashlib.sha256()
        with io.open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", 0) as stream:
            while stream.tell() < have:
                digest.update(stream.read(min(have - stream.tell(), 1 << 20)))
            while stream.tell() < size:
                block = source.read(min(size - stream.tell(), 1 << 20))
                if not block:
                    raise EOFError
                digest.update(block)
                try:
                    write_all(stream, block)
                except OSError:
                    os.unlink(partial)  # it would only fill the disk
                    raise
            os.fsync(stream.fileno())
        return digest.hexdigest()

    def make_room(self, more: int, limit: int, kept: List[str]) -> None:
        """Remove what was not used for longest until so much more fits; `Refused` where it cannot."""
        units = self._units()
        total = more + sum(size for _, size, _ in units)
        removable = [] if any(run.alive() for run in Run.every(self.root)) else sorted(units, key=lambda unit: unit[2])
        for path, size, _ in removable:
            if total <= limit and self._free() >= more + MARGIN:
                return
            if path not in kept:
                _remove(path)
                total -= size
        if total > limit:
            text = "the cache %s may have %.1f MiB, and %.1f MiB are needed at once"
            raise Refused("limit", text % (self.root, limit / 2.0**20, total / 2.0**20))
        if self._free() < more + MARGIN:
            text = "%s needs %.1f MiB more, and the device has %.1f MiB free"
            raise Refused("space", text % (self.root, (more + MARGIN) / 2.0**20, self._free() / 2.0**20))

    def _unit(self, name: str) -> str:
        """Name what is removed together: a bundle's folder, or a file."""
        _content(self.root, name)
        return os.path.join(self.root, *name.split("/")[:2])

    def _units(self) -> List[Tuple[str, int, float]]:
        """List what is removed together: path, bytes, last use."""
        found = []
        for kind in CONTENT + (PARTIAL,):
            folder = os.path.join(self.root, kind)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                found.append((path, _size(path), os.lstat(path).st_mtime))
        return found

    def _free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize


def _content(root: str, name: str) -> str:
    """Join the name of something that is kept by content."""
    path = inside(root, name)
    if name.count("/") < 1 or name.split("/")[0] not in CONTENT:
        raise Refused("failed", "%r is none of %s" % (name, ", ".join(CONTENT)))
    return path


def _touch(path: str) -> None:
    try:
        os.utime(path, None)
    except OSError:  # a file system that cannot be written serves what it has
        pass


def _size(path: str) -> int:
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(base, name)).st_size for base, _, names in os.walk(path) for name in names)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)
