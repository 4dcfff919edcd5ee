"""What a device writes down about its runs, and the lock that lets one of them measure at a time."""

import fcntl
import json
import os
import stat
import tempfile
import time

from .messages import Json, Refused


def read_json(path: str) -> Json:
    """Read a small JSON file; empty where there is none, or no whole one."""
    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, content: Json) -> None:
    with open(path + ".new", "wb") as stream:
        stream.write(json.dumps(content).encode("ascii"))
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(path + ".new", path)


def boot() -> str:
    """Name this boot of the system."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def lock_device() -> int:
    """Take the device for a run, for all users of it; a lock whose holder died is free by itself.

    Returns a descriptor that holds the lock for as long as it is open.
    """
    path = os.path.join(tempfile.gettempdir(), "edgebench.lock")
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(path, flags)
    except FileNotFoundError:
        number = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(number, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Refused("failed", "%s is no file; remove it" % path)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise Refused("busy", "another run is measuring on this device%s" % _holder(path)) from None
    return number


def _holder(path: str) -> str:
    found = read_json(path)
    if found.get("boot") != boot() or "monotonic" not in found:
        return ""
    minutes = (time.monotonic() - found["monotonic"]) / 60.0
    return " (process %s there, for %.0f minutes)" % (found.get("keeper"), minutes)


def describe(number: int, content: Json) -> None:
    text = json.dumps(content).encode("ascii")
    os.ftruncate(number, 0)
    os.pwrite(number, text, 0)
