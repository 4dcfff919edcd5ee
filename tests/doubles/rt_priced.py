"""ONNX Runtime on a device that is slow in its own way: each node costs what its target says, more or less in INT8.

Options of the target: `base_ms`; `int8_ms`, by node, what it costs more in INT8; `packed_ms`, what unpacking weights costs;
`spoils`, a node whose INT8 kernel is wrong.
"""

import time

from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "Runtime"]


class Runtime(Base):
    def __init__(self, job):
        super().__init__(job)
        self._prices = {"base_ms": 3.0, "int8_ms": {}, "packed_ms": 0.0, "spoils": "", **job["options"]}

    def load(self, path, threads):
        import onnx

        super().load(path, threads)
        nodes = onnx.load(path).graph.node
        makers = {name: node.op_type for node in nodes for name in node.output}
        quantized = {node.name for node in nodes if node.input and makers.get(node.input[0]) == "DequantizeLinear"}
        milliseconds = self._prices["base_ms"] + sum(self._prices["int8_ms"].get(name, 0.0) for name in quantized)
        milliseconds += self._prices["packed_ms"] * ("Cast" in makers.values())
        self._seconds = milliseconds / 1e3
        self._sign = -1 if self._prices["spoils"] in quantized else 1

    def infer(self, tensor):
        end = time.perf_counter() + self._seconds
        [output] = super().infer(tensor)
        while time.perf_counter() < end:
            pass
        return [self._sign * output]
