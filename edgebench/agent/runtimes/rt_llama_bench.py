"""GGUF files by llama.cpp's llama-bench, which the user brings: random tokens, prefill and decoding apart."""

import math
import os
from typing import Any, Callable, Dict, List, Sequence

from .. import llama_bench
from ..clock import now_ns

MODULES = ()
DISTRIBUTIONS = ()
INSTALL = "build llama.cpp on the device and name its program: --option llama_bench=PATH"
OPTIONAL = True
OPTIONS = ("llama_bench", "library_path", "n_gpu_layers")
RUNS = ("llama_bench", "library_path")
RUN_SECONDS = 1800.0
"""Loading the file and one repetition may take so long."""
LEAST = 5
"""Repetitions, unless they take longer than the mode's cap: the program's own number."""
NO_SHARE = "llama-bench is one process from start to end: its share without the model is not known"


def version_of(options: Dict[str, Any]) -> str:
    """Name the program by its content; ValueError where it is not on this device."""
    return llama_bench.identity(llama_bench.find(options.get("llama_bench")))


def version() -> Any:
    """Name the program in its usual places, if it is there."""
    try:
        return version_of({})
    except (ValueError, OSError):
        return None


def reason() -> str:
    """Say what is missing."""
    return "no program llama-bench; name one: --option llama_bench=PATH"


class Runtime(object):
    """One file and one program; every trial is a start of it."""

    OFFERS = ("take", "footprint")

    def __init__(self, job: Dict[str, Any]) -> None:
        options = job["options"]
        layers = options.get("n_gpu_layers", 0)
        if type(layers) is not int or not 0 <= layers <= 10000:
            raise ValueError("option n_gpu_layers is a whole number from 0 to 10000, not %r" % (layers,))
        self._options = options
        self._asked = job["prompts"]
        self._program = llama_bench.Program(llama_bench.find(options.get("llama_bench")), options.get("library_path"))

    def load(self, path: str, threads: int) -> None:
        """Remember the file; the program loads it anew in each run."""
        self._path, self._threads = os.path.abspath(path), threads

    def prepare(self, raws: Sequence[bytes], count: int) -> None:
        """Prepare nothing: the program makes its tokens."""

    def infer(self, feed: Any) -> Any:
        """Refuse: what the program generates is not told."""
        raise ValueError("llama-bench tells no outputs; it can be measured, and neither compared in turns nor judged")

    def scores(self, outputs: Any) -> bytes:
        """Return nothing."""
        return b""

    def tensors(self, outputs: Any) -> List[Any]:
        """Return nothing."""
        return []

    def _run(self, repetitions: int, seconds: float, **heed: Any) -> Any:
        flags = {"-m": self._path, "-p": self._asked["prompt_tokens"], "-n": self._asked["max_new_tokens"]}  # type: Dict[str, Any]
        flags.update({"-r": repetitions, "-t": self._threads, "-ngl": self._options.get("n_gpu_layers", 0)})
        return self._program.run(flags, seconds, **heed)

    def _tests(self, said: Any, repetitions: int) -> List[Dict[str, Any]]:
        """Return the tests of the prompt and of generation, which must have as many repetitions as were asked for."""
        found = llama_bench.tests(said.text)
        asked = (self._asked["prompt_tokens"], 0), (0, self._asked["max_new_tokens"])
        both = [llama_bench.of(found, *each) for each in asked]
        if any(len(each["samples_ns"]) != repetitions for each in both):
            raise ValueError("llama-bench printed other than the %d repetitions that were asked for" % repetitions)
        return both

    def take(
        self, path: str, threads: int, feeds: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]
    ) -> Dict[str, Any]:
        """Let the program run once to see how long that takes, then as often as the mode says."""
        self.load(path, threads)
        once = self._tests(self._run(1, RUN_SECONDS), 1)
        took = sum(each["samples_ns"][0] for each in once) / 1e9
        wanted = max(LEAST, mode["min_samples"] / self._asked["max_new_tokens"], mode["min_seconds"] / took)
        repetitions = max(2, math.ceil(min(wanted, mode["cap_seconds"] / took)))
        marks, ends = [], []  # type: List[int], List[int]

        def heard(line: str, pid: int) -> None:
            first = llama_bench.BEGUN.match(line) is not None
            if not marks and (first or line.startswith(("{", "["))):  # older builds tell no progress
                begun(pid)
                marks.append(now_ns())
            if "samples_ts" in line:
                ends.append(now_ns())

        begin = now_ns()
        said = self._run(repetitions, RUN_SECONDS + 10.0 * took * repetitions, heard=heard)
        prompt, generated = self._tests(said, repetitions)
        end = ends[-1] if ends else now_ns()
        both = [one + other for one, other in zip(prompt["samples_ns"], generated["samples_ns"])]
        window = {
            "ns": both,
            "begin_ns": max(begin, min(marks[0] if marks else end, end - sum(both))),
            "end_ns": end,
            "inferences": len(both),
            "answers": [self._answer(*times) for times in zip(prompt["samples_ns"], generated["samples_ns"])],
        }
        return {
            "load_ns": max(0, window["begin_ns"] - begin),
            "first_ns": both[0],
            "warmup_ns": [sum(each["samples_ns"][0] for each in once)],
            "calls_per_sample": 1,
            "windows": [window],
            "stages": {},
            "program": self._facts(prompt, generated),
        }

    def _answer(self, prompt_ns: int, generated_ns: int) -> Dict[str, Any]:
        count = self._asked["max_new_tokens"]
        return {
            "prompt": 0,
            "prompt_tokens": self._asked["prompt_tokens"],
            "first_ns": prompt_ns,
            "token_ns": [max(1, generated_ns // count)],
            "tokens_each": count,
            "has_first": False,
        }

    def _facts(self, prompt: Dict[str, Any], generated: Dict[str, Any]) -> Dict[str, Any]:
        """Say what computed, and what the program printed of this process."""
        layers = self._options.get("n_gpu_layers", 0)
        backend = str(prompt.get("backends") or prompt.get("gpu_info") or "CPU")[:40]
        where = "CPU" if not layers or backend == "CPU" else "%s, %d layers" % (backend, layers)
        names = ("n_batch", "n_ubatch", "n_threads", "model_size", "model_n_params")
        return {
            "name": llama_bench.NAME,
            "sha256": self._program.sha256,
            "build": "%s (%s)" % (str(prompt.get("build_number"))[:20], str(prompt.get("build_commit"))[:40]),
            "model": str(prompt.get("model_type"))[:80],
            "computed_on": where,
            "statistic": "the times of its repetitions",
            "inputs": "random tokens",
            "run": {name: prompt[name] for name in names if type(prompt.get(name)) in (int, float)},
        }

    def footprint(self, path: str, feed: Any) -> Dict[str, Any]:
        """Measure the program's resident memory while it runs the file, by the system."""
        self.load(path, 1)
        said = self._run(1, RUN_SECONDS, watch=True)
        by = "VmHWM of llama-bench" if said.peak_bytes is not None else None
        nothing = {"baseline_bytes": None, "loaded_bytes": None, "device_bytes": None}
        return dict(nothing, peak_bytes=said.peak_bytes, method=by, reason=NO_SHARE)
