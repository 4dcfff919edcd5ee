"""TensorRT engines, built on this device: by its Python module, or through trtexec where there is none."""

import atexit
import ctypes
import importlib.util
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from .. import facts
from ..tensorrt import cuda, engine_builder, engines, trtexec, trtexec_runtime
from ..tensorrt import log as tensorrt_log
from . import tensors

MODULES = ("tensorrt",)
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings")
INSTALL = (
    "on a Jetson it comes with JetPack: sudo apt-get install tensorrt python3-libnvinfer; "
    "elsewhere: python -m pip install 'tensorrt<11', or the version that the target's limits name"
)
OPTIONS = ("trtexec", "cuda")
RUNS = ("trtexec",)
STAGES = ("host_to_device", "compute", "device_to_host")
STAGE_RUNS, STAGE_SECONDS = 200, 2.0
PROFILED = 20
"""Inferences whose layers are timed."""


def version() -> Optional[str]:
    """Say which TensorRT there is: the module's, else that of trtexec."""
    found = facts.version(DISTRIBUTIONS, MODULES) or facts.imported(MODULES)
    if found is not None:
        return found
    program = trtexec.find(None)
    try:
        return "trtexec %s" % trtexec.Program(program).version if program else None
    except (OSError, ValueError):
        return None


TYPES = (
    ("FLOAT", "float32"),
    ("HALF", "float16"),
    ("INT8", "int8"),
    ("INT32", "int32"),
    ("INT64", "int64"),
    ("UINT8", "uint8"),
    ("BOOL", "bool"),
)
"""TensorRT's words and numpy's."""


Side = NamedTuple(
    "Side",
    [("name", str), ("size", int), ("host", int), ("device", int), ("view", Any)],
)
"""One input or output: bytes, addresses in pinned memory and on the GPU, and the pinned memory as an array."""


