"""One pass in one fresh process: the accuracy pass, the memory pass, a trial, or LoadGen's run."""

import base64
import importlib
import json
import os
import queue
import sys
import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

from .. import clock, plugins
from ..cores import big
from ..events import Events
from ..facts import cores
from ..hangup import when_host_leaves
from . import generation, memory, turns
from .heartbeat import Heartbeat
from .loop import Loop, calls_per_sample, median, sample, warm_up
from .outputs import outputs
from .samples import Sample, Samples, joined
from .server import Server, search

CHUNK = 64
"""Predictions of so many samples go into one event."""
CHUNK_BYTES = 1 << 20
"""Fewer where they are so large."""
CHUNK_SECONDS = 20.0
"""Fewer where they took so long: a worker that says nothing counts as hanging."""


def check_options(runtime: str, given: Dict[str, Any], known: Sequence[str]) -> None:
    """Raise `ValueError` for an option that a runtime does not have."""
    strange = sorted(set(given) - set(known))
    if strange:
        raise ValueError("%s has no option %s; it has %s" % (runtime, strange[0], ", ".join(known) or "none"))


class Worker(object):
    """A job, its runtime, and the stage it has come to."""

    def __init__(self, job: Dict[str, Any], events: Events, tokens: "queue.Queue[bytes]") -> None:
        self.job = job
        self.events = events
        self.tokens = tokens
        """What the supervisor says while the pass goes on."""
        self.stage = "import"
        self.affinity = big() if job["affinity"] is None and job.get("big_cores") else job["affinity"]
        if self.affinity is not None:
            pin(self.affinity)
        self.threads = job["threads"] or cores()
        self.module = plugins.load("runtimes", job["runtime"])
        check_options(job["runtime"], job["options"], getattr(self.module, "OPTIONS", ()))
        self.runtime = self.module.Runtime(job)
        self.offers = plugins.offers(self.runtime)
        self.serial = job["batch"] > 1 and not job["dynamic_batch"]

    def load(self) -> int:
        """Load the model; nanoseconds."""
        self.stage = "load"
        begin = clock.now_ns()
        self.runtime.load(self.job["path"], self.threads)
        return clock.now_ns() - begin

    def raw_queries(self) -> List[List[Sample]]:
        """Read the buffers' samples, each query with as many as the pass's batch."""
        chosen, batch = self.job["buffers"], self.job["batch"]
        with Samples(self.job["inputs"]) as samples:
            found = [samples.read(index) for index in chosen]
        return [[found[(first + more) % len(found)] for more in range(batch)] for first in range(len(found))]

    def prepare(self, query: List[Sample]) -> Any:
        """Turn one query's samples into what the runtime takes: one feed, or one for each sample."""
        if self.serial:
            return [self.runtime.prepare(sample, 1) for sample in query]
        return self.runtime.prepare(joined(query, self.job["inputs"]), len(query))

    @property
    def infer(self) -> Callable[[Any], Any]:
        """Answer one query; a bundle of batch 1 answers its samples one after the other."""
        one: Callable[[Any], Any] = self.runtime.infer
        if not self.serial:
            return one

        def each(feeds: List[Any]) -> Any:
            for feed in feeds:
                outputs = one(feed)
            return outputs

        return each


