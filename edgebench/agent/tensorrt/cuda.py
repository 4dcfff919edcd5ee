"""CUDA memory, streams and events, by ctypes on libcudart.

Addresses and streams are numbers, as TensorRT takes them; sizes are bytes.
What was made is given back by `close`.
"""

import ctypes
import glob
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

MAJOR, MINOR, INTEGRATED = 75, 76, 18
"""`cudaDeviceAttr`: compute capability, and whether the GPU shares the board's memory."""
TO_DEVICE, TO_HOST = 1, 2
PROPERTIES_BYTES = 8192
"""More than any version's `cudaDeviceProp`; the name is its first field."""
LIBRARIES = ("libcudart.so",) + tuple("libcudart.so." + version for version in ("13", "12", "11.0", "10.2"))
FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/usr/lib/*-linux-gnu")
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
TAKES = {
    "cudaFree": (POINTER,),
    "cudaFreeHost": (POINTER,),
    "cudaStreamDestroy": (POINTER,),
    "cudaEventDestroy": (POINTER,),
    "cudaStreamSynchronize": (POINTER,),
    "cudaEventRecord": (POINTER, POINTER),
    "cudaMemcpyAsync": (POINTER, POINTER, SIZE, ctypes.c_int, POINTER),
}  # type: Dict[str, Tuple[Any, ...]]
WAYS = ("auto", "ctypes")
"""What the option `cuda` may say."""


class CudaError(Exception):
    """What CUDA answered, or why it cannot be reached."""


class Runtime(object):
    """The CUDA runtime of the first GPU."""

    def __init__(self) -> None:
        self._library = _library()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        self._made: List[Tuple[str, int]] = []
        version = ctypes.c_int()
        self._plain("cudaRuntimeGetVersion", ctypes.byref(version))
        self.version = "libcudart, CUDA %d.%d" % (version.value // 1000, version.value % 1000 // 10)
        self._call("cudaFree", 0)  # makes the context, so that what follows is not charged for it

    def _plain(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            message = self._library.cudaGetErrorString(code) or b"?"
            raise CudaError("%s: %s (%d)" % (name, message.decode("utf-8", "replace"), code))

    def _call(self, name: str, *arguments: Any) -> None:
        self._plain(name, *[kind(value) for kind, value in zip(TAKES[name], arguments)])

    def _make(self, name: str, back: str, *sizes: int) -> int:
        made = POINTER()
        self._plain(name, ctypes.byref(made), *[SIZE(size) for size in sizes])
        address = int(made.value or 0)
        self._made.append((back, address))
        return address

    def device(self) -> Dict[str, Any]:
        """Describe the GPU: `name`, `capability` as `8.7`, `integrated`."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        self._plain("cudaGetDeviceProperties", properties, 0)
        major, minor, integrated = [self._attribute(which) for which in (MAJOR, MINOR, INTEGRATED)]
        name = properties.value.decode("utf-8", "replace")
        return {"name": name, "capability": "%d.%d" % (major, minor), "integrated": bool(integrated)}

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._plain("cudaDeviceGetAttribute", ctypes.byref(value), which, 0)
        return value.value

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free."""
        free, total = SIZE(), SIZE()
        self._plain("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size: int) -> int:
        """Allocate on the GPU."""
        return self._make("cudaMalloc", "cudaFree", size)

    def pinned(self, size: int) -> int:
        """Allocate host memory that the GPU can copy from and to by itself."""
        return self._make("cudaMallocHost", "cudaFreeHost", size)

    def stream(self) -> int:
        """Make a stream."""
        return self._make("cudaStreamCreate", "cudaStreamDestroy")

    def event(self) -> int:
        """Make an event that keeps its time."""
        return self._make("cudaEventCreate", "cudaEventDestroy")

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from pinned host memory to the GPU."""
        self._call("cudaMemcpyAsync", target, source, size, TO_DEVICE, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy from the GPU to pinned host memory."""
        self._call("cudaMemcpyAsync", target, source, size, TO_HOST, stream)

    def record(self, event: int, stream: int) -> None:
        """Let an event note when the stream has come here."""
        self._call("cudaEventRecord", event, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until a stream is empty."""
        self._call("cudaStreamSynchronize", stream)

    def elapsed_ns(self, begin: int, end: int) -> int:
        """Return the time between two recorded events."""
        milliseconds = ctypes.c_float()
        self._plain("cudaEventElapsedTime", ctypes.byref(milliseconds), POINTER(begin), POINTER(end))
        return round(milliseconds.value * 1e6)

    def close(self) -> None:
        """Give everything back, the last first."""
        while self._made:
            self._call(*self._made.pop())


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


def reach(way: Optional[str] = None) -> Runtime:
    """Return the CUDA runtime; `CudaError` says why there is none, or that the option `cuda` asks for another way."""
    if way is not None and way not in WAYS:
        raise CudaError("option cuda: %s is not one of %s: ctypes is used everywhere now; leave it out" % (way, ", ".join(WAYS)))
    try:
        return Runtime()
    except Exception as error:  # a broken installation raises anything
        raise CudaError("no way to the GPU's memory (ctypes: %s)" % error)
