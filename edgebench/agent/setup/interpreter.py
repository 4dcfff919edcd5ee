"""The Python of a device, told exactly enough to choose wheels for it; and a way out of a virtual environment."""

import importlib.util
import os
import platform
import shutil
import struct
import sys
from typing import Any, Dict, List, Optional

PROCESSORS_OF_32_BIT = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
"""A 32-bit Python under a 64-bit kernel wants these wheels."""


def leave(arguments: List[str]) -> Optional[str]:
    """Go on as the system's Python where this is a virtual environment's, or another than `--python` names.

    Nothing may have been read or written before. Returns why that cannot be, or None.
    """
    if arguments == ["--left"]:
        return None
    wanted = arguments[1] if arguments[:1] == ["--python"] else sys.executable
    found = shutil.which(os.path.expanduser(wanted))
    if found is None:
        return "%s: no such Python on the device; correct the target's python" % wanted
    base = os.path.realpath(found)  # a virtual environment's python is a link
    if base != sys.executable or sys.prefix != sys.base_prefix:
        os.execv(base, [base, sys.argv[0], "setup", "--left"])  # noqa: S606  the same agent on another Python
    return None


def describe() -> Dict[str, Any]:
    """Tell what decides which wheels fit, and why none does where that is so."""
    libc = glibc()
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "abi": "cp%d%d%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", "")),
        "machine": _machine(),
        "glibc": libc,
        "macos": platform.mac_ver()[0] or None,
        "markers": markers(),
        "refused": _refused(libc),
    }


def glibc() -> Optional[str]:
    """Return the version of the GNU C library, or None where it is another."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError, AttributeError):
        return None
    return version if name == "glibc" else None


def _machine() -> str:
    machine = platform.machine()
    return PROCESSORS_OF_32_BIT.get(machine, machine) if struct.calcsize("P") == 4 else machine


def _refused(libc: Optional[str]) -> Optional[str]:
    """Say why no environment can be made here, or None."""
    name = platform.python_implementation()
    if name != "CPython":
        return (
            "the device's Python is %s, and the runtimes have wheels for CPython alone; name another by the target's python"
            % name
        )
    if platform.system() not in ("Linux", "Darwin"):
        return "the device runs %s; wheels are known for Linux and macOS" % platform.system()
    if platform.system() == "Linux" and libc is None:
        return "the device's C library is not glibc (musl, as on Alpine?), and the runtimes have no wheels for it"
    if importlib.util.find_spec("venv") is None:
        package = "python%d.%d-venv" % sys.version_info[:2]
        return "the device's Python lacks the module venv; run there: sudo apt-get install %s" % package
    return None


def markers() -> Dict[str, str]:
    """Return what the markers of requirements are compared with (PEP 508)."""
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": "%d.%d" % sys.version_info[:2],
        "sys_platform": sys.platform,
    }
