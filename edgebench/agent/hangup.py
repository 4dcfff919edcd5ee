"""Notice that the host is gone: standard input closes."""

import os
import threading
from typing import Callable, Optional


def when_host_leaves(action: Callable[[], None], heard: Optional[Callable[[bytes], None]] = None) -> None:
    """Call `action` in a thread of its own when standard input closes; what comes there until then is given to `heard`.

    Reads the descriptor itself: a thread that waits inside `sys.stdin` would
    hold its lock when the interpreter ends.
    """

    def wait() -> None:
        try:
            words = os.read(0, 4096)
            while words:
                if heard is not None:
                    heard(words)
                words = os.read(0, 4096)
        except OSError:
            pass
        action()

    thread = threading.Thread(target=wait)
    thread.daemon = True
    thread.start()
