"""A device's environments for runtimes: made from wheels, checked, and only then put in force.

    env/<name>/                 a virtual environment
    env/<name>/edgebench.json   what is in it; written when all was checked: a folder without it is half made
    env/current                 link to the one in force, switched at the very end
    wheels/                     what was pushed and is still to be installed

All of it lies in the device's cache folder, beside the agent's own.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from typing import Any, Callable, Dict, List

from ..events import Events
from ..hangup import when_host_leaves
from . import interpreter, trial_import, wheels

MANIFEST = "edgebench.json"
BEAT_SECONDS = 1.0


class Refused(Exception):
    """The device cannot have it; the message says why, and what to do."""


def main(runtimes: List[str]) -> int:
    """Do what the job on standard input says: `facts`, `install` or `remove`; `runtimes` are those that were packed.

    A virtual environment is left first: a new one is made from the system's Python.
    """
    missing = interpreter.leave(sys.argv[2:])
    events = Events()
    job = json.loads(sys.stdin.readline())
    trials = trial_import.Trials(lambda name: events.emit("checking", runtime=name))
    when_host_leaves(lambda: _leave(trials))
    signal.signal(signal.SIGTERM, lambda *_: _leave(trials))
    try:
        if missing is not None:
            raise Refused(missing)
        Environments(runtimes, events, trials).act(job)
    except (Refused, wheels.BadWheel) as error:
        events.emit("failed", stage="setup", reason=str(error))
        return 1
    except OSError as error:
        events.emit("failed", stage="setup", reason="%s: %s" % (error.filename or "the device", error.strerror or error))
        return 1
    events.emit("done")
    return 0


def _leave(trials: trial_import.Trials) -> None:
    """End what was started, and this process; what is half made is removed by the next setup."""
    trials.stop()
    os._exit(3)


class Environments(object):
    """The folder `env` in the cache, and what may be done with it."""

    def __init__(self, runtimes: List[str], events: Events, trials: trial_import.Trials) -> None:
        self.root = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
        self.home = os.path.join(self.root, "env")
        self.current = os.path.join(self.home, "current")
        self._runtimes = runtimes
        self._events = events
        self._trials = trials
        self._spoke = 0.0

    def act(self, job: Dict[str, Any]) -> None:
        """Do what a job says."""
        if job["action"] == "facts":
            self._events.emit("device", **self.facts())
            return
        os.makedirs(self.home, exist_ok=True)
        with open(os.path.join(self.home, ".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refused("another setup is at work on this device; wait until it is done, and run again")
            if job["action"] == "remove":
                self.remove()
            else:
                self.install(job)

    def facts(self) -> Dict[str, Any]:
        """Tell what an environment must fit, and what is there already."""
        disk = os.statvfs(self.root)
        pushed = os.path.join(self.root, "wheels")
        return dict(
            interpreter.describe(),
            root=self.root,
            free_bytes=disk.f_bavail * disk.f_frsize,
            environment=self._manifest(self.current),
            wheels={os.path.relpath(path, pushed): os.path.getsize(path) for path in _files(pushed)},
        )

    def _manifest(self, folder: str) -> Any:
        try:
            with open(os.path.join(folder, MANIFEST)) as stream:
                return json.load(stream)
        except (OSError, ValueError):
            return None

    def install(self, job: Dict[str, Any]) -> None:
        """Make an environment unless it is there, check it, and put it in force; the old one goes last."""
        folder = os.path.join(self.home, job["name"])
        in_force = os.path.basename(os.path.realpath(self.current))
        self._clear({in_force, job["name"]} if self._manifest(folder) else {in_force} - {job["name"]})
        made = not os.path.isdir(folder)
        try:
            if made:
                self._make(folder, job)
            found = self._check(folder, job, made)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._seal(folder, dict(job["manifest"], name=job["name"], runtimes=found))
        freed = self._clear({job["name"]}) + _remove(os.path.join(self.root, "wheels"))
        self._events.emit("installed", made=made, runtimes=found, freed_bytes=freed, path=folder)

    def _make(self, folder: str, job: Dict[str, Any]) -> None:
        import venv  # its absence was told with the facts

        self._verify(job["wheels"])
        self._events.emit("making", path=folder)
        venv.EnvBuilder(system_site_packages=job["system_site_packages"], symlinks=True, with_pip=False).create(folder)
        [site] = [path for path, names, _ in os.walk(folder) if os.path.basename(path) == "site-packages"][:1]
        for wheel in job["wheels"]:
            wheels.unpack(wheel["path"], folder, site, self._beat("unpacking", wheel["file"], wheel["unpacked_bytes"]))

    def _verify(self, given: List[Dict[str, Any]]) -> None:
        """Check the wheels' hashes; a changed one is removed, so that it is pushed anew."""
        for wheel in given:
            if wheels.sha256(wheel["path"], self._beat("verifying", wheel["file"], wheel["bytes"])) != wheel["sha256"]:
                os.unlink(wheel["path"])
                raise Refused("%s was changed on the device and is removed there; run again to push it anew" % wheel["file"])

    def _beat(self, what: str, name: str, total: int) -> Callable[[int], None]:
        """Return what counts bytes and tells of them once a second: the host waits for signs of life."""
        done = [0]

        def count(size: int) -> None:
            done[0] += size
            if time.monotonic() - self._spoke > BEAT_SECONDS:
                self._spoke = time.monotonic()
                self._events.emit(what, file=name, done=done[0], total=total)

        count(0)
        return count

    def _check(self, folder: str, job: Dict[str, Any], made: bool) -> Dict[str, Any]:
        """Import every runtime in the environment; one that came in these wheels must work."""
        python = os.path.join(folder, "bin", "python")
        found = {name: self._trials.run(python, name) for name in self._runtimes}
        brought = set(job["distributions"])
        ours = [name for name, fact in found.items() if brought & set(fact["of"])]
        broken = ["%s: %s" % (name, found[name]["reason"]) for name in ours if found[name]["reason"]]
        if broken:
            remedy = "" if made else "; run again to make it anew"
            raise Refused("the environment does not run on this device and is removed (%s)%s" % ("; ".join(broken), remedy))
        return {name: {"version": fact["version"], "reason": fact["reason"]} for name, fact in found.items()}

    def _seal(self, folder: str, manifest: Dict[str, Any]) -> None:
        """Write the manifest and switch `current`, each whole or not at all."""
        path = os.path.join(folder, MANIFEST)
        with open(path + ".part", "w") as stream:
            json.dump(manifest, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path + ".part", path)
        link = os.path.join(self.home, ".current")
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(os.path.basename(folder), link)
        os.replace(link, self.current)

    def _clear(self, wanted: "set[str]") -> int:
        """Remove every environment but the wanted ones; returns the bytes that were freed."""
        others = [name for name in os.listdir(self.home) if name not in wanted | {"current", ".lock"}]
        return sum(_remove(os.path.join(self.home, name)) for name in others)

    def remove(self) -> None:
        """Remove all environments, wheels and what was half pushed; the device is as it was before."""
        if os.path.lexists(self.current):
            os.unlink(self.current)  # first: a half removed environment is never in force
        freed = sum(_remove(os.path.join(self.root, name)) for name in ("env", "wheels", "partial"))
        self._events.emit("removed", freed_bytes=freed)


def _files(folder: str) -> List[str]:
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]


def _remove(path: str) -> int:
    """Remove a file, link or folder; returns its bytes."""
    if os.path.islink(path) or not os.path.isdir(path):
        size = os.lstat(path).st_size if os.path.lexists(path) else 0
        if os.path.lexists(path):
            os.unlink(path)
        return size
    size = sum(os.lstat(name).st_size for name in _files(path))
    shutil.rmtree(path)
    return size
