"""One connected device, and what it said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from edgebench import plugins
from edgebench.device import deploy, inspect, measure
from edgebench.errors import EdgebenchError, InputError, MeasureError
from edgebench.files import sha256_json
from edgebench.schema import Link, Target, Transport
from edgebench.schema.protocols import RuntimeModule


@dataclass
class Device:
    """A connected target, and what it said of itself."""

    target: Target
    link: Link
    _found: dict[str, Any] = field(default_factory=dict)
    _error: EdgebenchError | None = None
    _asked: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Runtimes by the options that decide their version."""

    @cached_property
    def transport(self) -> Transport:
        """Prepare the connection."""
        return deploy.connect(self.target, self.link)

    def look(self) -> None:
        """Probe the device once; what is wrong with it is remembered."""
        if self._found or self._error:
            return
        try:
            agent = deploy.deploy_agent(self.target, self.transport)
            found = measure.probe(self.transport, agent)
            inspect.refuse(self.target, found)
            self._found = found
        except InputError:
            raise
        except EdgebenchError as error:
            self._error = error

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the device says of itself.

        Raises `TransportError` where it cannot be reached, `MeasureError` where
        it is not what its target says.
        """
        self.look()
        self.check()
        return self._found

    def check(self) -> None:
        """Raise what was wrong when it was looked at."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the connection."""
        if "transport" in self.__dict__:
            self.transport.close()

    @property
    def identity(self) -> str:
        """Hash the facts that make two devices comparable."""
        names = ("board", "cpu", "machine", "cores", "system")
        return sha256_json({name: self.facts["environment"].get(name) for name in names})

    def runtime_version(self, runtime: str, options: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Return the runtime's version there; `MeasureError` where it is missing. Some depend on their options."""
        found = self._runtimes(runtime, options).get(runtime, {"version": None, "reason": "this agent has no such runtime"})
        if found["version"] is None:
            remedy = f"bring it with: {inspect.install(self.target, runtime)}"
            raise MeasureError("probe", f"{self.target.name} has no runtime {runtime}: {found['reason']}", remedy)
        return str(found["version"])

    def _runtimes(self, runtime: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the device says of its runtimes, asked anew where options decide which version that is."""
        named = runtime in plugins.on_device("runtimes") and plugins.load_device("runtimes", runtime)
        if not named or plugins.declared(named, "version_of", RuntimeModule.version_of) is None:
            return dict(self.facts["runtimes"])
        self.check()
        key = f"{runtime} {sorted(options.items())}"
        if key not in self._asked:
            agent = deploy.deploy_agent(self.target, self.transport)
            self._asked[key] = measure.probe(self.transport, agent, {runtime: dict(options)})["runtimes"]
        return self._asked[key]
