"""An external meter's log that grows while the run goes on: one row a reading, on the meter's own clock.

Columns are found by the header; a unit at a name's end counts (`power_mw`, `time_ms`).
Without a header the options `time` and `power` are column numbers from 0, in
seconds and watts. Rows that are not a finite time and power, or whose time does
not rise, are counted and passed over.
"""

import csv
import datetime
import math
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .meters import Reading, Unavailable, channel, check_options

PERIOD_S = 0.25
TIMES = ("t", "time", "timestamp", "unix", "unix_time", "epoch", "seconds", "elapsed", "datetime", "date_time")
POWERS = ("w", "watt", "watts", "power", "p", "mw", "uw", "kw", "milliwatts")
SCALES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "w": 1.0, "mw": 1e-3, "uw": 1e-6, "kw": 1e3, "milliwatts": 1e-3}
LONGEST_LINE = 1 << 16
BLOCK = 1 << 20
EPOCH = datetime.datetime(1970, 1, 1)
FORMATS = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S")

NEEDS = "csv:FILE"
"""What must be said of it: without, there is nothing to try."""


def options_of(text: str) -> Dict[str, Any]:
    """Read what follows `--meter csv:`; `ValueError` says what to write."""
    if not text:
        raise ValueError("name the file, for instance csv:/tmp/meter.csv")
    return {"path": text}


class Columns(object):
    """Where a row has its time and its power, and their units."""

    def __init__(self, first: str, time: Any, power: Any) -> None:
        self.delimiter = max(",;\t", key=first.count)
        header = [_plain(field) for field in self.fields(first)]
        self.time, time_unit = _column(header, time, TIMES, "time")
        self.power, power_unit = _column(header, power, POWERS, "power")
        self._seconds = SCALES.get(time_unit, 1.0)
        self._watts = SCALES.get(power_unit, 1.0)

    def fields(self, line: str) -> List[str]:
        """Split one line."""
        return [field.strip() for field in next(csv.reader([line.strip()], delimiter=self.delimiter), [])]

    def row(self, line: str) -> Optional[Tuple[int, float]]:
        """Return time in nanoseconds and watts; None where the line has not both."""
        try:
            fields = self.fields(line)
            seconds = self._time(fields[self.time])
            watts = self._number(fields[self.power]) * self._watts
        except (ValueError, IndexError, OverflowError, csv.Error):
            return None
        return (round(seconds * 1e9), watts) if math.isfinite(watts) and abs(seconds) < 9e9 else None

    def _number(self, text: str) -> float:
        return float(text if self.delimiter == "," else text.replace(",", "."))

    def _time(self, text: str) -> float:
        try:
            return self._number(text) * self._seconds
        except ValueError:
            return _date(text)


def _date(text: str) -> float:
    """Read an ISO 8601 date and time; its zone does not matter to a clock that is aligned by marks."""
    plain = text.replace("T", " ").rstrip("Z")
    for format in FORMATS:
        try:
            return (datetime.datetime.strptime(plain, format) - EPOCH).total_seconds()
        except ValueError:
            continue
    raise ValueError(text)


def _plain(name: str) -> str:
    """Write `Power (mW)` as `power_mw`."""
    letters = "".join(letter if letter.isalnum() else " " for letter in name.lower().replace("µ", "u"))
    return "_".join(letters.split())


def _column(header: Sequence[str], wanted: Any, usual: Sequence[str], what: str) -> Tuple[int, str]:
    """Find a column's number and unit by its name."""
    if isinstance(wanted, int):
        return wanted, ""
    names = [_plain(str(wanted))] if wanted is not None else usual
    for name in names:
        for index, title in enumerate(header):
            stem, _, unit = title.rpartition("_")
            if title == name or (stem == name and unit in SCALES):
                return index, title.rpartition("_")[2]
    raise Unavailable("no %s column among %s; name it with the option `%s`" % (what, ", ".join(header)[:200], what))


class Meter(object):
    """One rail, `csv`; options: `path`, `time`, `power` (columns), `provenance` (wall)."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        check_options(options, ("path", "time", "power", "provenance"))
        self._path = str(options.get("path", ""))
        self._names = (options.get("time"), options.get("power"))
        self._channel = channel("csv", options.get("provenance", "wall"), PERIOD_S, own_clock=True)
        self._columns: Optional[Columns] = None
        self._position = 0
        self._rest = b""
        self._last_ns: Optional[int] = None
        self._bad = 0

    def start(self) -> List[Dict[str, Any]]:
        """Read the header and go to the end: rows of before are not of this run."""
        try:
            with open(self._path, "rb") as stream:
                first = stream.readline(LONGEST_LINE)
                size = stream.seek(0, os.SEEK_END)
                begin = stream.seek(max(0, size - LONGEST_LINE))
                self._position = begin + stream.read().rfind(b"\n") + 1
        except OSError as error:
            raise Unavailable("%s: %s; start the meter's log first" % (self._path or "`path`", error.strerror))
        if first.endswith(b"\n"):
            self._begin(first.decode("utf-8", "replace"))
        return [self._channel]

    def _begin(self, first: str) -> None:
        self._columns = Columns(first, *self._names)

    def read(self) -> List[Reading]:
        """Return the whole lines that are new."""
        rows: List[Reading] = []
        for line in self._lines():
            if self._columns is None:
                self._begin(line)
                continue
            row = self._columns.row(line)
            if row is None or (self._last_ns is not None and row[0] <= self._last_ns):
                self._bad += 1
            else:
                self._last_ns = row[0]
                rows.append((0,) + row)
        self._channel["note"] = "%d rows were no reading" % self._bad if self._bad else ""
        return rows

    def _lines(self) -> List[str]:
        with open(self._path, "rb") as stream:
            if stream.seek(0, os.SEEK_END) < self._position:
                raise Unavailable("%s became shorter while it was read" % self._path)
            stream.seek(self._position)
            block = stream.read(BLOCK)
        self._position += len(block)
        whole, _, self._rest = (self._rest + block).rpartition(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise Unavailable("%s has a line of more than %d bytes: is it a log?" % (self._path, LONGEST_LINE))
        return [line for line in whole.decode("utf-8", "replace").split("\n") if line.strip()]

    def stop(self) -> None:
        """Nothing is held open."""
