"""cuda-python's module of the CUDA runtime (`cuda.bindings.runtime`, before 12.3 `cuda.cudart`), on the libcudart double."""

# ruff: noqa: N801, N802, N815  the names are CUDA's

import ctypes
import enum
import os

_library = ctypes.CDLL(os.environ["EDGEBENCH_DOUBLE_CUDART"])
_library.cudaGetErrorString.restype = ctypes.c_char_p


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorLaunchFailure = 719


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class _Handle(object):
    """What a stream or an event is: a number only where it is asked for one."""

    def __init__(self, value):
        self._value = value

    def __int__(self):
        return self._value


class cudaStream_t(_Handle):
    pass


class cudaEvent_t(_Handle):
    pass


class _Properties(object):
    def __init__(self, name, values):
        self.name = name
        self.major, self.minor, self.integrated = values


def _made(name, kind, *arguments):
    at = ctypes.c_void_p()
    code = cudaError_t(getattr(_library, name)(ctypes.byref(at), *arguments))
    return code, (None if code else kind(at.value))


def _done(name, *arguments):
    return (cudaError_t(getattr(_library, name)(*arguments)),)


def _pointer(value):
    return ctypes.c_void_p(int(value))


def _event(value):
    if not isinstance(value, cudaEvent_t):
        raise TypeError("Argument 'event' is not instance of type cudaEvent_t")
    return _pointer(value)


def cudaGetErrorString(error):
    return cudaError_t.cudaSuccess, _library.cudaGetErrorString(int(cudaError_t(error)))


def cudaRuntimeGetVersion():
    return cudaError_t.cudaSuccess, 12060


def cudaMalloc(size):
    return _made("cudaMalloc", int, ctypes.c_size_t(size))


def cudaMallocHost(size):
    return _made("cudaMallocHost", int, ctypes.c_size_t(size))


def cudaStreamCreate():
    return _made("cudaStreamCreate", cudaStream_t)


def cudaEventCreate():
    return _made("cudaEventCreate", cudaEvent_t)


def cudaFree(at):
    return _done("cudaFree", _pointer(at))


def cudaFreeHost(at):
    return _done("cudaFreeHost", _pointer(at))


def cudaStreamDestroy(stream):
    return _done("cudaStreamDestroy", _pointer(stream))


def cudaStreamSynchronize(stream):
    return _done("cudaStreamSynchronize", _pointer(stream))


def cudaEventDestroy(event):
    return _done("cudaEventDestroy", _event(event))


def cudaEventRecord(event, stream):
    return _done("cudaEventRecord", _event(event), _pointer(stream))


def cudaEventElapsedTime(start, end):
    elapsed = ctypes.c_float()
    code = cudaError_t(_library.cudaEventElapsedTime(ctypes.byref(elapsed), _event(start), _event(end)))
    return code, (None if code else elapsed.value)


def cudaMemcpyAsync(dst, src, count, kind, stream):
    if not isinstance(kind, cudaMemcpyKind):
        raise TypeError("Argument 'kind' is not instance of type cudaMemcpyKind")
    return _done("cudaMemcpyAsync", _pointer(dst), _pointer(src), ctypes.c_size_t(count), int(kind), _pointer(stream))


def cudaMemGetInfo():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    code = cudaError_t(_library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
    return code, free.value, total.value


def cudaGetDeviceProperties(device):
    name = ctypes.create_string_buffer(8192)
    code = cudaError_t(_library.cudaGetDeviceProperties(name, device))
    values = []
    for attribute in (75, 76, 18):
        value = ctypes.c_int()
        _library.cudaDeviceGetAttribute(ctypes.byref(value), attribute, device)
        values.append(value.value)
    return code, _Properties(name.value, values)
