"""TensorRT's own program, trtexec: where it lies, what its version takes, and running it so that it never stays behind."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..cell.memory import status_bytes
from ..clock import now_ns
from . import log as tensorrt_log

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
"""Where Debian's packages and NVIDIA's containers put it; neither is on the PATH."""
HELP_SECONDS = 50.0
"""Less than the host waits for a word of a device that it asks what it has."""
BANNER = re.compile(r"&&&& (?:RUNNING|PASSED|FAILED) TensorRT\.trtexec \[TensorRT v([0-9]{1,9})\]")
OPTION = re.compile(r"--[A-Za-z0-9]+")
GPU = re.compile(r"Selected Device: (.+)")
CAPABILITY = re.compile(r"Compute Capability: (\S+)")
BEGUN = "Starting inference"
DEATH_OF_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def find(wished: Optional[str]) -> Optional[str]:
    """Find the program: the one that is wished for, else on the PATH or in its usual places."""
    if wished is not None:
        path = shutil.which(os.path.expanduser(str(wished)))
        if path is None:
            raise ValueError("option trtexec: %s is no program on this device" % wished)
        return path
    return shutil.which("trtexec") or next((path for path in PLACES if os.access(path, os.X_OK)), None)


def passed(text: str) -> bool:
    """Tell whether a run says last that it passed; 8.0 says of the memory that it gave back after that."""
    verdicts = [line for line in text.splitlines() if line.startswith(("&&&& PASSED", "&&&& FAILED"))]
    return bool(verdicts) and verdicts[-1].startswith("&&&& PASSED")


def decoded(number: int) -> Tuple[int, int, int]:
    """Read the number in its banner: 8201 is 8.2.1, and 100300 is 10.3.0."""
    base = 1000 if number < 10000 else 10000
    return number // base, number % base // 100, number % 100


class Said(object):
    """What one run printed, how long it took, and where that was asked for, its highest resident memory.

    `begun_ns` is when it said that it begins to infer; None where it did not.
    """

    def __init__(self, text: str, wall_ns: int, begun_ns: Optional[int], peak_bytes: Optional[int]) -> None:
        self.text = text
        self.wall_ns = wall_ns
        self.begun_ns = begun_ns
        self.peak_bytes = peak_bytes


class Program(object):
    """One trtexec, of which one run goes on at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._process: "Optional[subprocess.Popen[str]]" = None
        output = self._call(["--help"], None, HELP_SECONDS)[0].text
        banner = BANNER.search(output)
        if banner is None:
            raise ValueError("%s --help prints no version of TensorRT; name another by --option trtexec=PATH" % path)
        self.numbers = decoded(int(banner.group(1)))
        self.version = "%d.%d.%d" % self.numbers
        self._options = set(OPTION.findall(output))

    def takes(self, option: str) -> bool:
        """Tell whether this version lists an option in its help."""
        return option in self._options

    def device(self, folder: str) -> Dict[str, Any]:
        """Ask which GPU it would use, which it says before it looks for an engine; ValueError where there is none."""
        output, code = self._call(["--loadEngine=none.plan"], folder, HELP_SECONDS)
        name, capability = GPU.search(output.text), CAPABILITY.search(output.text)
        if name is None or capability is None:
            raise ValueError(self._reason(output.text, code, "looking for the GPU"))
        return {"name": name.group(1).strip(), "capability": capability.group(1)}

    def run(
        self,
        arguments: List[str],
        folder: str,
        seconds: float,
        stage: str,
        watch: bool = False,
        begun: Optional[Callable[[int], None]] = None,
    ) -> Said:
        """Run it in a folder; ValueError says why a `stage` failed, or that it took too long.

        `watch` looks at its resident memory every 10 ms; `begun` is called with
        its process's number when it begins to infer.
        """
        output, code = self._call(arguments, folder, seconds, watch, begun)
        if code == 0 and passed(output.text):
            return output
        raise ValueError(self._reason(output.text, code, stage))

    def _reason(self, text: str, code: int, stage: str) -> str:
        errors = [line for line in tensorrt_log.entries(text.strip()) if "[E]" in line]
        if not errors:
            names = {item.value: item.name for item in signal.Signals}
            ended = "was killed by %s" % names.get(-code, "signal %d" % -code) if code < 0 else "ended with exit code %d" % code
            errors = ["trtexec %s: %s" % (ended, (text.strip().splitlines() or ["it said nothing"])[-1])]
        return tensorrt_log.reason(errors, text, self.numbers, stage)

    def _call(
        self,
        arguments: List[str],
        folder: Optional[str],
        seconds: float,
        watch: bool = False,
        begun: Optional[Callable[[int], None]] = None,
    ) -> Tuple[Said, int]:
        begin = now_ns()
        process = subprocess.Popen(
            [self.path] + arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            encoding="utf-8",
            errors="replace",
            preexec_fn=tie(os.getpid()),
        )
        self._process = process
        peak = Peak(process.pid) if watch else None
        late = threading.Event()
        timer = threading.Timer(seconds, _end, (process, late))
        timer.start()
        try:
            text, begun_ns = _heard(process, begun)
        finally:
            timer.cancel()
            self._process = None
            highest = peak.stop() if peak is not None else None
            process.kill()  # where it is over, nothing
            with process:
                pass
        if late.is_set():
            raise ValueError("trtexec did not end within %d s" % seconds)
        return Said(text, now_ns() - begin, begun_ns, highest), process.returncode

    def kill(self) -> None:
        """End the run that goes on."""
        process = self._process
        if process is not None:
            process.kill()


def _end(process: "subprocess.Popen[str]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _heard(process: "subprocess.Popen[str]", begun: Optional[Callable[[int], None]]) -> Tuple[str, Optional[int]]:
    """Read what a run prints to its end, and note when it begins to infer."""
    lines, begun_ns = [], None  # type: List[str], Optional[int]
    for line in process.stdout or ():
        lines.append(line)
        if begun_ns is None and BEGUN in line:
            begun_ns = now_ns()
            if begun is not None:
                begun(process.pid)
    process.wait()
    return "".join(lines), begun_ns


def tie(parent: int) -> Any:
    """Return what a child does before it becomes trtexec: ask to be killed when the agent dies, however that dies."""
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
