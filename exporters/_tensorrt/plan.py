"""What a TensorRT engine says of itself without TensorRT: little more than that it is one.

An engine is tied to the GPU and the version that built it, and only that
version reads it: names, shapes and types are told by the device that loads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgebench.schema.file import FileDescription, Unreadable

MAGIC = (b"ftrt", b"ptrt")
MOST = 1 << 20


def described(head: bytes) -> tuple[int, dict[str, Any]] | None:
    """Read the JSON that ultralytics puts before an engine, with its length in four bytes; returns where the engine begins."""
    size = int.from_bytes(head[:4], "little")
    if not 2 <= size <= MOST or head[4:5] != b"{" or len(head) < 4 + size + 4:
        return None
    try:
        found = json.loads(head[4 : 4 + size])
    except (ValueError, RecursionError):
        return None
    return (4 + size, found) if isinstance(found, dict) and head[4 + size : 8 + size] in MAGIC else None


def recognizes(head: bytes) -> bool:
    """Return whether a file begins as an engine, or as one with ultralytics' description before it."""
    return head[:4] in MAGIC or described(head) is not None


def read(path: Path) -> FileDescription:
    """Describe an engine."""
    with path.open("rb") as stream:
        head = stream.read(MOST + 64)
    if len(head) < 24:
        raise Unreadable("is cut short: no engine is so small")
    before = described(head)
    begin, facts = before if before else (0, {})
    return FileDescription(
        format="tensorrt",
        inputs=(),
        outputs=(),
        precision=_precision(facts),
        metadata={key: json.dumps(value) if not isinstance(value, str) else value for key, value in facts.items()},
        details={"kind": "engine", **({"begins": begin} if begin else {})},
        suffix=".plan",
    )


def _precision(facts: dict[str, Any]) -> str:
    stated = facts.get("args")
    given: dict[str, Any] = stated if isinstance(stated, dict) else {}
    return "int8" if given.get("int8") else "fp16" if given.get("half") else "unknown"
