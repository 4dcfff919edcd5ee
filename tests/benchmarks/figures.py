"""How a benchmark states its result: printed, kept for the table of `docs/benchmarks.md`, and turned into an exit code."""

from __future__ import annotations

import json
import os

FILE = "EDGEBENCH_FIGURES"
"""Names the file that statements are appended to, a JSON line each."""


def state(holds: bool, figure: str, bound: str) -> int:
    """State what was measured and the bound that it has to keep; returns 0 where it holds, else 1."""
    print(f"\n{'holds' if holds else 'FALLS SHORT'}: {figure}; bound: {bound}", flush=True)
    if path := os.environ.get(FILE):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"holds": holds, "figure": figure, "bound": bound}) + "\n")
    return 0 if holds else 1
