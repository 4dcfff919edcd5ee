"""The device's end of a connection: sent over it and run there by the system's Python, 3.6 or later.

One line of JSON asks for one of three things:

- `serve`: answer requests about files and kept programs, one line each;
- `exec`: run a program for as long as the connection lasts;
- `keep`: start a program that outlives the connection, or find it again, and tell what it writes.

It stands on its own: nothing of edgebench need be on the device. Whatever is
named by the other side is checked here once more.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Tuple

MARGIN = 16 << 20
"""Free space that is left to the device."""
EVENTS_BYTES = 512 << 20
"""A program that writes more is ended."""
STDERR_BYTES = 16 << 10
LONGEST_SECONDS = 24 * 3600
HEARTBEAT_SECONDS = 4.0
POLL_SECONDS = 0.2
ENDING_SECONDS = 3.0
OLD_SECONDS = 7 * 24 * 3600.0
CONTENT = ("agents", "bundles", "sets", "wheels")
Json = Dict[str, Any]


class Refused(Exception):
    """What was asked for cannot be done; `kind` is for the program, the text for the user."""

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


class Asked(BaseException):
    """A keeper was asked to end."""


def main(source: IO[bytes]) -> None:
    """Do what the first line asks for; whatever the shell printed before is not ours."""
    request = json.loads(source.readline().decode("utf-8"))
    reason = None
    try:
        root = _root(request["root"])
        if request["mode"] == "serve":
            serve(root, source)
        elif request["mode"] == "exec":
            sys.exit(execute(root, request["arguments"], request["stdin"], source))
        else:
            keep(root, request, source)
    except Refused as refused:
        reason = {"kind": refused.kind, "error": str(refused)}
    except BrokenPipeError:
        os._exit(0)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = {"kind": "failed", "error": _said(error)}
    if reason:
        say(reason)


def say(message: Json) -> None:
    """Write one line to the other side."""
    content = (json.dumps(message) + "\n").encode("ascii")
    while content:
        content = content[os.write(1, content) :]


def _root(path: str) -> str:
    root = os.path.expanduser(path)
    if not os.path.isabs(root) or "\0" in root or ".." in root.split("/"):
        raise Refused("failed", "%r is no folder that a cache could be in" % path)
    if not os.path.isdir(root):
        try:
            os.makedirs(root)
            os.chmod(root, 0o700)
        except OSError as error:
            raise Refused("space", "%s: %s" % (root, _said(error))) from error
    return os.path.realpath(root)


def inside(root: str, name: str) -> str:
    """Join a name from the other side; it stays below the root, and follows no link out of it."""
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise Refused("failed", "%r is no name below the cache folder" % name)
    path = os.path.join(root, *parts)
    if os.path.commonpath([root, os.path.realpath(os.path.dirname(path))]) != root:
        raise Refused("failed", "%r leads out of the cache folder" % name)
    return path


def _said(error: BaseException) -> str:
    reasons = {
        errno.ENOSPC: "the device's disk is full",
        errno.EDQUOT: "the disk quota on the device is used up",
        errno.EROFS: "the device's file system is read-only",
        errno.EACCES: "the device's user may not write there",
    }
    if isinstance(error, OSError) and error.errno in reasons:
        return reasons[error.errno]
    return "%s: %s" % (type(error).__name__, error)


def _read(path: str) -> Json:
    """Read a small JSON file; empty where there is none, or no whole one."""
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: str, content: Json) -> None:
    with open(path + ".new", "wb") as stream:
        stream.write(json.dumps(content).encode("ascii"))
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(path + ".new", path)


def boot() -> str:
    """Name this boot of the system."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


# ---------------------------------------------------------------- serve


def serve(root: str, source: IO[bytes]) -> None:
    """Answer requests until the connection ends."""
    store = Store(root)
    answers: Dict[str, Callable[..., Json]] = {"look": store.look, "push": store.push, "stop": store.stop}
    say({"edgebench": 1, "root": root, "python": "%d.%d" % sys.version_info[:2]})
    for line in iter(source.readline, b""):
        request = json.loads(line.decode("utf-8"))
        try:
            say(answers[request.pop("do")](source=source, **request))
        except Refused as refused:
            say({"kind": refused.kind, "error": str(refused)})
        except BrokenPipeError:
            return
        except EOFError:
            return
        except (OSError, TypeError, ValueError) as error:
            say({"kind": "space" if isinstance(error, OSError) else "failed", "error": _said(error)})


