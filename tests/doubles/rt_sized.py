"""ONNX Runtime on a device with a clock of its own, on which an inference costs what its file has in bytes.

Options of the target: `base_ms`, and `ms_per_mb` (a million bytes).
"""

import os

from . import clock
from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "OPTIONS", "Runtime"]
SAMPLES = 700  # enough for p99

OPTIONS = ("base_ms", "ms_per_mb")


class Runtime(Base):
    OFFERS = (*Base.OFFERS, "take")

    def __init__(self, job):
        super().__init__({**job, "options": {"optimization": "none"}})  # the same arithmetic on every processor
        self._prices = {"base_ms": 1.0, "ms_per_mb": 10.0, **job["options"]}

    def load(self, path, threads):
        super().load(path, threads)
        self._ns = int(1e6 * (self._prices["base_ms"] + self._prices["ms_per_mb"] * os.path.getsize(path) / 1e6))

    def take(self, path, threads, feeds, mode, began):
        self.load(path, threads)
        began(os.getpid())
        begin = clock.now_ns()
        self.infer(feeds[0])
        samples = [self._ns + index % 3 for index in range(SAMPLES)]
        window = {"ns": samples, "begin_ns": begin, "end_ns": clock.now_ns(), "inferences": SAMPLES}
        return {"load_ns": 1, "first_ns": self._ns, "warmup_ns": [self._ns], "windows": [window], "stages": {}}
