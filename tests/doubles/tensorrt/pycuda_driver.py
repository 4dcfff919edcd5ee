"""pycuda's module `driver`, on the libcudart double. Nothing works before `pycuda.autoinit` was imported."""

import ctypes
import os

import numpy

_library = ctypes.CDLL(os.environ["EDGEBENCH_DOUBLE_CUDART"])
_library.cudaGetErrorString.restype = ctypes.c_char_p
_state = {"context": False}


class Error(Exception):
    pass


def _check(code, name):
    if not _state["context"]:
        raise Error("%s failed: invalid device context" % name)
    if code:
        raise Error("%s failed: %s" % (name, _library.cudaGetErrorString(code).decode()))


class device_attribute(object):  # noqa: N801
    INTEGRATED = 18


class Device(object):
    def __init__(self, number):
        self._number = number

    def name(self):
        text = ctypes.create_string_buffer(8192)
        _check(_library.cudaGetDeviceProperties(text, self._number), "cuDeviceGetName")
        return text.value.decode()

    def get_attribute(self, attribute):
        value = ctypes.c_int()
        _check(_library.cudaDeviceGetAttribute(ctypes.byref(value), attribute, self._number), "cuDeviceGetAttribute")
        return value.value

    def compute_capability(self):
        return self.get_attribute(75), self.get_attribute(76)


class _Kept(object):
    make, drop = "", ""

    def __init__(self, *arguments):
        self._at = ctypes.c_void_p()
        _check(getattr(_library, self.make)(ctypes.byref(self._at), *arguments), self.make)

    def __del__(self):
        if self._at.value:
            getattr(_library, self.drop)(self._at)


class DeviceAllocation(_Kept):
    make, drop = "cudaMalloc", "cudaFree"

    def __int__(self):
        return self._at.value


class Stream(_Kept):
    make, drop = "cudaStreamCreate", "cudaStreamDestroy"

    @property
    def handle(self):
        return self._at.value

    def synchronize(self):
        _check(_library.cudaStreamSynchronize(self._at), "cuStreamSynchronize")


class Event(_Kept):
    make, drop = "cudaEventCreate", "cudaEventDestroy"

    def record(self, stream):
        _check(_library.cudaEventRecord(self._at, stream._at), "cuEventRecord")

    def time_till(self, event):
        elapsed = ctypes.c_float()
        _check(_library.cudaEventElapsedTime(ctypes.byref(elapsed), self._at, event._at), "cuEventElapsedTime")
        return elapsed.value


class _Pinned(_Kept):
    make, drop = "cudaMallocHost", "cudaFreeHost"


class _Array(numpy.ndarray):
    """An array that holds its page-locked memory."""


def get_version():
    return (10, 2, 0)


def mem_get_info():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check(_library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value, total.value


def mem_alloc(size):
    return DeviceAllocation(ctypes.c_size_t(size))


def pagelocked_empty(shape, dtype):
    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    kept = _Pinned(ctypes.c_size_t(size))
    flat = numpy.frombuffer((ctypes.c_char * size).from_address(kept._at.value), dtype)
    made = flat.reshape(shape).view(_Array)
    made.kept = kept
    return made


def _copy(target, source, size, direction, stream):
    code = _library.cudaMemcpyAsync(
        ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), direction, stream._at
    )
    _check(code, "cuMemcpyAsync")


def memcpy_htod_async(dest, src, stream):
    _copy(int(dest), src.ctypes.data, src.nbytes, 1, stream)


def memcpy_dtoh_async(dest, src, stream):
    _copy(dest.ctypes.data, int(src), dest.nbytes, 2, stream)