class Runtime(object):
    """One engine on one stream; inputs and outputs have fixed shapes."""

    OFFERS = ("finish", "stages", "device_bytes", "profile")

    def __new__(cls, job: Dict[str, Any]) -> Any:
        """Make the runtime that the device, or the option `trtexec`, wants."""
        wished = job["options"].get("trtexec")
        if wished is None and importlib.util.find_spec("tensorrt") is not None:
            return object.__new__(cls)
        return trtexec_runtime.Runtime(job, wished)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import tensorrt

        self._np = numpy
        self._trt = tensorrt
        self._job = job
        self._cuda: Any = None
        self._journal = engine_builder.journal(tensorrt)
        self._context: Any = None
        self._carried = tensors.carried(job)
        self._state: Dict[int, Any] = {}

    def _reach(self) -> Any:
        if self._cuda is None:
            self._cuda = cuda.reach(self._job["options"].get("cuda"))
            atexit.register(self._close)
        return self._cuda

    def _close(self) -> None:
        """Give memory back before the module and CUDA are torn down."""
        self._context = self._engine = None
        self._cuda.close()

    def _plan(self, path: str, gpu: Dict[str, Any]) -> str:
        return engines.place(path, engines.key(self._job, gpu, self._trt.__version__, "python"))

    def finish(self, path: str) -> Dict[str, Any]:
        """Build the engine unless there is one for this GPU, this TensorRT and these options."""
        engines.sweep(os.path.dirname(os.path.abspath(path)))
        gpu = self._reach().device()
        plan = self._plan(path, gpu)
        known = engines.kept(plan)
        if known is not None:
            return dict(known, cached=True)
        content, found, layers = engine_builder.Build(self._trt, path, self._job, gpu).run()
        found["cuda"] = self._cuda.version
        engines.keep(plan, content, found, layers)
        return dict(found, cached=False)

    def abandon(self) -> None:
        """Nothing to end: the module builds in this process."""

    def load(self, path: str, threads: int) -> None:
        """Reach the GPU, read the engine, and bind its input and output."""
        gpu = self._reach().device()
        self._integrated = gpu["integrated"]
        self._free_before = self._cuda.free_bytes()
        own = self._job["finish"] is not None  # else somebody brought the engine
        self._file = self._plan(path, gpu) if own else path
        if own:
            engines.facts_of(self._file)
        self._trt.init_libnvinfer_plugins(self._journal, "")
        with open(self._file, "rb") as stream:
            self._loader = self._trt.Runtime(self._journal)
            self._engine = self._loader.deserialize_cuda_engine(stream.read() if own else engines.bare(stream.read()))
        if self._engine is None and not own:
            advice = "; engines belong to the GPU and the version that built them: build it on this device"
            raise ValueError(self._reason("reading the engine") + advice)
        if self._engine is None:
            engines.forget(self._file)
            raise ValueError(self._reason("reading the engine") + "; it was removed: run again to build it")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ValueError(self._reason("making the engine's context"))
        self._bind()

    def _reason(self, stage: str) -> str:
        numbers = engine_builder.numbers(self._trt.__version__)
        return tensorrt_log.reason(list(self._journal.errors), self._journal.text, numbers, stage)

    def _bind(self) -> None:
        """Give the engine's tensors memory on both sides, and choose how it is called."""
        self._stream = self._cuda.stream()
        ends = _tensors(self._trt, self._engine)
        self._given = self._sides(ends, "input")
        self._made = self._sides(ends, "output")
        sides = self._given + self._made
        if hasattr(self._context, "set_tensor_address"):
            for side in sides:
                self._context.set_tensor_address(side.name, side.device)
            self._enqueue = self._named
        else:
            addresses = {side.name: side.device for side in sides}
            self._bindings = [addresses[name] for name in ends]
            self._enqueue = self._numbered

    def _sides(self, ends: Dict[str, Any], which: str) -> List[Any]:
        """Return the engine's inputs or outputs, in the order of the bundle's; ValueError where they are not the bundle's."""
        if which == "output" and not self._job["outputs"]:
            self._job["outputs"] = [self._seen(name, end) for name, end in ends.items() if not end[0]]
        specs = self._job[which + "s"]
        wanted = [spec["name"] for spec in specs]
        found = [name for name, (given, _, _) in ends.items() if given == (which == "input")]
        if sorted(found) != sorted(wanted):
            raise ValueError("the engine's %s is %s, the bundle's %s" % (which, found, wanted))
        return [self._side(which, spec, ends[spec["name"]]) for spec in specs]

    def _seen(self, name: str, end: Any) -> Dict[str, Any]:
        """Describe an output that the engine alone knows."""
        return {"name": name, "shape": list(end[1]), "dtype": self._dtype(end[2]), "scale": None, "zero_point": None}

    def _dtype(self, kind: Any) -> Any:
        """Return numpy's name of one of TensorRT's types; None where it is not fed."""
        return {getattr(self._trt.DataType, word): name for word, name in TYPES if hasattr(self._trt.DataType, word)}.get(kind)

    def _side(self, which: str, spec: Dict[str, Any], end: Any) -> "Side":
        """Give one of the engine's tensors memory on both sides."""
        _, shape, kind = end
        if shape != tuple(spec["shape"]) or min(shape, default=1) < 1:
            raise ValueError("the engine's %s has the shape %s, the bundle's %s" % (which, shape, tuple(spec["shape"])))
        dtype = self._dtype(kind)
        if dtype is None or dtype != spec["dtype"]:
            raise ValueError(
                "the engine's %s %s is %s, the bundle's %s; export it again" % (which, spec["name"], kind, spec["dtype"])
            )
        size = int(self._np.prod(shape)) * self._np.dtype(dtype).itemsize
        host = self._cuda.pinned(size)
        octets: Any = (ctypes.c_uint8 * size).from_address(host)
        view = self._np.frombuffer(octets, dtype=dtype).reshape(shape)
        return Side(spec["name"], size, host, self._cuda.allocate(size), view)

    def _named(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream))

    def _numbered(self) -> bool:
        return bool(self._context.execute_async_v2(self._bindings, self._stream))

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into the input tensors; ValueError where they do not fit the engine."""
        feed = [self._np.asarray(each, order="C") for each in tensors.feeds(self._np, raws, self._job)]
        for each, spec in zip(feed, self._job["inputs"]):
            if list(each.shape) != list(spec["shape"]) or str(each.dtype) != spec["dtype"]:
                wanted = (spec["dtype"], tuple(spec["shape"]), each.dtype, each.shape)
                raise ValueError("the engine takes %s %s, and the input is %s %s" % wanted)
        return feed

    def infer(self, feed: Any) -> Any:
        """Run one inference: host tensors in, host tensors out, all transfers included."""
        self._write(feed)
        for side in self._given:
            self._cuda.to_device(side.device, side.host, side.size, self._stream)
        if not self._enqueue():
            raise ValueError(self._reason("running the engine"))
        for side in self._made:
            self._cuda.to_host(side.host, side.device, side.size, self._stream)
        self._cuda.synchronize(self._stream)
        outputs = [side.view.copy() for side in self._made]
        for given, made in self._carried:
            self._state[given] = outputs[made]
        return outputs

    def _write(self, feed: Any) -> None:
        """Put the inputs, and what is carried over, where the GPU takes them from."""
        for given, tensor in self._state.items():
            feed[given] = tensor
        for side, tensor in zip(self._given, feed):
            side.view[...] = tensor

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, sample by sample."""
        return tensors.scores(self._np, outputs, self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays."""
        return tensors.real(outputs, self._job)

    def stages(self, inputs: List[Any]) -> Dict[str, List[int]]:
        """Time the parts of inferences by events on the stream, nanoseconds each."""
        marks = [self._cuda.event() for _ in range(len(STAGES) + 1)]
        found = {name: [] for name in STAGES}  # type: Dict[str, List[int]]
        end = time.monotonic() + STAGE_SECONDS
        for index in range(STAGE_RUNS):
            self._write(inputs[index % len(inputs)])
            self._marked(marks)
            for name, begin, after in zip(STAGES, marks, marks[1:]):
                found[name].append(self._cuda.elapsed_ns(begin, after))
            if time.monotonic() > end:
                break
        return found

    def _marked(self, marks: List[Any]) -> None:
        """Run one inference with an event before and after each part."""
        self._cuda.record(marks[0], self._stream)
        for side in self._given:
            self._cuda.to_device(side.device, side.host, side.size, self._stream)
        self._cuda.record(marks[1], self._stream)
        if not self._enqueue():
            raise ValueError(self._reason("running the engine"))
        self._cuda.record(marks[2], self._stream)
        for side in self._made:
            self._cuda.to_host(side.host, side.device, side.size, self._stream)
        self._cuda.record(marks[3], self._stream)
        self._cuda.synchronize(self._stream)

    def device_bytes(self) -> Optional[int]:
        """Return the GPU memory that engine, context and tensors take.

        The GPU's free memory before and after; where it is the board's own
        memory, in which everything else moves too, what TensorRT says to
        have allocated (to the MiB) and the tensors.
        """
        if not self._integrated:
            return max(0, int(self._free_before - self._cuda.free_bytes()))
        allocated = tensorrt_log.allocated_bytes(self._journal.text)
        return None if allocated is None else allocated + sum(side.size for side in self._given + self._made)

    def profile(self, path: str, threads: int, inputs: List[Any]) -> List[Dict[str, Any]]:
        """Time every layer of the engine by TensorRT's profiler: the mean of some inferences, in nanoseconds."""
        self.load(path, threads)
        for index in range(PROFILED):
            self.infer(inputs[index % len(inputs)])
        times = _times(self._trt)
        self._context.profiler = times
        for index in range(PROFILED):
            self.infer(inputs[index % len(inputs)])
        return engines.timed(self._file, [(name, int(total * 1e6 / PROFILED)) for name, total in times.milliseconds.items()])


def _tensors(trt: Any, engine: Any) -> Dict[str, Any]:
    """List an engine's tensors in their order: whether each is an input, its shape, its type."""
    if hasattr(engine, "num_io_tensors"):
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = trt.TensorIOMode.INPUT
        return {
            name: (engine.get_tensor_mode(name) == given, tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name))
            for name in names
        }
    return {
        engine.get_binding_name(index): (
            engine.binding_is_input(index),
            tuple(engine.get_binding_shape(index)),
            engine.get_binding_dtype(index),
        )
        for index in range(engine.num_bindings)
    }


def _times(trt: Any) -> Any:
    """Make a profiler that sums each layer's milliseconds."""

    class Times(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: Dict[str, float] = {}

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + milliseconds

    return Times()
