"""The timed loop: warm up, then take samples. It allocates nothing while it times."""

import gc
import math
from array import array
from typing import Any, Callable, Dict, List, Sequence, Tuple

from .clock import now_ns

CAPACITY = 1 << 20
"""Most samples of one window; a window that is full ends early."""


def median(values: Sequence[int]) -> float:
    """Return the middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


class Loop(object):
    """Calls `infer` on prepared inputs in turn and times every call (or batch of calls)."""

    def __init__(self, infer: Callable[[Any], Any], inputs: List[Any]) -> None:
        self._infer = infer
        self._inputs = inputs
        self._next = 0
        self._buffer = array("q", bytes(8 * CAPACITY))
        self.calls = 1

    def window(self, seconds: float, least: int = 1) -> "array[int]":
        """Take samples for so long, and at least so many; nanoseconds per call."""
        taken = self._single(int(seconds * 1e9), least) if self.calls == 1 else self._batched(int(seconds * 1e9), least)
        return self._buffer[:taken]

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


def sample(loop: Loop, mode: Dict[str, Any], emit: "Callable[[array[int]], None]") -> None:
    """Take samples in one-second windows until the mode's counts are met or its cap is reached."""
    taken, spent_ns = 0, 0
    gc.collect()
    gc.disable()
    try:
        while spent_ns < mode["cap_seconds"] * 1e9:
            begin = now_ns()
            window = loop.window(min(1.0, mode["min_seconds"]))
            spent_ns += now_ns() - begin
            taken += len(window)
            emit(window)
            if taken >= mode["min_samples"] and spent_ns >= mode["min_seconds"] * 1e9:
                break
    finally:
        gc.enable()
