"""The keeper: a process that outlives the connection, and runs one program."""

import fcntl
import os
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Any, List, Optional

from .messages import Json, reason_of, write_all
from .programs import ENDING_SECONDS, end_program, hand_over, start_program
from .state import boot, describe, write_json

if TYPE_CHECKING:
    from .runs import Run

EVENTS_BYTES = 512 << 20
"""A program that writes more is ended."""
STDERR_BYTES = 16 << 10
LONGEST_SECONDS = 24 * 3600


class EndRequested(BaseException):
    """A keeper was asked to end."""


class Keeper(object):
    """Stays behind: runs one program, writes down what it says, and ends it when asked to."""

    def __init__(self, run: "Run", device: int, tell: int, token: str) -> None:
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
        except EndRequested:
            pass
        except BaseException as error:
            if self.tell is not None:
                os.write(self.tell, reason_of(error)[1].encode("utf-8"))
        finally:
            if self.process is not None:
                end_program(self.process)
            os._exit(0)

    def _run(self, root: str, arguments: List[str], job: str) -> None:
        alive = os.open(self.run_.path("alive"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(alive, fcntl.LOCK_EX)  # somebody who looks whether it is held has it for a moment
        signal.signal(signal.SIGTERM, _request_end)
        signal.signal(signal.SIGALRM, self._too_long)
        signal.alarm(LONGEST_SECONDS)
        events = open(self.run_.path("events"), "wb", 0)
        process = self.process = start_program(root, arguments, subprocess.PIPE, self.device)
        started = {"boot": boot(), "monotonic": time.monotonic(), "keeper": os.getpid(), "program": process.pid}
        describe(self.device, started)
        write_json(self.run_.path("started"), dict(started, token=self.token))
        threads = [threading.Thread(target=self._pump, args=(events,)), threading.Thread(target=self._drain)]
        threads.append(threading.Thread(target=hand_over, args=(process, job)))
        for thread in threads:
            thread.daemon = True
            thread.start()
        assert self.tell is not None
        os.write(self.tell, b"ok")
        os.close(self.tell)
        self.tell = None
        process.wait()
        end_program(process)
        for thread in threads[:2]:
            thread.join(ENDING_SECONDS)
        ended: Json = {"code": process.poll(), "reason": self.reason, "monotonic": time.monotonic()}
        ended["stderr"] = self.stderr.decode("utf-8", "replace")
        try:
            write_json(self.run_.path("ended"), ended)
        except OSError:  # a full disk: the reason is worth more than the last lines
            events.truncate(max(0, events.tell() - (16 << 10)))
            write_json(self.run_.path("ended"), dict(ended, stderr=ended["stderr"][-1000:]))

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
                write_all(events, block)
            except OSError as error:
                self._give_up(reason_of(error)[1] if error.errno else str(error))
                return

    def _drain(self) -> None:
        """Keep the end of what the program writes to its standard error."""
        assert self.process is not None and self.process.stderr is not None
        errors = self.process.stderr.fileno()
        for block in iter(lambda: os.read(errors, 1 << 16), b""):
            self.stderr = (self.stderr + block)[-STDERR_BYTES:]


def _request_end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise EndRequested
