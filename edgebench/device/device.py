"""One connected device, and what it said of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgebench.device import deploy, inspect, measure
from edgebench.errors import EdgebenchError, InputError, MeasureError
from edgebench.files import sha256_json
from edgebench.schema import Link, Target, Transport


@dataclass
class Device:
    """A connected target, and what it said of itself."""

    target: Target
    link: Link
    _found: dict[str, Any] = field(default_factory=dict)
    _error: EdgebenchError | None = None

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

    def runtime_version(self, runtime: str) -> str:
        """Return the runtime's version there; `MeasureError` where it is missing."""
        found = self.facts["runtimes"].get(runtime, {"version": None, "reason": "this agent has no such runtime"})
        if found["version"] is None:
            remedy = f"bring it with: {inspect.install(self.target, runtime)}"
            raise MeasureError("probe", f"{self.target.name} has no runtime {runtime}: {found['reason']}", remedy)
        return str(found["version"])
