"""The battery's own gauge, in microwatts or microamperes and microvolts; only while it discharges.

Signs differ between vendors, so the magnitude counts. Some give milliamperes:
a first current under 10 000 is taken as such, for no device that infers draws
less than 10 mA, and none more than 10 A. A voltage under 100 000 is millivolts.
The option `current_unit` (uA, mA) says it for certain.
"""

import glob
import os
from typing import Any, Dict, List, Optional, Tuple

from ..clock import now_ns
from ..facts import read
from .meters import Reading, Unavailable, channel, check_options, whole

PERIOD_S = 0.25
UNITS = {"uA": 1e-6, "mA": 1e-3}


def _in_use(folder: str) -> bool:
    return read(os.path.join(folder, "status")) == "Discharging"


class Gauge(object):
    """One battery."""

    def __init__(self, folder: str, current_unit: Optional[str]) -> None:
        self.rail = os.path.basename(folder)
        self._folder = folder
        self._power = bool(self._number("power_now"))
        current, volts = abs(self._number("current_now") or 0), abs(self._number("voltage_now") or 0)
        unit = current_unit or ("mA" if current < 10000 else "uA")
        self._scale = UNITS[unit] * (1e-3 if volts < 100000 else 1e-6)
        how = "as the target says" if current_unit else "judged by its size, %d" % current
        self.note = "power_now" if self._power else "current times voltage; current in %s, %s" % (unit, how)

    def _number(self, name: str) -> Optional[int]:
        return whole(os.path.join(self._folder, name))

    def watts(self) -> Optional[float]:
        """Return the power drawn; None where the gauge says nothing, or 0, which no running device draws."""
        if self._power:
            return abs(self._number("power_now") or 0) * 1e-6 or None
        return abs((self._number("current_now") or 0) * (self._number("voltage_now") or 0)) * self._scale or None


class Meter(object):
    """Every battery of the device (not of its mouse or headset)."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        self._unit = check_options(options, ("current_unit",)).get("current_unit")
        if self._unit not in (None, "uA", "mA"):
            raise Unavailable("current_unit is %r; it is uA or mA" % self._unit)
        self._pattern = os.path.join(root, "sys/class/power_supply/*")
        self._gauges: List[Gauge] = []
        self._idle: List[str] = []

    def start(self) -> List[Dict[str, Any]]:
        """Find the batteries, and refuse where one is charged."""
        batteries = [folder for folder, kind in self._supplies() if kind == "Battery"]
        if not batteries:
            raise Unavailable("no battery in %s" % self._pattern)
        self._refuse_charging()
        gauges = [Gauge(folder, self._unit) for folder in batteries]
        self._gauges = [gauge for gauge in gauges if gauge.watts() is not None]
        used = [gauge.rail for gauge in self._gauges]
        self._idle = [folder for folder in batteries if os.path.basename(folder) not in used and not _in_use(folder)]
        if not self._gauges:
            raise Unavailable("%s says neither power_now nor current_now and voltage_now, or 0" % batteries[0])
        return [channel(gauge.rail, "board", PERIOD_S, note=gauge.note) for gauge in self._gauges]

    def _supplies(self) -> List[Tuple[str, str]]:
        folders = [folder for folder in sorted(glob.glob(self._pattern)) if read(os.path.join(folder, "scope")) != "Device"]
        return [(folder, read(os.path.join(folder, "type")) or "") for folder in folders]

    def _refuse_charging(self) -> None:
        """Raise `Unavailable` where something else supplies the device; beside a battery that is used another may be idle."""
        supplies = self._supplies()
        states = [(folder, read(os.path.join(folder, "status"))) for folder, kind in supplies if kind == "Battery"]
        refused = ["Charging"] if any(_in_use(folder) for folder, _ in states) else ["Charging", "Full", "Not charging"]
        for folder, state in states:
            if state in refused:
                raise Unavailable("%s is %s: its current is not the device's; unplug it" % (folder, state.lower()))
        for folder, kind in supplies:
            if kind != "Battery" and read(os.path.join(folder, "online")) == "1":
                raise Unavailable("%s (%s) is online: the battery does not supply the device; unplug it" % (folder, kind))

    def read(self) -> List[Reading]:
        """Read every battery in use; being plugged in, or another battery that takes over, ends the readings."""
        self._refuse_charging()
        woken = [folder for folder in self._idle if _in_use(folder)]
        if woken:
            raise Unavailable("%s began to supply the device midway: measure again while one battery lasts" % woken[0])
        found = [(index, now_ns(), gauge.watts()) for index, gauge in enumerate(self._gauges)]
        return [(index, t_ns, watts) for index, t_ns, watts in found if watts is not None]

    def stop(self) -> None:
        """Nothing is held open."""
