"""Fetch a userland's packages from the mirror that this computer's apt is set up with, or from one that the user names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebench.errors import InputError, TransportError
from edgebench.files import new_folder, sha256_file, storage, write_atomic
from edgebench.targets.transports._userland.build import build
from edgebench.targets.transports._userland.packages import Package, Userland

MIRROR = "EDGEBENCH_DEBIAN_MIRROR"
APT_SECONDS = 30.0
FETCH_SECONDS = 60.0
WHOLE = ".files"
Sent = Callable[[int, int], None]


def cache() -> Path:
    """Return the folder of this computer in which userlands and their packages are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "edgebench" / "userland"


def made(userland: Userland, given: Path | None, fetched: Sent) -> Path:
    """Return the userland's folder on this computer; fetched and built where it is not there yet.

    `given`: a folder that holds the packages, in place of a mirror. Raises `InputError` where there is no mirror or the
    packages are not in that folder, `TransportError` where they cannot be fetched.
    """
    folder = cache() / userland.name
    if (folder / WHOLE).is_file():
        return folder
    packages = cache() / "packages"
    with storage(cache()):
        packages.mkdir(parents=True, exist_ok=True)
        _collect(userland, packages, given, fetched)
        with new_folder(folder, WHOLE) as staging:
            build(userland, packages, staging)
            write_atomic(staging / WHOLE, listed(staging))
    return folder


def listed(folder: Path) -> bytes:
    """List a folder's files with their hashes, as the device checks them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths).encode()


def _collect(userland: Userland, packages: Path, given: Path | None, fetched: Sent) -> None:
    missing = [each for each in userland.packages if not _is_whole(packages / each.file, each)]
    if given is not None:
        absent = [each.file for each in missing if not _is_whole(given / each.file, each)]
        if absent:
            raise InputError(f"{given}: {', '.join(absent)}: not there, or with another hash than the pinned one")
        for each in missing:
            shutil.copyfile(given / each.file, packages / each.file)
        return
    done = userland.bytes - sum(each.bytes for each in missing)
    known = mirrors() if missing else ()
    for each in missing:
        write_atomic(packages / each.file, _fetch(each, known))
        done += each.bytes
        fetched(done, userland.bytes)


def _is_whole(path: Path, package: Package) -> bool:
    return path.is_file() and path.stat().st_size == package.bytes and sha256_file(path) == package.sha256


def mirrors() -> Sequence[str]:
    """List the mirrors of Debian that the user named, or apt knows; `InputError` where there is none."""
    if named := os.environ.get(MIRROR):
        if not named.startswith(("http://", "https://")):
            raise InputError(f"{MIRROR}={named[:80]}: no address; it begins with http:// or https://")
        return (named,)
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    try:
        done = subprocess.run(wanted, capture_output=True, text=True, timeout=APT_SECONDS, check=True, stdin=subprocess.DEVNULL)
        found = tuple(dict.fromkeys(line for line in done.stdout.split() if line.startswith(("http://", "https://"))))
    except (OSError, subprocess.SubprocessError):
        found = ()
    if not found:
        raise InputError(
            f"a phone's Python is made of Debian packages, and apt knows no mirror of Debian here; name one by {MIRROR}, "
            "or a folder that has the packages by `edgebench targets setup --userland`"
        )
    return found


def _fetch(package: Package, known: Sequence[str]) -> bytes:
    """Fetch one package; its hash decides, not who sends it."""
    reasons = []
    for mirror in known:
        try:
            with urllib.request.urlopen(f"{mirror.rstrip('/')}/{package.path}", timeout=FETCH_SECONDS) as answer:  # noqa: S310
                content: bytes = answer.read(package.bytes + 1)
        except urllib.error.HTTPError as error:
            reasons.append(error.code)
        except (OSError, ValueError):
            reasons.append(0)
        else:
            if hashlib.sha256(content).hexdigest() == package.sha256:
                return content
            reasons.append(1)
    what, other = f"{package.name} {package.version}: the mirror of Debian", f"name another by {MIRROR}"
    if 404 in reasons:
        folder = "or a folder that has the packages by `edgebench targets setup --userland`"
        raise TransportError(
            f"{what} has it no more; name one that keeps old versions, as its snapshots do, by {MIRROR}, {folder}"
        )
    if 1 in reasons:
        raise TransportError(f"{what} sent other bytes than the pinned ones; run again, or {other}")
    raise TransportError(f"{what} cannot be reached; look at the network, or {other}")
