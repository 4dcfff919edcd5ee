"""Exported programs (`.pt2`) on torch: the FP32 reference."""

import json
import os
import re
import zipfile
from typing import Any, Dict, List

from . import preprocess

PACKAGE = "'edgebench[torch]'"
MODULES = ("torch",)
DISTRIBUTIONS = ("torch",)
WARM, RUNS = 3, 10
"""Profiled inferences: those that are dropped, and those that are kept."""


EXPRESSION = re.compile(r"[A-Za-z0-9_ +\-*/(),<>=]*")
SYMBOL = re.compile(r"Symbol\('(s\d+)'(?:, (?:integer|positive|nonnegative)=True)*\)")
"""How torch writes a size that is open, as a dynamic batch is."""


def refuse_code(path: str) -> None:
    """Raise ValueError where loading a `.pt2` file could run code that it carries.

    That is: pickled objects, or shape expressions that are more than arithmetic
    (torch evaluates them). Tensors may only be read with `weights_only`.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/custom_obj_" in name or "/opaque_obj_" in name:
                raise ValueError("%s: carries a pickled object (%s)" % (path, name))
            if name.endswith(".json") and "/models/" in name:
                for text in _expressions(json.loads(archive.read(name).decode("utf-8"))):
                    if "__" in text or not EXPRESSION.fullmatch(SYMBOL.sub(r"\1", text)):
                        raise ValueError("%s: carries a shape expression that is no arithmetic: %r" % (path, text))


def _expressions(value: Any) -> Any:
    """Find every shape expression in a program's JSON."""
    if isinstance(value, dict):
        if isinstance(value.get("expr_str"), str):
            yield value["expr_str"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            for found in _expressions(item):
                yield found


class Runtime(object):
    """One exported program in eager execution on the CPU."""

    OFFERS = ("profile",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import torch

        self._np = numpy
        self._torch = torch
        self._job = job
        torch.set_grad_enabled(False)

    def load(self, path: str, threads: int) -> None:
        """Open the program."""
        refuse_code(path)
        self._torch.set_num_threads(threads)
        self._module = self._torch.export.load(path).module()

    def prepare(self, raw: bytes, shape: Any) -> Any:
        """Turn raw uint8 pixels [n, h, w, c] into a torch tensor."""
        images = self._np.frombuffer(raw, dtype="uint8").reshape(shape)
        return self._torch.from_numpy(preprocess.apply(images, self._job["preprocessing"]))

    def infer(self, tensor: Any) -> Any:
        """Run one inference: host tensor in, host tensor out."""
        return self._module(tensor)

    def scores(self, output: Any) -> bytes:
        """Return the outputs as float32 bytes, row by row."""
        return bytes(output.numpy().astype("<f4").tobytes())

    def profile(self, path: str, threads: int, inputs: Any) -> List[Dict[str, Any]]:
        """Time every operator with torch's own profiler; those within others count with them."""
        self.load(path, threads)
        for index in range(WARM):
            self.infer(inputs[index % len(inputs)])
        with self._torch.autograd.profiler.profile() as profiler:
            for index in range(RUNS):
                self.infer(inputs[index % len(inputs)])
        events = sorted((e for e in profiler.function_events if e.cpu_parent is None), key=lambda e: e.time_range.start)
        each = len(events) // RUNS
        found = []
        for index in range(each):
            times = sorted(event.cpu_time_total for event in events[index::each])
            faster = times[: (RUNS + 1) // 2]  # what disturbs an inference only ever adds to it
            op = events[index].name
            found.append({"name": "%s_%d" % (op, index), "op": op, "where": "CPU", "ns": int(1000 * sum(faster) / len(faster))})
        return found
