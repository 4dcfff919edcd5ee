"""The timed loop: warm up, then take samples. It allocates nothing while it times."""

import gc
import math
import time
from array import array
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..clock import now_ns

CAPACITY = 1 << 20
"""Most samples of one window; a window that is full ends early."""


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


class Loop(object):
    """Calls `infer` on prepared inputs in turn and times every call (or batch of calls).

    With `period_ns` calls begin that far apart; with `idle_ns` a pause follows each.
    """

    def __init__(self, infer: Callable[[Any], Any], inputs: List[Any], period_ns: int = 0, idle_ns: int = 0) -> None:
        self._infer = infer
        self._inputs = inputs
        self._next = 0
        self._buffer = array("q", bytes(8 * CAPACITY))
        self._period_ns = period_ns
        self._idle_ns = idle_ns
        self.paced = bool(period_ns or idle_ns)
        self.calls = 1

    def window(self, seconds: float, least: int = 1) -> "array[int]":
        """Take samples for so long, and at least so many; nanoseconds per call."""
        take = self._paced if self.paced else self._single if self.calls == 1 else self._batched
        return self._buffer[: take(int(seconds * 1e9), least)]

    def _single(self, length_ns: int, least: int) -> int:
        infer, inputs, buffer, now = self._infer, self._inputs, self._buffer, now_ns
        position, last, index = self._next, len(self._inputs) - 1, 0
        end = now() + length_ns
        while index < CAPACITY:
            tensor = inputs[position]
            position = 0 if position == last else position + 1
            begin = now()
            infer(tensor)
            finish = now()
            buffer[index] = finish - begin
            index += 1
            if finish >= end and index >= least:
                break
        self._next = position
        return index

    def _batched(self, length_ns: int, least: int) -> int:
        infer, inputs, buffer, now, calls = self._infer, self._inputs, self._buffer, now_ns, self.calls
        position, last, index = self._next, len(self._inputs) - 1, 0
        repeats = range(calls)
        end = now() + length_ns
        while index < CAPACITY:
            begin = now()
            for _ in repeats:
                infer(inputs[position])
                position = 0 if position == last else position + 1
            finish = now()
            buffer[index] = (finish - begin) // calls
            index += 1
            if finish >= end and index >= least:
                break
        self._next = position
        return index

    def _paced(self, length_ns: int, least: int) -> int:
        infer, inputs, buffer, now = self._infer, self._inputs, self._buffer, now_ns
        position, last, index = self._next, len(self._inputs) - 1, 0
        due = now()
        end = due + length_ns
        while index < CAPACITY:
            tensor = inputs[position]
            position = 0 if position == last else position + 1
            begin = now()
            infer(tensor)
            finish = now()
            buffer[index] = finish - begin
            index += 1
            due = max(due + self._period_ns, finish) if self._period_ns else finish + self._idle_ns
            time.sleep(max(0, due - now()) / 1e9)
            if due >= end and index >= least:
                break
        self._next = position
        return index


def warm_up(loop: Loop, window_seconds: float, seconds: float = 0.5, inferences: int = 10) -> "Tuple[array[int], bool]":
    """Infer until three successive windows' medians lie within 10 % of each other, in ten windows at most.

    At least `inferences` calls and `seconds` go before. Returns the samples and
    whether they settled (NVIDIA perf_analyzer's stability rule).
    """
    samples = loop.window(seconds, inferences)
    medians: List[float] = []
    for _ in range(10):
        window = loop.window(window_seconds)
        samples.extend(window)
        medians.append(median(window))
        last = medians[-3:]
        if len(last) == 3 and max(last) <= 1.1 * min(last):
            return samples, True
    return samples, False


def calls_per_sample(warm: Sequence[int], clock_cost_ns: float) -> int:
    """Return 1, or how many calls make 10 ms where one is shorter than 50 clock readings."""
    typical = max(median(warm[-64:]), 1.0)
    return 1 if typical >= 50 * clock_cost_ns else math.ceil(1e7 / typical)


def half_width(medians: Sequence[float]) -> Optional[float]:
    """Return the relative half-width of the 95 % interval of the windows' median; None below six windows.

    The interval between order statistics needs no assumption about the
    distribution (David & Nagaraja, Order Statistics, 7.1). Windows stand in for
    samples, which are correlated.
    """
    count = len(medians)
    below, term, rank = 0.0, 0.5**count, 0
    while below + term <= 0.025:
        below += term
        rank += 1
        term *= (count - rank + 1) / float(rank)
    if not rank:
        return None
    ordered = sorted(medians)
    return (ordered[-rank] - ordered[rank - 1]) / 2.0 / median(ordered)


Emit = Callable[["array[int]", int, int], None]
"""Takes one window's samples, and when it began and ended."""


def sample(loop: Loop, mode: Dict[str, Any], precision: Optional[float], emit: Emit) -> bool:
    """Take samples in windows until the mode's counts are met and the median is known to `precision`, or to the cap.

    Returns whether the precision was reached; without one the counts decide alone.
    """
    taken, spent_ns, precise = 0, 0, False
    medians: List[float] = []
    gc.collect()
    gc.disable()
    try:
        while spent_ns < mode["cap_seconds"] * 1e9:
            begin = now_ns()
            window = loop.window(mode["window_seconds"])
            end = now_ns()
            spent_ns += end - begin
            taken += len(window)
            medians.append(median(window))
            emit(window, begin, end)
            if taken >= mode["min_samples"] and spent_ns >= mode["min_seconds"] * 1e9:
                width = None if precision is None else half_width(medians)
                precise = width is not None and precision is not None and width <= precision
                if precise or precision is None:
                    break
    finally:
        gc.enable()
    return precise
