"""Intel's and AMD's running average power limit: energy counters of CPU packages, in microjoules.

Each zone wraps round at its `max_energy_range_uj`, after minutes at high power.
"""

import glob
import os
from typing import Any, Dict, List, Optional

from ..facts import read
from .meters import Counter, Reading, Unavailable, channel, check_options, reading, whole, why_unreadable

PERIOD_S = 0.04
"""At least 100 updates within the six seconds that a trial of ten leaves; the counters themselves move every millisecond."""
TOTAL = "packages"
ALLOW = "only root may read it since CVE-2020-8694; run as root, or: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"


class Zone(object):
    """One domain: a package, a part of one, or the platform."""

    def __init__(self, folder: str, rail: str) -> None:
        self.path = os.path.join(folder, "energy_uj")
        self.rail = rail
        self.package = rail.startswith("package") and "/" not in rail
        first = whole(self.path)
        self.counter = None if first is None else Counter(first, 1e-6, whole(os.path.join(folder, "max_energy_range_uj")))

    def describe(self) -> Dict[str, Any]:
        """Describe it as a channel."""
        if self.rail == "psys":
            return channel("psys", "board", PERIOD_S, counter=True, note="the platform; its maker decides what that covers")
        return channel(self.rail, "soc", PERIOD_S, counter=True)


class Meter(object):
    """All zones that can be read; with several packages their sum comes first."""

    def __init__(self, options: Dict[str, Any], root: str = "/") -> None:
        check_options(options, ())
        self._folder = os.path.join(root, "sys/class/powercap")
        self._zones: List[Zone] = []
        self._total = False

    def start(self) -> List[Dict[str, Any]]:
        """Find the zones."""
        zones = self._find()
        self._zones = [zone for zone in zones if zone.counter is not None]
        if not zones:
            raise Unavailable(
                "no zone in %s/intel-rapl:*: not an x86 CPU, a virtual machine, or no intel_rapl module" % self._folder
            )
        if not self._zones:
            raise Unavailable("%s; %s" % (why_unreadable(zones[0].path), ALLOW))
        packages = [zone for zone in zones if zone.package]
        self._total = len(packages) > 1 and all(zone.counter is not None for zone in packages)
        total = [channel(TOTAL, "soc", PERIOD_S, counter=True, note="%d packages" % len(packages))] if self._total else []
        return total + [zone.describe() for zone in self._zones]

    def _find(self) -> List[Zone]:
        """List packages, then the platform, then the parts of packages."""
        names: Dict[str, str] = {}
        for folder in sorted(glob.glob(os.path.join(self._folder, "intel-rapl:*"))):
            names[os.path.basename(folder)] = read(os.path.join(folder, "name")) or os.path.basename(folder)
        found = []
        for zone, name in names.items():
            parent = names.get(zone.rpartition(":")[0])
            found.append(Zone(os.path.join(self._folder, zone), name if parent is None else "%s/%s" % (parent, name)))
        return sorted(found, key=lambda zone: 0 if zone.package else 2 if "/" in zone.rail else 1)

    def read(self) -> List[Reading]:
        """Read every zone; the sum only where every package answered."""
        rows: List[Reading] = []
        shift = 1 if self._total else 0
        packages: List[Optional[Reading]] = []
        for index, zone in enumerate(self._zones):
            found = reading(zone.path)
            row = (index + shift, found[0], zone.counter.joules(found[1])) if found and zone.counter else None
            rows += [row] if row else []
            packages += [row] if zone.package else []
        answered = [row for row in packages if row]
        if self._total and len(answered) == len(packages):
            rows.insert(0, (0, max(row[1] for row in answered), sum(row[2] for row in answered)))
        return rows

    def stop(self) -> None:
        """Nothing is held open."""
