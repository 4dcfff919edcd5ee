"""The current monitors of NVIDIA Jetson modules; rails are found by name, never by number.

    JetPack 4     ina3221x/<bus>/iio:device*/rail_name_N, in_powerN_input in mW
    JetPack 5 on  ina3221/<bus>/hwmon/hwmon*/in{1,2,3}_label, in*_input in mV, curr*_input in mA
    Thor besides  ina238/<bus>/hwmon/hwmon*/label, power1_input in µW: what the board and its module draw

AGX Xavier and AGX Orin measure no total, and their rails do not sum to one: each rail is given apart.
"""

import glob
import os
from typing import Any, Dict, List, Optional, Tuple

from ..facts import read
from .meters import Reading, Unavailable, channel, check_options, reading, why_unreadable

PERIOD_S = 0.02
INPUT = "VIN"
TOTALS = ("VDD_IN", "POM_5V_IN")
DRIVERS = "sys/bus/i2c/drivers"


class Rail(object):
    """One channel of a monitor: the files whose product is its power."""

    def __init__(self, name: str, paths: List[str], scale: float) -> None:
        self.name = name
        self.paths = paths
        self._scale = scale

    def watts(self) -> Optional[Tuple[int, float]]:
        """Return time and watts, or None where it cannot be read now."""
        found = [item for item in map(reading, self.paths) if item is not None]
        if len(found) < len(self.paths):
            return None
        value = self._scale
        for item in found:
            value *= item[1]
        return sum(item[0] for item in found) // len(found), value


class Meter(object):
    """All rails; the module's total comes first where there is one."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        check_options(options, ())
        self._drivers = os.path.join(root, DRIVERS)
        self._rails: List[Rail] = []

    def start(self) -> List[Dict[str, Any]]:
        """Find the rails that can be read."""
        rails = _input(self._drivers) + _jetpack4(self._drivers) + _jetpack5(self._drivers)
        rails.sort(key=lambda rail: rail.name != INPUT and rail.name not in TOTALS)
        self._rails = [rail for rail in rails if rail.watts() is not None]
        if not rails:
            raise Unavailable("no INA3221 in %s: not a Jetson, or one without power sensors (Nano 2GB)" % self._drivers)
        if not self._rails:
            reasons = [why_unreadable(path) for path in rails[0].paths]
            raise Unavailable("%s; run as root, or let this user read it" % "; ".join(reasons))
        return [_describe(rail.name) for rail in self._rails]

    def read(self) -> List[Reading]:
        """Read what answers."""
        found = [(index, rail.watts()) for index, rail in enumerate(self._rails)]
        return [(index, item[0], item[1]) for index, item in found if item is not None]

    def stop(self) -> None:
        """Nothing is held open."""


def _describe(name: str) -> Dict[str, Any]:
    if name == INPUT:
        return channel(name, "board", PERIOD_S, note="the input of the carrier board; the module is in it")
    if name in TOTALS:
        return channel(name, "module", PERIOD_S, note="the module's input; the carrier board is not in it")
    return channel(name, "soc", PERIOD_S, note="one rail of several; rails do not sum to the board")


def _input(drivers: str) -> List[Rail]:
    """Find Thor's INA238, which measures all that the board draws; others of that chip have another label."""
    rails = []
    for path in sorted(glob.glob(os.path.join(drivers, "ina238/*/hwmon/hwmon*/power1_input"))):
        labels = [read(os.path.join(os.path.dirname(path), name)) for name in ("label", "in1_label", "power1_label")]
        if INPUT in labels or not any(labels):
            rails.append(Rail(INPUT, [path], 1e-6))
    return rails


def _jetpack4(drivers: str) -> List[Rail]:
    rails = []
    for path in sorted(glob.glob(os.path.join(drivers, "ina3221x/*/iio:device*/rail_name_*"))):
        folder, number = os.path.dirname(path), path.rpartition("_")[2]
        name = read(path)
        if name and name != "NC":
            rails.append(Rail(name, [os.path.join(folder, "in_power%s_input" % number)], 1e-3))
    return rails


def _jetpack5(drivers: str) -> List[Rail]:
    """Labels beyond the third are of shunt voltages and of their sum (channel 7), not of rails."""
    rails = []
    for path in sorted(glob.glob(os.path.join(drivers, "ina3221/*/hwmon/hwmon*/in[1-3]_label"))):
        folder, number = os.path.dirname(path), os.path.basename(path)[2]
        name = read(path)
        if name and name != "NC":
            files = [os.path.join(folder, kind + number + "_input") for kind in ("in", "curr")]
            rails.append(Rail(name, files, 1e-6))
    return rails
