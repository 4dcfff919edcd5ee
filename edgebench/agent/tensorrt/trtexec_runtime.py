"""TensorRT through trtexec alone: the program builds the engine, times itself, and answers one image a start."""

import importlib
import json
import math
import os
import tempfile
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..runtimes import tensors
from . import engines, trtexec, trtexec_report
from . import log as tensorrt_log

RUN_SECONDS = 300.0
"""Beside what a run measures, starting it may take so long: it loads TensorRT and the engine."""
BEYOND_SECONDS = 60.0
"""The worker keeps the time of a build; this is for where nobody does."""
NO_INT8 = "Int8 support requested on hardware without native Int8 support"
NO_FP16 = "Half2 support requested on hardware without native FP16 support"
FLAGS = {"FP16": "--fp16", "INT8": "--int8", "BF16": "--bf16", "FP8": "--fp8"}
CACHE = "calibration.cache"
GPU_FILE = "engine-gpu.json"
ALONE = ("--exposeDMA", "--includeDataTransfers", "--noCudaGraph", "--noSpinWait")
"""Each query waits for the one before, with its transfers, the same in every version; those that a version has."""


class Runtime(object):
    """One engine; every inference that is no sample is a start of the program."""

    OFFERS = ("finish", "take", "footprint", "profile")

    def __init__(self, job: Dict[str, Any], wished: Optional[str]) -> None:
        path = trtexec.find(wished)
        if path is None:
            raise ValueError("neither TensorRT's Python module nor trtexec is on this device")
        self._np = importlib.import_module("numpy")
        self._job = job
        self._program = trtexec.Program(path)
        if tensors.carried(job):
            raise ValueError("trtexec starts anew with each inference and cannot feed an output back; install TensorRT's module")

    def _plan(self, path: str, gpu: Dict[str, Any]) -> str:
        return engines.place(path, engines.key(self._job, gpu, self._program.version, "trtexec"))

    def finish(self, path: str) -> Dict[str, Any]:
        """Build the engine unless there is one for this GPU, this TensorRT and these options."""
        folder = os.path.dirname(os.path.abspath(path))
        engines.sweep(folder)
        gpu = self._program.device(folder)
        engines.write(os.path.join(folder, GPU_FILE), json.dumps(gpu).encode("utf-8"))
        plan = self._plan(path, gpu)
        known = engines.kept(plan)
        if known is not None:
            return dict(known, cached=True)
        with tempfile.TemporaryDirectory(prefix=engines.UNDONE, dir=folder) as made:
            arguments = self._build(path)
            self._lay_cache(path, made)
            limit = self._job["finish"]["timeout_seconds"] + BEYOND_SECONDS
            finished = self._program.run(arguments, made, limit, "building the engine")
            self._refuse_slow_int8(finished.text, gpu)
            with open(os.path.join(made, "engine.plan"), "rb") as stream:
                content = stream.read()
            layers = tensorrt_log.layers(trtexec_report.content(os.path.join(made, "layers.json")) or "")
        facts = {
            "tensorrt": self._program.version,
            "gpu": gpu["name"],
            "compute_capability": gpu["capability"],
            "how": "trtexec",
            "engine_bytes": len(content),
            "build_seconds": round(finished.wall_ns / 1e9, 3),
            "layers": engines.summary(layers),
            "fast_fp16": False if NO_FP16 in finished.text else None,
        }
        engines.keep(plan, content, facts, layers)
        return dict(facts, cached=False)

    def _refuse_slow_int8(self, text: str, gpu: Dict[str, Any]) -> None:
        if self._job["precision"] == "int8" and NO_INT8 in text:
            what = "%s, compute capability %s" % (gpu["name"], gpu["capability"])
            raise ValueError("this GPU (%s) computes no INT8; export fp16 for it" % what)

    def _build(self, path: str) -> List[str]:
        """Write the arguments of a build, as this version takes them; ValueError where it cannot."""
        wanted, takes = self._job["finish"]["options"], self._program.takes
        size = wanted["workspace_mebibytes"]
        arguments = ["--onnx=" + os.path.abspath(path), "--saveEngine=engine.plan"]
        arguments.append("--skipInference" if takes("--skipInference") else "--buildOnly")
        arguments.append(("--memPoolSize=workspace:%d" if takes("--memPoolSize") else "--workspace=%d") % size)
        if takes("--exportLayerInfo"):
            arguments += ["--profilingVerbosity=detailed", "--exportLayerInfo=layers.json"]
        asked = [FLAGS.get(name, "--" + name.lower()) for name in wanted["flags"]]
        if wanted["strongly_typed"] and self._program.numbers < (11,):
            asked.append("--stronglyTyped")
        if wanted["calibration_cache"]:
            asked.append("--calib=" + CACHE)
        for option in asked:
            if not takes(option.split("=")[0]):
                made = "the bundle is for TensorRT %s; export it for this version" % wanted["version"]
                raise ValueError("trtexec %s takes no %s, and %s" % (self._program.version, option.split("=")[0], made))
        return arguments + asked

    def _lay_cache(self, path: str, folder: str) -> None:
        name = self._job["finish"]["options"]["calibration_cache"]
        if name:
            with open(os.path.join(folder, CACHE), "wb") as stream:
                stream.write(engines.calibration(path, name, self._program.numbers))

    def abandon(self) -> None:
        """End the build that goes on."""
        self._program.kill()

    def load(self, path: str, threads: int) -> None:
        """See that the engine is there; each run loads it anew."""
        folder = os.path.dirname(os.path.abspath(path))
        finished = trtexec_report.content(os.path.join(folder, GPU_FILE))
        if finished is None:
            raise ValueError("%s: no engine was built here; run again" % folder)
        self._file = self._plan(path, json.loads(finished))
        engines.facts_of(self._file)

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into the input tensors; ValueError where they do not fit the bundle."""
        feed = [self._np.asarray(each, order="C") for each in tensors.feeds(self._np, raws, self._job)]
        for each, spec in zip(feed, self._job["inputs"]):
            if list(each.shape) != list(spec["shape"]):
                raise ValueError("the engine takes %s, and the input is %s" % (tuple(spec["shape"]), each.shape))
        return feed

    def _scratch(self) -> "tempfile.TemporaryDirectory[str]":
        return tempfile.TemporaryDirectory(prefix=engines.UNDONE, dir=os.path.dirname(self._file))

    def _run(self, feed: Any, more: List[str], folder: str, seconds: float = 0.0, **heed: Any) -> trtexec.Finished:
        """Run the engine on a feed; what it writes lies in `folder`; for `heed` see `Program.run`."""
        named = []
        for index, (tensor, spec) in enumerate(zip(feed, self._job["inputs"])):
            name = "input%s.bin" % (index or "")
            named.append("%s:%s" % (spec["name"], name))
            with open(os.path.join(folder, name), "wb") as stream:
                stream.write(tensor.tobytes())
        arguments = ["--loadEngine=" + self._file, "--loadInputs=" + ",".join(named)]
        arguments += [option for option in ALONE if self._program.takes(option)]
        return self._program.run(arguments + more, folder, RUN_SECONDS + seconds, "running the engine", **heed)

    def infer(self, feed: Any) -> Any:
        """Run one inference: a start of the program, which takes seconds; its outputs have six digits."""
        with self._scratch() as folder:
            once = ["--iterations=1", "--warmUp=0", "--duration=0", "--exportOutput=output.json"]
            self._run(feed, once, folder)
            written = trtexec_report.content(os.path.join(folder, "output.json")) or ""
        return [
            self._np.array(trtexec_report.outputs(written, spec["name"])).astype(spec["dtype"]).reshape(spec["shape"])
            for spec in self._job["outputs"]
        ]

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, sample by sample."""
        return tensors.scores(self._np, outputs, self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays."""
        return tensors.real(outputs, self._job)

    def take(
        self, path: str, threads: int, feeds: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]
    ) -> Dict[str, Any]:
        """Let the program take a trial's samples on one image: latency as it defines it, both transfers and the computing."""
        self.load(path, threads)
        seconds = math.ceil(mode["warmup_seconds"] + mode["min_seconds"])
        asked = ["--warmUp=0", "--duration=%d" % seconds, "--iterations=%d" % mode["min_samples"], "--exportTimes=times.json"]
        with self._scratch() as folder:
            finished = self._run(feeds[0], asked, folder, 10.0 * seconds, begun=begun)
            rows = trtexec_report.times(trtexec_report.content(os.path.join(folder, "times.json")) or "")
        trtexec_report.checked(rows, trtexec_report.summary(finished.text))
        if finished.begun_ns is None:
            raise ValueError("trtexec did not say when it began to infer; its output has a form that is not known here")
        load_ns = trtexec_report.load_ns(finished.text, finished.wall_ns, 1e3 * seconds)
        return trtexec_report.trial(rows, 1e3 * mode["warmup_seconds"], load_ns, finished.begun_ns, 1e3 * mode["window_seconds"])

    def footprint(self, path: str, feed: Any) -> Dict[str, Any]:
        """Measure the program's resident memory while it runs the engine, and what TensorRT allocates on the GPU."""
        self.load(path, 1)
        with self._scratch() as folder:
            finished = self._run(feed, ["--iterations=10", "--warmUp=0", "--duration=0"], folder, watch=True)
        return {
            "baseline_bytes": None,
            "loaded_bytes": None,
            "peak_bytes": finished.peak_bytes,
            "method": "VmHWM of trtexec",
            "reason": "trtexec is one process from start to end: its share without the model is not known",
            "device_bytes": tensorrt_log.allocated_bytes(finished.text),
        }

    def profile(self, path: str, threads: int, inputs: List[Any]) -> List[Dict[str, Any]]:
        """Time every layer of the engine by the program's own profiler: means, in nanoseconds."""
        self.load(path, threads)
        asked = ["--warmUp=200", "--duration=1", "--dumpProfile", "--exportProfile=profile.json"]
        with self._scratch() as folder:
            self._run(inputs[0], asked, folder, 10.0)
            found = trtexec_report.content(os.path.join(folder, "profile.json"))
        if found is None:
            raise ValueError("trtexec wrote no profile of the layers")
        return engines.timed(self._file, trtexec_report.profile(found))
