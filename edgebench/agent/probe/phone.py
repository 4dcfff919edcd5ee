"""How a phone is doing, beside what every Linux tells: from files each second, by its programs around the trials alone."""

import os
import re
from typing import Any, Dict, Optional

from .. import android
from ..facts import read


def conditions(root: str, found: Dict[str, Any], pid: Optional[int], programs: bool) -> Dict[str, Any]:
    """Add to a snapshot what a phone tells: the worker's cpuset and cores, and by `programs` the rest.

    Its hardware's sensors are columns of their own; the hottest of them stands
    for all where the kernel's zones may not be read, or say what no
    temperature is.
    """
    found.update(cpuset_of(root, str(pid)) if pid else dict.fromkeys(("cpuset", "cpus")))
    found.update(dict.fromkeys(("wakefulness", "low_power", "thermal_status", "plugged")))
    _drop_implausible(found)
    if not programs:
        return found
    state, _ = android.state(root)
    found.update({name: state[name] for name in ("wakefulness", "low_power", "thermal_status", "plugged")})
    found.update({"celsius.HAL." + name: celsius for name, celsius in state["celsius"].items()})
    if found["celsius"] is None and state["celsius"]:
        found["celsius"] = max(state["celsius"].values())
    if found["battery_state"] is None and found["battery_percent"] is None:
        found["battery_percent"] = state["battery"].get("percent")
        found["battery_state"] = state["battery"].get("state")
    return found


def cpuset_of(root: str, process: str) -> Dict[str, Optional[str]]:
    """Read a process's group of cores by name, and the cores that it may use now."""
    status = read(os.path.join(root, "proc", process, "status")) or ""
    cores = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.M)
    return {"cpuset": read(os.path.join(root, "proc", process, "cpuset")), "cpus": cores.group(1) if cores else None}


def _drop_implausible(found: Dict[str, Any]) -> None:
    """Take out zones that tell something else than m°C: volts, amperes, tenths of a degree, constants."""
    zones = {name: celsius for name, celsius in found.items() if name.startswith("celsius.")}
    for name, celsius in list(zones.items()):
        if not 1.0 <= celsius <= android.HOTTEST:
            del found[name], zones[name]
    found["celsius"] = max(zones.values()) if zones else None
