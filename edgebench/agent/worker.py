"""One pass in one fresh process: the accuracy pass, the memory pass, or a trial."""

import base64
import importlib
import json
import os
import sys
from typing import Any, Dict, List

from . import clock, memory
from .events import Events
from .facts import cores
from .hangup import when_host_leaves
from .loop import Loop, calls_per_sample, sample, warm_up

CHUNK = 64
"""Predictions of so many samples go into one event."""


class Worker(object):
    """A job, its runtime, and the stage it has come to."""

    def __init__(self, job: Dict[str, Any], events: Events) -> None:
        self.job = job
        self.events = events
        self.stage = "import"
        self.threads = job["threads"] or cores()
        module = importlib.import_module("." + "rt_" + job["runtime"].replace("-", "_"), __package__)
        self.runtime = module.Runtime(job)

    def load(self) -> int:
        """Load the model; nanoseconds."""
        self.stage = "load"
        begin = clock.now_ns()
        self.runtime.load(self.job["path"], self.threads)
        return clock.now_ns() - begin

    def image(self, stream: Any, index: int) -> bytes:
        """Read one image of the evaluation split as raw uint8."""
        shape = self.job["evaluation"]["shape"]
        size = shape[0] * shape[1] * shape[2]
        stream.seek(index * size)
        raw = stream.read(size)
        if len(raw) != size:
            raise ValueError("evaluation set: sample %d is cut short; remove it from the device and run again" % index)
        return bytes(raw)

    def prepare(self, raw: bytes) -> Any:
        """Turn one raw image into the runtime's input."""
        return self.runtime.prepare(raw, [1] + self.job["evaluation"]["shape"])


def accuracy(worker: Worker) -> None:
    """Infer the whole evaluation split, one sample after the other."""
    worker.load()
    worker.stage = "predictions"
    evaluation = worker.job["evaluation"]
    chunk: List[bytes] = []
    first = 0
    with open(evaluation["path"], "rb") as stream:
        for index in range(evaluation["count"]):
            output = worker.runtime.infer(worker.prepare(worker.image(stream, index)))
            chunk.append(worker.runtime.scores(output))
            if len(chunk) == CHUNK or index == evaluation["count"] - 1:
                values = base64.b64encode(b"".join(chunk)).decode("ascii")
                worker.events.emit("predictions", first=first, rows=len(chunk), values=values)
                chunk, first = [], index + 1


def resident(worker: Worker) -> None:
    """Measure resident memory: runtime imported, model loaded, and the peak while inferring."""
    worker.stage = "memory"
    with open(worker.job["evaluation"]["path"], "rb") as stream:
        raw = worker.image(stream, worker.job["buffers"][0])
    baseline = memory.status_bytes("VmRSS")
    exact = memory.reset_peak()
    worker.load()
    loaded = memory.status_bytes("VmRSS")
    worker.stage = "memory"
    tensor = worker.prepare(raw)
    for _ in range(10):
        worker.runtime.infer(tensor)
    peak = memory.status_bytes("VmHWM") if exact else None
    reason = None if peak is not None else "this system has no resettable VmHWM"
    worker.events.emit("memory", baseline_bytes=baseline, loaded_bytes=loaded, peak_bytes=peak, reason=reason)


def trial(worker: Worker) -> None:
    """Load, warm up, and take samples."""
    job, mode, events = worker.job, worker.job["mode"], worker.events
    load_ns = worker.load()
    worker.stage = "prepare"
    inputs: List[Any] = []
    prepare_ns: List[int] = []
    with open(job["evaluation"]["path"], "rb") as stream:
        for index in job["buffers"]:
            raw = worker.image(stream, index)
            begin = clock.now_ns()
            inputs.append(worker.prepare(raw))
            prepare_ns.append(clock.now_ns() - begin)
    worker.stage = "first inference"
    begin = clock.now_ns()
    output = worker.runtime.infer(inputs[0])
    first_ns = clock.now_ns() - begin
    scores_ns = []
    for _ in job["buffers"]:
        begin = clock.now_ns()
        worker.runtime.scores(output)
        scores_ns.append(clock.now_ns() - begin)
    events.emit("loaded", load_ns=load_ns, first_ns=first_ns, prepare_ns=prepare_ns, scores_ns=scores_ns)
    worker.stage = "warm-up"
    cost = clock.describe()["cost_ns"]
    loop = Loop(worker.runtime.infer, inputs)
    warm, settled = warm_up(loop, mode["window_seconds"], mode["warmup_seconds"])
    loop.calls = calls_per_sample(warm, cost)
    events.emit("warm", warmup_ns=list(warm), settled=settled, calls_per_sample=loop.calls)
    worker.stage = "samples"
    sample(loop, mode, lambda window: events.emit("samples", ns=list(window)))


PASSES = {"accuracy": accuracy, "memory": resident, "trial": trial}


def main() -> int:
    """Run the pass that the job on standard input names."""
    events = Events()
    job = json.loads(sys.stdin.readline())
    when_host_leaves(lambda: os._exit(3))
    worker = None
    try:
        worker = Worker(job, events)
        PASSES[job["pass"]](worker)
    except Exception as error:
        reason = "%s: %s" % (type(error).__name__, " ".join(str(error).split()))
        events.emit("failed", stage=worker.stage if worker else "import", reason=reason[:1000])
        return 1
    events.emit("finished", threads=worker.threads)
    return 0
