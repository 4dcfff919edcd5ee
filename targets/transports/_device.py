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
import io
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
IDLE_HEARTBEAT_SECONDS = 15.0
"""A host that vanished is noticed when it does not take these."""
POLL_SECONDS = 0.2
ENDING_SECONDS = 3.0
BUSY_SECONDS = 3.0
"""A run that is about to end is waited for."""
LISTENING_SECONDS = 60.0
OLD_SECONDS = 24 * 3600.0
"""The output of a program that nobody has asked for in this time is removed."""
CONTENT = ("agents", "bundles", "sets", "wheels")
PARTIAL = "partial"
Json = Dict[str, Any]
REASONS = {
    errno.ENOSPC: ("space", "the device's disk is full"),
    errno.EDQUOT: ("space", "the disk quota on the device is used up"),
    errno.EROFS: ("write", "the device's file system is read-only"),
    errno.EACCES: ("write", "the device's user may not write there"),
}


class Refused(Exception):
    """What was asked for cannot be done; `kind` is for the program, the text for the user."""

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


class Asked(BaseException):
    """A keeper was asked to end."""


def main(source: IO[bytes]) -> None:
    """Do what the first line asks for; whatever the shell printed before is not ours."""
    try:
        os.write(1, b"\n")  # it may have printed without an end of line
        request = _request(source.readline())
        root = _root(request["root"])
        if request["mode"] == "serve":
            serve(root, source)
        elif request["mode"] == "exec":
            execute(root, request["arguments"], request["stdin"], source)
        elif request["mode"] == "keep":
            keep(root, request, source)
        else:
            raise Refused("failed", "no mode %r" % request["mode"])
    except (BrokenPipeError, EOFError):
        os._exit(0)
    except Exception as error:
        say(_refusal(error))
        sys.exit(_reason(error)[1])


def _request(line: bytes) -> Json:
    found = json.loads(line.decode("utf-8"))
    if not isinstance(found, dict):
        raise Refused("failed", "a request is an object")
    return found


_saying = threading.Lock()


def say(message: Json) -> None:
    """Write one line to the other side."""
    content = (json.dumps(message) + "\n").encode("ascii")
    with _saying:
        while content:
            content = content[os.write(1, content) :]


