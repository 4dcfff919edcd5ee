"""Experiment trackers: one file each, whose name stands before the address (`mlflow:http://127.0.0.1:5000`)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgebench import plugins
from edgebench.errors import InputError, MissingExtra, UnknownName

PACKAGE = "edgebench.track"


@dataclass(frozen=True)
class Address:
    """A tracker, and where it is."""

    name: str
    where: str

    def __str__(self) -> str:
        """Write it as the command line reads it, without a password."""
        return hidden(f"{self.name}:{self.where}" if self.where else self.name)

    @property
    def module(self) -> Any:
        """Return its plugin, a `schema.tracking.TrackerModule`."""
        return plugins.load(PACKAGE, self.name, "tracker")


def addresses(texts: Sequence[str]) -> list[Address]:
    """Read `mlflow:URI` and the like; `InputError` where one is none, `MissingExtra` where its package is not installed."""
    return [_address(text) for text in dict.fromkeys(texts)]


def _address(text: str) -> Address:
    name, _, where = text.partition(":")
    known = plugins.names(PACKAGE)
    if name not in known:
        raise UnknownName("tracker", name, known)
    module = plugins.load(PACKAGE, name, "tracker")
    needed: tuple[tuple[str, str], ...] = ()
    for package, extra in plugins.declared(module, "REQUIRES", needed):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"tracking with {name}", extra, package)
    try:
        return Address(name, module.check(where))
    except ValueError as error:
        raise InputError(hidden(f"{text}: {error}")) from error


def hidden(text: str) -> str:
    """Take user names and passwords out of the addresses in a text."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)
