"""The processes that answer: this one, or several that share what is listened on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import multiprocess
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

START_SECONDS = 600.0
"""In which a worker must have loaded its model."""


class Telling(Server):
    """Says when it answers."""

    def __init__(self, config: Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._listening()


class Supervisor(Multiprocess):
    """Keeps several processes alive, and says when all of them answer."""

    def __init__(self, config: Config, sockets: list[socket.socket], listening: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self._listening = listening
        self.failed = False

    def init_processes(self) -> None:
        """Start them, and wait until they answer."""
        super().init_processes()
        if all(each.wait_until_ready(START_SECONDS, self.should_exit) for each in self.processes):
            self._listening()

    def keep_subprocess_alive(self) -> None:
        """Replace those that ended; end all where one could not begin."""
        before = {each.pid for each in self.processes}
        super().keep_subprocess_alive()
        for gone in before - {each.pid for each in self.processes}:
            multiprocess.mark_process_dead(gone)  # type: ignore[no-untyped-call]  # or what it worked on counts for ever
        self.failed = self.failed or any(each.exitcode == STARTUP_FAILURE for each in self.processes)


def one(settings: Mapping[str, Any], listener: socket.socket, listening: Callable[[], None]) -> int:
    """Answer in this process; returns 0, or 1 where that could not begin."""
    server = Telling(Config(**settings), listening)
    try:
        server.run([listener])
    except SystemExit:
        return 1
    return 0 if server.started else 1


def several(settings: Mapping[str, Any], listener: socket.socket, listening: Callable[[], None]) -> int:
    """Answer in several processes; returns 0, or 1 where one could not begin."""
    supervisor = Supervisor(Config(**settings), [listener], listening)
    supervisor.run()
    return int(supervisor.failed)
