"""Sensors of Linux's hwmon class: energy counters, power, or voltage times current.

Units as the kernel's sysfs-interface says: microjoules, microwatts, millivolts, milliamperes.
"""

import glob
import os
from typing import Any, Dict, List, Optional, Tuple

from ..facts import read
from .meters import Counter, Reading, Unavailable, channel, check_options, reading, why_unreadable

PERIOD_S = 0.05
COVERS = "what it covers depends on the board: set `provenance` where that is known"
INPUTS = {"VIN": "board"}
"""Labels of whole chips that say what is measured: the INA238 at the input of a Jetson Thor's board."""


class Sensor(object):
    """One rail: the files that are multiplied, and the scale to watts or joules."""

    def __init__(self, rail: str, paths: List[str], scale: float, counter: bool = False) -> None:
        self.rail = rail
        self.paths = paths
        self._scale = scale
        first = self._raw()
        self.readable = first is not None
        self.counter = Counter(first[1], scale) if counter and first else None

    def _raw(self) -> Optional[Tuple[int, int]]:
        found = [reading(path) for path in self.paths]
        t_ns, product = 0, 1
        for item in found:
            if item is None:
                return None
            t_ns, product = t_ns + item[0], product * item[1]
        return t_ns // len(found), product

    def value(self) -> Optional[Tuple[int, float]]:
        """Return time and watts, or joules since the start; None where it cannot be read now."""
        found = self._raw()
        if found is None:
            return None
        return found[0], self.counter.joules(found[1]) if self.counter else found[1] * self._scale


class Meter(object):
    """Every power sensor of every chip, or of the one that the option `chip` names."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        self._chip = check_options(options, ("chip",)).get("chip")
        self._pattern = os.path.join(root, "sys/class/hwmon/hwmon*")
        self._sensors: List[Sensor] = []

    def start(self) -> List[Dict[str, Any]]:
        """Find the sensors; rails are called chip/label."""
        folders = [(folder, read(os.path.join(folder, "name")) or "?") for folder in sorted(glob.glob(self._pattern))]
        chosen = [item for item in folders if self._chip in (None, item[1])]
        if not chosen:
            raise Unavailable(
                "no chip%s in %s; there are: %s" % (" " + str(self._chip) if self._chip else "", self._pattern, _names(folders))
            )
        sensors = [sensor for folder, chip in chosen for sensor in _sensors(folder, chip)]
        self._sensors = [sensor for sensor in sensors if sensor.readable]
        _number_doubles(self._sensors)
        if not sensors:
            raise Unavailable("no power, energy, or labelled voltage and current sensor on the chips: %s" % _names(chosen))
        if not self._sensors:
            raise Unavailable(why_unreadable(sensors[0].paths[0]) + "; run as root, or let this user read it")
        return [_describe(item) for item in self._sensors]

    def read(self) -> List[Reading]:
        """Read what answers."""
        found = [(index, sensor.value()) for index, sensor in enumerate(self._sensors)]
        return [(index, item[0], item[1]) for index, item in found if item is not None]

    def stop(self) -> None:
        """Nothing is held open."""


def _describe(sensor: Sensor) -> Dict[str, Any]:
    where = INPUTS.get(sensor.rail.partition("/")[2].partition("#")[0])
    note = "the input of the board" if where else COVERS
    return channel(sensor.rail, where or "soc", PERIOD_S, counter=sensor.counter is not None, note=note)


def _names(folders: List[Tuple[str, str]]) -> str:
    return ", ".join(sorted({chip for _, chip in folders})) or "none"


def _number_doubles(sensors: List[Sensor]) -> None:
    """Tell sensors of equal chips apart: `ina226/power1`, `ina226/power1#2`."""
    seen: Dict[str, int] = {}
    for sensor in sensors:
        count = seen[sensor.rail] = seen.get(sensor.rail, 0) + 1
        sensor.rail += "#%d" % count if count > 1 else ""


def _sensors(folder: str, chip: str) -> List[Sensor]:
    """List a chip's counters, then its power sensors, then products that neither has.

    The label of a whole chip names its one power sensor where that has none.
    """
    whole = read(os.path.join(folder, "label"))
    found = [Sensor(chip + "/" + label, [path], 1e-6, True) for label, path in _labelled(folder, "energy", "_input").items()]
    power = dict(_labelled(folder, "power", "_average"), **_labelled(folder, "power", "_input"))
    if whole and list(power) == ["power1"]:
        power = {whole: power["power1"]}
    found += [Sensor(chip + "/" + label, [path], 1e-6) for label, path in sorted(power.items())]
    volts, amperes = _labelled(folder, "in", "_input", True), _labelled(folder, "curr", "_input", True)
    both = sorted(label for label in set(volts) & set(amperes) if label != "NC" and label not in power)
    return found + [Sensor(chip + "/" + label, [volts[label], amperes[label]], 1e-6) for label in both]


def _labelled(folder: str, kind: str, ending: str, strict: bool = False) -> Dict[str, str]:
    """Map labels (else `power1`) to files; strict: only those that have a label."""
    found: Dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(folder, kind + "[0-9]*" + ending))):
        label = read(path[: -len(ending)] + "_label")
        name = label or (None if strict else os.path.basename(path)[: -len(ending)])
        if name:
            found.setdefault(name, path)
    return found
