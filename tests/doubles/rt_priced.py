"""ONNX Runtime on a device with a clock of its own, on which each node costs what its target says, more or less in INT8.

Options of the target: `base_ms`; `int8_ms`, by node, what it costs more in INT8; `packed_ms`, what unpacking weights costs;
`mebibyte_ms`, what each MiB of the file costs; `spoils`, a node whose INT8 kernel is wrong; `samples`, how many it takes.
"""

import os

from . import clock, onnxfile
from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "OPTIONS", "Runtime"]
OPTIONS = ("base_ms", "int8_ms", "packed_ms", "mebibyte_ms", "spoils", "samples")
USUAL = {"base_ms": 3.0, "int8_ms": {}, "packed_ms": 0.0, "mebibyte_ms": 0.0, "spoils": "", "samples": 20}


class Runtime(Base):
    OFFERS = (*Base.OFFERS, "take")

    def __init__(self, job):
        super().__init__({**job, "options": {"optimization": "none"}})  # the same arithmetic on every processor
        self._prices = {**USUAL, **job["options"]}

    def load(self, path, threads):
        super().load(path, threads)
        nodes = onnxfile.nodes(path)
        makers = {name: node["op"] for node in nodes for name in node["outputs"]}
        pairs = ["DequantizeLinear"] * 2  # a float node after a quantized one reads from one pair alone
        quantized = {node["name"] for node in nodes if [makers.get(name) for name in node["inputs"][:2]] == pairs}
        milliseconds = self._prices["base_ms"] + sum(self._prices["int8_ms"].get(name, 0.0) for name in quantized)
        milliseconds += self._prices["packed_ms"] * ("Cast" in makers.values())
        milliseconds += self._prices["mebibyte_ms"] * os.path.getsize(path) / 2**20
        self._ns = int(1e6 * milliseconds)
        self._sign = -1 if self._prices["spoils"] in quantized else 1

    def infer(self, feed):
        [output] = super().infer(feed)
        return [self._sign * output]

    def take(self, path, threads, feeds, mode, began):
        self.load(path, threads)
        began(os.getpid())
        begin = clock.now_ns()
        self.infer(feeds[0])
        count = self._prices["samples"]
        samples = [self._ns + index % 3 for index in range(count)]
        window = {"ns": samples, "begin_ns": begin, "end_ns": clock.now_ns(), "inferences": count}
        return {"load_ns": 1, "first_ns": self._ns, "warmup_ns": [self._ns], "windows": [window], "stages": {}}
