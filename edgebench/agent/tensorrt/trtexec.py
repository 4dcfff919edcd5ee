"""TensorRT's own program, trtexec: where it lies, what its version takes, and running it so that it never stays behind."""

import os
import re
import shutil
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..child import Child, Said
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


class Finished(object):
    """A run that passed, and when it said that it begins to infer; None where it did not."""

    def __init__(self, said: Said, begun_ns: Optional[int]) -> None:
        self.text = said.text
        self.wall_ns = said.wall_ns
        self.peak_bytes = said.peak_bytes
        self.begun_ns = begun_ns


class Program(object):
    """One trtexec, of which one run goes on at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._child = Child(path, "trtexec")
        output = self._child.run(["--help"], None, HELP_SECONDS).text
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
        said = self._child.run(["--loadEngine=none.plan"], folder, HELP_SECONDS)
        name, capability = GPU.search(said.text), CAPABILITY.search(said.text)
        if name is None or capability is None:
            raise ValueError(self._reason(said, "looking for the GPU"))
        return {"name": name.group(1).strip(), "capability": capability.group(1)}

    def run(
        self,
        arguments: List[str],
        folder: str,
        seconds: float,
        stage: str,
        watch: bool = False,
        begun: Optional[Callable[[int], None]] = None,
    ) -> Finished:
        """Run it in a folder; ValueError says why a `stage` failed, or that it took too long.

        `watch` looks at its resident memory every 10 ms; `begun` is called with
        its process's number when it begins to infer.
        """
        marks = []  # type: List[int]

        def heard(line: str, pid: int) -> None:
            if not marks and BEGUN in line:
                marks.append(now_ns())
                if begun is not None:
                    begun(pid)

        said = self._child.run(arguments, folder, seconds, watch, heard)
        if said.code == 0 and passed(said.text):
            return Finished(said, marks[0] if marks else None)
        raise ValueError(self._reason(said, stage))

    def _reason(self, said: Said, stage: str) -> str:
        errors = [line for line in tensorrt_log.entries(said.text.strip()) if "[E]" in line] or ["trtexec " + said.last]
        return tensorrt_log.reason(errors, said.text, self.numbers, stage)

    def kill(self) -> None:
        """End the run that goes on."""
        self._child.kill()