def pin(wanted: List[int]) -> None:
    """Keep this process on some cores; ValueError says which there are."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("this system cannot keep a process on chosen cores; leave --affinity out")
    mine = os.sched_getaffinity(0)
    if not set(wanted) <= mine:
        raise ValueError("--affinity %s: this process may use the cores %s" % (wanted, sorted(mine)))
    os.sched_setaffinity(0, wanted)


def accuracy(worker: Worker) -> None:
    """Infer all samples in order, or those that were chosen."""
    worker.load()
    worker.stage = "predictions"
    reason = worker.runtime.unpredicted() if "unpredicted" in worker.offers else None
    if reason is not None:
        worker.events.emit("unpredicted", reason=reason)
        return
    chosen = worker.job.get("chosen") or range(worker.job["samples"])
    count, batch = len(chosen), worker.job["batch"]
    chunk: List[bytes] = []
    first, reported = 0, time.monotonic()
    with Samples(worker.job["inputs"]) as samples:
        for begin in range(0, count, batch):
            end = min(begin + batch, count)
            outputs = worker.runtime.infer(worker.prepare([samples.read(index) for index in chosen[begin:end]]))
            chunk.append(worker.runtime.scores(outputs))
            full = end - first >= CHUNK or len(chunk) * len(chunk[0]) >= CHUNK_BYTES
            if full or end == count or time.monotonic() - reported > CHUNK_SECONDS:
                values = base64.b64encode(b"".join(chunk)).decode("ascii")
                worker.events.emit("predictions", first=first, rows=end - first, values=values)
                chunk, first, reported = [], end, time.monotonic()


def finish(worker: Worker) -> None:
    """Let the runtime make of the bundle what only this device can, and say once a second that it goes on."""
    worker.stage = "finish"
    begin, limit = time.monotonic(), worker.job["finish"]["timeout_seconds"]

    def beat(seconds: float) -> None:
        worker.events.emit("progress", what="building for this device", seconds=seconds)
        if seconds > limit:
            reason = "not done after %g s; look at what else runs on the device, or give it more: --option finish_timeout=SECONDS"
            worker.events.emit("failed", stage="finish", reason=reason % limit)
            worker.runtime.abandon()
            os._exit(4)

    with Heartbeat(beat):
        facts = worker.runtime.finish(worker.job["path"])
    worker.events.emit("finish", facts=dict(facts, seconds=round(time.monotonic() - begin, 3)))


def profile(worker: Worker) -> None:
    """Let the runtime time its nodes: `[{name, op, where, ns, …}]`, nanoseconds of one inference each."""
    worker.stage = "profile"
    if "profile" not in worker.offers:
        raise ValueError("%s has no profiler that edgebench reads" % worker.job["runtime"])
    inputs = [worker.prepare(raw) for raw in worker.raw_queries()]
    for nodes in chunks(worker.runtime.profile(worker.job["path"], worker.threads, inputs), 100):
        worker.events.emit("profile", nodes=nodes)


def chunks(items: List[Any], size: int) -> List[List[Any]]:
    """Cut a list into pieces."""
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def resident(worker: Worker) -> None:
    """Measure resident memory: runtime imported, model loaded, and the peak while inferring."""
    worker.stage = "memory"
    raw = worker.raw_queries()[0]
    if "footprint" in worker.offers:  # the memory is that of a program, not of this process
        worker.events.emit("memory", **worker.runtime.footprint(worker.job["path"], worker.runtime.prepare(raw[0], 1)))
        return
    baseline = memory.status_bytes("VmRSS")
    peak = memory.Peak()
    worker.load()
    loaded = memory.status_bytes("VmRSS")
    worker.stage = "memory"
    query, infer = worker.prepare(raw), worker.infer
    with Heartbeat(lambda seconds: worker.events.emit("alive", seconds=seconds)):
        for _ in range(2 if "generate" in worker.offers else 10):
            infer(query)
    highest = peak.stop()
    worker.events.emit(
        "memory",
        device_bytes=worker.runtime.device_bytes() if "device_bytes" in worker.offers else None,
        baseline_bytes=baseline,
        loaded_bytes=loaded,
        peak_bytes=highest,
        method=peak.method,
        reason=None if highest is not None else "this system does not tell resident memory",
    )


def opened(worker: Worker) -> List[Any]:
    """Load, prepare the inputs and answer once, and say how long each took; returns the inputs."""
    job = worker.job
    load_ns = worker.load()
    worker.stage = "prepare"
    inputs: List[Any] = []
    prepare_ns: List[int] = []
    for raw in worker.raw_queries():
        begin = clock.now_ns()
        inputs.append(worker.prepare(raw))
        prepare_ns.append((clock.now_ns() - begin) // len(raw))
    worker.stage = "first inference"
    begin = clock.now_ns()
    outputs = worker.infer(inputs[0])
    first_ns = clock.now_ns() - begin
    scores_ns = []
    for _ in job["buffers"]:
        begin = clock.now_ns()
        worker.runtime.scores(outputs)
        scores_ns.append((clock.now_ns() - begin) // (1 if worker.serial else job["batch"]))
    worker.events.emit("loaded", load_ns=load_ns, first_ns=first_ns, prepare_ns=prepare_ns, scores_ns=scores_ns)
    return inputs


def warmed(worker: Worker, inputs: List[Any], window_seconds: float) -> Tuple[Loop, Dict[str, Any]]:
    """Warm up; returns the loop and what is to be said of the warm-up."""
    worker.stage = "warm-up"
    job, mode, scenario = worker.job, worker.job["mode"], worker.job["scenario"]
    period_ns = int(1e9 / scenario["rate"]) if scenario["rate"] else 0
    loop = Loop(worker.infer, inputs, period_ns, int((scenario["idle_ms"] or 0) * 1e6))
    warm, settled = warm_up(loop, window_seconds, mode["warmup_seconds"])
    if not loop.paced and scenario["kind"] != "server":
        loop.calls = calls_per_sample(warm, clock.describe()["cost_ns"])
    said = {"warmup_ns": list(warm), "settled": settled, "calls_per_sample": loop.calls, "batch": job["batch"]}
    return loop, said


def trial(worker: Worker) -> None:
    """Load, warm up, and take samples as the scenario asks."""
    job, mode, events = worker.job, worker.job["mode"], worker.events
    if "take" in worker.offers:
        timed_by_itself(worker)
        return
    if "generate" in worker.offers:
        with Heartbeat(lambda seconds: events.emit("alive", seconds=seconds)):
            generation.trial(worker, opened(worker))
        return
    inputs = opened(worker)
    loop, said = warmed(worker, inputs, mode["window_seconds"])
    events.emit("warm", **said)
    worker.stage = "samples"
    scenario = job["scenario"]
    if scenario["kind"] == "server":
        serve(worker, inputs, median(said["warmup_ns"][-64:]))
        return
    share = loop.calls * job["batch"]
    precise = sample(
        loop,
        mode,
        scenario["half_width"] if mode["adaptive"] else None,
        lambda window, begin, end: events.emit(
            "samples", ns=list(window), begin_ns=begin, end_ns=end, inferences=len(window) * share
        ),
    )
    if mode["adaptive"]:
        events.emit("stopped", precise=precise)
    if "stages" in worker.offers:
        worker.stage = "stages"
        events.emit("stages", stages=worker.runtime.stages(inputs))


def turn(worker: Worker) -> None:
    """Load and warm up, then take a window of samples whenever it is this side's turn."""
    turns.check(worker)
    inputs = opened(worker)
    loop, said = warmed(worker, inputs, worker.job["turns"]["seconds"])
    turns.rest()
    worker.events.emit("warm", **said)
    worker.stage = "samples"
    turns.take(worker, loop, loop.calls * worker.job["batch"])


