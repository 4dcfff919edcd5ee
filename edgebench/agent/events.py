"""JSON lines on a file descriptor that nothing else can write to."""

import json
import os
import sys
import threading
from typing import Any


class Events(object):
    """The agent's output; whatever a runtime prints goes to standard error instead."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "w", 1)  # runtimes print to fd 1; keep the events clean
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event as one line."""
        fields["event"] = event
        self.forward(json.dumps(fields) + "\n")

    def forward(self, line: str) -> None:
        """Write a line that already is an event."""
        with self._lock:
            self._out.write(line)
            self._out.flush()