def _in_background(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.daemon = True
    thread.start()


def _root(path: str) -> str:
    root = os.path.expanduser(path)
    if not os.path.isabs(root) or "\0" in root or ".." in root.split("/"):
        raise Refused("failed", "%r is no folder that a cache could be in" % path)
    if not os.path.isdir(root):
        try:
            os.makedirs(root)
            os.chmod(root, 0o700)
        except OSError as error:
            kind, text = _reason(error)
            raise Refused(kind, "%s: %s" % (root, text)) from error
    return os.path.realpath(root)


def inside(root: str, name: str) -> str:
    """Join a name from the other side; it stays below the root, and follows no link out of it."""
    if not isinstance(name, str) or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Refused("failed", "%r is no name below the cache folder" % (name,))
    path = os.path.join(root, name)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise Refused("failed", "%r leads out of the cache folder" % name)
    return path


def _content(root: str, name: str) -> str:
    """Join the name of something that is kept by content."""
    path = inside(root, name)
    if name.count("/") < 1 or name.split("/")[0] not in CONTENT:
        raise Refused("failed", "%r is none of %s" % (name, ", ".join(CONTENT)))
    return path


def _hexadecimal(text: str) -> str:
    if not isinstance(text, str) or not re.match(r"[0-9a-f]{8,64}\Z", text):
        raise Refused("failed", "%r is no hash" % (text,))
    return text


def _whole(number: int) -> int:
    if not isinstance(number, int) or number < 0:
        raise Refused("failed", "%r is no number of bytes" % (number,))
    return number


def _reason(error: BaseException) -> Tuple[str, str]:
    """Say what went wrong: a word for the program at the other side, and a sentence for people."""
    if isinstance(error, Refused):
        return error.kind, str(error)
    if isinstance(error, OSError) and error.errno in REASONS:
        return REASONS[error.errno]
    return "failed", "%s: %s" % (type(error).__name__, error)


def _refusal(error: BaseException) -> Json:
    kind, text = _reason(error)
    return {"kind": kind, "error": text}


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
    """Answer requests until the connection ends; whatever else goes wrong than a refusal ends it."""
    store = Store(root)
    answers: Dict[str, Callable[..., Json]] = {"look": store.look, "push": store.push}
    say({"edgebench": 1})
    _in_background(_pulse)
    for line in iter(source.readline, b""):
        request = _request(line)
        wanted = request.pop("do", None)
        try:
            if wanted not in answers:
                raise Refused("failed", "nothing answers to %r" % (wanted,))
            say(answers[wanted](source=source, **request))
        except Refused as refused:
            say(_refusal(refused))


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
        there = os.path.isfile(path) and os.path.getsize(path) == _whole(size)
        if there:
            _touch(self._unit(name))
        return {"path": path, "there": there}

    def push(self, source: IO[bytes], name: str, size: int, sha256: str, limit: int, needed: List[str]) -> Json:
        """Receive a file, from where an earlier connection left off; it gets its name when its hash is right."""
        path = _content(self.root, name)
        partial = inside(self.root, PARTIAL + "/" + _hexadecimal(sha256))
        os.makedirs(os.path.dirname(partial), exist_ok=True)
        have = os.path.getsize(partial) if os.path.isfile(partial) else 0
        if have > _whole(size):
            os.unlink(partial)
            have = 0
        self.make_room(size - have, _whole(limit), [partial] + [self._unit(each) for each in needed])
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
                    _write_all(stream, block)
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


def _touch(path: str) -> None:
    try:
        os.utime(path, None)
    except OSError:  # a file system that cannot be written serves what it has
        pass


def _write_all(stream: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[stream.write(view) :]


def _size(path: str) -> int:
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    return sum(os.lstat(os.path.join(base, name)).st_size for base, _, names in os.walk(path) for name in names)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)


# ---------------------------------------------------------------- programs


def _python(root: str) -> str:
    """Choose the environment's Python where `targets setup` made one, else the one that runs this."""
    made = os.path.join(root, "env", "current", "bin", "python")
    return made if os.path.exists(made) else sys.executable


def _start(root: str, arguments: List[str], out: Optional[int] = None, *held: int) -> "subprocess.Popen[bytes]":
    """Start the device's Python; it holds these descriptors, and the locks on them, for as long as it lives."""
    command = [_python(root)] + arguments
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, pass_fds=held)


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


def execute(root: str, arguments: List[str], job: str, source: IO[bytes]) -> None:
    """Run a program until it ends or the connection does; never returns."""
    process = _start(root, arguments)

    def watch() -> None:
        while source.read(1 << 16):
            pass
        _end(process)
        os._exit(3)

    _in_background(watch)
    _hand_over(process, job)
    code = process.wait()
    _end(process)
    os._exit(code if code >= 0 else 128 - code)


def keep(root: str, request: Json, source: IO[bytes]) -> None:
    """Start a program that outlives the connection, or find it; then tell what it writes. Never returns.

    A run has the token of who started it: asking again under it, after the connection broke, finds the same run.
    """
    run = Run(inside(root, "runs/" + _hexadecimal(request["name"])))
    token, offset = _hexadecimal(request["token"]), _whole(request["offset"])
    end = time.monotonic() + BUSY_SECONDS
    while not (run.token() == token or (request["resume"] and run.is_worth_taking())):
        if offset:
            raise Refused("gone", "the device does not know this run any more")
        try:
            if run.alive():
                raise Refused("busy", "the device is still at work on just this: `edgebench run --resume` takes it up")
            run.start(root, request["arguments"], request["stdin"], token)
        except Refused as refused:
            if refused.kind != "busy" or time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
    say(dict(run.times(), token=run.token(), resumed=run.token() != token))
    _in_background(lambda: _heed(run, source))
    for message in run.follow(offset):
        say(message)
    time.sleep(LISTENING_SECONDS)  # the host says whether it can be forgotten
    os._exit(0)


def _heed(run: "Run", source: IO[bytes]) -> None:
    """Wait for the host: it asks to end the program, or hangs up."""
    try:
        if source.readline():
            run.stop()
            shutil.rmtree(run.folder, ignore_errors=True)
            say({"stopped": True})
    except OSError:
        pass
    finally:
        os._exit(0)


