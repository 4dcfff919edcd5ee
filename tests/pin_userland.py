"""Pin the versions that Debian has now of the packages that a phone's Python is made of (`make userland`).

Reads the mirror's own lists, which apt would check by their signature: compare what changes with Debian's site.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
import urllib.request
from importlib import resources
from pathlib import Path

from edgebench.targets.transports._userland import mirror, packages

RELEASE, PYTHON = "trixie", "3.13"
GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
LICENCES = {
    "libc6": "LGPL-2.1-or-later",
    f"libpython{PYTHON}-minimal": "PSF-2.0",
    f"libpython{PYTHON}-stdlib": "PSF-2.0",
    f"python{PYTHON}-minimal": "PSF-2.0",
    "libgcc-s1": GCC,
    "libstdc++6": GCC,
    "zlib1g": "Zlib",
    "libexpat1": "MIT",
    "libffi8": "MIT",
    "libbz2-1.0": "bzip2-1.0.6",
    "liblzma5": "0BSD",
}


def listed(site: str, architecture: str) -> dict[str, dict[str, str]]:
    """Read a release's list of packages, those that are wanted alone."""
    with urllib.request.urlopen(
        f"{site.rstrip('/')}/dists/{RELEASE}/main/binary-{architecture}/Packages.xz", timeout=60
    ) as answer:
        text = lzma.decompress(answer.read()).decode()
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.M))
        if fields.get("Package") in LICENCES:
            found[fields["Package"]] = fields
    return found


def main() -> None:
    """Write `packages.json`."""
    site = mirror.mirrors()[0]
    lists = {architecture: listed(site, architecture) for architecture in packages.LOADERS}
    rows = []
    for name, licence in LICENCES.items():
        each = {architecture: found[name] for architecture, found in lists.items()}
        first = each["arm64"]
        assert len({fields["Version"] for fields in each.values()}) == 1, name
        files = {
            architecture: {"path": fields["Filename"], "sha256": fields["SHA256"], "bytes": int(fields["Size"])}
            for architecture, fields in each.items()
        }
        source = first.get("Source", name).split()[0]
        rows.append({"name": name, "version": first["Version"], "source": source, "licence": licence, "files": files})
    path = Path(str(resources.files(packages.__package__ or "") / "packages.json"))
    path.write_text(json.dumps({"release": RELEASE, "python": PYTHON, "packages": rows}, indent=1) + "\n", encoding="utf-8")
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