class Store(object):
    """The cache folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.used: List[str] = []
        """What this connection asked for: never evicted."""

    def look(self, source: IO[bytes], name: str, size: int) -> Json:
        """Say where a file is, if it is there whole."""
        path = inside(self.root, name)
        there = os.path.isfile(path) and os.path.getsize(path) == size
        if there:
            self._touch(name)
        return {"path": path, "there": there}

    def push(self, source: IO[bytes], name: str, size: int, sha256: str, limit: int) -> Json:
        """Receive a file, from where an earlier connection left off; it gets its name when its hash is right."""
        path = inside(self.root, name)
        partial = inside(self.root, "partial/" + _hexadecimal(sha256))
        self._touch(name)
        os.makedirs(os.path.dirname(partial), exist_ok=True)
        have = os.path.getsize(partial) if os.path.isfile(partial) else 0
        if have > size:
            os.unlink(partial)
            have = 0
        self.make_room(size - have, limit, partial)
        say({"offset": have})
        digest = self._receive(source, partial, size)
        if digest != sha256:
            os.unlink(partial)
            return {"kind": "hash", "error": "%s arrived with another hash" % name}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(partial, path)
        return {"path": path}

    def _receive(self, source: IO[bytes], partial: str, size: int) -> str:
        """Append what arrives; returns the hash of all. What has arrived stays when the connection breaks."""
        digest = hashlib.sha256()
        with open(partial, "ab+", 0) as stream:
            stream.seek(0)
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
            left = size - stream.seek(0, os.SEEK_END)
            refused: Optional[OSError] = None
            while left:
                block = source.read(min(left, 1 << 20))
                if not block:
                    raise EOFError
                left -= len(block)
                digest.update(block)
                try:
                    if refused is None:
                        _write_all(stream, block)
                except OSError as error:  # what is on its way must be read, or the next request would be lost in it
                    refused = error
            if refused is not None:
                os.unlink(partial)  # it would only fill the disk
                raise refused
            os.fsync(stream.fileno())
        return digest.hexdigest()

    def make_room(self, needed: int, limit: int, partial: str) -> None:
        """Remove what was not used for longest until a file fits; `Refused` where it cannot."""
        units = self._units()
        self._drop_partials(partial)
        total = sum(size for _, size, _ in units)
        for path, size, _ in sorted(units, key=lambda unit: unit[2]):
            if total + needed <= limit and self._free() >= needed + MARGIN:
                return
            if path in self.used or self._running():
                continue
            _remove(path)
            total -= size
        if self._free() < needed + MARGIN:
            raise Refused(
                "space",
                "%s needs %.1f MiB more, and the device has %.1f MiB free"
                % (self.root, (needed + MARGIN) / 2.0**20, self._free() / 2.0**20),
            )

    def stop(self, source: IO[bytes], name: str) -> Json:
        """End a kept program if it runs, wait until it is gone, and forget it."""
        folder = inside(self.root, "runs/" + _hexadecimal(name))
        was = Run(folder).stop()
        shutil.rmtree(folder, ignore_errors=True)
        return {"stopped": was}

    def _touch(self, name: str) -> None:
        parts = name.split("/")
        unit = os.path.join(self.root, *parts[:2])
        self.used.append(unit)
        if os.path.exists(unit):
            os.utime(unit, None)

    def _units(self) -> List[Tuple[str, int, float]]:
        """List what is removed together: path, bytes, last use."""
        found = []
        for kind in CONTENT:
            folder = os.path.join(self.root, kind)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                found.append((path, _size(path), os.lstat(path).st_mtime))
        return found

    def _drop_partials(self, kept: str) -> None:
        folder = os.path.dirname(kept)
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if path != kept and abs(time.time() - os.lstat(path).st_mtime) > OLD_SECONDS:
                _remove(path)

    def _free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def _running(self) -> bool:
        return any(run.alive() for run in Run.every(self.root))


def _write_all(stream: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[stream.write(view) :]


def _hexadecimal(text: str) -> str:
    if not re.match(r"[0-9a-f]{8,64}$", text):
        raise Refused("failed", "%r is no hash" % text)
    return text


def _size(path: str) -> int:
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(base, name)).st_size for base, _, names in os.walk(path) for name in names)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


# ---------------------------------------------------------------- programs


def _python(root: str) -> str:
    """Choose the environment's Python where `targets setup` made one, else the one that runs this."""
    made = os.path.join(root, "env", "current", "bin", "python")
    return made if os.path.exists(made) else sys.executable


def _start(root: str, arguments: List[str], out: Optional[int] = None) -> "subprocess.Popen[bytes]":
    command = [_python(root)] + arguments
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)


def _hand_over(process: "subprocess.Popen[bytes]", job: str) -> None:
    """Write a program's job; its standard input stays open, and its end tells the program to leave."""
    assert process.stdin is not None
    try:
        process.stdin.write(job.encode("utf-8"))
        process.stdin.flush()
    except OSError:
        pass


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except OSError:
            pass
        end = time.monotonic() + ENDING_SECONDS
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)


