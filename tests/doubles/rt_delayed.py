"""ONNX Runtime made slower by `EDGEBENCH_DELAY`, a share of 1: after each inference it looks at the clock for so much longer."""

import os

from .clock import now_ns
from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "Runtime"]


class Runtime(Base):
    def __init__(self, job):
        super().__init__(job)
        self._longer = 1 + float(os.environ["EDGEBENCH_DELAY"])

    def infer(self, feed):
        begin = now_ns()
        outputs = super().infer(feed)
        end = begin + (now_ns() - begin) * self._longer
        while now_ns() < end:
            pass
        return outputs
