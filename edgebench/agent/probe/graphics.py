"""The clock and the load of a GPU whose driver belongs to its board's kernel: every Jetson's, and other Arm boards'."""

import glob
import os
import re
from typing import Any, Dict

from ..facts import number

GPU = re.compile(r"(?:^|\.)(?:gpu|gp10b|gv11b|ga10b|gb10b)(?:-gpc-[0-9]{1,2})?$")
"""`57000000.gpu` of Nano, `17000000.` with gp10b of TX2, gv11b of Xavier, ga10b or gpu of Orin; `gpu-gpc-0` of Thor."""


def gpu(root: str) -> Dict[str, Any]:
    """Read the GPU's clock in kHz, the limits within which it moves, and its load as a share; null where there is none.

    A clock of 0 is a GPU that is off. Thor tells no load here.
    """
    names = ("gpu_khz", "gpu_khz_floor", "gpu_khz_limit", "gpu_load")
    for folder in sorted(glob.glob(os.path.join(root, "sys/class/devfreq/*"))):
        if GPU.search(os.path.basename(folder)):
            hertz = [number(os.path.join(folder, name)) for name in ("cur_freq", "min_freq", "max_freq")]
            permille = number(os.path.join(folder, "device/load"))
            load = None if permille is None else min(1.0, permille / 1000.0)
            return dict(zip(names, [each / 1000.0 if each else None for each in hertz] + [load]))
    return dict.fromkeys(names)
