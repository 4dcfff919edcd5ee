"""ONNX files on ONNX Runtime's CPU provider."""

import json
import os
import tempfile
import time
from typing import Any, Dict, List, Sequence, Tuple

from . import onnxfile, tensors

PACKAGE = "onnxruntime"
MODULES = ("onnxruntime",)
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
OPTIONS = ("optimization",)
LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
AS_WRITTEN = {"optimization": "none"}
"""Options by which a file computes operator by operator: a Q/DQ pair around a float operator, and no integer kernel."""
WARM, LEAST, MOST = 5, 5, 100
"""Profiled inferences: those that are dropped, and how many are kept."""
EVENTS = 20000
"""About so many events are kept at most: each takes half a kilobyte of the profile."""
PROFILE_SECONDS = 10.0
KERNEL = "_kernel_time"


class Runtime(object):
    """One session; feeds are made before timing."""

    OFFERS = ("profile",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import onnxruntime

        self._np = numpy
        self._ort = onnxruntime
        self._job = job
        self._names = [spec["name"] for spec in job["inputs"]]
        self._outputs = [spec["name"] for spec in job["outputs"]]
        self._carried = [(self._names[given], made) for given, made in tensors.carried(job)]
        self._state: Dict[str, Any] = {}
        level = job["options"].get("optimization", "all")
        if level not in LEVELS:
            raise ValueError("onnxruntime: optimization is one of %s, not %r" % (", ".join(LEVELS), level))
        self._level = LEVELS[level]

    def load(self, path: str, threads: int) -> None:
        """Open the file and let the runtime optimise it."""
        self._open(path, self._options(threads))

    def _options(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(self._ort.GraphOptimizationLevel, self._level)
        return options

    def _open(self, path: str, options: Any) -> None:
        self._session = self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into a feed: each input's tensor by its name."""
        return dict(zip(self._names, tensors.feeds(self._np, raws, self._job)))

    def infer(self, feed: Any) -> Any:
        """Run one inference: host tensors in, host tensors out."""
        if not self._carried:
            return self._session.run(self._outputs, feed)
        feed.update(self._state)
        outputs = self._session.run(self._outputs, feed)
        for name, index in self._carried:
            self._state[name] = outputs[index]
        return outputs

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, sample by sample."""
        return tensors.scores(self._np, outputs, self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays."""
        return tensors.real(outputs, self._job)

    def profile(self, path: str, threads: int, inputs: Any) -> List[Dict[str, Any]]:
        """Time every kernel with the runtime's own profiler, and read the graph as it was optimised."""
        options = self._options(threads)
        with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
            optimised = os.path.join(folder, "optimised.onnx")
            options.optimized_model_filepath = optimised
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            self._open(path, options)
            graph = onnxfile.nodes(optimised)
            os.unlink(optimised)
            runs = self._repeat(inputs, min(MOST, max(LEAST, EVENTS // max(1, len(graph)))))
            with open(self._session.end_profiling(), encoding="utf-8") as stream:
                return with_edges(kernels(json.load(stream), runs), graph)

    def _repeat(self, inputs: Any, most: int) -> int:
        """Infer to warm up, then as often as time allows; returns how often that was."""
        for index in range(WARM):
            self.infer(inputs[index % len(inputs)])
        begin, done = time.monotonic(), 0
        while done < most and (done < LEAST or time.monotonic() - begin < PROFILE_SECONDS):
            self.infer(inputs[done % len(inputs)])
            done += 1
        return done


def kernels(events: List[Dict[str, Any]], runs: int) -> List[Dict[str, Any]]:
    """Take the kernels of the last inferences out of a profile, in the order in which they run."""
    begins = sorted(event["ts"] for event in events if event["name"] == "model_run")
    taken: Dict[Tuple[str, str], List[Dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL) and event["ts"] >= begins[-runs]:
            more = event["args"]
            key = (more.get("node_index", more.get("graph_index", "")), event["name"])  # the latter up to 1.10, or so
            taken.setdefault(key, []).append(event)
    return [kernel(found, runs) for found in sorted(taken.values(), key=lambda found: found[0]["ts"])]


def kernel(events: List[Dict[str, Any]], runs: int) -> Dict[str, Any]:
    """Describe one kernel; its time is the mean of its faster half: what disturbs one only ever adds to it."""
    times = sorted(event["dur"] for event in events)
    faster = times[: (len(times) + 1) // 2]
    return {
        "name": events[0]["name"][: -len(KERNEL)],
        "op": events[0]["args"]["op_name"],
        "where": events[0]["args"]["provider"],
        "ns": int(1000.0 * sum(faster) / len(faster) * len(events) / runs),
    }


def with_edges(found: List[Dict[str, Any]], graph: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Add what each kernel reads and writes; the optimised file has the nodes in the order in which they run."""
    both = list(zip(found, graph))
    if len(found) != len(graph) or any(one["op"] != other["op"] or other["name"] not in ("", one["name"]) for one, other in both):
        return found
    return [dict(each, inputs=node["inputs"], outputs=node["outputs"]) for each, node in both]