def execute(root: str, arguments: List[str], job: str, source: IO[bytes]) -> int:
    """Run a program until it ends or the connection does."""
    process = _start(root, arguments)
    _hand_over(process, job)

    def watch() -> None:
        while source.read(1 << 16):
            pass
        _end(process)
        os._exit(3)

    thread = threading.Thread(target=watch)
    thread.daemon = True
    thread.start()
    code = process.wait()
    _end(process)
    os._exit(code if code >= 0 else 128 - code)


def keep(root: str, request: Json, source: IO[bytes]) -> None:
    """Start a program that outlives the connection, or find it; then tell what it writes."""
    run = Run(inside(root, "runs/" + _hexadecimal(request["name"])))
    wanted = request["start"]
    found = run.alive() or (run.ended().get("code") == 0 if wanted == "resume" else bool(run.ended()) or run.known())
    if wanted == "attach" and not found:
        raise Refused("gone", "the device does not know this run any more")
    if wanted == "new" and run.alive():
        raise Refused("busy", "the device is still at work on just this: `edgebench run --resume` takes it up")
    fresh = wanted == "new" or not found
    if fresh:
        _prune(root)
        run.start(root, request["arguments"], request["stdin"])
    say({"edgebench": 1, "fresh": fresh, "age_seconds": run.age()})

    def watch() -> None:
        while source.read(1 << 16):
            pass
        os._exit(0)

    thread = threading.Thread(target=watch)
    thread.daemon = True
    thread.start()
    for message in run.follow(int(request["offset"])):
        say(message)
    os._exit(0)  # the thread that watches the connection must not hold this back


def _prune(root: str) -> None:
    """Forget programs that have ended."""
    for run in Run.every(root):
        if not run.alive():
            shutil.rmtree(run.folder, ignore_errors=True)


