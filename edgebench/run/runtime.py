"""Which runtime a cell runs on, and what that declares: options that stay private, and how much it can infer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgebench import plugins
from edgebench.schema import Bundle
from edgebench.schema.protocols import RuntimeModule

if TYPE_CHECKING:
    from edgebench.data import Dataset


def chosen_runtime(runtime: str, options: Mapping[str, Any]) -> str:
    """Return the runtime that stands in for one where an option of its own name is given; else that one."""
    for name in (option.replace("_", "-") for option in options):
        plugin = _plugin(name)
        if plugin is not None and plugins.declared(plugin, "INSTEAD_OF", RuntimeModule.INSTEAD_OF) == runtime:
            return name
    return runtime


def private(runtime: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that no record may hold."""
    plugin = _plugin(runtime)
    names = () if plugin is None else plugins.declared(plugin, "PRIVATE", RuntimeModule.PRIVATE)
    return {name: options[name] for name in names if name in options}


def few_samples(runtime: str, options: Mapping[str, Any], bundle: Bundle, data: Dataset | None) -> tuple[tuple[int, ...], str]:
    """Choose the samples that are inferred where a runtime cannot infer the whole split, and say why; none: it can.

    Those that the exporting host compared with, if it knows any of this data; else some, by a fixed seed.
    """
    plugin = _plugin(runtime)
    few = None if plugin is None else plugins.declared(plugin, "few", RuntimeModule.few)
    limit = None if few is None else few(options)
    if limit is None or data is None or bundle.scored is None:
        return (), ""
    count, why = limit
    if bundle.parity_samples and data.ref == bundle.model.lineage.dataset:
        return tuple(bundle.parity_samples[:count]), why
    total = len(data.read("test"))
    return tuple(sorted(random.Random(0).sample(range(total), min(count, total)))), why


def _plugin(runtime: str) -> ModuleType | None:
    return plugins.load_device("runtimes", runtime) if runtime in plugins.on_device("runtimes") else None
