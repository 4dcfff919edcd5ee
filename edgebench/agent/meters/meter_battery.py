"""The battery's own gauge, in microwatts or microamperes and microvolts; only while it discharges.

Signs differ between vendors, so the magnitude counts. Some give milliamperes:
a first current under 10 000 is taken as such, for no device that infers draws
less than 10 mA, and none more than 10 A. A voltage under 100 000 is millivolts.
The option `current_unit` (uA, mA) says it for certain.

A phone's gauge may count charge as well (`charge_counter`): the same rail in
another way, which counts where the current changes too seldom. Where the
kernel's files may not be read, `dumpsys battery` tells charge and voltage;
it costs 30–50 ms of a core and is asked every ten seconds.
"""

import glob
import os
import time
from typing import Any, Dict, List, Optional, Tuple, Union

from .. import android
from ..clock import now_ns
from ..facts import read
from .meters import Reading, Unavailable, channel, check_options, whole

PERIOD_S = 0.25
DUMP_SECONDS = 10.0
UNITS = {"uA": 1e-6, "mA": 1e-3}
MOST_MILLIAMPERES = 20000
ZERO_SECONDS = 2.0
"""A gauge may say 0 before its first conversion."""
FEWEST_STEPS = 10
"""Of a charge counter: what it misses at both ends of a trial is less than one step in so many."""
CHARGERS = ("Mains", "USB", "Wireless", "Dock")
"""How the types of a phone's supplies begin that charge it (USB_C, USB_PD and so on); others are parts of the charger."""
WIFI = "; connect over Wi-Fi (Wireless debugging, `adb pair`, `adb connect`) and measure without the cable"


def _in_use(folder: str) -> bool:
    return read(os.path.join(folder, "status")) == "Discharging"


class Charge(object):
    """Joules since the start, from charge that went and the voltage meanwhile."""

    def __init__(self, millivolts: float, charge: float) -> None:
        self._unit = "mAh" if charge < 20000 else "uAh"
        self._last = millivolts, charge
        self._joules = 0.0
        self.note = "charge_counter times voltage; charge in %s, judged by its size, %d" % (self._unit, charge)

    def joules(self, millivolts: Optional[float], charge: Optional[float]) -> Optional[float]:
        """Add what went since the last reading; None where there is none."""
        if not millivolts or not charge:
            return None
        before, had = self._last
        coulombs = (had - charge) * (3.6 if self._unit == "mAh" else 3.6e-3)
        self._joules += coulombs * (before + millivolts) / 2000
        self._last = millivolts, charge
        return self._joules


class Gauge(object):
    """One battery, as the kernel tells it."""

    def __init__(self, folder: str, current_unit: Optional[str], counts: bool) -> None:
        self.rail = os.path.basename(folder)
        self._folder = folder
        self._power = bool(self._number("power_now"))
        current, volts = abs(self._number("current_now") or 0), abs(self._number("voltage_now") or 0)
        self._unit = current_unit or ("mA" if current < 10000 else "uA")
        self._judged = current_unit is None
        self._millivolts = 1.0 if volts < 100000 else 1e-3
        how = "as the target says" if current_unit else "judged by its size, %d" % current
        self.note = "power_now" if self._power else "current times voltage; current in %s, %s" % (self._unit, how)
        counted = self._counted() if counts else (None, None)
        self.charge = Charge(counted[0], counted[1]) if counted[0] and counted[1] else None

    def _number(self, name: str) -> Optional[int]:
        return whole(os.path.join(self._folder, name))

    def _counted(self) -> Tuple[Optional[float], Optional[float]]:
        """Read millivolts and the charge that is left."""
        volts, charge = self._number("voltage_now"), self._number("charge_counter")
        return None if volts is None else abs(volts) * self._millivolts, None if charge is None else float(charge)

    def watts(self) -> Optional[float]:
        """Return the power drawn; None where the gauge says nothing, or 0, which no running device draws."""
        if self._power:
            return abs(self._number("power_now") or 0) * 1e-6 or None
        current = abs(self._number("current_now") or 0)
        if self._judged and self._unit == "mA" and current > MOST_MILLIAMPERES:
            text = "%s: current_now was small and taken for mA, and is %d now; give the meter the option current_unit: uA"
            raise Unavailable(text % (self._folder, current))
        return current * UNITS[self._unit] * abs(self._number("voltage_now") or 0) * self._millivolts * 1e-3 or None

    def is_zero(self) -> bool:
        """Return whether the current can be read and is 0."""
        return not self._power and self._number("current_now") == 0

    def joules(self) -> Optional[float]:
        """Return the energy by charge; None where it is not told just now."""
        assert self.charge is not None
        return self.charge.joules(*self._counted())


