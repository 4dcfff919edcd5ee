"""What a device is and has: enough to refuse the wrong one, and all that `edgebench targets probe` prints."""

import glob
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from typing import Any, Dict, List, Optional, Sequence

from .. import android, cores, plugins
from ..facts import read
from ..tune.knobs import Absent, ProgramError, nvpmodel
from .conditions import snapshot
from .throttling import get_throttled

SMI_SECONDS = 10.0
JETPACK = {
    "32.1": "4.2",
    "32.2": "4.2.1",
    "32.2.1": "4.2.2",
    "32.2.3": "4.2.3",
    "32.3.1": "4.3",
    "32.4.2": "4.4 Developer Preview",
    "32.4.3": "4.4",
    "32.4.4": "4.4.1",
    "32.5": "4.5",
    "32.5.1": "4.5.1",
    "32.5.2": "4.5.1",
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "34.1": "5.0 Developer Preview",
    "34.1.1": "5.0.1 Developer Preview",
    "35.1": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.4": "5.1.6",
    "36.2": "6.0 Developer Preview",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
    "39.2.1": "7.2.1",
}
"""NVIDIA's releases of Linux for Tegra (L4T), and the JetPack of each.

By the archives of JetPack and of Jetson Linux (docs.nvidia.com/jetson/archives,
developer.nvidia.com/embedded/jetpack-archive); 32.5.2, 35.6.2, 36.4.7 and
38.2.2 are updates within a JetPack. A release that is not here has no JetPack
that is known: the next one's would be a guess.
"""


def identity(root: str = "/") -> Dict[str, Any]:
    """Collect what tells devices apart, from files alone: it takes milliseconds. Nothing in it is a name or an address."""
    uname = os.uname()
    phone = android.here(root)
    return {
        "machine": uname.machine,
        "bits": struct.calcsize("P") * 8,
        "board": android.board(root) if phone else read(os.path.join(root, "proc/device-tree/model")),
        "system": uname.sysname,
        "os": android.system(root) if phone else _system_name(root),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "usb": _usb(root),
        "gpus": _gpus(root),
    }


def _system_name(root: str) -> Optional[str]:
    """Name the distribution and its version; on a Mac, macOS and its version."""
    found = re.search(r"^PRETTY_NAME=[\"']?([^\"'\n]+)", read(os.path.join(root, "etc/os-release")) or "", re.M)
    if found:
        return found.group(1)
    mac = platform.mac_ver()[0]
    return "macOS " + mac if mac else None


def _usb(root: str) -> List[str]:
    """List what is plugged in as vendor:product."""
    found = set()
    for path in glob.glob(os.path.join(root, "sys/bus/usb/devices/*/idVendor")):
        vendor, product = read(path), read(os.path.join(os.path.dirname(path), "idProduct"))
        if vendor and product:
            found.add("%s:%s" % (vendor.lower(), product.lower()))
    return sorted(found)


def _gpus(root: str) -> List[str]:
    """List NVIDIA's GPUs by name, as their driver writes them down."""
    found = []
    for path in sorted(glob.glob(os.path.join(root, "proc/driver/nvidia/gpus/*/information"))):
        model = re.search(r"^Model:\s*(\S.*)$", read(path) or "", re.M)
        if model:
            found.append(model.group(1).strip())
    return found


def tegra(root: str = "/") -> Dict[str, Optional[str]]:
    """Read a Jetson's release: `# R32 (release), REVISION: 7.1, …` is L4T 32.7.1, JetPack 4.6.1; 36.4.0 is 36.4."""
    text = read(os.path.join(root, "etc/nv_tegra_release")) or ""
    found = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    if not found:
        return {"l4t": None, "jetpack": None}
    parts = (found.group(1) + "." + found.group(2)).split(".")
    exact, short = ".".join(parts), ".".join(parts[:-1] if parts[2:] == ["0"] else parts)
    return {"l4t": exact, "jetpack": JETPACK.get(short)}


def inspect(job: Dict[str, Any], root: str = "/") -> Dict[str, Any]:
    """Look at everything: releases, clocks, heat, storage, and every meter tried.

    `job`: `meters`, the target's (name and options); `cache`, the folder for what is pushed.
    """
    now = snapshot(root, programs=True)
    more = {"phone": _phone(root)} if android.here(root) else {}
    return dict(
        tegra(root),
        mendel=read(os.path.join(root, "etc/mendel_version")),
        gpu_driver=_nvidia_smi() if root == "/" else [],
        governor=now["governor"],
        power_mode=_power_mode(root) or now["power_mode"],
        khz=now["khz"],
        celsius=now["celsius"],
        throttled=now["throttled"],
        throttled_reason=_why_unread(root),
        available_bytes=now["available_bytes"],
        disk=_disk(job["cache"]),
        meters=_meters(job["meters"], root),
        big_cores=cores.big(root),
        **more,
    )


def _phone(root: str) -> Dict[str, Any]:
    """Ask a phone how it is doing."""
    state, missing = android.state(root)
    words = {name: state[name] for name in ("wakefulness", "low_power", "thermal_status", "plugged")}
    return dict(words, missing=missing, **{name: state["battery"].get(name) for name in ("percent", "state")})


def _why_unread(root: str) -> Optional[str]:
    """Say why a Raspberry Pi does not tell whether it is throttled; other boards have other sources."""
    board = read(os.path.join(root, "proc/device-tree/model")) or ""
    return get_throttled(root)[1] if board.startswith("Raspberry Pi") else None


def _nvidia_smi() -> List[str]:
    """List GPUs with their driver's version, where NVIDIA's program is there and answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    question = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]


def _power_mode(root: str) -> Optional[str]:
    """Ask a Jetson for its power mode: its number and its name."""
    try:
        return nvpmodel(root, None).read()["mode"]
    except (Absent, ProgramError):
        return None


def _disk(cache: str) -> Dict[str, Any]:
    """Measure the file system of the cache folder, or of the folder that it would be made in."""
    folder = os.path.expanduser(cache)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return {"free_bytes": None, "total_bytes": None, "reason": "%s: %s" % (folder, error.strerror)}
    reason = None if os.access(folder, os.W_OK) else "%s cannot be written by this user" % folder
    return {"free_bytes": usage.free, "total_bytes": usage.total, "reason": reason}


def _meters(wanted: Sequence[Dict[str, Any]], root: str) -> List[Dict[str, Any]]:
    """Try the target's meters, then the others that need no option."""
    asked = [str(spec["name"]) for spec in wanted]
    rows = [_meter(str(spec["name"]), dict(spec.get("options") or {}), root, True) for spec in wanted]
    others = [name for name in plugins.names("meters") if name not in asked and not _needs_more(name)]
    return rows + [_meter(name, {}, root, False) for name in others]


def _needs_more(name: str) -> bool:
    """Return whether a meter cannot be tried without being told more; one that cannot be imported says so when it is tried."""
    try:
        return hasattr(plugins.load("meters", name), "NEEDS")
    except Exception:
        return False


def _meter(name: str, options: Dict[str, Any], root: str, wanted: bool) -> Dict[str, Any]:
    """Start one meter and stop it; its rails, or the reason why it has none."""
    row: Dict[str, Any] = {"name": name, "wanted": wanted, "rails": [], "reason": None}
    meter: Any = None
    try:
        meter = plugins.load("meters", name).Meter(options, root)
        row["rails"] = [{"rail": each["rail"], "provenance": each["provenance"]} for each in meter.start()]
    except Exception as error:  # a meter says why it cannot be read in whatever way it breaks
        row["reason"] = str(error) or type(error).__name__
    finally:
        if meter is not None:
            meter.stop()
    return row