def timed_by_itself(worker: Worker) -> None:
    """Let a runtime that is a program with a clock of its own take the samples, where the scenario is what it knows.

    `take` calls back with the program's process when it begins to infer, and
    returns `load_ns`, `first_ns`, a list `warmup_ns`, `windows` of samples with
    when they were taken, and `stages`, lists of nanoseconds. Values that are
    means of calls come with `calls_per_sample`; `program` says what took them.
    """
    job, mode, events = worker.job, worker.job["mode"], worker.events
    worker.stage = "samples"
    if job["scenario"]["kind"] != "single-stream":
        raise ValueError("%s asks by itself, and knows the scenario single-stream alone" % job["runtime"])
    begin = clock.now_ns()
    raws = worker.raw_queries()
    tensors = [worker.prepare(raw) for raw in raws]
    prepare_ns = (clock.now_ns() - begin) // len(raws)
    with Heartbeat(lambda seconds: events.emit("alive", seconds=seconds)):
        taken = worker.runtime.take(job["path"], worker.threads, tensors, mode, lambda pid: events.emit("timing", pid=pid))
    events.emit("loaded", load_ns=taken["load_ns"], first_ns=taken["first_ns"], prepare_ns=[prepare_ns], scores_ns=[0])
    events.emit("warm", warmup_ns=taken["warmup_ns"], settled=True, calls_per_sample=taken.get("calls_per_sample", 1), batch=1)
    for window in taken["windows"]:
        if "answers" in window:
            events.emit("answers", answers=window.pop("answers"))
        events.emit("samples", **window)
    events.emit("stages", stages=taken["stages"])
    if "program" in taken:
        events.emit("program", facts=taken["program"])


def serve(worker: Worker, inputs: List[Any], service_ns: float) -> None:
    """Search the highest rate of arrivals that keeps the bound."""
    mode, events, bound_ns = worker.job["mode"], worker.events, worker.job["scenario"]["bound_ms"] * 1e6

    def tried(rate: float, queries: int, p99: int, held: bool) -> None:
        events.emit("step", rate=rate, queries=queries, p99_ns=p99, held=held)

    server = Server(worker.infer, inputs, worker.job["trial"])
    rate, samples, begin, end = search(server, service_ns, bound_ns, mode, tried)
    events.emit("samples", ns=list(samples), begin_ns=begin, end_ns=end, inferences=len(samples))
    events.emit("rate", rate=rate)


def loadgen(worker: Worker) -> None:
    """Let MLPerf LoadGen ask; its module is imported only where a job wants it."""
    importlib.import_module(".loadgen", __package__).run(worker)


PASSES = {
    "finish": finish,
    "accuracy": accuracy,
    "outputs": outputs,
    "memory": resident,
    "trial": trial,
    "turns": turn,
    "loadgen": loadgen,
    "profile": profile,
}


def main() -> int:
    """Run the pass that the job on standard input names."""
    events = Events()
    job = json.loads(sys.stdin.readline())
    tokens: "queue.Queue[bytes]" = queue.Queue()
    when_host_leaves(lambda: os._exit(3), tokens.put)
    worker = None
    try:
        worker = Worker(job, events, tokens)
        PASSES[job["pass"]](worker)
    except Exception as error:
        reason = "%s: %s" % (type(error).__name__, " ".join(str(error).split()))
        events.emit("failed", stage=worker.stage if worker else "import", reason=reason[:1000])
        return 1
    events.emit("finished", threads=worker.threads, affinity=worker.affinity)
    return 0
