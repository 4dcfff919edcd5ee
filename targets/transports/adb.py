"""`adb`: a phone that is reached by the platform's own client, without root and without an app.

A phone has no Python: the GNU C library and Python are brought first (`_userland/`),
into a folder named by its content. `EDGEBENCH_ADB` names the client or adds options:
`adb -P 5038`; else it is the one on the PATH, or of ANDROID_HOME.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

from edgebench.errors import InputError, TransportError
from edgebench.schema import Attached, Brought, Link, Target, Transport
from edgebench.targets.transports._channel import LOADER, Lost, Unreachable, one_line
from edgebench.targets.transports._remote import RemoteTransport
from edgebench.targets.transports._userland import mirror
from edgebench.targets.transports._userland.packages import LOADERS, Userland, userland

NAMES_A_DEVICE = True
HOME = "/data/local/tmp/edgebench"
SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\]):[0-9]{1,5}")
INSTALL = "install Android's platform tools (apt install adb, brew install android-platform-tools), or name adb by EDGEBENCH_ADB"
ASK_SECONDS = 20.0
"""A command of the client that answers at once, or hangs: it has no limit of its own."""
CONNECT_SECONDS = 15.0
RETURN_SECONDS = 12.0
"""The adb server finds a phone again by itself within 2 to 9 s; in between it is offline."""
CHECK_SECONDS = 120.0
SLOWEST = 1 << 19
"""Bytes that a phone takes in a second at least."""
MARGIN = 64 << 20
"""Free space that is left to the phone, and what Python keeps compiled."""
END = "edgebench-end"
LOOK = (
    "echo abi64=$(getprop ro.product.cpu.abilist64); echo abi=$(getprop ro.product.cpu.abilist); echo machine=$(uname -m); "
    "echo free=$(df -k /data/local/tmp | tail -n 1); "
    "for each in {names}; do [ ! -e {home}/python/$each/.whole ] || echo whole=$each; done"
)
ARCHITECTURES = {"arm64-v8a": "arm64", "x86_64": "amd64", "aarch64": "arm64"}
MACHINES = {"aarch64": "arm64", "x86_64": "amd64"}
CHECK = """\
import hashlib, os, shutil, sys
here, name = os.environ["PYTHONHOME"], sys.argv[1]
for line in open(os.path.join(here, ".files")):
    digest, path = line.rstrip().split("  ", 1)
    if hashlib.sha256(open(os.path.join(here, path), "rb").read()).hexdigest() != digest:
        sys.exit(path + " arrived with other bytes")
