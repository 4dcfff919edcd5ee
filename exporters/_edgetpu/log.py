"""What edgetpu_compiler prints and writes into its log, in the forms that versions 14 to 16 have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAPPED = "Mapped to Edge TPU"
VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
ROW = re.compile(r"^[ \t]*([A-Z][A-Z0-9_]*|[a-z][\w-]*)[ \t]+([0-9]{1,9})[ \t]+(\S.*)", re.MULTILINE)
SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s{0,9}([KMG]iB|B)\b")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
FAILURES = (
    r"Didn't find op for builtin opcode .*",
    r"Op builtin_code out of range: .*",
    r"Encountered unresolved custom op.*",
    r".*dynamic-sized tensors.*",
    r"Did not get operators, tensors, or buffers.*",
    r"ERROR: .*",
    r"Model not quantized.*",
    r"terminating with uncaught exception .*",
    r"Compilation failed: .*",
    r"Invalid model: .*",
    r"Model could not be parsed.*",
    r"Internal compiler error.*",
    r"Compilation failed!.*",
)
"""What it says where it fails; the first that is found says most."""
EMPTY = ("Registration failed.", "Restored original execution plan after delegate application failure.")
"""What it says after an error of its own interpreter, whatever that was."""
PREPARED = re.compile(r"Node number [0-9]{1,9} \([A-Z0-9_]+\) failed to prepare\.")
"""Where a kernel's error was."""


@dataclass(frozen=True)
class Status:
    """What became of some operators of one kind."""

    operator: str
    count: int
    status: str


@dataclass(frozen=True)
class Log:
    """One compilation; None where the compiler did not say."""

    version: str | None
    milliseconds: int | None
    subgraphs: int | None
    operations: int | None
    on_tpu: int | None
    cached_bytes: int | None
    remaining_bytes: int | None
    streamed_bytes: int | None
    statuses: tuple[Status, ...]
    failure: str
    """Empty: it says of no failure."""

    @property
    def total(self) -> int:
        """Count all operators."""
        return self.operations if self.operations is not None else sum(row.count for row in self.statuses)

    @property
    def mapped(self) -> int:
        """Count those on the Edge TPU; where everything maps the compiler gives no count, and perhaps no table."""
        if self.on_tpu is not None:
            return self.on_tpu
        if self.statuses:
            return sum(row.count for row in self.statuses if row.status == MAPPED)
        return self.total if self.subgraphs else 0


def parse(printed: str, log: str = "") -> Log:
    """Read what was printed, and the log file where the table stands in it alone; what has another form was not said."""
    return Log(
        version=_first(VERSION, f"{printed}\n{log}"),
        milliseconds=_number(r"Model compiled successfully in ([0-9]{1,9}) ms", printed),
        subgraphs=_number(r"Number of Edge TPU subgraphs: ([0-9]{1,9})\b", printed),
        operations=_number(r"Total number of operations: ([0-9]{1,9})\b", printed),
        on_tpu=_number(r"Number of operations that will run on Edge TPU: ([0-9]{1,9})\b", printed),
        cached_bytes=_size("On-chip memory used for caching model parameters", printed),
        remaining_bytes=_size("On-chip memory remaining for caching model parameters", printed),
        streamed_bytes=_size("Off-chip memory used for streaming uncached model parameters", printed),
        statuses=tuple(_rows(printed)) or tuple(_rows(log)),
        failure=_failure(printed),
    )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def _size(label: str, text: str) -> int | None:
    """Read `3.1MiB` as bytes, as exactly as it is written."""
    found = re.search(rf"{re.escape(label)}: {{0,9}}{SIZE.pattern}", text)
    return round(float(found[1]) * UNITS[found[2]]) if found else None


def _rows(text: str) -> Iterable[Status]:
    """Read the table below `Operator Count Status`; one operator may have several lines."""
    _, *tables = re.split(r"Operator\s+Count\s+Status", text, maxsplit=1)
    for found in ROW.finditer("".join(tables)):
        yield Status(found[1], int(found[2]), found[3].strip())


def _failure(text: str) -> str:
    """Find the line that says most about a failure; the compiler's own `Compilation failed!` says least."""
    if "Model compiled successfully" in text:
        return ""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line.removeprefix("ERROR: ") not in EMPTY]
    for pattern in FAILURES:
        for line in telling:
            if re.match(rf"(?:ERROR: )?{pattern}", line):
                return _placed(line, text)
    return ""


def _placed(line: str, text: str) -> str:
    """Add the node that a kernel's error was of, which stands in a line of its own."""
    node = PREPARED.search(text)
    return f"{line}; {node[0]}" if node and line.startswith("ERROR: ") and node[0] not in line else line
