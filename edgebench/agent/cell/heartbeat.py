"""A thread that speaks once a second while something goes on that has no events of its own."""

import threading
import time
from typing import Any, Callable


class Heartbeat(object):
    """Calls `beat` with the seconds gone by, once a second, as long as a `with` lasts."""

    def __init__(self, beat: Callable[[float], None]) -> None:
        self._beat = beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.daemon = True

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        while not self._over.wait(1.0):
            self._beat(time.monotonic() - begin)
