"""Resident memory from /proc/self/status; `ru_maxrss` survives fork and exec and is not used."""

import threading
from typing import Optional

PERIOD = 0.01
"""Seconds between two looks of the sampler."""


def status_bytes(field: str, path: str = "/proc/self/status") -> Optional[int]:
    """Read `VmRSS` or `VmHWM` in bytes; None where the system has none."""
    try:
        with open(path) as lines:
            for line in lines:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return None


def reset_peak(path: str = "/proc/self/clear_refs") -> bool:
    """Set VmHWM back to what is resident now (Linux 4.0 and later); say whether it worked."""
    try:
        with open(path, "w") as control:
            control.write("5")
        return True
    except OSError:
        return False


class Peak(object):
    """The highest resident memory from now on: VmHWM where it can be reset, else VmRSS looked at every 10 ms."""

    def __init__(self, status: str = "/proc/self/status", clear_refs: str = "/proc/self/clear_refs") -> None:
        self._status = status
        self._over = threading.Event()
        self._highest: Optional[int] = None
        self.method: Optional[str] = None
        if status_bytes("VmHWM", status) is not None and reset_peak(clear_refs):
            self.method = "VmHWM"
        elif status_bytes("VmRSS", status) is not None:
            self.method = "sampler"
            self._thread = threading.Thread(target=self._look)
            self._thread.daemon = True
            self._thread.start()

    def _look(self) -> None:
        while True:
            self._highest = max(self._highest or 0, status_bytes("VmRSS", self._status) or 0) or None
            if self._over.wait(PERIOD):
                return

    def stop(self) -> Optional[int]:
        """Return the peak in bytes; None where this system tells no resident memory."""
        if self.method == "VmHWM":
            return status_bytes("VmHWM", self._status)
        if self.method == "sampler":
            self._over.set()
            self._thread.join()
            return self._highest
        return None
