"""Resident memory from /proc/self/status; `ru_maxrss` survives fork and exec and is not used."""

from typing import Optional


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
