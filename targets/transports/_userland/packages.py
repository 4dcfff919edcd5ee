"""Which packages a userland is made of: pinned by name, version and hash in `packages.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from edgebench.files import sha256_json

REVISION = 1
"""Raised where the same packages become another folder."""
LOADERS = {"arm64": "ld-linux-aarch64.so.1", "amd64": "ld-linux-x86-64.so.2"}
TRIPLETS = {"arm64": "aarch64-linux-gnu", "amd64": "x86_64-linux-gnu"}
WRAPPER = """\
#!/system/bin/sh
here=$(readlink -f "$0")
here=${here%%/bin/*}
unset LD_PRELOAD LD_LIBRARY_PATH
export PYTHONHOME=$here PYTHONUTF8=1 HOME=${here%%/*/*} TMPDIR=${here%%/*/*}/tmp ORT_DISABLE_TELEMETRY=1
exec "$here/lib/%(loader)s" --library-path "$here/lib" --argv0 "$0" "$here/bin/python%(python)s" "$@"
"""
"""Starts Python by its own loader, for the system has no such; what it is called by is a virtual environment's name for it."""


@dataclass(frozen=True)
class Package:
    """One Debian package."""

    name: str
    version: str
    source: str
    """Name of the source package."""
    licence: str
    path: str
    """Below a mirror."""
    sha256: str
    bytes: int

    @property
    def file(self) -> str:
        """Name its file."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Userland:
    """The packages for one architecture, and how Python is started there."""

    architecture: str
    """As Debian calls it."""
    python: str
    """Its version as in names of files, for instance 3.13."""
    packages: tuple[Package, ...]

    @property
    def name(self) -> str:
        """Name the folder by all that it is made of; known before anything is fetched."""
        return sha256_json([REVISION, self.wrapper, [package.sha256 for package in self.packages]])[:16]

    @property
    def bytes(self) -> int:
        """Count what is fetched."""
        return sum(package.bytes for package in self.packages)

    @property
    def wrapper(self) -> str:
        """Write the program that starts Python."""
        return WRAPPER % {"loader": LOADERS[self.architecture], "python": self.python}


@cache
def userland(architecture: str) -> Userland:
    """Read what a userland for an architecture (arm64, amd64) is made of."""
    content = json.loads(resources.files(__package__).joinpath("packages.json").read_text("utf-8"))
    keys = ("name", "version", "source", "licence")
    packages = [Package(**{key: each[key] for key in keys}, **each["files"][architecture]) for each in content["packages"]]
    return Userland(architecture, content["python"], tuple(packages))
