"""What else went on while samples were taken: read once a second, beside the loop and outside its process."""

import glob
import os
import re
import shutil
import subprocess
from typing import Any, Dict, List, Optional

from ..clock import now_ns
from ..facts import read

CPU = "sys/devices/system/cpu/cpu[0-9]*/"


def snapshot(root: str = "/", pid: Optional[int] = None, programs: bool = False) -> Dict[str, Any]:
    """Read the counters; each is null where the system has none.

    `pid` is the worker's. `programs` also asks those that cost too much to be
    asked every second (a Raspberry Pi's `vcgencmd`).
    """
    found = {"t_ns": now_ns()}
    found.update(_processor(root))
    found.update(_worker(root, pid))
    found.update(_memory(root))
    found.update(_clocks(root))
    found.update(_heat(root))
    found.update(_supply(root))
    if programs and root == "/" and shutil.which("vcgencmd"):
        found.update(raspberry(_vcgencmd("get_throttled"), _vcgencmd("measure_clock", "arm")))
    return found


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


def _worker(root: str, pid: Optional[int]) -> Dict[str, Any]:
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
    asked = _numbers(os.path.join(root, CPU + "cpufreq/scaling_cur_freq"))
    real = _numbers(os.path.join(root, CPU + "cpufreq/cpuinfo_cur_freq"))
    if asked and not real:  # without cpufreq it is a constant
        megahertz = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", read(os.path.join(root, "proc/cpuinfo")) or "", re.MULTILINE)
        real = [float(value) * 1000 for value in megahertz]
    limits = _numbers(os.path.join(root, CPU + "cpufreq/scaling_max_freq"))
    governors = {read(path) or "" for path in glob.glob(os.path.join(root, CPU + "cpufreq/scaling_governor"))}
    return {
        "khz": sum(asked) / len(asked) if asked else None,
        "khz_real": max(real) if real else None,
        "khz_limit": sum(limits) if limits else None,
        "governor": "+".join(sorted(governors)) or None,
        "power_mode": read(os.path.join(root, "var/lib/nvpmodel/status")),
    }


def _heat(root: str) -> Dict[str, Any]:
    """Read temperatures in °C, and how often the clocks were cut for heat or current.

    Sensors that are off read -256 °C; PMIC is a constant on Jetsons.
    """
    found: Dict[str, Any] = {}
    for zone in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone[0-9]*"))):
        value = _number(os.path.join(zone, "temp"))
        name = re.sub(r"[^A-Za-z0-9_-]", "-", read(os.path.join(zone, "type")) or os.path.basename(zone))[:40]
        if value is not None and value > -100000 and not name.startswith("PMIC"):
            found["celsius." + name] = value / 1000.0
    hottest = max(found.values()) if found else None
    events = _numbers(os.path.join(root, CPU + "thermal_throttle/*_throttle_count"))
    flags = read(os.path.join(root, "sys/devices/platform/soc/soc:firmware/get_throttled"))
    fans = _numbers(os.path.join(root, "sys/class/hwmon/hwmon[0-9]*/fan[0-9]*_input"))
    found.update(
        celsius=hottest,
        throttle_events=sum(events) if events else None,
        throttled=_cooling(root),
        fan_rpm=max(fans) if fans else None,
    )
    found.update(raspberry("throttled=0x" + flags if flags else None, None))
    return found


def _cooling(root: str) -> Optional[float]:
    """Read how far cooling holds the processor's clocks down; 0 is not at all."""
    states = []
    for device in glob.glob(os.path.join(root, "sys/class/thermal/cooling_device[0-9]*")):
        kind = (read(os.path.join(device, "type")) or "").lower()
        state = _number(os.path.join(device, "cur_state"))
        if state is not None and ("cpufreq" in kind or kind == "processor" or "devfreq" in kind):
            states.append(state)
    return sum(states) if states else None


def raspberry(throttled: Optional[str], clock: Optional[str]) -> Dict[str, Any]:
    """Read `throttled=0x50005` (bits 0–3 now, 16–19 since boot) and `frequency(48)=1500398464`."""
    found: Dict[str, Any] = {}
    flags = re.match(r"throttled=(?:0x)+([0-9a-fA-F]+)$", (throttled or "").strip())
    if flags:
        value = int(flags.group(1), 16)
        found["throttled"] = float(value & 0xF)
        found["throttled_since_boot"] = float(value >> 16 & 0xF)
    hertz = re.match(r"frequency\(\d+\)=(\d+)$", (clock or "").strip())
    if hertz:
        found["khz_real"] = int(hertz.group(1)) / 1000.0
    return found


def _vcgencmd(*arguments: str) -> Optional[str]:
    try:
        done = subprocess.run(["vcgencmd"] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=2)
        return done.stdout.decode("ascii", "replace")
    except (OSError, subprocess.SubprocessError):
        return None


def _supply(root: str) -> Dict[str, Any]:
    """Read the battery's charge in percent and state, and whether the system saves power."""
    charge: Optional[float] = None
    state: Optional[str] = None
    for supply in sorted(glob.glob(os.path.join(root, "sys/class/power_supply/*"))):
        if read(os.path.join(supply, "type")) == "Battery":
            charge = _number(os.path.join(supply, "capacity"))
            state = read(os.path.join(supply, "status"))
    profile = read(os.path.join(root, "sys/firmware/acpi/platform_profile"))
    return {"battery_percent": charge, "battery_state": state, "power_profile": profile}


def _number(path: str) -> Optional[float]:
    value = read(path)
    return float(value) if value is not None and re.match(r"-?\d+$", value) else None


def _numbers(pattern: str) -> List[float]:
    values = (_number(path) for path in sorted(glob.glob(pattern)))
    return [value for value in values if value is not None]