open(os.path.join(here, ".whole"), "w").close()
there = os.path.join(os.path.dirname(here), name)
shutil.rmtree(there) if os.path.isdir(there) and not os.path.exists(there + "/.whole") else None
os.rename(here, there)
"""
"""Runs as soon as it has been pushed, by itself: what starts and has every byte gets its name."""
REMOVE = """\
import fcntl, os, shutil, sys
home = os.environ["HOME"]
lock = open(os.path.join(os.environ["TMPDIR"], "edgebench.lock"), "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("busy")
    sys.exit()
found = [os.path.join(base, name) for base, _, names in os.walk(home) for name in names]
print("freed=%d" % sum(os.lstat(path).st_size for path in found))
cache = os.path.expanduser(sys.argv[1])
for name in ("agents", "bundles", "env", "partial", "runs", "sets", "wheels"):
    shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
shutil.rmtree(home, ignore_errors=True)
if os.path.isdir(cache) and not os.listdir(cache):
    os.rmdir(cache)
print("left=%d" % os.path.exists(home))
"""
SAID: tuple[tuple[str, type[TransportError], str], ...] = (
    (
        r"device unauthorized|device still authorizing|failed to authenticate",
        Unreachable,
        "the phone does not trust this computer: accept its key on the phone's screen (for Wi-Fi: adb pair), then run again",
    ),
    (
        r"no permissions|insufficient permissions",
        Unreachable,
        "this user may not use the phone's USB: install udev's rules for it (apt install android-sdk-platform-tools-common)",
    ),
    (
        r"cannot connect to daemon|failed to start daemon|failed to check server version|cannot bind|protocol fault",
        Lost,
        "the adb server does not answer; look at it with: adb start-server",
    ),
    (
        r"device offline|device still connecting|device '.*' not found \(offline\)",
        Lost,
        "the phone is offline: wake it, and look at it with: adb devices",
    ),
    (
        r"device '.*' not found|no devices",
        Lost,
        "adb does not know the phone: is it connected, with USB debugging or wireless debugging on? look at it with: adb devices",
    ),
    (
        r"Connection refused|No route to host|Network is unreachable|timed out|(?:failed|unable) to connect|cannot connect to",
        Lost,
        "the phone does not answer at that address: wireless debugging has another port after each start; see adb devices",
    ),
    (
        r"failed to resolve host|Name or service not known|nodename nor servname",
        Lost,
        "the phone's name is not known to the network; correct --host",
    ),
    (r"No space left on device", Unreachable, f"the phone's disk is full: free some space at {HOME}"),
)
REMEDIES = {
    "unauthorized": "accept this computer's key on the phone's screen",
    "authorizing": "accept this computer's key on the phone's screen",
    "offline": "wake it; for Wi-Fi connect it again: adb connect",
    "connecting": "wait a moment",
    "no permissions": "install udev's rules for Android (apt install android-sdk-platform-tools-common)",
}
"""What to do with a phone that `adb devices` lists, by its state."""


def client() -> list[str]:
    """Write the client's own part of a command line."""
    if named := os.environ.get("EDGEBENCH_ADB"):
        return shlex.split(named)
    for key in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        beside = shutil.which("adb", path=os.path.join(os.environ.get(key) or os.devnull, "platform-tools"))
        if shutil.which("adb") is None and beside:
            return [beside]
    return ["adb"]


def ask(arguments: Sequence[str], seconds: float | None = None) -> tuple[str, str]:
    """Run the client; returns what it printed and complained. Its exit code says nothing. `Lost` where it hangs."""
    command, seconds = [*client(), *arguments], seconds or ASK_SECONDS
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except subprocess.TimeoutExpired as error:
        raise Silent(f"the phone does not answer for {seconds:g} s: is it awake, and in the network?") from error
    except OSError as error:
        raise TransportError(f"{command[0]}: cannot be started ({error.strerror}); {INSTALL}") from error
    return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()


class Silent(Lost):
    """The client hangs: what it is connected to is gone, and it has not noticed."""


class AdbClient:
    """Sessions by `adb shell`; what is missing on the phone is brought before the first."""

    remedy = INSTALL
    broken = frozenset({0, 255})
    """Clients of different age end with either where the phone is gone, and say nothing."""

    def __init__(self, serial: str, link: Link) -> None:
        self._serial = serial
        self._link = link
        self._networked = ":" in serial or "._adb" in serial
        self._python: str | None = None
        """The program that starts Python there, once it was seen to be there over this connection."""

    def arguments(self, first: bool) -> list[str]:
        """See that the phone is there and has its Python, where this is the first session."""
        if first or self._python is None:
            self._python = self._prepared()
        return [*client(), "-s", self._serial, "shell", "-T", f"exec {self._python} -c {shlex.quote(LOADER)}"]

    def explain(self, code: int | None, stderr: str, answered: bool) -> TransportError:
        """Read what adb said; whatever ended without a word may have been cut off."""
        for pattern, kind, text in SAID:
            if re.search(pattern, stderr):
                return Lost(text) if answered else kind(text)
        last = self._scrubbed(stderr.splitlines()[-1]) if stderr else ""
        if code == 0 or answered or code is None or code > 128 or code < 0 or re.match(r"(adb|error): ", last):
            return Lost(f"the connection to the phone broke{f' ({last})' if last else ''}")
        return Unreachable(
            f"the phone does not run the Python that was brought (exit code {code}{f': {last}' if last else ''}); "
            f"remove it with adb shell rm -rf {HOME}/python, and run again: it is brought anew"
        )

    def forget(self) -> None:
        """Look at the phone anew before the next session."""
        self._python = None

    def close(self) -> None:
        """Nothing is held open here."""

    def _scrubbed(self, text: str) -> str:
        """Leave the phone's name out: records carry reasons, and are published."""
        text = one_line(text.replace(self._serial, "…"))
        return re.sub(r"device '.*?'|\S*\d+\.\d+\.\d+\.\d+\S*|\S*\._adb\S*", "…", text)[:200]

    def remove(self, cache: str) -> int:
        """Remove all that was brought and kept; returns the bytes that this freed. `TransportError` where a run is at work."""
        start = f"{HOME}/python/*/bin/python3"
        run = f"for each in {start}; do [ ! -x $each ] || exec $each -c {shlex.quote(REMOVE)} {shlex.quote(cache)}; done"
        lines = self.shell(f"({run})", CHECK_SECONDS)
        self._python = None
        if "busy" in lines:
            raise TransportError("another run is measuring on this phone; run again when it has ended")
        if "left=0" not in lines:
            raise TransportError(f"not all of {HOME} could be removed{f': {self._scrubbed(lines[-1])}' if lines else ''}")
        return sum(int(line[6:]) for line in lines if re.fullmatch(r"freed=[0-9]{1,15}", line))

    # ------------------------------------------------------------ what is asked of the phone's shell

    def shell(self, command: str, seconds: float | None = None) -> list[str]:
        """Run a command line of the phone's shell; returns its lines, once it came to its end. `Lost` or `Unreachable` else."""
        output, errors = ask(["-s", self._serial, "shell", "-T", f"{command}; echo {END}"], seconds)
        lines = output.splitlines()
        if not lines or lines[-1] != END:
            raise self.explain(None, errors or "\n".join(lines[-1:]), False)
        return [*lines[:-1], *errors.splitlines()]

    def _prepared(self) -> str:
        """Reach the phone and see that it has its Python; returns the program that starts it."""
        facts = self._looked()
        wanted = self._userland(facts)
        if wanted.name not in facts["whole"].split():
            self._bring(wanted, facts["free"])
        return f"{HOME}/python/{wanted.name}/bin/python3"

    def _looked(self) -> Mapping[str, str]:
        """Ask what the phone is and has; waits for one that is on its way back."""
        names = " ".join(userland(each).name for each in LOADERS)
        until = time.monotonic() + RETURN_SECONDS
        while True:
            try:
                lines = self.shell(LOOK.format(names=names, home=HOME))
                break
            except Lost as error:
                self._reconnect(error)
                if time.monotonic() > until or not (self._networked or "offline" in str(error)):
                    raise
            if self._link.interrupted.wait(0.3):
                raise KeyboardInterrupt
        found: dict[str, str] = {"whole": ""}
        for line in lines:
            key, equals, value = line.partition("=")
            if equals and key.isalnum():
                found[key] = f"{found[key]} {value}" if key == "whole" else value
        return found

    def _reconnect(self, why: Lost) -> None:
        """Let the server know a phone in the network again, and forget a connection that hangs."""
        if not self._networked:
            return
        if isinstance(why, Silent):
            ask(["disconnect", self._serial], CONNECT_SECONDS)
        output, errors = ask(["connect", self._serial], CONNECT_SECONDS)
        if "connected to" not in output:
            said = f"{output}\n{errors}".strip()
            raise self.explain(None, said, False)

    def _userland(self, facts: Mapping[str, str]) -> Userland:
        """Choose what is brought to the phone; `Unreachable` where there is nothing for its processor."""
        abis = facts.get("abi64", "").split(",")
        known = [ARCHITECTURES[each] for each in abis if each in ARCHITECTURES]
        if not known and not facts.get("abi"):  # a system without Android's properties
            known = [MACHINES[machine] for machine in (facts.get("machine", ""),) if machine in MACHINES]
        if not known:
            has = facts.get("abi") or facts.get("machine") or "nothing that is known"
            raise Unreachable(
                f"the phone's system is no 64-bit one ({has[:60]}): the runtimes have wheels for arm64-v8a and x86_64"
            )
        return userland(known[0])

    def _bring(self, wanted: Userland, disk: str) -> None:
        """Push the userland beside its place, and let it move itself there."""
        folder = mirror.made(wanted, self._link.userland, _unseen)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        columns = disk.split()
        free = int(columns[3]) << 10 if len(columns) > 3 and columns[3].isdigit() else None
        if free is not None and free < size + MARGIN:
            has, needs = free / (1 << 20), (size + MARGIN) / (1 << 20)
            raise Unreachable(f"the phone has {has:.0f} MiB free at {HOME}, its Python needs {needs:.0f}; free some space there")
        new = f"{HOME}/python/{wanted.name}.new"
        self.shell(f"rm -rf {new}; mkdir -p {HOME}/python {HOME}/tmp; chmod 700 {HOME}")  # noqa: S108  of the phone
        _, errors = ask(["-s", self._serial, "push", str(folder), new], CHECK_SECONDS + size / SLOWEST)
        start = f"chmod 755 {new}/bin/* {new}/lib/ld-*; {new}/bin/python3 -c {shlex.quote(CHECK)} {wanted.name}"
        lines = self.shell(f"{start}; [ ! -e {HOME}/python/{wanted.name}/.whole ] || echo whole", CHECK_SECONDS)
        if "whole" not in lines:
            said = [*errors.splitlines()[-1:], *lines[-1:]]
            self.shell(f"rm -rf {new}")
            if re.search("No space left", " ".join(said)):
                raise self.explain(1, "No space left on device", False)
            reason = self._scrubbed(said[0]) if said else "it says nothing"
            raise Unreachable(f"the phone does not take or start the Python that was brought: {reason}")


def _unseen(done: int, total: int) -> None:
    """Tell nobody what is fetched."""


def check_host(host: str) -> None:
    """Raise `ValueError` for what adb does not call a device."""
    if not SERIAL.fullmatch(host) or len(host) > 253:
        shown = host if len(host) <= 80 else f"{host[:80]}…"
        raise ValueError(f"{shown!r} is no serial number as `adb devices` lists it, no address:port and no mDNS name")


def connect(target: Target, link: Link) -> RemoteTransport:
    """Prepare a connection; it is made when something is first asked for."""
    if target.host is None:
        raise InputError(f"{target.name}: no phone; give --host and what `adb devices` calls it, or a target file with `host:`")
    try:
        check_host(target.host)
    except ValueError as error:
        raise InputError(f"{target.name}: host: {error}") from error
    return RemoteTransport(AdbClient(target.host, link), target.cache, link)


def remove(transport: Transport) -> int:
    """Remove everything from the phone, its Python included."""
    assert isinstance(transport, RemoteTransport)
    assert isinstance(transport.client, AdbClient)
    transport.hang_up()
    return transport.client.remove(transport.cache.path)


def brings(machine: str) -> Sequence[Brought]:
    """List the packages of a phone's Python."""
    if machine not in MACHINES:
        return ()
    return [
        Brought(each.name, each.version, each.licence, f"Debian source package {each.source}", each.bytes)
        for each in userland(MACHINES[machine]).packages
    ]


def attached() -> Sequence[Attached]:
    """List what `adb devices -l` does."""
    output, errors = ask(["devices", "-l"])
    _, title, listed = output.partition("List of devices attached")
    if not title:
        raise TransportError(next((text for pattern, _, text in SAID if re.search(pattern, errors)), "adb lists no devices"))
    found = []
    for line in listed.splitlines():
        if match := re.match(r"(\S+)\s+(no permissions|[a-z]+)\b(.*)", line):
            serial, state, more = match.groups()
            model = re.search(r"model:(\S+)", more)
            remedy = "" if state == "device" else REMEDIES.get(state, f"it is in the state {state}")
            found.append(Attached(serial, model[1].replace("_", " ") if model else "", remedy))
    return found
