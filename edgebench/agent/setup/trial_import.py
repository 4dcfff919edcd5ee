"""Does a runtime really start in an environment? Each is imported in a process of its own: some end it."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

from .. import facts, plugins
from ..events import Events
from ..hangup import when_host_leaves

IMPORT_SECONDS = 300.0
"""A runtime that is not imported by then hangs."""
BEAT_SECONDS = 5.0


class Trials(object):
    """Runs one import after the other, and ends the one that runs when asked to."""

    def __init__(self, beat: Callable[[str], None]) -> None:
        self._beat = beat
        self._process: "Optional[subprocess.Popen[bytes]]" = None

    def run(self, python: str, name: str) -> Dict[str, Any]:
        """Import a runtime with that Python: `version`, the `reason` why it cannot run, the distributions it comes `of`."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self._process = subprocess.Popen(
                [python, sys.argv[0], "setup", "--import", name], stdin=subprocess.PIPE, stdout=out, stderr=err
            )
            assert self._process.stdin is not None
            late = self._wait(name)
            self._process.stdin.close()
            out.seek(0)
            err.seek(0)
            output, last = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace").strip().splitlines()
        found = {"version": None, "reason": None, "of": []}  # type: Dict[str, Any]
        for line in output.splitlines():
            found.update(json.loads(line))
        if late:
            found["reason"] = "the import did not end within %d s" % IMPORT_SECONDS
        elif self._process.returncode:
            found["reason"] = _death(self._process.returncode) + (": " + last[-1][:300] if last else "")
        return found

    def _wait(self, name: str) -> bool:
        """Wait with signs of life; end the process and return True where it takes too long."""
        assert self._process is not None
        end = time.monotonic() + IMPORT_SECONDS
        while time.monotonic() < end:
            self._beat(name)
            try:
                self._process.wait(BEAT_SECONDS)
                return False
            except subprocess.TimeoutExpired:
                continue
        self._process.kill()
        self._process.wait()
        return True

    def stop(self) -> None:
        """End the import that runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _death(code: int) -> str:
    if code > 0:
        return "the import ended with exit code %d" % code
    names = {item.value: item.name for item in signal.Signals}
    return "the import was killed by %s" % names.get(-code, "signal %d" % -code)


def main(name: str) -> int:
    """Import one runtime and say what came of it, first of all where it comes from."""
    events = Events()
    when_host_leaves(lambda: os._exit(3))  # here the host is the agent
    try:
        plugin = plugins.load("runtimes", name)
    except ImportError as error:
        events.emit("imported", version=None, reason=str(error))
        return 0
    events.emit("importing", of=list(plugin.DISTRIBUTIONS))
    reason = _reason(plugin.MODULES)
    absent = all(importlib.util.find_spec(module.split(".")[0]) is None for module in plugin.MODULES)
    found = facts.installed(plugin) if reason is None or absent else None  # a runtime may be a program, without any module
    events.emit("imported", version=found, reason=None if found else reason or facts.lacking(plugin))
    return 0


def _reason(modules: List[str]) -> Optional[str]:
    """Import the first module that is there; say why none works, or None: a program needs none."""
    if not modules:
        return None
    missing = []
    for name in modules:
        top = name.split(".")[0]
        if importlib.util.find_spec(top) is None:
            missing.append(repr(top))
            continue
        try:
            importlib.import_module(name)
            return None
        except Exception as error:  # a broken library raises anything
            return "%s: %s" % (type(error).__name__, " ".join(str(error).split())[:500])
    return "no module named " + " or ".join(missing)
