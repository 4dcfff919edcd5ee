"""The cores of a processor whose cores are unlike: as the kernel weighs them."""

import glob
import os
import re
from typing import Dict, List, Optional

from .facts import number

BIG = 0.5
"""Of the largest core's capacity: what has so much is big."""


def capacities(root: str = "/") -> Dict[int, float]:
    """Read the capacity of each core that this process may use (`cpu_capacity`: 1024 is the largest); none where unknown."""
    found = {}
    for path in glob.glob(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpu_capacity")):
        value = number(path)
        if value:
            found[int(re.findall(r"cpu([0-9]+)", path)[-1])] = value
    mine = os.sched_getaffinity(0) if root == "/" and hasattr(os, "sched_getaffinity") else set(found)
    return {core: value for core, value in found.items() if core in mine}


def big(root: str = "/") -> Optional[List[int]]:
    """Name the big cores; None where all are alike, or the kernel does not say."""
    every = capacities(root)
    if not every:
        return None
    chosen = sorted(core for core, value in every.items() if value >= BIG * max(every.values()))
    return chosen if len(chosen) < len(every) else None
