"""ONNX Runtime that notes, in the file `EDGEBENCH_OVERHEARD`, whether its process was told to send nothing, and its sockets."""

import os

from .rt_onnxruntime import DISTRIBUTIONS, MODULES
from .rt_onnxruntime import Runtime as Base

__all__ = ["DISTRIBUTIONS", "MODULES", "Runtime"]


class Runtime(Base):
    def __init__(self, job):
        super().__init__(job)
        with open(os.environ["EDGEBENCH_OVERHEARD"], "a") as notes:
            notes.write("%s %s\n" % (job["pass"], os.environ.get("ORT_DISABLE_TELEMETRY")))

    def scores(self, outputs):
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        sockets = sum(os.path.lexists(link) and os.readlink(link).startswith("socket:") for link in links)
        with open(os.environ["EDGEBENCH_OVERHEARD"], "a") as notes:
            notes.write("sockets %d\n" % sockets)
        return super().scores(outputs)
