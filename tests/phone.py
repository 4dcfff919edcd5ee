"""A bed for tests over adb: what `tests/phone.sh` laid out, with a real adbd in it, as user 2000, in namespaces of its own.

No phone: Android's init, its vendors' daemons and SELinux are not there. `getprop`, `dumpsys` and `settings` are scripts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import processes
from foreign import CORTEX_A72, EMULATED
from processes import found

from edgebench.errors import EdgebenchError
from edgebench.targets.transports._userland import mirror, packages

BUILT = Path(__file__).parent.parent / "build" / "phone"
MACHINE = os.uname().machine
PORT = 15565
"""Of the first phone; adb looks by itself for what listens on 5555 to 5585."""
SERVER_PORT = 15137
SHELL = 2000
START_SECONDS = 90.0
LINKED = {"x86_64": ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"), "aarch64": ("aarch64-linux-gnu", "ld-linux-aarch64.so.1")}
PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone 1",
    "ro.soc.manufacturer": "Maker",
    "ro.soc.model": "SOC1",
    "ro.build.version.release": "15",
    "ro.build.version.sdk": "35",
    "ro.serialno": "R5CT0000001",
}
GETPROP = """\
#!/system/bin/sh
while IFS='=' read -r name value; do
    [ "$name" = "$1" ] && echo "$value" && exit
