"""A bed for SSH tests: real OpenSSH servers on loopback, each a device with its own keys, HOME and TMPDIR.

A device has the system of this machine, or another one (`root`, which `tests/arm64.sh` makes) in a network namespace of
its own, where no network but its own loopback exists.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import foreign
import processes
from foreign import PROXY
from processes import found

START_SECONDS = 60.0
SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
LogLevel VERBOSE
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
SetEnv {environment}
ForceCommand cd "$HOME" && exec "$SHELL" -c "${{SSH_ORIGINAL_COMMAND:-exec $SHELL}}"
"""
CLIENT = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  HostKeyAlias {name}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


def missing() -> str | None:
    """Say which program of OpenSSH is not installed here; None where all are."""
    absent = [name for name in ("sshd", "ssh", "ssh-keygen") if not found(name)]
    return f"{', '.join(absent)}: not installed" if absent else None


@dataclass
class Sshd:
    """One device: a real OpenSSH server, its own keys, HOME and TMPDIR, and the client's configuration for it."""

    folder: Path
    name: str
    port: int
    home: Path
    tmp: Path
    server: Sequence[str]  # starts the listener in the foreground
    proxy: Sequence[str] = ()  # how the client reaches it, where not by TCP on loopback
    listener: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    seen: set[int] = field(default_factory=set, repr=False)  # the server's processes for connections
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    @property
    def host(self) -> str:
        """Name the device as a user would on the command line: an alias in `config`."""
        return self.name

    @property
    def config(self) -> Path:
        """Point to the client's configuration (`ssh -F`)."""
        return self.folder / "client"

    @property
    def known_hosts(self) -> Path:
        """Point to the keys that the client trusts; holds the server's key unless a test changes it."""
        return self.folder / "known_hosts"

    @property
    def log(self) -> str:
        """Read what the server has logged."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def ssh(self, *arguments: str) -> list[str]:
        """Build the argument list that runs a command line on the device."""
        return ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", self.name, *arguments]

    def start(self) -> None:
        """Start the listener and wait until it answers.

        Raises RuntimeError with the server's log where it ends, or does not answer in time.
        """
        self.listener = subprocess.Popen(
            list(self.server), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.listener.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name}: sshd did not start on port {self.port}\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the listener alone; connections that exist go on."""
        if self.listener is not None:
            self.pids()
            self.listener.kill()
            self.listener.wait()
            self.listener = None

    def answers(self) -> bool:
        """Tell whether the listener accepts connections."""
        return _greets_through(self.proxy) if self.proxy else _greets(self.port)

    def pids(self) -> list[int]:
        """List the server's processes for connections (not the listener, not what they started)."""
        if self.listener is not None:
            self.seen |= processes.sessions(self.listener.pid)
        self.seen = {pid for pid in self.seen if processes.is_sshd(pid)}
        return sorted(self.seen)

    def kill_sessions(self) -> None:
        """End every connection with SIGKILL; the listener and the commands that were running stay."""
        processes.kill(self.pids())

    def strays(self, within_seconds: float = 0.0) -> list[str]:
        """List the processes left on the device, as `pid command line`, once that long has passed or there are none."""
        deadline = time.monotonic() + within_seconds
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"{pid} {line}" for pid, line in left.items()]

    def power_off(self) -> None:
        """Take the device away as a reset does: listener, connections and processes gone at once, TMPDIR empty."""
        sessions = self.pids()
        self.stop()
        processes.kill(sessions)
        while left := self._left():
            processes.kill(left)
            time.sleep(0.01)
        for path in self.tmp.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def cut(
        self, after_bytes: int, direction: Literal["up", "down"] = "up", times: int = 1, how: Literal["close", "freeze"] = "close"
    ) -> None:
        """Cut the next `times` connections once `after_bytes` have gone up (to the device) or down.

        `close` ends the connection, `freeze` keeps it open and passes nothing more; a handshake takes some 3000 bytes
        each way. Connections that already exist are not touched.
        """
        (self.folder / "cuts").write_text("0")
        proxy = shlex.join(["--", *self.proxy]) if self.proxy else ""
        command = [sys.executable, "-I", str(PROXY), "127.0.0.1", str(self.port), direction, str(after_bytes), str(times), how]
        self._write_client(f"  ProxyCommand {shlex.join([*command, str(self.folder / 'cuts')])} {proxy}\n")

    def cuts(self) -> int:
        """Count the connections cut since `cut` was called."""
        return int((self.folder / "cuts").read_text())

    def mend(self) -> None:
        """Let connections through whole again."""
        self._write_client(f"  ProxyCommand {shlex.join(self.proxy)}\n" if self.proxy else "")

    def change_key(self) -> None:
        """Give the server a new key, as another device at the same address has; the client still trusts the old one."""
        running = self.listener is not None
        self.stop()
        (self.folder / "host_key").unlink()
        _key(self.folder / "host_key")
        if running:
            self.start()

    def mount_home(self, mebibytes: int, read_only: bool = False) -> None:
        """Put a tmpfs of that size in place of HOME (root alone can); `close` takes it away."""
        options = f"size={mebibytes}m,mode=700" + (",ro" if read_only else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "edgebench-test", str(self.home)], check=True)
        self.ending.callback(subprocess.run, ["umount", "-l", str(self.home)], check=True)

    def close(self) -> list[str]:
        """End everything of the device; returns what had been left running on it (waits 5 s for it to end)."""
        left = self.strays(within_seconds=5)
        self.power_off()
        self.ending.close()
        return left

    def _left(self) -> dict[int, str]:
        """Find the processes whose environment is the device's, with their command lines."""
        return processes.with_environment({f"HOME={self.home}".encode(), f"TMPDIR={self.tmp}".encode()})

    def _write_client(self, more: str) -> None:
        """Write the client's configuration, with a line more."""
        user = pwd.getpwuid(os.getuid()).pw_name
        text = CLIENT.format(name=self.name, port=self.port, user=user, folder=self.folder) + more
        self.config.write_text(text)


