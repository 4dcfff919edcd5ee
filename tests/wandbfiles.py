"""Read what Weights & Biases keeps of a run offline: LevelDB's log format around the library's own protobuf records."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD, IDENT = 32768, 7, b":W&B"


def payloads(content: bytes) -> Iterator[bytes]:
    """Put fragments together: each has a CRC, a length, and a kind (1 whole, 2 first, 3 middle, 4 last)."""
    assert content[:4] == IDENT
    place, joined = HEAD, b""
    while place + HEAD <= len(content):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEAD])
        joined += content[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in (1, 4):
            yield joined
            joined = b""


def records_of(path: Path) -> dict[str, Any]:
    """Gather a run: its own record, config, summary, rows of its history, names of its artifacts' files, exit code."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "artifacts": [], "environment": [], "exit": None}
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            found["summary"] |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "history":
            row = {_key(item): json.loads(item.value_json) for item in record.history.item}
            found["history"] += [row] if any(not name.startswith("_") for name in row) else []
        elif kind == "artifact":
            found["artifacts"] += [entry.path for entry in record.artifact.manifest.contents]
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
        elif kind == "environment":
            found["environment"].append(str(record.environment))
    return found


def _key(item: Any) -> str:
    return str(item.key or ".".join(item.nested_key))
