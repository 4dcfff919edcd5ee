"""A runtime that sleeps: real plugin, no model. `EDGEBENCH_SLEEP` is how long; scores are fixed."""

import os
import struct
import time

MODULES = ("time",)
DISTRIBUTIONS = ("pip", "setuptools")


class Runtime:
    def __init__(self, job):
        self.classes = job["outputs"][0]["shape"][1]
        self.seconds = float(os.environ.get("EDGEBENCH_SLEEP", "0.001"))
        self.fault = os.environ.get("EDGEBENCH_FAULT", "")
        self.job = job
        self.count = 0

    def load(self, path, threads):
        if self.fault == "noise":
            print("a runtime that prints to standard output")
            os.write(1, b'{"event": "done"}\n')
        if self.fault == "quantized is slower":
            with open(path, "rb") as stream:
                self.seconds *= 2 if b"QuantizeLinear" in stream.read() else 1
        if self.fault == "load":
            raise RuntimeError("no such operator: Frobnicate")

    def prepare(self, raws, count):
        return raws

    def infer(self, feed):
        self.count += 1
        if self.fault == "killed" and self.job["pass"] == "trial" and self.job["trial"] == 1 and self.count == 5:
            os.kill(os.getpid(), 9)
        if self.fault == "killed in turns" and self.job["cell"] == 1 and self.count > 180:
            os.kill(os.getpid(), 9)
        time.sleep(self.seconds)
        return feed

    def scores(self, outputs):
        values = [float(index) for index in range(self.classes)]
        if self.fault == "nan":
            values[0] = float("nan")
        return struct.pack("<%df" % self.classes, *values)
