"""edgebench: which of my models, in which format and precision, should run on which device.

The verbs of the command line as functions: `train`, `export`, `run`, `compare`,
`noise`, `diagnose`, `quantize`, `leaderboard`, `recommend`; `edgebench.results`
has the others on records (`report`, `listing`, `find`, `prune`, `merge`).
`read_target("jetson-nano", "nano@jetson.local")` gives those that take a target a device with its address.
They are imported when first used, so that `import edgebench` costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads it when it is imported, and would write to the user's folders, start threads and call home, from 1.29 on.
# Set, whatever it was: a thread beside the trials is no one's wish.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from edgebench.api import compare, diagnose, export, noise, quantize, run, train
    from edgebench.profile import read_target
    from edgebench.results import leaderboard, recommend

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "diagnose",
    "export",
    "leaderboard",
    "noise",
    "quantize",
    "read_target",
    "recommend",
    "run",
    "train",
]
RESULTS = ("leaderboard", "recommend")
"""The verbs that need no runtime."""


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for."""
    if name in RESULTS:
        from edgebench import results

        return getattr(results, name)
    if name in __all__:
        from edgebench import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgebench' has no attribute {name!r}")