class Run(object):
    """A program that is kept: its keeper holds a lock for as long as it lives."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @staticmethod
    def every(root: str) -> "List[Run]":
        """List all that the device knows."""
        runs = os.path.join(root, "runs")
        return [Run(os.path.join(runs, name)) for name in (sorted(os.listdir(runs)) if os.path.isdir(runs) else ())]

    def path(self, name: str) -> str:
        """Name one of its files."""
        return os.path.join(self.folder, name)

    def known(self) -> bool:
        """Say whether it ever began."""
        return os.path.exists(self.path("started"))

    def ended(self) -> Json:
        """Return how it ended; empty while it has not, or nobody could write it down."""
        return _read(self.path("ended"))

    def age(self) -> float:
        """Return the seconds since it began, by the clock that nobody sets."""
        started = _read(self.path("started"))
        return max(0.0, time.monotonic() - started["monotonic"]) if started.get("boot") == boot() else 0.0

    def alive(self) -> bool:
        """Say whether its keeper lives."""
        try:
            with open(self.path("alive"), "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def stop(self) -> bool:
        """End keeper and program, and wait until they are gone; say whether there was anything to end."""
        if not self.alive():
            return False
        pids = _read(self.path("started"))
        if not pids:
            raise Refused("failed", "the run has only just begun; try again")
        end = time.monotonic() + 3 * ENDING_SECONDS
        os.kill(pids["keeper"], signal.SIGTERM)
        while self.alive() and time.monotonic() < end:
            time.sleep(0.02)
        if self.alive():
            os.kill(pids["keeper"], signal.SIGKILL)
        try:
            os.killpg(pids["program"], signal.SIGKILL)
        except OSError:
            pass
        return True

    def start(self, root: str, arguments: List[str], job: str) -> None:
        """Leave a keeper behind that runs the program; `Refused` where another measures here."""
        device = lock_device()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        ready, tell = os.pipe()
        if os.fork() == 0:
            os.close(ready)
            os.setsid()
            if os.fork():
                os._exit(0)
            _Keeper(self, device, tell).run(root, arguments, job)
        os.close(tell)
        os.close(device)
        os.wait()
        with os.fdopen(ready, "rb") as stream:
            said = stream.read().decode("utf-8", "replace")
        if said != "ok":
            raise Refused("failed", said or "the program could not be kept running")

    def follow(self, offset: int) -> Iterator[Json]:
        """Yield what the program writes from an offset on, with a sign of life in between, and how it ended."""
        last = time.monotonic()
        while True:
            ended, alive = self.ended(), self.alive()
            for block in self._blocks(offset):
                offset += len(block)
                last = time.monotonic()
                yield {"at": offset, "data": block.decode("utf-8", "replace")}
            if ended or not alive:
                yield {"ended": ended or {"code": None, "reason": self._lost(), "stderr": ""}}
                return
            if time.monotonic() - last > HEARTBEAT_SECONDS:
                last = time.monotonic()
                yield {"at": offset}
            time.sleep(POLL_SECONDS)

    def _blocks(self, offset: int) -> Iterator[bytes]:
        try:
            with open(self.path("events"), "rb") as stream:
                stream.seek(offset)
                for block in iter(lambda: stream.read(1 << 16), b""):
                    yield block
        except OSError:
            return

    def _lost(self) -> str:
        if _read(self.path("started")).get("boot") not in (None, boot()):
            return "the device was restarted"
        return "the agent was killed on the device"


class _Keeper(object):
    """Stays behind: runs one program, writes down what it says, and ends it when asked to."""

    def __init__(self, run: Run, device: int, tell: int) -> None:
        self.run_ = run
        self.device = device
        self.tell: Optional[int] = tell
        self.reason = ""
        self.stderr = b""
        self.process: "Optional[subprocess.Popen[bytes]]" = None

    def run(self, root: str, arguments: List[str], job: str) -> None:
        """Never returns."""
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._run(root, arguments, job)
        except Asked:
            pass
        except BaseException as error:
            if self.tell is not None:
                os.write(self.tell, _said(error).encode("utf-8"))
        finally:
            if self.process is not None:
                _end(self.process)
            os._exit(0)

    def _run(self, root: str, arguments: List[str], job: str) -> None:
        alive = os.open(self.run_.path("alive"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        signal.signal(signal.SIGTERM, _asked)
        signal.signal(signal.SIGALRM, self._too_long)
        signal.alarm(LONGEST_SECONDS)
        events = open(self.run_.path("events"), "wb", 0)
        process = self.process = _start(root, arguments, subprocess.PIPE)
        started = {"boot": boot(), "monotonic": time.monotonic(), "keeper": os.getpid(), "program": process.pid}
        _write(self.run_.path("started"), started)
        _describe(self.device, started)
        threads = [threading.Thread(target=self._pump, args=(events,)), threading.Thread(target=self._drain)]
        threads.append(threading.Thread(target=_hand_over, args=(process, job)))
        for thread in threads:
            thread.daemon = True
            thread.start()
        assert self.tell is not None
        os.write(self.tell, b"ok")
        os.close(self.tell)
        self.tell = None
        process.wait()
        _end(process)
        for thread in threads[:2]:
            thread.join(ENDING_SECONDS)
        ended = {"code": process.poll(), "reason": self.reason, "stderr": self.stderr.decode("utf-8", "replace")}
        try:
            _write(self.run_.path("ended"), ended)
        except OSError:  # a full disk: the reason is worth more than the last lines
            events.truncate(max(0, events.tell() - (16 << 10)))
            _write(self.run_.path("ended"), ended)

    def _too_long(self, *_: Any) -> None:
        self._give_up("the program ran for more than %d hours" % (LONGEST_SECONDS // 3600))

    def _give_up(self, reason: str) -> None:
        """Kill the program; the thread that waits for it does the rest."""
        self.reason = reason
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            pass

    def _pump(self, events: IO[bytes]) -> None:
        """Write the program's output down."""
        assert self.process is not None and self.process.stdout is not None
        size = 0
        for block in iter(lambda: os.read(self.process.stdout.fileno(), 1 << 16), b""):  # type: ignore[union-attr]
            size += len(block)
            try:
                if size > EVENTS_BYTES:
                    raise OSError("the program wrote more than %d MiB" % (EVENTS_BYTES >> 20))
                _write_all(events, block)
            except OSError as error:
                self._give_up(_said(error) if error.errno else str(error))
                return

    def _drain(self) -> None:
        """Keep the end of what the program writes to its standard error."""
        assert self.process is not None and self.process.stderr is not None
        for block in iter(lambda: os.read(self.process.stderr.fileno(), 1 << 16), b""):  # type: ignore[union-attr]
            self.stderr = (self.stderr + block)[-STDERR_BYTES:]


def _asked(*_: Any) -> None:
    raise Asked


# ---------------------------------------------------------------- one host at a time


def lock_device() -> int:
    """Take the device for a run, for all users of it; a lock whose holder died is free by itself.

    Returns a descriptor that holds the lock for as long as it is open.
    """
    path = os.path.join(tempfile.gettempdir(), "edgebench.lock")
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(path, flags)
    except FileNotFoundError:
        number = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(number, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Refused("failed", "%s is no file; remove it" % path)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise Refused("busy", "another run is measuring on this device%s" % _holder(path)) from None
    return number


def _holder(path: str) -> str:
    found = _read(path)
    if found.get("boot") != boot() or "monotonic" not in found:
        return ""
    minutes = (time.monotonic() - found["monotonic"]) / 60.0
    return " (process %s there, for %.0f minutes)" % (found.get("keeper"), minutes)


def _describe(number: int, content: Json) -> None:
    text = json.dumps(content).encode("ascii")
    os.ftruncate(number, 0)
    os.pwrite(number, text, 0)
