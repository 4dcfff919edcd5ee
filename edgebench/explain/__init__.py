"""What a model looks at: one file a method, its name is what the command line calls it (`++` for `-plus-plus`)."""

from __future__ import annotations

import importlib.util
from typing import Any

from edgebench import plugins
from edgebench.errors import MissingExtra, UnknownName

PACKAGE = "edgebench.explain"
PLUS = "-plus-plus"


def methods() -> tuple[str, ...]:
    """List the methods."""
    return tuple(sorted(name.replace(PLUS, "++") for name in plugins.names(PACKAGE)))


def load(name: str, here: bool = True) -> Any:
    """Import a method, a `schema.explanation.ByScores` or `ByGradients`.

    `UnknownName` offers the nearest, `MissingExtra` says what to install; not where it need not work `here`.
    """
    if name not in methods():
        raise UnknownName("method", name, methods())
    plugin = plugins.load(PACKAGE, name.replace("++", PLUS), "method")
    needed: tuple[tuple[str, str], ...] = ()
    for module, extra in plugins.declared(plugin, "REQUIRES", needed):
        if here and importlib.util.find_spec(module) is None:
            raise MissingExtra(f"explaining by {name}", extra, module)
    return plugin
