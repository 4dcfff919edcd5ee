"""Check that the wheel holds every package and every data file of the checkout."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"edgebench": "edgebench", "exporters": "edgebench/exporters", "targets": "edgebench/targets"}
FOLDERS["profiles"] = "edgebench/profiles"


def main() -> int:
    """Compare names; returns 1 where one is missing."""
    [wheel] = (ROOT / "build" / "wheel").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = sorted(wanted - held)
    print(f"{wheel.name}: {len(wanted)} files wanted, missing: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
