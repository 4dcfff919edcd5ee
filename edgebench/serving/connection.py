"""Connections that are given up where nothing whole comes: uvicorn itself would wait for a request's head for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER_SECONDS = 5.0
"""So long a client may take for the rest of an answer once the connection is closed."""


class Connection(H11Protocol):
    """HTTP/1.1 on one connection; a request's head must come in the time that the application's options give a request."""

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, config: Config, *given: Any, **more: Any) -> None:
        super().__init__(config, *given, **more)
        application: Any = config.app
        self._head_seconds: float = application.args[1].timeout_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; or end it at once, where there are so many that files would run out."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > 2 * self.limit_concurrency:
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, and stop waiting where that was the head's end."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next head, and not for ever for this answer to be taken."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()
        else:
            self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close what is not used any more."""
        super().timeout_keep_alive_handler()
        self._linger()

    def _watch(self) -> None:
        waiting: Any = self.cycle is None or self.cycle.response_complete
        if not waiting:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._head_seconds, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()

    def _linger(self) -> None:
        self._stop()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
