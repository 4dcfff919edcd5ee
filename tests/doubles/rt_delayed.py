"""ONNX Runtime made slower: after each inference it looks at the clock for `EDGEBENCH_DELAY_NS` nanoseconds."""

import os

from .clock import now_ns
from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "Runtime"]


class Runtime(Base):
    def __init__(self, job):
        super().__init__(job)
        self._delay = int(os.environ["EDGEBENCH_DELAY_NS"])

    def infer(self, feed):
        outputs = super().infer(feed)
        if self._delay:
            end = now_ns() + self._delay
            while now_ns() < end:
                pass
        return outputs
