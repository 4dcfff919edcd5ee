"""Core ML packages on a Mac, through coremltools; the processors are chosen by the option compute_units.

Core ML chooses its threads itself. With the option `benchmarker` coremltools'
own `MLModelBenchmarker` takes the samples, by Core ML's clock. The option
`device` names an iPhone that is connected to the Mac (`iphone.py`).
"""

import asyncio
import os
import sys
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence

from .. import facts
from ..clock import now_ns
from . import iphone, preprocess, tensors

MODULES = ("coremltools",)
DISTRIBUTIONS = ("coremltools",)
UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
PRIVATE = iphone.PRIVATE
OPTIONS = ("compute_units", "benchmarker") + iphone.PRIVATE + iphone.OPTIONS
few = iphone.few
DEVICES = {"MLCPUComputeDevice": "CPU", "MLGPUComputeDevice": "GPU", "MLNeuralEngineComputeDevice": "Neural Engine"}


def version() -> Optional[str]:
    """Return coremltools' version where Core ML is; elsewhere coremltools converts, and predicts nothing."""
    return facts.version(DISTRIBUTIONS, MODULES) if sys.platform == "darwin" else None


def reason() -> Optional[str]:
    """Say what is missing: Core ML itself, or coremltools."""
    return elsewhere() if sys.platform != "darwin" else facts.missing(MODULES)


def elsewhere() -> str:
    """Say that this is no Mac."""
    return "Core ML is a part of macOS, this is %s; choose a Mac as the target, or another format" % sys.platform


class Runtime(object):
    """One loaded package; feeds are made before timing."""

    def __new__(cls, job: Dict[str, Any]) -> Any:
        """Make the runtime of this Mac, or that of an iPhone where one is named."""
        options = job["options"]
        units = options.get("compute_units", "ALL")
        if units not in UNITS:
            raise ValueError("compute_units is %s, not %r" % (" | ".join(UNITS), units))
        return iphone.Runtime(job, units) if iphone.wished(options) else object.__new__(cls)

    def __init__(self, job: Dict[str, Any]) -> None:
        options = job["options"]
        if options.get("benchmarker") not in (None, True, False):
            raise ValueError("benchmarker is true or false, not %r" % (options["benchmarker"],))
        import numpy

        self._np = numpy
        self._ct = iphone.coremltools()
        self._job = job
        self._units = self._ct.ComputeUnit[options.get("compute_units", "ALL")]
        self._names = [spec["name"] for spec in job["outputs"]]
        self._carried = tensors.carried(job)
        self._state: Dict[str, Any] = {}
        self.OFFERS = ("stages", "profile", "take") if options.get("benchmarker") else ("stages", "profile")

    def load(self, path: str, threads: int) -> None:
        """Let Core ML compile the package and open it; `path` is a file at its top."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what went wrong is raised below
            self._model = self._ct.models.MLModel(os.path.dirname(path), compute_units=self._units)
        if self._model.__proxy__ is None:
            raise RuntimeError(self._reason())

    def _reason(self) -> str:
        """Say why Core ML did not open the package; coremltools itself says it only when asked to predict."""
        if sys.platform != "darwin":
            return elsewhere()
        try:
            self._model.predict({})
        except Exception as error:  # coremltools raises plain exceptions
            return str(error)
        return "Core ML did not open the package"

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn a sample into images and tensors, by the names of the inputs."""
        return {spec["name"]: self._value(raw, spec) for raw, spec in zip(raws, self._job["inputs"])}

    def _value(self, raw: bytes, spec: Dict[str, Any]) -> Any:
        """Make an input: a picture of whole pixels, or a tensor; Core ML takes float16, float32 and int32."""
        if spec["preprocessing"] is None or spec["dtype"] != "uint8":
            return tensors.tensor(self._np, raw, spec)
        from PIL import Image

        images = self._np.frombuffer(raw, dtype="uint8").reshape([-1] + spec["data"]["shape"][-3:])
        pixels = preprocess.whole(images, spec["preprocessing"])[0]
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def infer(self, feed: Any) -> Any:
        """Run one inference: images and tensors in, the outputs by name."""
        if not self._carried:
            return self._model.predict(feed)
        feed.update(self._state)
        outputs = self._model.predict(feed)
        for given, made in self._carried:
            self._state[self._job["inputs"][given]["name"]] = outputs[self._names[made]]
        return outputs

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes."""
        return tensors.scores(self._np, self.tensors(outputs), self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return the outputs that the bundle names as arrays."""
        return [self._np.asarray(outputs[name]) for name in self._names]

    def stages(self, inputs: Any) -> Dict[str, List[int]]:
        """Tell how much of an inference is Core ML's own, without Python's part; an older coremltools cannot."""
        if not hasattr(type(self._model), "last_predict_duration_in_nano_seconds"):
            return {}
        return {"compute": [self._compute_ns(each) for each in inputs]}

    def _compute_ns(self, tensor: Any) -> int:
        self._model.predict(tensor)
        return int(self._model.last_predict_duration_in_nano_seconds)

    def profile(self, path: str, threads: int, inputs: Any) -> List[Dict[str, Any]]:
        """Say where Core ML plans each operation; times are the plan's shares of a measured inference: estimates."""
        from coremltools.models.compute_plan import MLComputePlan

        self.load(path, threads)
        self._compute_ns(inputs[0])
        total = min(self._compute_ns(each) for each in inputs)
        plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), compute_units=self._units)
        operations = plan.model_structure.program.functions["main"].block.operations
        return [planned(plan, each, total) for each in operations if not each.operator_name.endswith("const")]

    def take(
        self, path: str, threads: int, feeds: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]
    ) -> Dict[str, Any]:
        """Let MLModelBenchmarker load and predict; it asks with one image after the other."""
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

        self.load(path, threads)
        loop = asyncio.new_event_loop()
        try:
            taken: Dict[str, Any] = loop.run_until_complete(benchmarked(MLModelBenchmarker(self._model), feeds, mode, begun))
        finally:
            loop.close()
        return taken


