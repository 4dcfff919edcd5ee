"""What this device is: the facts that make numbers comparable. No names, no addresses."""

import glob
import importlib
import importlib.util
import os
import platform
import re
import subprocess
from typing import Any, Dict, List, Optional, Sequence

from . import android, plugins

INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""VNNI and AMX of x86, dot product and matrix multiplication of Arm."""
MOST_READ = 65536


def read(path: str) -> Optional[str]:
    """Read a small text file; None where it is missing or unreadable.

    A sensor that is off may answer EAGAIN, of which Python's own files make no
    error but None.
    """
    parts, left = [], MOST_READ  # type: List[bytes], int
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while left > 0:
                part = os.read(descriptor, left)
                if not part:
                    break
                parts.append(part)
                left -= len(part)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return b"".join(parts).decode("utf-8", "replace").strip("\0\n ") or None


def number(path: str) -> Optional[float]:
    """Read a file that holds one whole number; None where there is none."""
    value = read(path)
    return float(value) if value is not None and re.match(r"-?[0-9]{1,18}$", value) else None


def numbers(pattern: str) -> List[float]:
    """Read every file of a pattern that holds one whole number."""
    values = (number(path) for path in sorted(glob.glob(pattern)))
    return [value for value in values if value is not None]


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(root: str = "/") -> Dict[str, Any]:
    """Collect the facts; each is null where the system does not say."""
    cpuinfo = _fields(read(os.path.join(root, "proc/cpuinfo")) or "")
    memory = _fields(read(os.path.join(root, "proc/meminfo")) or "")
    release = dict(line.split("=", 1) for line in (read(os.path.join(root, "etc/os-release")) or "").splitlines() if "=" in line)
    total = memory.get("MemTotal", "").split()
    load = read(os.path.join(root, "proc/loadavg"))
    found = {
        "board": read(os.path.join(root, "proc/device-tree/model")),
        "cpu": cpuinfo.get("model name") or cpuinfo.get("Model") or platform.processor() or None,
        "machine": platform.machine(),
        "int8_instructions": int8_instructions(cpuinfo),
        "cores": cores(),
        "memory_bytes": int(total[0]) * 1024 if total else None,
        "system": platform.system(),
        "os": release.get("PRETTY_NAME", "").strip('"') or None,
        "kernel": platform.release(),
        "virtual": "hypervisor" in cpuinfo.get("flags", "").split(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "governor": read(os.path.join(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_1min": float(load.split()[0]) if load else None,
    }
    return dict(found, **_phone(root, cpuinfo)) if android.here(root) else found


def _phone(root: str, cpuinfo: Dict[str, str]) -> Dict[str, Any]:
    """Collect what Android tells otherwise than Linux, or what matters there alone: the pages' size, and the cpuset."""
    return {
        "board": android.board(root),
        "cpu": cpuinfo.get("model name") or cpuinfo.get("Hardware") or android.processor(root),
        "os": android.system(root),
        "libc": _confstr("CS_GNU_LIBC_VERSION"),  # not that of the file that Python was started by: a shell's script
        "abis": android.abis(root),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "cpuset": read(os.path.join(root, "proc/self/cpuset")),
    }


def _confstr(name: str) -> Optional[str]:
    try:
        return os.confstr(name) or None
    except (OSError, ValueError):
        return None


def int8_instructions(cpuinfo: Dict[str, str]) -> Optional[List[str]]:
    """List what multiplies 8-bit integers into 32 bits, as the kernel calls it; None where the system does not say."""
    flags = cpuinfo.get("flags") or cpuinfo.get("Features")
    if flags is not None:
        return [name for name in INT8_INSTRUCTIONS if name in flags.split()]
    return _mac_instructions() if platform.system() == "Darwin" else None


def _mac_instructions() -> Optional[List[str]]:
    """Ask a Mac: by names of Arm's features, and on Intel by the list of leaf 7."""
    found = []
    for name, flag in (("FEAT_DotProd", "asimddp"), ("FEAT_I8MM", "i8mm")):
        if _sysctl("hw.optional.arm." + name) == "1":
            found.append(flag)
    leaf = _sysctl("machdep.cpu.leaf7_features")
    if leaf is not None and "AVX512VNNI" in leaf.split():
        found.append("avx512_vnni")
    return found if found or leaf is not None else None


def _sysctl(name: str) -> Optional[str]:
    try:
        asked = ["/usr/sbin/sysctl", "-n", name]
        done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _fields(text: str) -> Dict[str, str]:
    """Read `key : value` lines; the first of each key counts."""
    found: Dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def runtimes(names: Sequence[str], options: Optional[Dict[str, Any]] = None) -> Dict[str, Dict[str, Optional[str]]]:
    """Find each runtime's version, or the reason why it cannot run here; `options` by the names of those that they decide."""
    return {name: _runtime(name, (options or {}).get(name)) for name in names}


def _runtime(name: str, options: Optional[Dict[str, Any]]) -> Dict[str, Optional[str]]:
    try:
        module = plugins.load("runtimes", name)
    except ImportError as error:
        return {"version": None, "reason": str(error)}
    if options is not None:
        try:
            return {"version": module.version_of(options), "reason": None}
        except (ValueError, OSError) as error:
            return {"version": None, "reason": str(error)}
    found = installed(module)
    return {"version": found, "reason": None if found else lacking(module)}


def installed(plugin: Any) -> Optional[str]:
    """Return a runtime's version: as its plugin says where that knows better, else of what it imports."""
    own = getattr(plugin, "version", None)
    found: Optional[str] = own() if own is not None else version(plugin.DISTRIBUTIONS, plugin.MODULES)
    return found


def lacking(plugin: Any) -> Optional[str]:
    """Say what a runtime lacks here: as its plugin says where that knows better, else which modules."""
    own = getattr(plugin, "reason", None)
    found: Optional[str] = own() if own is not None else missing(plugin.MODULES)
    return found


def version(distributions: Sequence[str], modules: Sequence[str]) -> Optional[str]:
    """Return `name version` of the first that is installed, without importing it where that is possible."""
    try:
        metadata = importlib.import_module("importlib.metadata")
    except ImportError:  # Python < 3.8
        return imported(modules)
    for distribution in distributions:
        try:
            return "%s %s" % (distribution, metadata.version(distribution))
        except metadata.PackageNotFoundError:
            continue
    return None


def imported(modules: Sequence[str]) -> Optional[str]:
    """Return `name version` of the first that can be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
            top = importlib.import_module(name.split(".")[0])
            return top.__name__.replace("_", "-") + " " + str(getattr(top, "__version__", "unknown"))
        except ImportError:
            continue
    return None


def missing(modules: Sequence[str]) -> Optional[str]:
    """Say which modules are missing if none of them can be found."""
    missing: List[str] = []
    for name in modules:
        top = name.split(".")[0]
        if not modules or importlib.util.find_spec(top) is not None:
            return None
        missing.append(top)
    return "no module named " + " or ".join(repr(name) for name in missing) if missing else None