class Dumped(object):
    """A phone's battery as `dumpsys battery` tells it."""

    rail = "battery"

    def __init__(self, root: str) -> None:
        self._root = root
        self._asked = time.monotonic()
        told = self._ask()
        if not told["millivolts"] or not told["charge_uah"]:
            lacks = "voltage" if not told["millivolts"] else "charge counter"
            raise Unavailable("no battery of the kernel's may be read, and dumpsys battery tells no %s" % lacks)
        self.charge = Charge(told["millivolts"], told["charge_uah"])

    def _ask(self) -> Dict[str, Any]:
        try:
            told = android.battery(android.ask(self._root, "dumpsys", "battery"))
        except android.Unread as error:
            raise Unavailable("no battery of the kernel's may be read; %s" % error)
        if told["plugged"] or told["state"] in ("Charging", "Full", "Not charging"):
            state = "plugged in" if told["plugged"] else str(told["state"]).lower()
            raise Unavailable("the phone is %s: its battery's current is not the device's%s" % (state, WIFI))
        return told

    def joules(self) -> Optional[float]:
        """Ask again where ten seconds have passed."""
        if time.monotonic() - self._asked < DUMP_SECONDS:
            return None
        self._asked = time.monotonic()
        told = self._ask()
        return self.charge.joules(told["millivolts"], told["charge_uah"])


class Meter(object):
    """Every battery of the device (not of its mouse or headset)."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        self._unit = check_options(options, ("current_unit",)).get("current_unit")
        if self._unit not in (None, "uA", "mA"):
            raise Unavailable("current_unit is %r; it is uA or mA" % self._unit)
        self._root = root
        self._phone = android.here(root)
        self._pattern = os.path.join(root, "sys/class/power_supply/*")
        self._powers: List[Gauge] = []
        self._charges: List[Union[Gauge, Dumped]] = []
        self._idle: List[str] = []

    def start(self) -> List[Dict[str, Any]]:
        """Find the batteries, and refuse where one is charged."""
        batteries = [folder for folder, kind in self._supplies() if kind == "Battery"]
        if not batteries and not self._phone:
            raise Unavailable("no battery in %s" % self._pattern)
        self._refuse_charging()
        gauges = self._gauges(batteries)
        self._powers = [gauge for gauge in gauges if gauge.watts() is not None]
        self._charges = [gauge for gauge in gauges if gauge.charge is not None]
        used = [gauge.rail for gauge in gauges if gauge in self._powers or gauge in self._charges]
        self._idle = [folder for folder in batteries if os.path.basename(folder) not in used and not _in_use(folder)]
        if not used and self._phone:
            self._charges = [Dumped(self._root)]
        elif not used:
            raise Unavailable("%s says neither power_now nor current_now and voltage_now, or 0" % batteries[0])
        powers = [channel(gauge.rail, "board", PERIOD_S, note=gauge.note) for gauge in self._powers]
        return powers + [_counted(each) for each in self._charges]

    def _gauges(self, folders: List[str]) -> List[Gauge]:
        """Look at each battery; a phone's may say 0 for a moment."""
        end = time.monotonic() + ZERO_SECONDS
        while True:
            gauges = [Gauge(folder, self._unit, counts=self._phone) for folder in folders]
            if not self._phone or not any(gauge.is_zero() for gauge in gauges) or time.monotonic() > end:
                return gauges
            time.sleep(PERIOD_S)

    def _supplies(self) -> List[Tuple[str, str]]:
        """List what supplies the device, with its kind; a phone has one battery, which other gauges may describe as well."""
        folders = [folder for folder in sorted(glob.glob(self._pattern)) if read(os.path.join(folder, "scope")) != "Device"]
        found = [(folder, read(os.path.join(folder, "type")) or "") for folder in folders]
        if not self._phone:
            return found
        batteries = [folder for folder, kind in found if kind == "Battery"]
        chosen = [folder for folder in batteries if os.path.basename(folder) == "battery"] or batteries[:1]
        return [(folder, kind) for folder, kind in found if folder in chosen or kind.startswith(CHARGERS)]

    def _refuse_charging(self) -> None:
        """Raise `Unavailable` where something else supplies the device; beside a battery that is used another may be idle."""
        supplies, more = self._supplies(), WIFI if self._phone else ""
        states = [(folder, read(os.path.join(folder, "status"))) for folder, kind in supplies if kind == "Battery"]
        refused = ["Charging"] if any(_in_use(folder) for folder, _ in states) else ["Charging", "Full", "Not charging"]
        for folder, state in states:
            if state in refused:
                raise Unavailable("%s is %s: its current is not the device's; unplug it%s" % (folder, state.lower(), more))
        for folder, kind in supplies:
            if kind != "Battery" and read(os.path.join(folder, "online")) == "1":
                text = "%s (%s) is online: the battery does not supply the device; unplug it%s"
                raise Unavailable(text % (folder, kind, more))

    def read(self) -> List[Reading]:
        """Read every battery in use; being plugged in, or another battery that takes over, ends the readings."""
        self._refuse_charging()
        woken = [folder for folder in self._idle if _in_use(folder)]
        if woken:
            raise Unavailable("%s began to supply the device midway: measure again while one battery lasts" % woken[0])
        found = [(now_ns(), gauge.watts()) for gauge in self._powers]
        found += [(now_ns(), each.joules()) for each in self._charges]
        return [(index, t_ns, value) for index, (t_ns, value) in enumerate(found) if value is not None]

    def stop(self) -> None:
        """Nothing is held open."""


def _counted(gauge: Union[Gauge, Dumped]) -> Dict[str, Any]:
    assert gauge.charge is not None
    seconds = DUMP_SECONDS if isinstance(gauge, Dumped) else PERIOD_S
    return channel(gauge.rail, "board", seconds, counter=True, note=gauge.charge.note, least_updates=FEWEST_STEPS)