done </apex/properties
echo
"""
# A mount namespace in which the phone's root is what a phone has: a system that cannot be written, and /data.
SYSTEM = """
set -e
mount --bind "$1" "$2"
mount -o remount,bind,ro "$2"
mount --bind "$3/data" "$2/data"
mount -t tmpfs -o mode=755 tmpfs "$2/dev"
for name in null zero random urandom full; do : >"$2/dev/$name"; mount --bind "/dev/$name" "$2/dev/$name"; done
ln -s /proc/self/fd "$2/dev/fd"
mount -t proc proc "$2/proc"
mount --rbind "$3/sys" "$2/sys"
[ ! -e "$3/cpuinfo" ] || mount --bind "$3/cpuinfo" "$2/proc/cpuinfo"
mount -t tmpfs -o mode=755 tmpfs "$2/sdcard"
for name in "$3"/programs/*; do [ ! -e "$2/system/bin/${name##*/}" ] || mount --bind "$name" "$2/system/bin/${name##*/}"; done
mount --bind "$3/properties" "$2/apex/properties"
echo ready
exec cat
"""


def missing(machine: str = MACHINE) -> str | None:
    """Say why there can be no phone here; None where there can."""
    if os.getuid() != 0:
        return "only root can run a phone's adbd in namespaces of its own"
    if absent := [name for name in ("adb", "unshare", "nsenter", "chroot", "taskset", "ip") if not found(name)]:
        return f"{', '.join(absent)}: not installed"
    if not (BUILT / machine / ".done").exists():
        return f"no phone in {BUILT}; make it with tests/phone.sh build/phone {machine}"
    return None


def unusable(machine: str) -> str | None:
    """Say why the kernel does not start a phone's programs here; None where it does."""
    started = [found("chroot"), str(BUILT / machine / "root"), "/system/bin/true"]
    if subprocess.run(started, capture_output=True, check=False).returncode != 0:
        return f"the kernel does not start the programs of {machine}; run tests/arm64.sh build/arm64"
    return None


@dataclass
class Network:
    """A network of its own with an adb server in it, in which phones are reached; kept by a process that ends with its stdin."""

    folder: Path
    holder: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def open(self) -> None:
        """Make it."""
        script = "ip link set lo up && echo ready && exec cat"
        command = [found("unshare"), "--net", "sh", "-c", script]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.holder.stdout is None or self.holder.stdout.readline() != b"ready\n":
            raise RuntimeError("no network namespace")

    @property
    def enter(self) -> list[str]:
        """Write what starts a program inside."""
        assert self.holder is not None
        return [found("nsenter"), f"--net=/proc/{self.holder.pid}/ns/net"]

    @property
    def client(self) -> list[str]:
        """Write the adb client that reaches the phones here, with a server of its own."""
        key = f"ADB_VENDOR_KEYS={self.folder}"
        home = f"HOME={self.folder}"
        return [*self.enter, "env", home, key, f"ANDROID_ADB_SERVER_PORT={SERVER_PORT}", found("adb")]

    def adb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the client."""
        command = [*self.client, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)

    def kill_server(self) -> None:
        """End the adb server as a crash does."""
        processes.kill(self.servers())

    def servers(self) -> list[int]:
        """List the adb servers inside."""
        assert self.holder is not None
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        return [pid for pid, words in _every("net", mine).items() if "fork-server" in words]

    def close(self) -> None:
        """End it, and the adb server in it."""
        self.kill_server()
        if self.holder is not None:
            self.holder.communicate()


@dataclass
class Phone:
    """One phone: a real adbd in a system of its own."""

    folder: Path
    network: Network
    port: int
    machine: str = MACHINE
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    mounts: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    adbd: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Name the phone as `--host` does."""
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """Point to the phone's /data."""
        return self.folder / "data"

    @property
    def home(self) -> Path:
        """Point to where everything that edgebench brings lies."""
        return self.data / "local" / "tmp" / "edgebench"

    def start(self) -> None:
        """Start adbd and wait until the client has its shell."""
        triplet, loader = LINKED[MACHINE]
        libraries = f"/apex/adbd/usr/lib/{triplet}"
        assert self.mounts is not None
        enter = [*self.network.enter, f"--mount=/proc/{self.mounts.pid}/ns/mnt"]
        environment = {
            "PATH": "/system/bin",
            "ANDROID_ROOT": "/system",
            "ANDROID_DATA": "/data",
            "HOME": "/",
            "SHELL": "/system/bin/sh",
            "TMPDIR": "/data/local/tmp",
            "ADBD_PORT": str(self.port),
            **(EMULATED if self.machine != MACHINE else {}),
        }
        program = "/apex/adbd/usr/lib/android-sdk/platform-tools/adbd"
        cores = ["taskset", "--cpu-list", f"0-{(os.cpu_count() or 1) - 1}"]  # a test's process may have one alone
        command = [
            *(*cores, *enter, "env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *(found("chroot"), f"--userspec={SHELL}:{SHELL}", str(self.folder / "root")),
            *(f"{libraries}/{loader}", "--library-path", f"{libraries}:{libraries}/android", program),
        ]
        log = (self.folder / "log").open("wb")
        self.adbd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()

    def attach(self) -> None:
        """Let the adb server know the phone, and wait until it answers."""
        until = time.monotonic() + START_SECONDS
        while "answers" not in self.network.adb("-s", self.host, "shell", "-T", "echo answers").stdout:
            if time.monotonic() > until:
                raise RuntimeError(f"the phone does not answer: {(self.folder / 'log').read_text()[-1000:]}")
            self.network.adb("connect", self.host)
            time.sleep(0.1)

    def kill_adbd(self) -> None:
        """End adbd alone; what it started goes on where it can."""
        if self.adbd is not None:
            processes.kill(self.daemons())
            self.adbd.wait()
            self.adbd = None

    def daemons(self) -> list[int]:
        """List the processes of adbd itself."""
        return [pid for pid, words in self.processes().items() if "platform-tools/adbd" in words]

    def kill_all(self) -> None:
        """End adbd and everything that it started, as init does where it stops the service."""
        self.kill_adbd()
        while left := self.processes():
            processes.kill(left)
            time.sleep(0.01)

    def processes(self) -> dict[int, str]:
        """List all that runs on the phone, with its command line."""
        assert self.mounts is not None
        namespace = os.readlink(f"/proc/{self.mounts.pid}/ns/mnt")
        return {pid: words for pid, words in _every("mnt", namespace).items() if pid != self.mounts.pid}

    def strays(self, within_seconds: float = 0.0) -> list[str]:
        """List what was left running on the phone besides adbd, once that long has passed or there is nothing."""
        until = time.monotonic() + within_seconds
        while left := [words for pid, words in self.processes().items() if "platform-tools/adbd" not in words]:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        return left

    def close(self) -> list[str]:
        """End the phone; returns what had been left running on it."""
        left = self.strays(within_seconds=5)
        self.kill_all()
        self.network.adb("disconnect", self.host)
        self.ending.close()
        return left


def switched_on(
    folder: Path,
    network: Network,
    number: int = 0,
    machine: str = MACHINE,
    properties: Mapping[str, str] = {},
    programs: Mapping[str, str] = {},
    mebibytes: int | None = None,
    sysfs: Mapping[str, str] = {},
) -> Phone:
    """Start a phone.

    `properties` as getprop tells them, `programs` scripts by name, `mebibytes` the size of its /data, `sysfs` files of /sys.
    """
    phone = Phone(folder, network, PORT + 1000 * number, machine)
    for name in ("root", "data", "programs", "sys"):
        (folder / name).mkdir(parents=True)
    if mebibytes is not None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "edgebench-test", str(phone.data)], check=True)
        phone.ending.callback(subprocess.run, ["umount", "-l", str(phone.data)], check=True)
    phone.home.parent.mkdir(parents=True)
    os.chown(phone.home.parent, SHELL, SHELL)
    abi = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[machine]
    told = {"ro.product.cpu.abilist64": abi, "ro.product.cpu.abilist": abi, **PROPERTIES, **properties}
    (folder / "properties").write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    lay_out(folder / "programs", {"getprop": GETPROP, **programs})
    for name, text in sysfs.items():
        (folder / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sys" / name).write_text(text + "\n")
    if machine != MACHINE:
        (folder / "cpuinfo").write_text("".join(CORTEX_A72.format(number=n) for n in range(os.cpu_count() or 1)))
    root = BUILT / machine / "root"
    (root / "apex" / "properties").touch()
    for name in ("getprop", *programs):
        (root / "system" / "bin" / name).touch(0o755)
    command = [found("unshare"), "--mount", "--propagation", "private", "sh", "-c", SYSTEM, "sh"]
    arguments = [str(root), str(folder / "root"), str(folder)]
    holder = subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    phone.mounts = holder
    if holder.stdout is None or holder.stdout.readline() != b"ready\n":
        reason = holder.communicate()[1].decode()
        phone.ending.close()
        raise RuntimeError(f"no mounts for the phone: {reason}")
    phone.ending.callback(holder.communicate)
    try:
        phone.start()
        phone.attach()
    except BaseException:
        phone.close()
        raise
    return phone


def lay_out(folder: Path, scripts: Mapping[str, str]) -> None:
    """Write scripts that a phone's user may run."""
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def userland(cache: Path, machine: str = MACHINE) -> str | None:
    """Let a cache folder have the Python of phones, built once for all tests; say why there is none."""
    kept, place = BUILT / "userland", cache / "edgebench" / "userland"
    kept.mkdir(exist_ok=True)
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        with contextlib.suppress(FileExistsError):
            place.symlink_to(kept)
    try:
        mirror.made(packages.userland({"x86_64": "amd64", "aarch64": "arm64"}[machine]), None, _unseen)
    except EdgebenchError as error:
        return str(error)
    return None


def _unseen(done: int, total: int) -> None:
    """Tell nobody what is fetched."""


def words_of(client: Sequence[str]) -> str:
    """Write a client for EDGEBENCH_ADB."""
    return shlex.join(client)


def _every(kind: str, namespace: str) -> dict[int, str]:
    """List the processes of a namespace with their command lines."""
    matches = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(path / "ns" / kind) == namespace:
                    matches[int(path.name)] = (
                        (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    )
    return matches
