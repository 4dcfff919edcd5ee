"""What else went on while samples were taken: read once a second, beside the loop and outside its process."""

import glob
import os
from typing import Any, Dict, Optional

from .clock import now_ns
from .facts import read


def snapshot(root: str = "/") -> Dict[str, Any]:
    """Read the counters; each is null where the system has none."""
    stat = (read(os.path.join(root, "proc/stat")) or "").splitlines()
    jiffies = [int(value) for value in stat[0].split()[1:]] if stat and stat[0].startswith("cpu ") else []
    vmstat = dict(line.split() for line in (read(os.path.join(root, "proc/vmstat")) or "").splitlines() if len(line.split()) == 2)
    load = read(os.path.join(root, "proc/loadavg"))
    return {
        "t_ns": now_ns(),
        "cpu_jiffies": sum(jiffies[:8]) if jiffies else None,
        "idle_jiffies": sum(jiffies[3:5]) if jiffies else None,
        "steal_jiffies": jiffies[7] if len(jiffies) > 7 else None,
        "cpu_pressure_us": _pressure(os.path.join(root, "proc/pressure/cpu")),
        "load_1min": float(load.split()[0]) if load else None,
        "swapped_pages": int(vmstat["pswpin"]) + int(vmstat["pswpout"]) if "pswpin" in vmstat else None,
        "khz": _mean(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")),
        "celsius": _hottest(os.path.join(root, "sys/class/thermal/thermal_zone*/temp")),
    }


def _pressure(path: str) -> Optional[int]:
    """Read the microseconds in which some task waited for a CPU."""
    for line in (read(path) or "").splitlines():
        if line.startswith("some "):
            return int(line.rsplit("total=", 1)[1])
    return None


def _numbers(pattern: str) -> Any:
    values = (read(path) for path in sorted(glob.glob(pattern)))
    return [float(value) for value in values if value is not None and value.lstrip("-").isdigit()]


def _mean(pattern: str) -> Optional[float]:
    values = _numbers(pattern)
    return sum(values) / len(values) if values else None


def _hottest(pattern: str) -> Optional[float]:
    """Return the highest temperature; sensors that are off read -256 °C."""
    values = [value / 1000.0 for value in _numbers(pattern) if value > -100000]
    return max(values) if values else None
