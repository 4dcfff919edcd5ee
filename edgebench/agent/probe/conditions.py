"""What else went on while samples were taken: read once a second, beside the loop and outside its process."""

import glob
import os
import re
from typing import Any, Dict, List, Optional

from .. import android
from ..clock import now_ns
from ..facts import number, numbers, read
from . import graphics, phone, throttling

CPU = throttling.CPU
STATES = ("Discharging", "Charging")
"""What a battery in use says; others beside it are idle."""


def snapshot(root: str = "/", pid: Optional[int] = None, programs: bool = False) -> Dict[str, Any]:
    """Read the counters; each is null where the system has none.

    `pid` is the worker's. `programs` also asks those that cost too much to be
    asked every second (a Raspberry Pi's real clock, most of what a phone tells).
    """
    found = {"t_ns": now_ns()}
    found.update(_processor(root))
    found.update(worker(root, pid))
    found.update(_memory(root))
    found.update(_clocks(root))
    found.update(graphics.gpu(root))
    found.update(throttling.heat(root))
    found.update(throttling.held(root, clock=programs))
    found.update(_supply(root))
    return phone.conditions(root, found, pid, programs) if android.here(root) else found


def _processor(root: str) -> Dict[str, Any]:
    stat = (read(os.path.join(root, "proc/stat")) or "").splitlines()
    jiffies = [int(value) for value in stat[0].split()[1:]] if stat and stat[0].startswith("cpu ") else []
    load = read(os.path.join(root, "proc/loadavg"))
    return {
        "cpu_jiffies": sum(jiffies[:8]) if jiffies else None,
        "idle_jiffies": sum(jiffies[3:5]) if jiffies else None,
        "steal_jiffies": jiffies[7] if len(jiffies) > 7 else None,
        "cpu_pressure_us": _pressure(os.path.join(root, "proc/pressure/cpu")),
        "load_1min": float(load.split()[0]) if load else None,
    }


def worker(root: str, pid: Optional[int]) -> Dict[str, Any]:
    """Read how long the worker's threads ran, and how long they waited for a core that others used."""
    ran, waited, known = 0, 0, False
    for path in glob.glob(os.path.join(root, "proc/%d/task/*/schedstat" % pid)) if pid else ():
        parts = (read(path) or "").split()
        if len(parts) == 3:
            ran, waited, known = ran + int(parts[0]), waited + int(parts[1]), True
    return {"worker_ns": ran if known else None, "worker_wait_ns": waited if known else None}


def _memory(root: str) -> Dict[str, Any]:
    vmstat = dict(line.split() for line in (read(os.path.join(root, "proc/vmstat")) or "").splitlines() if len(line.split()) == 2)
    available = re.search(r"^MemAvailable:\s+(\d+) kB", read(os.path.join(root, "proc/meminfo")) or "", re.MULTILINE)
    return {
        "swapped_pages": int(vmstat["pswpin"]) + int(vmstat["pswpout"]) if "pswpin" in vmstat else None,
        "memory_pressure_us": _pressure(os.path.join(root, "proc/pressure/memory")),
        "available_bytes": int(available.group(1)) * 1024 if available else None,
    }


def _pressure(path: str) -> Optional[int]:
    """Read the microseconds in which some task waited for a CPU, or for memory."""
    for line in (read(path) or "").splitlines():
        if line.startswith("some "):
            return int(line.rsplit("total=", 1)[1])
    return None


def _clocks(root: str) -> Dict[str, Any]:
    """Read clocks in kHz: asked for (mean), real (fastest core), and their upper limits (sum), and what sets them."""
    asked = numbers(os.path.join(root, CPU + "cpufreq/scaling_cur_freq"))
    real = numbers(os.path.join(root, CPU + "cpufreq/cpuinfo_cur_freq"))
    if asked and not real:  # without cpufreq it is a constant
        megahertz = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", read(os.path.join(root, "proc/cpuinfo")) or "", re.MULTILINE)
        real = [float(value) * 1000 for value in megahertz]
    limits = numbers(os.path.join(root, CPU + "cpufreq/scaling_max_freq"))
    governors = {read(path) or "" for path in glob.glob(os.path.join(root, CPU + "cpufreq/scaling_governor"))}
    return {
        "khz": sum(asked) / len(asked) if asked else None,
        "khz_real": max(real) if real else None,
        "khz_limit": sum(limits) if limits else None,
        "governor": "+".join(sorted(governors)) or None,
        "power_mode": read(os.path.join(root, "var/lib/nvpmodel/status")),
    }


def _supply(root: str) -> Dict[str, Any]:
    """Read the charge in percent and the state of the device's batteries, and whether the system saves power.

    Those of a mouse or a headset are not the device's. Of two, one may be idle
    while the other is used: that one's state counts, and the charge of both.
    """
    batteries = [folder for folder in sorted(glob.glob(os.path.join(root, "sys/class/power_supply/*"))) if _own_battery(folder)]
    states = [read(os.path.join(folder, "status")) for folder in batteries]
    used = [state for state in STATES if state in states]
    return {
        "battery_percent": _charge(batteries),
        "battery_state": used[0] if used else next((state for state in states if state), None),
        "power_profile": read(os.path.join(root, "sys/firmware/acpi/platform_profile")),
    }


def _own_battery(folder: str) -> bool:
    return read(os.path.join(folder, "type")) == "Battery" and read(os.path.join(folder, "scope")) != "Device"


def _charge(batteries: List[str]) -> Optional[float]:
    """Weigh the batteries' charges by what they hold when full, where all of them say that in the same unit."""
    pairs = [(number(os.path.join(folder, "capacity")), folder) for folder in batteries]
    known = [(percent, folder) for percent, folder in pairs if percent is not None]
    for unit in ("energy_full", "charge_full"):
        full = [number(os.path.join(folder, unit)) or 0.0 for _, folder in known]
        if full and all(full):
            return sum(pair[0] * weight for pair, weight in zip(known, full)) / sum(full)
    return sum(percent for percent, _ in known) / len(known) if known else None
