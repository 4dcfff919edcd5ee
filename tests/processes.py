"""The programs and processes of an SSH server under test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/openssh", "/usr/lib/ssh", "/usr/libexec", "/usr/libexec/openssh")

EXEC_S = 0.5
"""How long a process may take to become another program, in seconds."""


def found(name: str) -> str:
    """Find a program on the PATH or where systems keep their daemons; empty where it is nowhere."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(PLACES)) or ""


def kill(pids: Iterable[int]) -> None:
    """End processes with SIGKILL, those that are gone already left out."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes() -> Iterator[Path]:
    """List every process of the machine, as its folder in /proc."""
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def sessions(listener: int) -> set[int]:
    """Find the server's processes that descend from the listener."""
    parents = {int(path.name): _parent(path) for path in _processes()}
    family = {listener}
    while more := {pid for pid, parent in parents.items() if parent in family and pid not in family and is_sshd(pid)}:
        family |= more
    return family - {listener}


def _parent(process: Path) -> int:
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    return 0


def is_sshd(pid: int) -> bool:
    """Tell whether a process is one of the server's (newer servers run connections in `sshd-session`)."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        emulated = b"qemu" in words[0] and len(words) > 1
        return b"sshd" in words[int(emulated)].split(b" ")[0]
    return False


def _environment(process: Path) -> bytes:
    """Read what a process was started with; Linux shows nothing while it becomes another program, so that is waited out."""
    until = time.monotonic() + EXEC_S
    while not (read := (process / "environ").read_bytes()) and os.readlink(process / "exe") and time.monotonic() < until:
        time.sleep(0.001)
    return read


def with_environment(wanted: set[bytes]) -> dict[int, str]:
    """Find the living processes that were started with one of these variables."""
    matches = {}
    for path in _processes():
        with contextlib.suppress(OSError):  # it ended, or is the kernel's own, which has no program
            if wanted & set(_environment(path).split(b"\0")):
                matches[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return matches
