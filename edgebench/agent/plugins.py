"""The runtimes and meters that were packed: ours, and those that a target brought."""

import importlib
import pkgutil
import sys
from typing import Any, List, Tuple

PREFIXES = {"runtimes": "rt_", "meters": "meter_"}
FLAT = ("clock", "events", "facts")
OPTIONAL = ("finish", "device_bytes", "stages", "profile", "take", "footprint", "unpredicted", "generate")
"""What a runtime may do beside `load`, `prepare`, `infer` and `scores`; it names what it does in its `OFFERS`."""


def names(folder: str) -> List[str]:
    """List what is in `runtimes` or `meters`, as targets name it."""
    prefix, package = PREFIXES[folder], importlib.import_module("." + folder, __package__)
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name[len(prefix) :].replace("_", "-") for name in found if name.startswith(prefix))


def load(folder: str, name: str) -> Any:
    """Import one runtime or meter; `ImportError` if there is none of this name."""
    return importlib.import_module(".%s.%s%s" % (folder, PREFIXES[folder], name.replace("-", "_")), __package__)


def offers(runtime: Any) -> Tuple[str, ...]:
    """Return what a runtime does of `OPTIONAL`: as it declares, or what it has if it was written before that was asked."""
    declared = getattr(runtime, "OFFERS", None)
    return tuple(name for name in OPTIONAL if (hasattr(runtime, name) if declared is None else name in declared))


def as_when_flat(package: str) -> None:
    """Let what stands above a folder be imported from within it, as users' own plugins did when the agent had no folders."""
    above = package.rpartition(".")[0]
    for name in FLAT:
        sys.modules["%s.%s" % (package, name)] = importlib.import_module("." + name, above)
