"""Power meters beside a run: each is read in a thread of its own, and what it says is sent as events.

    meter   a meter's channels, or the reason why it has none
    power   readings of one channel, at least every second
    mark    a pulse of full load, by which the host aligns a meter that has a clock of its own

A meter that breaks, or has notes to add, sends `meter` once more at its end; what it read before stays.
"""

import hashlib
import math
import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .. import plugins
from ..clock import now_ns
from ..events import Events
from ..facts import read

Reading = Tuple[int, int, float]
"""Channel, time in nanoseconds, and watts (a counter: joules since the start)."""
FLUSH_SECONDS = 0.5
STOP_SECONDS = 3.0
"""A meter that does not answer for so long when the run ends is left behind."""
PROVENANCES = ("wall", "board", "module", "soc", "estimate")
LOADS = (1.0, 0.6, 1.5, 0.8, 1.2)
RESTS = (1.2, 0.8, 0.5, 1.1, 0.7)
"""Lengths of pulses and of the rests before them: irregular, so that the pattern fits itself in one place only."""


class Unavailable(Exception):
    """A meter that cannot be read: what is missing, and what to do."""


def channel(
    rail: str,
    provenance: str,
    period_s: float,
    counter: bool = False,
    own_clock: bool = False,
    note: str = "",
    least_updates: Optional[int] = None,
) -> Dict[str, Any]:
    """Describe one rail of a meter as the `meter` event does.

    A second channel of the same rail measures the same in another way: it counts where the first gives no figure.
    `least_updates`: how many changes a trial must see where that is other than for most (100): 10 at least.
    """
    if provenance not in PROVENANCES:
        raise Unavailable("provenance is %r; it is one of %s" % (provenance, ", ".join(PROVENANCES)))
    found = {
        "rail": rail,
        "provenance": provenance,
        "counter": counter,
        "own_clock": own_clock,
        "period_s": period_s,
        "note": note,
    }
    return found if least_updates is None else dict(found, least_updates=least_updates)


def check_options(options: Dict[str, Any], known: Sequence[str]) -> Dict[str, Any]:
    """Return the options, or raise `Unavailable` for one that the meter does not have."""
    strange = sorted(set(options) - set(known))
    if strange:
        raise Unavailable("no option %r; there are: %s" % (strange[0], ", ".join(known) or "none"))
    return options


def whole(path: str) -> Optional[int]:
    """Read a file that holds one whole number; None where it cannot be read."""
    try:
        return int(read(path) or "")
    except ValueError:
        return None


