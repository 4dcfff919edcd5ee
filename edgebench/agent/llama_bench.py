"""llama.cpp's llama-bench on this device: where it lies, which of its flags there are, and what it prints.

It measures a prompt of random tokens (`pp`) and the generation of random ones
(`tg`) apart, each several times, without a tokenizer and without sampling.
Builds print JSON a line a test since November 2024, before that one list.
"""

import json
import os
import re
from typing import Any, Callable, Dict, List, Optional

from .child import Child, Said, found_program, program_identity
from .digest import sha256

NAME = "llama-bench"
PLACES = ("/data/local/tmp/llama-bench",)
HELP_SECONDS = 60.0
FLAG = re.compile(r"(?:^|[ ,])(-{1,2}[a-z][a-z0-9-]*)")
ERROR = re.compile(r"error:")
BEGUN = re.compile(r"llama-bench: benchmark [0-9]+/[0-9]+: (?:prompt|generation) run 1/")
LONGEST = 1 << 22


def find(named: Optional[str]) -> str:
    """Find the program: the one that is named, else on the PATH or in its usual place. ValueError where there is none."""
    return found_program(NAME, "llama_bench", named, PLACES, "build llama.cpp there and name it: --option llama_bench=PATH")


def identity(path: str) -> str:
    """Name a program by its content: its build stands in what it prints."""
    return program_identity(NAME, path)


class Program(object):
    """One llama-bench, of which one run goes on at a time."""

    def __init__(self, path: str, library_path: Optional[str] = None) -> None:
        self.sha256 = sha256(path)
        folder = os.path.expanduser(library_path) if library_path else None
        self._child = Child(path, NAME, {"LD_LIBRARY_PATH": folder} if folder else None)
        self._help = self._child.run(["--help"], None, HELP_SECONDS).text
        self._flags = {flag for line in self._help.splitlines() for flag in FLAG.findall(line)}
        if not {"-m", "-p", "-n", "-r", "-o"} <= self._flags:
            raise ValueError("%s does not list llama-bench's flags; name another program" % path)

    @property
    def lines(self) -> bool:
        """Tell whether this build prints JSON a line a test."""
        return "jsonl" in self._help

    def run(
        self, flags: Dict[str, Any], seconds: float, watch: bool = False, heard: Optional[Callable[[str, int], None]] = None
    ) -> Said:
        """Run it; ValueError says why it failed, or which flag it does not know."""
        strange = [flag for flag in flags if flag not in self._flags]
        if strange:
            raise ValueError("this llama-bench has no %s; name a newer one" % strange[0])
        words = [word for flag, value in flags.items() for word in (flag, str(value))]
        words += ["-o", "jsonl" if self.lines else "json"] + (["--progress"] if "--progress" in self._flags else [])
        said = self._child.run(words, None, seconds, watch, heard)
        if said.code != 0:
            errors = [line.strip() for line in said.text.splitlines() if ERROR.search(line)]
            raise ValueError("llama-bench: %s" % errors[0][:300] if errors else "llama-bench %s" % said.last)
        return said


def tests(text: str) -> List[Dict[str, Any]]:
    """Read the tests of a run, whichever form they are printed in; ValueError where there are none, or what is none."""
    lines = text.splitlines()
    found = []  # type: List[Any]
    if "[" in lines and "]" in lines:
        found = _json("\n".join(lines[lines.index("[") : len(lines) - lines[::-1].index("]")]))
    else:
        found = [_json(line) for line in lines if line.startswith("{")]
    if not found:
        raise ValueError("llama-bench printed no results; its output has a form that is not known here")
    return [_test(each) for each in found]


def _json(text: str) -> Any:
    if len(text) > LONGEST:
        raise ValueError("llama-bench printed more than any results")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("llama-bench printed results that are no JSON")


def _test(found: Any) -> Dict[str, Any]:
    """Check what is needed of one test: its sizes, and a time of each repetition."""
    if not isinstance(found, dict):
        raise ValueError("llama-bench printed a result that is no object")
    for name in ("n_prompt", "n_gen"):
        if type(found.get(name)) is not int or found[name] < 0:
            raise ValueError("llama-bench printed a result without %s" % name)
    times = found.get("samples_ns")
    if not isinstance(times, list) or not times or not all(type(each) is int and each > 0 for each in times):
        raise ValueError("llama-bench printed a result without the times of its repetitions (samples_ns)")
    return found


def of(found: List[Dict[str, Any]], prompt: int, generated: int) -> Dict[str, Any]:
    """Choose the test of so many tokens; ValueError where there is none."""
    for each in found:
        if (each["n_prompt"], each["n_gen"]) == (prompt, generated) and not each.get("n_depth"):
            return each
    raise ValueError("llama-bench printed no result of %d prompt and %d generated tokens" % (prompt, generated))
