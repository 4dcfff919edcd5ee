"""What `make seeds` made of the five profiles: every cell has its numbers, and says that it is tiny and synthetic."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgebench.config import read_stages

PROFILES = ("medmnist-edge", "nanoray", "medmnist-2d3d", "xai-pruning", "chest-pipeline")


def wrong(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Say what is missing of one profile."""
    yield from lacking(name, found)
    for cell in found["cells"]:
        if cell["state"] not in ("done", "cached"):
            place = " ".join(cell[key] for key in ("stage", "model", "format", "precision"))
            yield f"{name}: {place}: {cell['state']}: {cell['reason']}"
    for record in found["records"]:
        cell = record["cell"]
        if cell["mode"] != "tiny" or cell["dataset"]["options"].get("synthetic") != "tiny":
            yield f"{name}: {cell['model']}: its record does not say that it is tiny and synthetic"
        if record["accuracy"] is None or record["latency"] is None or not record["size_bytes"]:
            yield f"{name}: {cell['model']} {cell['format']} {cell['precision']}: done, without its numbers"
    for each in found["explained"]:
        if each["explanation"] is None or not Path(each["sheet"]).is_file():
            yield f"{name}: {each['stage']} {each['model']} by {each['method']}: {each['state']}: {each['reason']}"


def lacking(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Say which stages, models and explanations there are none of."""
    stages = read_stages(name)
    if {cell["stage"] for cell in found["cells"]} != {stage.stage for stage in stages}:
        yield f"{name}: not every stage has cells"
    asked = {(stage.stage, model.name) for stage in stages for model in stage.models}
    missing = asked - {(cell["stage"], cell["model"]) for cell in found["cells"]}
    if missing:
        yield f"{name}: no cell of {sorted(missing)[0]}"
    wanted = sum(len(stage.explain.methods) * len(stage.explain.models or stage.models) for stage in stages if stage.explain)
    if len(found["explained"]) != wanted:
        yield f"{name}: {len(found['explained'])} explanations, {wanted} are asked for"


def main(folder: Path) -> int:
    """Check all five; returns the exit code."""
    lines = []
    for name in PROFILES:
        found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        lines += list(wrong(name, found))
        print(f"{name}: {len(found['cells'])} cells, {len(found['explained'])} explanations")
    print("\n".join(lines) if lines else "every row has its numbers")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