def reading(path: str) -> Optional[Tuple[int, int]]:
    """Read one whole number and when: the middle between the clock before and after, in nanoseconds."""
    begin = now_ns()
    value = whole(path)
    return None if value is None else ((begin + now_ns()) // 2, value)


def why_unreadable(path: str) -> str:
    """Say what the system answers to reading a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return "%s says %r" % (path, os.read(descriptor, 40).decode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except OSError as error:
        return "%s: %s" % (path, error.strerror)


class Counter(object):
    """Joules since the start, from a counter that wraps round at its range.

    Two wraps between readings cannot be told from one: read it often enough.
    """

    def __init__(self, first: int, scale: float, wraps_at: Optional[int] = None) -> None:
        self._last = first
        self._sum = 0
        self._scale = scale
        self._wraps_at = wraps_at

    def joules(self, value: int) -> float:
        """Add what was counted since the last reading."""
        step = value - self._last
        if step < 0:
            if not self._wraps_at:
                raise Unavailable("the energy counter went back from %d to %d: it was reset" % (self._last, value))
            step += self._wraps_at
        self._last = value
        self._sum += step
        return self._sum * self._scale


class Reader(threading.Thread):
    """One meter, read on an absolute schedule: a late reading delays none that follow."""

    def __init__(self, number: int, spec: Dict[str, Any], events: Events, root: str) -> None:
        super(Reader, self).__init__(daemon=True)
        self.channels: List[Dict[str, Any]] = []
        self._number = number
        self._spec = spec
        self._events = events
        self._root = root
        self._period = 1.0
        self._meter: Any = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._kept: Dict[int, Tuple[List[int], List[float]]] = {}
        self._state: Optional[str] = None

    def begin(self) -> None:
        """Start the meter and its thread, or report why there is none."""
        name = str(self._spec["name"])
        try:
            module = plugins.load("meters", name)
            self._meter = module.Meter(dict(self._spec.get("options") or {}), self._root)
            self._period = float(module.PERIOD_S)
            self.channels = self._meter.start()
        except Exception as error:
            self.release()
            self._describe(_reason(error))
            return
        self._describe()
        self.start()

    def run(self) -> None:
        """Read until told to stop; a meter that breaks keeps what it read."""
        reason = None
        try:
            self._read_on_schedule()
        except Exception as error:
            reason = _reason(error)
        self.release()
        self._flush()
        self._describe(reason)

    def _read_on_schedule(self) -> None:
        begin = flushed = time.monotonic()
        tick, last = 0, False
        while not last:
            last = self._over.is_set()
            self._keep(self._meter.read())
            now = time.monotonic()
            if now - flushed >= FLUSH_SECONDS:
                self._flush()
                flushed = now
            tick = max(tick + 1, math.ceil((now - begin) / self._period))
            if not last:
                self._over.wait(max(0.0, begin + tick * self._period - now))

    def _keep(self, rows: Sequence[Reading]) -> None:
        with self._lock:
            for index, t_ns, value in rows:
                if math.isfinite(value):
                    times, values = self._kept.setdefault(index, ([], []))
                    times.append(int(t_ns))
                    values.append(float(value))

    def _flush(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, {}
        for index, (times, values) in sorted(kept.items()):
            self._emit("power", meter=self._number, channel=index, t_ns=times, values=values)

    def _describe(self, reason: Optional[str] = None) -> None:
        """Say what the meter is, unless the same was said before."""
        state = repr((self.channels, reason))
        if state != self._state:
            self._state = state
            self._emit("meter", meter=self._number, name=self._spec["name"], channels=self.channels, reason=reason)

    def _emit(self, event: str, **fields: Any) -> None:
        try:
            self._events.emit(event, **fields)
        except (OSError, ValueError):
            pass  # the host has left, which the supervisor notices itself

    def release(self) -> None:
        """Stop the meter itself."""
        try:
            if self._meter is not None:
                self._meter.stop()
        except Exception:
            pass  # what it read is kept; there is nothing left to lose

    def ask_to_stop(self) -> None:
        """Let the thread take one last reading and end."""
        self._over.set()

    def finish(self, seconds: float) -> None:
        """Wait for the thread; leave it behind if the meter does not answer."""
        if self.ident is None:
            return
        self.join(seconds)
        if self.is_alive():
            self._flush()
            self._describe("the meter did not answer for %.0f s when the run ended" % STOP_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, ImportError) and "meter_" in str(error):
        return "this agent has no such meter (%s)" % error
    return "%s: %s" % (type(error).__name__, error)


class Sampler(object):
    """All meters of a target, read beside a run; nothing that a meter does is raised here."""

    def __init__(self, specs: Sequence[Dict[str, Any]], events: Events, root: str = "/") -> None:
        self._readers = [Reader(number, spec, events, root) for number, spec in enumerate(specs)]

    def start(self) -> None:
        """Start every meter; each says in a `meter` event what it is, or why it is absent."""
        for reader in self._readers:
            reader.begin()

    @property
    def working(self) -> bool:
        """Return whether any meter can be read."""
        return any(reader.channels for reader in self._readers)

    @property
    def own_clock(self) -> bool:
        """Return whether some meter wants marks."""
        return any(item["own_clock"] for reader in self._readers for item in reader.channels)

    def abandon(self) -> None:
        """Let go of every meter at once; what it started ends with it."""
        for reader in self._readers:
            reader.release()

    def stop(self) -> None:
        """Take a last reading of each, send what is left, and end the threads."""
        for reader in self._readers:
            reader.ask_to_stop()
        end = time.monotonic() + STOP_SECONDS
        for reader in self._readers:
            reader.finish(max(0.0, end - time.monotonic()))


def pulses(count: int, seconds: float, mark: Callable[[int, int], None]) -> None:
    """Load one core in pulses of about so many seconds, rests between and around them.

    `mark` gets each pulse's begin and end in nanoseconds once it is over.
    Hashing lets go of the interpreter's lock, so that meters are read meanwhile.
    """
    block = bytes(1 << 16)
    for index in range(count):
        time.sleep(seconds * RESTS[index % len(RESTS)])
        begin = now_ns()
        end = begin + int(1e9 * seconds * LOADS[index % len(LOADS)])
        while now_ns() < end:
            hashlib.sha256(block).digest()
        mark(begin, now_ns())
    time.sleep(seconds)
