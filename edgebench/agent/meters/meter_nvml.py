"""NVIDIA GPUs through the driver's own library: the energy counter (Volta and later), else sampled power."""

import ctypes
from typing import Any, Dict, List, Tuple

from ..clock import now_ns
from .meters import Counter, Reading, Unavailable, channel, check_options

PERIOD_S = 0.02
LIBRARY = "libnvidia-ml.so.1"
NOT_FOUND = 13
"""NVML's own code for a function that a driver does not have."""


class Gpu(object):
    """One GPU, and which of the two it can say."""

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._handle = ctypes.c_void_p()
        _check(library, library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._handle)))
        name = ctypes.create_string_buffer(96)
        library.nvmlDeviceGetName(self._handle, name, ctypes.c_uint(96))
        self.name = name.value.decode("utf-8", "replace")
        self.rail = "gpu%d" % index
        code, first = self.energy()
        self.counter = Counter(first, 1e-3) if code == 0 else None
        self.readable = code == 0 or self.power()[0] == 0

    def energy(self) -> Tuple[int, int]:
        """Return NVML's code and the millijoules since the driver was loaded."""
        value = ctypes.c_ulonglong()
        if not hasattr(self._library, "nvmlDeviceGetTotalEnergyConsumption"):
            return NOT_FOUND, 0
        return self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(value)), value.value

    def power(self) -> Tuple[int, int]:
        """Return NVML's code and milliwatts."""
        value = ctypes.c_uint()
        return self._library.nvmlDeviceGetPowerUsage(self._handle, ctypes.byref(value)), value.value

    def describe(self) -> Dict[str, Any]:
        """Describe it as a channel."""
        note = "the board of %s; the rest of the machine is not in it" % self.name
        return channel(self.rail, "board", PERIOD_S, counter=self.counter is not None, note=note)


class Meter(object):
    """Every GPU that says its energy or power; the option `library` names another file to load."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        self._path = str(check_options(options, ("library",)).get("library", LIBRARY))
        self._library: Any = None
        self._gpus: List[Gpu] = []

    def start(self) -> List[Dict[str, Any]]:
        """Load the library and find the GPUs."""
        try:
            library = ctypes.CDLL(self._path)
        except OSError as error:
            raise Unavailable("%s; it comes with NVIDIA's driver, and Jetsons have none: use ina3221 there" % error)
        library.nvmlErrorString.restype = ctypes.c_char_p
        _check(library, library.nvmlInit_v2())
        self._library = library
        count = ctypes.c_uint()
        _check(library, library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        self._gpus = [gpu for gpu in (Gpu(library, index) for index in range(count.value)) if gpu.readable]
        if not self._gpus:
            raise Unavailable("none of the %d GPUs says its energy or its power" % count.value)
        return [gpu.describe() for gpu in self._gpus]

    def read(self) -> List[Reading]:
        """Read what answers."""
        rows: List[Reading] = []
        for index, gpu in enumerate(self._gpus):
            begin = now_ns()
            code, value = gpu.energy() if gpu.counter else gpu.power()
            t_ns = (begin + now_ns()) // 2
            if code == 0:
                rows.append((index, t_ns, gpu.counter.joules(value) if gpu.counter else value * 1e-3))
        return rows

    def stop(self) -> None:
        """Let go of the library."""
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library = None


def _check(library: Any, code: int) -> None:
    if code != 0:
        text = library.nvmlErrorString(ctypes.c_int(code)) or b"?"
        raise Unavailable("NVML: %s (%d)" % (text.decode("utf-8", "replace"), code))
