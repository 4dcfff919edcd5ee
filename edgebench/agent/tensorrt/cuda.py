"""CUDA memory, streams and events, by whichever way this device has: cuda-python, pycuda, or ctypes on libcudart.

Every way has the same methods. Addresses and streams are numbers, as TensorRT
takes them; sizes are bytes. What was made is given back by `close`.
"""

import ctypes
import glob
import importlib
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

MAJOR, MINOR, INTEGRATED = 75, 76, 18
"""`cudaDeviceAttr`: compute capability, and whether the GPU shares the board's memory."""
TO_DEVICE, TO_HOST = 1, 2
PROPERTIES_BYTES = 8192
"""More than any version's `cudaDeviceProp`; the name is its first field."""
LIBRARIES = ("libcudart.so",) + tuple("libcudart.so." + version for version in ("13", "12", "11.0", "10.2"))
FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/usr/lib/*-linux-gnu")


class CudaError(Exception):
    """What CUDA answered, or why it cannot be reached."""


class Runtime(object):
    """The CUDA runtime's functions; `call` knows how they are reached."""

    def __init__(self, call: Callable[..., Any], version: str) -> None:
        self._call = call
        self.version = version
        self._made: List[Tuple[str, Any]] = []
        call("cudaFree", 0)  # makes the context, so that what follows is not charged for it

    def _keep(self, back: str, made: Any) -> Any:
        self._made.append((back, made))
        return made

    def device(self) -> Dict[str, Any]:
        """Describe the GPU: `name`, `capability` as `8.7`, `integrated`."""
        name, major, minor, integrated = self._call("device")
        return {"name": name, "capability": "%d.%d" % (major, minor), "integrated": bool(integrated)}

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, size: int) -> int:
        """Allocate on the GPU."""
        return int(self._keep("cudaFree", self._call("cudaMalloc", size)))

    def pinned(self, size: int) -> int:
        """Allocate host memory that the GPU can copy from and to by itself."""
        return int(self._keep("cudaFreeHost", self._call("cudaMallocHost", size)))

    def stream(self) -> int:
        """Make a stream."""
        return int(self._keep("cudaStreamDestroy", self._call("cudaStreamCreate")))

    def event(self) -> Any:
        """Make an event that keeps its time."""
        return self._keep("cudaEventDestroy", self._call("cudaEventCreate"))

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from pinned host memory to the GPU."""
        self._call("cudaMemcpyAsync", target, source, size, TO_DEVICE, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from the GPU to pinned host memory."""
        self._call("cudaMemcpyAsync", target, source, size, TO_HOST, stream)

    def record(self, event: Any, stream: int) -> None:
        """Let an event note when the stream has come here."""
        self._call("cudaEventRecord", event, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until a stream is empty."""
        self._call("cudaStreamSynchronize", stream)

    def elapsed_ns(self, begin: Any, end: Any) -> int:
        """Return the time between two recorded events."""
        milliseconds: float = self._call("cudaEventElapsedTime", begin, end)
        return round(milliseconds * 1e6)

    def close(self) -> None:
        """Give everything back, the last first."""
        while self._made:
            self._call(*self._made.pop())


def checked(code: Any, text: Callable[[Any], Any], what: str) -> None:
    """Raise `CudaError` where a function did not return 0."""
    if int(code):
        message = text(code) or b"?"
        raise CudaError(
            "%s: %s (%d)" % (what, message.decode("utf-8", "replace") if isinstance(message, bytes) else message, code)
        )


# ---------------------------------------------------------------- cuda-python


def by_cuda_python() -> Runtime:
    """Use cuda-python, by its new name or by that of before 12.3."""
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        runtime = importlib.import_module("cuda.cudart")
    kinds = runtime.cudaMemcpyKind
    kind = {TO_DEVICE: kinds.cudaMemcpyHostToDevice, TO_HOST: kinds.cudaMemcpyDeviceToHost}

    def plain(name: str, *arguments: Any) -> Any:
        answer = getattr(runtime, name)(*arguments)
        checked(answer[0], lambda code: runtime.cudaGetErrorString(code)[1], name)
        return answer[1] if len(answer) == 2 else answer[1:]

    def call(name: str, *arguments: Any) -> Any:
        if name == "device":
            found = plain("cudaGetDeviceProperties", 0)
            title = found.name.decode() if isinstance(found.name, bytes) else found.name
            return title.strip("\0"), found.major, found.minor, found.integrated
        if name == "cudaMemcpyAsync":
            arguments = arguments[:3] + (kind[arguments[3]],) + arguments[4:]
        return plain(name, *arguments)

    return Runtime(call, "cuda-python, CUDA %s" % shown(plain("cudaRuntimeGetVersion")))


def shown(version: int) -> str:
    """Write CUDA's number as its version: 12060 as 12.6."""
    return "%d.%d" % (version // 1000, version % 1000 // 10)


# ---------------------------------------------------------------- ctypes


def by_ctypes() -> Runtime:
    """Use libcudart as it is."""
    library = _library()
    library.cudaGetErrorString.restype = ctypes.c_char_p
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    takes = {
        "cudaFree": (pointer,),
        "cudaFreeHost": (pointer,),
        "cudaStreamDestroy": (pointer,),
        "cudaEventDestroy": (pointer,),
        "cudaStreamSynchronize": (pointer,),
        "cudaEventRecord": (pointer, pointer),
        "cudaMemcpyAsync": (pointer, pointer, size, ctypes.c_int, pointer),
    }  # type: Dict[str, Tuple[Any, ...]]

    def plain(name: str, *arguments: Any) -> None:
        checked(getattr(library, name)(*arguments), library.cudaGetErrorString, name)

    def call(name: str, *arguments: Any) -> Any:
        if name in takes:
            plain(name, *[kind(value) for kind, value in zip(takes[name], arguments)])
            return None
        if name == "device":
            return _device(plain)
        if name == "cudaMemGetInfo":
            free, total = size(), size()
            plain(name, ctypes.byref(free), ctypes.byref(total))
            return free.value, total.value
        if name == "cudaEventElapsedTime":
            elapsed = ctypes.c_float()
            plain(name, ctypes.byref(elapsed), *[pointer(value) for value in arguments])
            return elapsed.value
        made = pointer()  # all others make something and return where it is
        plain(name, ctypes.byref(made), *[size(value) for value in arguments])
        return made.value

    version = ctypes.c_int()
    plain("cudaRuntimeGetVersion", ctypes.byref(version))
    return Runtime(call, "libcudart, CUDA %s" % shown(version.value))


def _device(plain: Callable[..., None]) -> Tuple[str, int, int, int]:
    properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
    plain("cudaGetDeviceProperties", properties, 0)
    values = []
    for attribute in (MAJOR, MINOR, INTEGRATED):
        value = ctypes.c_int()
        plain("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
        values.append(value.value)
    return properties.value.decode("utf-8", "replace"), values[0], values[1], values[2]


def _library() -> Any:
    """Load libcudart: by name, then from CUDA's folders and those of pip's packages."""
    beside = [os.path.join(folder, "nvidia", "*", "lib") for folder in sys.path]
    found = [path for folder in FOLDERS + tuple(beside) for path in sorted(glob.glob(os.path.join(folder, "libcudart.so*")))]
    for name in LIBRARIES + tuple(found):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CudaError("no libcudart.so: CUDA is not installed, or not in /usr/local/cuda and not on LD_LIBRARY_PATH")


# ---------------------------------------------------------------- pycuda


class PyCuda(object):
    """The driver's functions by pycuda."""

    def __init__(self) -> None:
        self._driver = importlib.import_module("pycuda.driver")
        importlib.import_module("pycuda.autoinit")  # makes a context, and ends it when Python ends
        self.version = "pycuda, CUDA %d.%d" % tuple(self._driver.get_version()[:2])
        self._held: Dict[int, Any] = {}
        self._streams: Dict[int, Any] = {}

    def device(self) -> Dict[str, Any]:
        """Describe the GPU: `name`, `capability` as `8.7`, `integrated`."""
        gpu = self._driver.Device(0)
        integrated = gpu.get_attribute(self._driver.device_attribute.INTEGRATED)
        return {"name": gpu.name(), "capability": "%d.%d" % gpu.compute_capability(), "integrated": bool(integrated)}

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free."""
        return int(self._driver.mem_get_info()[0])

    def _keep(self, address: int, made: Any) -> int:
        self._held[address] = made
        return address

    def allocate(self, size: int) -> int:
        """Allocate on the GPU."""
        made = self._driver.mem_alloc(size)
        return self._keep(int(made), made)

    def pinned(self, size: int) -> int:
        """Allocate host memory that the GPU can copy from and to by itself."""
        made = self._driver.pagelocked_empty(size, "uint8")
        return self._keep(int(made.ctypes.data), made)

    def stream(self) -> int:
        """Make a stream."""
        made = self._driver.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def event(self) -> Any:
        """Make an event that keeps its time."""
        return self._driver.Event()

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from pinned host memory to the GPU."""
        self._driver.memcpy_htod_async(target, self._held[source][:size], self._streams[stream])

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from the GPU to pinned host memory."""
        self._driver.memcpy_dtoh_async(self._held[target][:size], source, self._streams[stream])

    def record(self, event: Any, stream: int) -> None:
        """Let an event note when the stream has come here."""
        event.record(self._streams[stream])

    def synchronize(self, stream: int) -> None:
        """Wait until a stream is empty."""
        self._streams[stream].synchronize()

    def elapsed_ns(self, begin: Any, end: Any) -> int:
        """Return the time between two recorded events."""
        milliseconds: float = begin.time_till(end)
        return round(milliseconds * 1e6)

    def close(self) -> None:
        """Give everything back."""
        self._held.clear()
        self._streams.clear()


WAYS: Dict[str, Callable[[], Any]] = {"cuda-python": by_cuda_python, "pycuda": PyCuda, "ctypes": by_ctypes}


def reach(way: Optional[str] = None) -> Any:
    """Return the first way that works, or the one that is asked for; `CudaError` says why none does."""
    if way is not None and way not in WAYS:
        raise CudaError("option cuda: %s is not one of %s" % (way, ", ".join(WAYS)))
    reasons = []
    for name in [way] if way is not None else WAYS:
        try:
            return WAYS[name]()
        except Exception as error:  # a broken installation raises anything
            reasons.append("%s: %s" % (name, error))
    raise CudaError("no way to the GPU's memory (%s)" % "; ".join(reasons))
