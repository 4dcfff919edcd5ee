"""A meter whose readings are given: options `values` (watts), `fault` (start, break, hang), `slow` (seconds a reading)."""

import time

from edgebench.agent.clock import now_ns
from edgebench.agent.meters.meters import Unavailable, channel

PERIOD_S = 0.01


class Meter:
    def __init__(self, options, root="/"):
        self.options = options
        self.values = list(options.get("values", []))
        self.stopped = 0

    def start(self):
        if self.options.get("fault") == "start":
            raise Unavailable("no such sensor; plug it in")
        return [channel("total", "board", PERIOD_S)]

    def read(self):
        time.sleep(self.options.get("slow", 0))
        if not self.values:
            if self.options.get("fault") == "break":
                raise OSError(19, "No such device")
            if self.options.get("fault") == "hang":
                time.sleep(30)
            return []
        return [(0, now_ns(), self.values.pop(0))]

    def stop(self):
        if self.options.get("fault") == "break":
            raise RuntimeError("stopping fails as well")
