"""Any program that prints its power, one number a line: `12.3`, `12.3 W`, `12300 mW`.

It must write each line at once (`stdbuf -oL`, `python -u`): a reading's time is
that of its arrival. Other lines are counted and passed over.
"""

import collections
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from typing import Any, Deque, Dict, List, Optional, Tuple

from ..clock import now_ns
from .meters import Reading, Unavailable, channel, check_options

PERIOD_S = 0.1
FIRST_SECONDS = 5.0
"""A program that prints no number for so long at the start is not used."""
LINE = re.compile(r"([-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?(?:[eE][-+]?[0-9]{1,2})?)\s*([uµmk]?[Ww])?", re.ASCII)
UNITS = {"uw": 1e-6, "µw": 1e-6, "mw": 1e-3, "w": 1.0, "kw": 1e3}


NEEDS = "'command:PROGRAM ARGS'"
"""What must be said of it: without, there is nothing to try."""


RUNS = ("arguments",)
"""Options that name a program."""


def options_of(text: str) -> Dict[str, Any]:
    """Read what follows `--meter command:`; `ValueError` says what to write."""
    arguments = shlex.split(text)
    if not arguments:
        raise ValueError("name the program that prints watts, for instance 'command:./watts --port 3'")
    return {"arguments": arguments}


def watts(line: str) -> Optional[float]:
    """Read one line; None where it is not one number with a unit of power or none."""
    found = LINE.fullmatch(line.strip())
    return float(found.group(1)) * UNITS[(found.group(2) or "w").lower()] if found else None


class Meter(object):
    """One rail, `command`; options: `arguments` (a list, never a shell), `provenance` (wall)."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        check_options(options, ("arguments", "provenance"))
        self._arguments = options.get("arguments")
        self._channel = channel("command", options.get("provenance", "wall"), PERIOD_S)
        self._process: "Optional[subprocess.Popen[str]]" = None
        self._listener: Optional[threading.Thread] = None
        self._rows: Deque[Tuple[int, float]] = collections.deque()
        self._first = threading.Event()
        self._garbage = 0
        self._last = ""

    def start(self) -> List[Dict[str, Any]]:
        """Start the program and wait for its first number."""
        words = self._arguments
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise Unavailable("`arguments` is a list: the program and its arguments, each a string")
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # its last word is the reason if it ends
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable("%s: %s" % (words[0], error.strerror))
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        self._first.wait(FIRST_SECONDS)
        if not self._rows:
            time.sleep(0.05)  # a program that has closed its output is about to end
            raise Unavailable(self._ended() or "%s printed no number of watts within %.0f s" % (words[0], FIRST_SECONDS))
        return [self._channel]

    def _listen(self, stream: Any) -> None:
        with stream:
            for line in iter(lambda: stream.readline(4096), ""):
                t_ns, value = now_ns(), watts(line)
                if value is None:
                    self._garbage += 1
                    self._last = line.strip()[:200]
                else:
                    self._rows.append((t_ns, value))
                    self._first.set()
        self._first.set()

    def _ended(self) -> Optional[str]:
        code = self._process.poll() if self._process else None
        if code is None or self._listener is None:
            return None
        self._listener.join(1.0)  # what it said last is on its way
        last = ": " + self._last if self._last else ""
        return "%s ended with exit code %d%s" % ((self._arguments or ["?"])[0], code, last)

    def read(self) -> List[Reading]:
        """Return what has arrived; a program that ended is a reason."""
        ended = self._ended()
        rows = [(0,) + self._rows.popleft() for _ in range(len(self._rows))]
        if ended and not rows:
            raise Unavailable(ended)
        self._channel["note"] = "%d lines were no number" % self._garbage if self._garbage else ""
        return rows

    def stop(self) -> None:
        """End the program and what it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(1.0)
            except (OSError, subprocess.TimeoutExpired):
                continue
        process.wait(1.0)
