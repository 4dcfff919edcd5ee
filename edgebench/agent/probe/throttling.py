"""Heat, and whether clocks are held down for heat, current or voltage: each kind of board tells it elsewhere, all are asked."""

import glob
import os
import re
import shutil
import subprocess
from typing import Any, Dict, List, Optional, Tuple

from ..facts import number, numbers, read

CPU = "sys/devices/system/cpu/cpu[0-9]*/"
HWMON = "sys/class/hwmon/hwmon[0-9]*/"
PROCESSORS = ("coretemp", "k10temp", "zenpower")
"""Chips of processors that have no thermal zone of their own."""
FANS = (HWMON + "fan[0-9]*_input", HWMON + "rpm", "sys/devices/pwm-fan/rpm_measured")
"""As Linux calls them, and as JetPack 5 and later and JetPack 4 do."""
HOLDS = re.compile(r"cpufreq|devfreq|throttle-alert$|-balanced$|(?:^|-)heavy$|^processor$|powerclamp|^thermal-idle")
"""Cooling devices that slow something down, unlike fans and what only warns (`hot-surface-alert`)."""
OVER_CURRENT = re.compile(r"(oc[0-9]{1,2})_(?:event|irq)_cnt$")
"""Of Orin and Thor, and of TX2 and Xavier; the first counts under-voltage."""
FLAGS = "sys/devices/platform/soc*/soc*firmware/get_throttled"
"""The Raspberry Pi 5 has no such file."""
VCGENCMD_SECONDS = 2.0


def heat(root: str) -> Dict[str, Any]:
    """Read temperatures in °C by zone, and fans. Sensors that are off read -256 °C; PMIC is a constant on Jetsons."""
    found: Dict[str, Any] = {}
    for name, value in _zones(root) + _processors(root):
        if value > -100000 and not name.startswith("PMIC"):
            found[_free(found, "celsius." + re.sub(r"[^A-Za-z0-9_-]", "-", name)[:40])] = value / 1000.0
    hottest = max(found.values()) if found else None
    fans = [value for pattern in FANS for value in numbers(os.path.join(root, pattern))]
    return dict(found, celsius=hottest, fan_rpm=max(fans) if fans else None)


def _zones(root: str) -> List[Tuple[str, float]]:
    found = []
    for zone in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone[0-9]*"))):
        value = number(os.path.join(zone, "temp"))
        if value is not None:
            found.append((read(os.path.join(zone, "type")) or os.path.basename(zone), value))
    return found


def _processors(root: str) -> List[Tuple[str, float]]:
    """Read the highest temperature of each processor's own chip."""
    found = []
    for path in sorted(glob.glob(os.path.join(root, HWMON + "name"))):
        name, values = read(path) or "", numbers(os.path.join(os.path.dirname(path), "temp[0-9]*_input"))
        if name in PROCESSORS and values:
            found.append((name, max(values)))
    return found


def _free(taken: Dict[str, Any], name: str) -> str:
    """Return the name, numbered where another sensor has it: `acpitz`, `acpitz-2`."""
    names = [name] + ["%s-%d" % (name, count) for count in range(2, len(taken) + 3)]
    return next(each for each in names if each not in taken)


def held(root: str, clock: bool = False) -> Dict[str, Any]:
    """Read counters of cut clocks, and how far clocks are held down now; 0 is not at all.

    `clock` also asks a Raspberry Pi for its real clock.
    """
    events = numbers(os.path.join(root, CPU + "thermal_throttle/*_throttle_count"))
    found: Dict[str, Any] = {
        "throttle_events": sum(events) if events else None,
        "over_current_events": _over_currents(root),
        "throttled": _cooling(root),
    }
    flags = raspberry(get_throttled(root)[0], _vcgencmd("measure_clock", "arm")[0] if clock and root == "/" else None)
    if found["throttled"] and "throttled" in flags:
        flags["throttled"] = max(flags["throttled"], found["throttled"])
    return dict(found, **flags)


def _cooling(root: str) -> Optional[float]:
    """Add up how far cooling devices slow the processor and the GPU down; one that is off may say -1."""
    states = []
    for device in glob.glob(os.path.join(root, "sys/class/thermal/cooling_device[0-9]*")):
        state = number(os.path.join(device, "cur_state"))
        if state is not None and HOLDS.search((read(os.path.join(device, "type")) or "").lower()):
            states.append(max(0.0, state))
    return sum(states) if states else None


def _over_currents(root: str) -> Optional[float]:
    """Add up a Jetson's over-current and under-voltage events, of those kinds that cut clocks."""
    counts = []
    for path in glob.glob(os.path.join(root, HWMON + "oc*_cnt")):
        kind = OVER_CURRENT.search(path)
        count = number(path) if kind else None
        if kind and count is not None and read(os.path.join(os.path.dirname(path), kind.group(1) + "_throt_en")) != "0":
            counts.append(count)
    return sum(counts) if counts else None


def get_throttled(root: str) -> Tuple[Optional[str], Optional[str]]:
    """Read a Raspberry Pi's flags from their file, else ask its firmware; the second is why there are none."""
    for path in glob.glob(os.path.join(root, FLAGS)):
        flags = read(path)
        if flags:
            return "throttled=0x" + flags, None
    return _vcgencmd("get_throttled") if root == "/" else (None, "it has no file here")


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


def _vcgencmd(*arguments: str) -> Tuple[Optional[str], Optional[str]]:
    """Ask a Raspberry Pi's firmware, at the cost of one short process; its answer, or why there is none."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None, "there is no program vcgencmd"
    try:
        done = subprocess.run(
            [program] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=VCGENCMD_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, "vcgencmd: %s" % error
    text = done.stdout.decode("ascii", "replace").strip()
    if done.returncode == 0 and text.count("=") == 1:  # an error is told as error=1 error_msg="…", with exit code 0
        return text, None
    first = (text.splitlines() or ["it said nothing"])[0].strip()
    denied = "/dev/vcio" in text or "VCHI" in text
    return None, "vcgencmd: %s%s" % (first, "; add this user to the group video" if denied else "")