def serve(
    folder: Path,
    name: str = "board",
    python: str | Path | None = None,
    environment: Mapping[str, str] = {},
    root: Path | None = None,
) -> Sshd:
    """Start a device; `python` is the interpreter that its `python3` runs, `root` the system it has, else this machine's."""
    home, tmp, programs = folder / "home", folder / "tmp", folder / "bin"
    for path in (folder, home, tmp, programs):
        path.mkdir(parents=True)
    folder.chmod(0o700)
    if python is not None:
        (programs / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n')
        (programs / "python3").chmod(0o755)
    variables = {"HOME": str(home), "TMPDIR": str(tmp), "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", **environment}
    if root is not None:
        variables = {**foreign.EMULATED, **variables}
    port = _free_port() if root is None else foreign.PORT
    device = Sshd(folder, name, port, home, tmp, _server(folder, port, variables))
    if root is not None:
        foreign.inhabit(device, root)
    make_keys(folder, name)
    device.mend()
    device.start()
    return device


def combined(folder: Path) -> Path:
    """Write the client's configuration that knows every device made in a folder, also later ones."""
    path = folder / "config"
    path.write_text(f'Include "{folder}/*/client"\n')
    return path


def make_keys(folder: Path, name: str) -> None:
    """Make the server's key and the user's, and let each side know the other."""
    _key(folder / "host_key")
    _key(folder / "user_key")
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "known_hosts").write_text(f"{name} {(folder / 'host_key.pub').read_text()}")


def _server(folder: Path, port: int, variables: Mapping[str, str]) -> list[str]:
    """Write the server's configuration and build the argument list that starts it."""
    environment = " ".join(f'"{name}={value}"' for name, value in variables.items())
    text = SERVER.format(port=port, folder=folder, environment=environment)
    if sftp := found("sftp-server"):
        text += f"Subsystem sftp {sftp}\n"
    (folder / "server").write_text(text)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return [found("sshd"), "-D", "-f", str(folder / "server"), "-E", str(folder / "log")]


def _key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgebench-test", "-f", str(path)]
    path.with_name(path.name + ".pub").unlink(missing_ok=True)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    """Find a free port below those that connections get by themselves, so that it stays free while a device is off."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port on 127.0.0.1")


def _greets(port: int) -> bool:
    """Tell whether an SSH server answers on loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _greets_through(command: Sequence[str]) -> bool:
    """Tell whether an SSH server answers at the other end of a command's standard input and output."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as connection:
        return connection.stdout is not None and connection.stdout.read(4) == b"SSH-"
