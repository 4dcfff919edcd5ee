"""Plugins are files: a file's name is its name on the command line.

Discovery lists a package's folder and imports nothing, so that a broken or
uninstalled plugin costs nothing until it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.resources
from types import ModuleType
from typing import TypeVar

from edgebench.agent import plugins as agent_plugins
from edgebench.errors import UnknownName
from edgebench.schema import TransportModule

T = TypeVar("T")


def names(package: str, suffix: str = ".py") -> tuple[str, ...]:
    """List the plugins of a package (`edgebench.data` → `digits`, `image-folder`, …)."""
    files = (entry.name for entry in importlib.resources.files(package).iterdir())
    stems = (name[: -len(suffix)] for name in files if name.endswith(suffix) and not name.startswith("_"))
    return tuple(sorted(stem.replace("_", "-") for stem in stems))


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import one plugin by its command-line name; `UnknownName` offers the nearest."""
    known = names(package)
    if name not in known:
        raise UnknownName(kind, name, known)
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


def on_device(folder: str) -> tuple[str, ...]:
    """List the agent's own `runtimes` or `meters`."""
    return tuple(agent_plugins.names(folder))


def load_device(folder: str, name: str) -> ModuleType:
    """Import one of the agent's `runtimes` or `meters`; `UnknownName` offers the nearest."""
    if name not in on_device(folder):
        raise UnknownName(folder.rstrip("s"), name, on_device(folder))
    found: ModuleType = agent_plugins.load(folder, name)
    return found


def declared(plugin: ModuleType, name: str, default: T) -> T:
    """Return what a plugin says of itself, or the default where it does not; `schema/protocols.py` has names and types."""
    found: T = getattr(plugin, name, default)
    return found


def check_host(transport: str, host: str) -> None:
    """Let a transport judge an address; `ValueError` says how one is written. A transport that is not here says so later."""
    if transport in names("edgebench.targets.transports"):
        module = load("edgebench.targets.transports", transport, "transport")
        check = declared(module, "check_host", TransportModule.check_host)
        if check is not None:
            check(host)
