"""A program that the agent starts: read line by line, ended in time, and never left behind."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

from .cell.memory import status_bytes
from .clock import now_ns
from .digest import sha256

DEATH_OF_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def found_program(name: str, option: str, named: Optional[str], places: Sequence[str], remedy: str) -> str:
    """Find a program: the one that an option names, else on the PATH or in a usual place. ValueError where there is none."""
    if named is not None:
        path = shutil.which(os.path.expanduser(str(named)))
        if path is None:
            raise ValueError("option %s: %s is no program on this device" % (option, named))
        return path
    found = shutil.which(name) or next((path for path in places if os.access(path, os.X_OK)), None)
    if found is None:
        raise ValueError("no program %s; %s" % (name, remedy))
    return found


def program_identity(name: str, path: str) -> str:
    """Name a program by its content."""
    return "%s sha256:%s" % (name, sha256(path)[:12])


class Said(object):
    """What one run printed, how long it took, its exit code, and where that was asked for, its highest resident memory."""

    def __init__(self, text: str, wall_ns: int, code: int, peak_bytes: Optional[int]) -> None:
        self.text = text
        self.wall_ns = wall_ns
        self.code = code
        self.peak_bytes = peak_bytes

    @property
    def last(self) -> str:
        """Say how it ended and what it said last."""
        names = {item.value: item.name for item in signal.Signals}
        code = self.code
        ended = "was killed by %s" % names.get(-code, "signal %d" % -code) if code < 0 else "ended with exit code %d" % code
        return "%s: %s" % (ended, (self.text.strip().splitlines() or ["it said nothing"])[-1])


class Child(object):
    """One program, of which one run goes on at a time."""

    def __init__(self, path: str, name: str, environment: Optional[Dict[str, str]] = None) -> None:
        self.path = path
        self.name = name
        self._environment = dict(os.environ, **environment) if environment else None
        self._process: "Optional[subprocess.Popen[str]]" = None

    def run(
        self,
        arguments: List[str],
        folder: Optional[str],
        seconds: float,
        watch: bool = False,
        heard: Optional[Callable[[str, int], None]] = None,
    ) -> Said:
        """Run it in a folder to its end; ValueError where it does not end within so many seconds.

        `watch` looks at its resident memory every 10 ms; `heard` is given each
        line as it comes, and the process's number.
        """
        begin = now_ns()
        process = subprocess.Popen(
            [self.path] + arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=self._environment,
            encoding="utf-8",
            errors="replace",
            preexec_fn=tie(os.getpid()),
        )
        self._process = process
        peak = Peak(process.pid) if watch else None
        late = threading.Event()
        timer = threading.Timer(seconds, _end, (process, late))
        timer.start()
        lines = []  # type: List[str]
        try:
            for line in process.stdout or ():
                lines.append(line)
                if heard is not None:
                    heard(line, process.pid)
            process.wait()
        finally:
            timer.cancel()
            self._process = None
            highest = peak.stop() if peak is not None else None
            process.kill()  # where it is over, nothing
            with process:
                pass
        if late.is_set():
            raise ValueError("%s did not end within %d s" % (self.name, seconds))
        return Said("".join(lines), now_ns() - begin, process.returncode, highest)

    def kill(self) -> None:
        """End the run that goes on."""
        process = self._process
        if process is not None:
            process.kill()


def _end(process: "subprocess.Popen[str]", late: threading.Event) -> None:
    late.set()
    process.kill()


def tie(parent: int) -> Any:
    """Return what a child does before it becomes the program: ask to be killed when the agent dies, however that dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def begin() -> None:
        prctl(DEATH_OF_PARENT, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before this was asked
            os._exit(3)

    return begin


class Peak(object):
    """The highest resident memory of another process, as the system keeps it (VmHWM)."""

    def __init__(self, pid: int) -> None:
        self._path = "/proc/%d/status" % pid
        self._over = threading.Event()
        self._highest: Optional[int] = None
        self._thread = threading.Thread(target=self._look)
        self._thread.daemon = True
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._highest = max(self._highest or 0, status_bytes("VmHWM", self._path) or 0) or None

    def stop(self) -> Optional[int]:
        """Return the peak in bytes; None where the system does not tell."""
        self._over.set()
        self._thread.join()
        return self._highest
