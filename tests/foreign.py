"""A Debian of another architecture (`tests/arm64.sh` makes one) as the system of an SSH device, in namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from processes import found

if TYPE_CHECKING:
    from sshd import Sshd

PROXY = Path(__file__).parent / "doubles" / "dropping_proxy.py"
PORT = 22
# Where a system of its own lives: private mounts and a private network, kept by a process that ends with its stdin.
NAMESPACE = """
set -e
ip link set lo up
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount -t tmpfs -o mode=755 tmpfs "$1/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mkdir -p "$1/run/sshd" "$1$2"
mount --bind "$2" "$1$2"
[ ! -e "$2/cpuinfo" ] || mount --bind "$2/cpuinfo" "$1/proc/cpuinfo"
echo ready
exec cat
"""
# The processor of a Raspberry Pi 4. QEMU 7.2's default one has SVE, with which LiteRT's int8 results are wrong.
EMULATED = {"QEMU_CPU": "cortex-a72"}
# One core of a Raspberry Pi 4: QEMU shows the host's /proc/cpuinfo, and runtimes that look for arm64 features there crash.
CORTEX_A72 = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def unusable(root: Path) -> str | None:
    """Say why a system cannot be run as a device here; None where it can."""
    if not (root.parent / ".done").exists():
        return f"no system in {root}; make it with tests/arm64.sh {root.parent}"
    if os.getuid() != 0:
        return "only root can run another system in namespaces of its own"
    if absent := [name for name in ("unshare", "nsenter", "chroot", "ip") if not found(name)]:
        return f"{', '.join(absent)}: not installed"
    if subprocess.run([found("chroot"), str(root), "/bin/true"], capture_output=True, check=False).returncode != 0:
        return f"the kernel does not start the programs in {root}; run tests/arm64.sh {root.parent} again"
    return None


def inhabit(device: Sshd, root: Path) -> None:
    """Give a device that is not started yet the system in `root`, with mounts and a network of its own."""
    if os.uname().machine != "aarch64":
        (device.folder / "cpuinfo").write_text("".join(CORTEX_A72.format(number=n) for n in range(os.cpu_count() or 1)))
    command = [found("unshare"), "--mount", "--net", "--propagation", "private", "sh", "-c", NAMESPACE, "sh"]
    holder = subprocess.Popen([*command, str(root), str(device.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    device.ending.push(holder)
    if holder.stdout is None or holder.stdout.readline() != b"ready\n":
        device.ending.close()
        raise RuntimeError(f"{device.name}: no namespaces for the system in {root}")
    (device.folder / "none").write_text("0")
    enter = [found("nsenter"), "--target", str(holder.pid), "--net"]
    dial = [sys.executable, "-I", str(PROXY), "127.0.0.1", str(device.port), "up", "0", "0", "close", str(device.folder / "none")]
    device.proxy = [*enter, *dial]
    device.server = [*enter, "--mount", found("chroot"), str(root), "/usr/sbin/sshd", *device.server[1:]]
