"""`ssh`: a device that is reached by the system's OpenSSH client, with the user's own configuration, keys and jump hosts.

One multiplexed connection a device. `EDGEBENCH_SSH` names another client or adds options: `ssh -F lab.config`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile

from edgebench.errors import InputError, TransportError
from edgebench.schema import Link, Target, split_host
from edgebench.targets.transports._channel import LOADER, NO_PYTHON, OLD_PYTHON, Lost, Unreachable
from edgebench.targets.transports._remote import RemoteTransport

OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlPersist=no",
    "LogLevel=ERROR",
    "ClearAllForwardings=yes",
    "ForwardX11=no",
    "ForwardAgent=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    "Compression=no",
)
BROKEN = 255
"""How the client ends where the connection is at fault, and not what ran at its other end."""
SAID: tuple[tuple[str, type[TransportError], str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        Unreachable,
        "the device's host key is not the one that was known: somebody may be in between, or the device was set up anew; "
        "if it was, remove the old key with ssh-keygen -R and the device's name",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        Unreachable,
        "the device's host key is not known: compare it on the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        "then connect once with ssh, or give --accept-new-host-key",
    ),
    (
        r"Permission denied \(",
        Unreachable,
        "the device refuses the login: bring it your key with ssh-copy-id; passwords are not asked for",
    ),
    (r"Could not resolve hostname", Lost, "the device's name is not known to the network: correct --host, or give its address"),
    (r"Connection refused", Lost, "the device refuses connections: is it on, and does its SSH server run?"),
    (
        r"timed out|Timeout, server|No route to host|Network is unreachable",
        Lost,
        "the device does not answer: is it on and connected?",
    ),
)


class SshClient:
    """OpenSSH's client: one master a connection, and its sessions."""

    remedy = "install OpenSSH's client"
    broken = frozenset({BROKEN})

    def __init__(self, host: str, python: str, link: Link) -> None:
        self._user, self._host, self._port = split_host(host)
        self._python = _quoted(python)
        self._link = link
        self._folder = tempfile.TemporaryDirectory(prefix="edgebench-", dir=_short_folder())

    def arguments(self, first: bool) -> list[str]:
        """Share the connection of the first session."""
        policy = "accept-new" if self._link.accept_new_host_key else "yes"
        control = [f"ControlPath={self._folder.name}/s", f"ControlMaster={'yes' if first else 'no'}"]
        client = shlex.split(os.environ.get("EDGEBENCH_SSH", "ssh"))
        chosen = [part for option in (*OPTIONS, f"StrictHostKeyChecking={policy}", *control) for part in ("-o", option)]
        login = ["-l", self._user] if self._user else []
        port = ["-p", str(self._port)] if self._port else []
        return [*client, *chosen, *login, *port, "--", self._host, f"exec {self._python} -c {shlex.quote(LOADER)}"]

    def explain(self, code: int | None, stderr: str, answered: bool) -> TransportError:
        """Tell what OpenSSH said from what the device's shell did."""
        return explain(code, stderr, answered)

    def forget(self) -> None:
        """Remove the socket that a client which was killed leaves: the next would not share."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._folder.name}/s")

    def close(self) -> None:
        """Remove the socket's folder."""
        self._folder.cleanup()


def explain(code: int | None, stderr: str, answered: bool) -> TransportError:
    """Turn the end of a client into an error without addresses; `answered`: the device's end had answered before."""
    last = stderr.splitlines()[-1] if stderr else ""
    quoted = f" ({_scrubbed(last)})" if last else ""
    if answered or code is None or code == BROKEN or code < 0:
        known = (
            kind(text) for pattern, kind, text in SAID if re.search(pattern, stderr) and not (answered and kind is Unreachable)
        )
        return next(known, Lost(f"the connection broke{quoted}"))
    if re.search(r"SyntaxError|ModuleNotFoundError|ImportError", stderr):
        return Unreachable(OLD_PYTHON)
    if code in (126, 127) or re.search(r"not found|No such file or directory", stderr):
        return Unreachable(NO_PYTHON)
    return Unreachable(
        f"the device's login shell ended with exit code {code} before Python ran{quoted}; look at ~/.bashrc and its like"
    )


def _scrubbed(line: str) -> str:
    """Remove what may be an address: records carry reasons, and are published."""
    address = r"\S*(@|\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F:]+)\S*"
    line = "".join(each if each.isprintable() else " " for each in line[:2000])
    return re.sub(rf"{address}|(?<=to host )\S+|(?<=to )(?!host )\S+|(?<=by )\S+", "…", line)[:200]


def _short_folder() -> str | None:
    """Choose where the connection's socket lies: its path may have 107 bytes."""
    return "/tmp" if len(tempfile.gettempdir()) > 40 and os.path.isdir("/tmp") else None  # noqa: S108


def _quoted(python: str) -> str:
    """Write an interpreter's path as every login shell reads it; `Target` has let plain characters through alone."""
    return f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)


def check_host(host: str) -> None:
    """Raise `ValueError` for what is no address of this kind."""
    split_host(host)


def connect(target: Target, link: Link) -> RemoteTransport:
    """Prepare a connection; it is made when something is first asked for."""
    if target.host is None:
        raise InputError(f"{target.name}: no address; give --host user@address, or a target file with `host:`")
    try:
        client = SshClient(target.host, target.python or "python3", link)
    except ValueError as error:
        raise InputError(f"{target.name}: host: {error}") from error
    return RemoteTransport(client, target.cache, link)
