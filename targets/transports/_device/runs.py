"""Programs that outlive the connection: started, found again, followed, ended and forgotten."""

import fcntl
import os
import shutil
import signal
import time
from typing import IO, Iterator, List

from .checks import hexadecimal, inside, whole
from .keeper import Keeper
from .messages import Json, Refused, in_background, say
from .programs import ENDING_SECONDS
from .state import boot, lock_device, read_json

HEARTBEAT_SECONDS = 4.0
POLL_SECONDS = 0.2
BUSY_SECONDS = 3.0
"""A run that is about to end is waited for."""
LISTENING_SECONDS = 60.0
OLD_SECONDS = 24 * 3600.0
"""The output of a program that nobody has asked for in this time is removed."""


def keep(root: str, request: Json, source: IO[bytes]) -> None:
    """Start a program that outlives the connection, or find it; then tell what it writes. Never returns.

    A run has the token of who started it: asking again under it, after the connection broke, finds the same run.
    """
    run = Run(inside(root, "runs/" + hexadecimal(request["name"])))
    token, offset = hexadecimal(request["token"]), whole(request["offset"])
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
    in_background(lambda: _heed(run, source))
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
        return str(read_json(self.path("started")).get("token", ""))

    def is_worth_taking(self) -> bool:
        """Return whether it runs, or has ended well."""
        return self.alive() or self.ended().get("code") == 0

    def ended(self) -> Json:
        """Return how it ended; empty while it has not, or nobody could write it down."""
        return read_json(self.path("ended"))

    def times(self) -> Json:
        """Return the seconds since it began and since it ended, by the clock that nobody sets; 0 where a restart came between."""
        started, now = read_json(self.path("started")), time.monotonic()
        if started.get("boot") != boot():
            return {"age_seconds": 0.0, "idle_seconds": 0.0}
        idle = now - self.ended().get("monotonic", now)
        return {"age_seconds": max(0.0, now - started["monotonic"]), "idle_seconds": max(0.0, idle)}

    def alive(self) -> bool:
        """Return whether its keeper lives."""
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
        pids = read_json(self.path("started"))
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
            Keeper(self, device, tell, token).run(root, arguments, job)
        os.close(tell)
        os.close(device)
        os.wait()
        with os.fdopen(ready, "rb") as stream:
            answer = stream.read().decode("utf-8", "replace")
        if answer != "ok":
            raise Refused("failed", answer or "the program could not be kept running")

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
        if read_json(self.path("started")).get("boot") not in (None, boot()):
            return "the device was restarted"
        return "the agent was killed on the device"
