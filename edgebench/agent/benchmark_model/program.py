"""One benchmark_model on this device: where it lies, what it is, which flags it knows, and a run of it."""

import os
import re
from typing import Callable, Dict, List, Optional

from ..child import Child, Said, found_program, program_identity
from ..digest import sha256
from . import log

NAME = "benchmark_model"
PLACES = ("/data/local/tmp/benchmark_model",)
"""Where Google's own instructions put it on a phone."""
HELP_SECONDS = 50.0
FAILED = "Benchmarking failed."
FLAG = re.compile(r"--([a-z][a-z0-9_]*)=")


def find(named: Optional[str]) -> str:
    """Find the program: the one that is named, else on the PATH or in its usual place. ValueError where there is none."""
    return found_program(NAME, "benchmark_model", named, PLACES, "name one: --option benchmark_model=PATH")


def identity(path: str) -> str:
    """Name a program by its content: it has no version."""
    return program_identity(NAME, path)


class Program(object):
    """One benchmark_model, of which one run goes on at a time."""

    def __init__(self, path: str, library_path: Optional[str] = None) -> None:
        self.path = path
        self.sha256 = sha256(path)
        folder = os.path.expanduser(library_path) if library_path else None
        libraries = {"LD_LIBRARY_PATH": folder, "ADSP_LIBRARY_PATH": folder} if folder else None
        self._child = Child(path, NAME, libraries)
        self._known = set(FLAG.findall(self._child.run(["--help"], None, HELP_SECONDS).text))

    def lists(self, flag: str) -> bool:
        """Tell whether this build names a flag in its help."""
        return flag in self._known

    def takes(self, flag: str) -> bool:
        """Tell whether this build has a flag; one that lists none (before TensorFlow 2.4) is asked by trying."""
        return not self._known or flag in self._known

    @property
    def compiles(self) -> bool:
        """Tell whether this is LiteRT's newer build, which has accelerators in place of delegates."""
        return "use_npu" in self._known

    def run(
        self,
        flags: Dict[str, object],
        folder: str,
        seconds: float,
        watch: bool = False,
        heard: Optional[Callable[[str, int], None]] = None,
    ) -> Said:
        """Run it; ValueError says why it failed, or which flag it does not know."""
        arguments = ["--%s=%s" % (name, written(value)) for name, value in flags.items()]
        said = self._child.run(arguments, folder, seconds, watch, heard)
        strange = [flag.split("=")[0] for flag in log.unconsumed(said.text)]
        if strange:
            raise ValueError("this benchmark_model has no %s; name a newer one" % ", ".join(strange))
        if said.code != 0:
            errors: List[str] = [line for line in log.severe(said.text) if line != FAILED]
            raise ValueError("benchmark_model: %s" % " ".join(errors[-2:]) if errors else "benchmark_model %s" % said.last)
        return said


def written(value: object) -> str:
    """Write a flag's value."""
    return str(value).lower() if isinstance(value, bool) else "%g" % value if isinstance(value, float) else str(value)
