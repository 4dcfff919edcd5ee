"""Notice that the host is gone: standard input closes."""

import os
import threading
from typing import Callable


def when_host_leaves(action: Callable[[], None]) -> None:
    """Call `action` in a thread of its own when standard input closes.

    Reads the descriptor itself: a thread that waits inside `sys.stdin` would
    hold its lock when the interpreter ends.
    """

    def wait() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        action()

    thread = threading.Thread(target=wait)
    thread.daemon = True
    thread.start()
