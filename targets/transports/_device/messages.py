"""What goes over the connection: a line of JSON each way, and refusals with a word for the program and a text for people."""

import errno
import json
import os
import threading
from typing import IO, Any, Callable, Dict, Tuple

Json = Dict[str, Any]
REASONS = {
    errno.ENOSPC: ("space", "the device's disk is full"),
    errno.EDQUOT: ("space", "the disk quota on the device is used up"),
    errno.EROFS: ("write", "the device's file system is read-only"),
    errno.EACCES: ("write", "the device's user may not write there"),
}


class Refused(Exception):
    """What was asked for cannot be done; `kind` is for the program, the text for the user."""

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


def read_request(line: bytes) -> Json:
    found = json.loads(line.decode("utf-8"))
    if not isinstance(found, dict):
        raise Refused("failed", "a request is an object")
    return found


_saying = threading.Lock()


def say(message: Json) -> None:
    """Write one line to the other side."""
    content = (json.dumps(message) + "\n").encode("ascii")
    with _saying:
        while content:
            content = content[os.write(1, content) :]


def in_background(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.daemon = True
    thread.start()


def reason_of(error: BaseException) -> Tuple[str, str]:
    """Say what went wrong: a word for the program at the other side, and a sentence for people."""
    if isinstance(error, Refused):
        return error.kind, str(error)
    if isinstance(error, OSError) and error.errno in REASONS:
        return REASONS[error.errno]
    return "failed", "%s: %s" % (type(error).__name__, error)


def refusal(error: BaseException) -> Json:
    kind, text = reason_of(error)
    return {"kind": kind, "error": text}


def write_all(stream: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[stream.write(view) :]