def _prune(root: str) -> None:
    """Forget programs that have ended, and that nobody has asked for since long ago."""
    for run in Run.every(root):
        try:
            old = abs(time.time() - os.lstat(run.folder).st_mtime) > OLD_SECONDS
        except OSError:
            continue
        if old and not run.alive():
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

    def token(self) -> str:
        """Return the token of who started it; empty where nobody did."""
        return str(_read(self.path("started")).get("token", ""))

    def is_worth_taking(self) -> bool:
        """Say whether it runs, or has ended well."""
        return self.alive() or self.ended().get("code") == 0

    def ended(self) -> Json:
        """Return how it ended; empty while it has not, or nobody could write it down."""
        return _read(self.path("ended"))

    def times(self) -> Json:
        """Return the seconds since it began and since it ended, by the clock that nobody sets; 0 where a restart came between."""
        started, now = _read(self.path("started")), time.monotonic()
        if started.get("boot") != boot():
            return {"age_seconds": 0.0, "idle_seconds": 0.0}
        idle = now - self.ended().get("monotonic", now)
        return {"age_seconds": max(0.0, now - started["monotonic"]), "idle_seconds": max(0.0, idle)}

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

    def start(self, root: str, arguments: List[str], job: str, token: str) -> None:
        """Leave a keeper behind that runs the program; `Refused` where another measures here."""
        device = lock_device()
        _prune(root)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        ready, tell = os.pipe()
        if os.fork() == 0:
            os.close(ready)
            os.setsid()
            if os.fork():
                os._exit(0)
            _Keeper(self, device, tell, token).run(root, arguments, job)
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
            alive = self.alive()
            ended = self.ended()  # asked for after: what a keeper has written down is there when it is gone
            for block in self._blocks(offset):
                offset += len(block)
                last = time.monotonic()
                yield {"at": offset, "data": block.decode("latin-1")}
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

    def __init__(self, run: Run, device: int, tell: int, token: str) -> None:
        self.run_ = run
        self.device = device
        self.tell: Optional[int] = tell
        self.token = token
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
                os.write(self.tell, _reason(error)[1].encode("utf-8"))
        finally:
            if self.process is not None:
                _end(self.process)
            os._exit(0)

    def _run(self, root: str, arguments: List[str], job: str) -> None:
        alive = os.open(self.run_.path("alive"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)  # somebody who looks whether it is held has it for a moment
        signal.signal(signal.SIGTERM, _asked)
        signal.signal(signal.SIGALRM, self._too_long)
        signal.alarm(LONGEST_SECONDS)
        events = open(self.run_.path("events"), "wb", 0)
        process = self.process = _start(root, arguments, subprocess.PIPE, self.device)
        started = {"boot": boot(), "monotonic": time.monotonic(), "keeper": os.getpid(), "program": process.pid}
        _describe(self.device, started)
        _write(self.run_.path("started"), dict(started, token=self.token))
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
        ended: Json = {"code": process.poll(), "reason": self.reason, "monotonic": time.monotonic()}
        ended["stderr"] = self.stderr.decode("utf-8", "replace")
        try:
            _write(self.run_.path("ended"), ended)
        except OSError:  # a full disk: the reason is worth more than the last lines
            events.truncate(max(0, events.tell() - (16 << 10)))
            _write(self.run_.path("ended"), dict(ended, stderr=ended["stderr"][-1000:]))

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
        output, size = self.process.stdout.fileno(), 0
        for block in iter(lambda: os.read(output, 1 << 16), b""):
            size += len(block)
            try:
                if size > EVENTS_BYTES:
                    raise OSError("the program wrote more than %d MiB" % (EVENTS_BYTES >> 20))
                _write_all(events, block)
            except OSError as error:
                self._give_up(_reason(error)[1] if error.errno else str(error))
                return

    def _drain(self) -> None:
        """Keep the end of what the program writes to its standard error."""
        assert self.process is not None and self.process.stderr is not None
        errors = self.process.stderr.fileno()
        for block in iter(lambda: os.read(errors, 1 << 16), b""):
            self.stderr = (self.stderr + block)[-STDERR_BYTES:]


def _asked(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
