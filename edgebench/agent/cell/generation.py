"""A language model's trial: sweeps over all prompts, each token timed."""

import math
from array import array
from typing import Any, Callable, Dict, List, Tuple

from .. import clock
from .loop import Loop, sample, warm_up

SLOW_NS = int(10e9)
"""A sweep that takes longer is not repeated until three are alike."""


class Sweeps(Loop):
    """Answers all prompts in turn; a sample is the mean time of a sweep's answers."""

    def __init__(self, generate: Callable[[Any], Dict[str, Any]], feeds: List[Any]) -> None:
        super(Sweeps, self).__init__(generate, feeds)
        self.calls = len(feeds)
        self.answers: List[Dict[str, Any]] = []
        """Those of the last sweep."""

    def window(self, seconds: float, least: int = 1) -> "array[int]":
        """Take one sweep, however long it takes."""
        begin = clock.now_ns()
        self.answers = [dict(self._infer(feed), prompt=index) for index, feed in enumerate(self._inputs)]
        return array("q", [max(1, (clock.now_ns() - begin) // self.calls)])


def warmed(sweeps: Sweeps, mode: Dict[str, Any]) -> "Tuple[array[int], bool]":
    """Warm up as elsewhere; of sweeps that take long two must do, within 10 % of each other."""
    first = sweeps.window(0.0)
    if first[0] * sweeps.calls < SLOW_NS:
        return warm_up(sweeps, mode["window_seconds"], mode["warmup_seconds"])
    first.extend(sweeps.window(0.0))
    return first, max(first) <= 1.1 * min(first)


def trial(worker: Any, feeds: List[Any]) -> None:
    """Warm up and take sweeps until the mode's counts are met; emits each sweep's answers before its sample."""
    events, mode, scenario = worker.events, worker.job["mode"], worker.job["scenario"]
    if scenario["kind"] != "single-stream":
        raise ValueError("a language model answers one prompt after the other: the scenario single-stream alone")
    sweeps = Sweeps(worker.runtime.generate, feeds)
    worker.stage = "warm-up"
    warm, settled = warmed(sweeps, mode)
    events.emit("warm", warmup_ns=list(warm), settled=settled, calls_per_sample=sweeps.calls, batch=1)
    worker.stage = "samples"
    said: Dict[int, str] = {}

    def emit(window: "array[int]", begin: int, end: int) -> None:
        answers = [dict(each, text=_text(worker.runtime, each, said)) for each in sweeps.answers]
        events.emit("answers", answers=answers)
        events.emit("samples", ns=list(window), begin_ns=begin, end_ns=end, inferences=len(window) * sweeps.calls)

    tokens = sum(len(each["tokens"]) for each in sweeps.answers)
    least = dict(mode, min_samples=math.ceil(mode["min_samples"] / max(1, tokens)))
    precise = sample(sweeps, least, scenario["half_width"] if mode["adaptive"] else None, emit)
    if mode["adaptive"]:
        events.emit("stopped", precise=precise)


def _text(runtime: Any, answer: Dict[str, Any], said: Dict[int, str]) -> Any:
    """Return an answer's text, the first time that it is given."""
    if answer["prompt"] in said:
        return None
    said[answer["prompt"]] = runtime.text(answer["tokens"])
    return said[answer["prompt"]]