def planned(plan: Any, operation: Any, total_ns: int) -> Dict[str, Any]:
    """Describe one operation of a compute plan."""
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    device = type(usage.preferred_compute_device).__name__ if usage is not None else ""
    return {
        "name": operation.outputs[0].name if operation.outputs else operation.operator_name,
        "op": operation.operator_name.split(".")[-1],
        "where": DEVICES.get(device, device),
        "ns": int(cost.weight * total_ns) if cost is not None else None,
        "estimate": True,
    }


async def benchmarked(benchmarker: Any, tensors: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]) -> Dict[str, Any]:
    """Load once, warm up, and take windows of samples for as long as the mode says; nanoseconds by Core ML's clock."""
    loaded = await benchmarker.benchmark_load(1)
    first = await window(benchmarker, tensors[:1], 0.0)
    warm = await window(benchmarker, tensors, mode["warmup_seconds"])
    begun(os.getpid())
    begin, count, windows = now_ns(), 0, []  # type: int, int, List[Dict[str, Any]]
    while not enough(count, (now_ns() - begin) / 1e9, mode):
        windows.append(await window(benchmarker, tensors, mode["window_seconds"]))
        count += windows[-1]["inferences"]
    return {
        "load_ns": round(float(loaded.samples[0]) * 1e6),
        "first_ns": first["ns"][0],
        "warmup_ns": warm["ns"],
        "windows": windows,
        "stages": {},
    }


async def window(benchmarker: Any, tensors: List[Any], seconds: float) -> Dict[str, Any]:
    """Ask with one input after the other for so long, and once at least."""
    begin, taken = now_ns(), []  # type: int, List[int]
    while not taken or now_ns() - begin < 1e9 * seconds:
        measured = await benchmarker.benchmark_predict(inputs=tensors[len(taken) % len(tensors)], iterations=1)
        taken.append(round(float(measured.samples[0]) * 1e6))
    return {"ns": taken, "begin_ns": begin, "end_ns": now_ns(), "inferences": len(taken)}


def enough(count: int, seconds: float, mode: Dict[str, Any]) -> bool:
    """Return whether a trial has as many samples as its mode wants, or has reached its end."""
    wanted = count >= mode["min_samples"] and seconds >= mode["min_seconds"]
    return bool(count and (wanted or seconds >= mode["cap_seconds"]))
