"""`gguf`: language models of llama.cpp, one file with its tokenizer; brought, never exported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgebench.errors import ExportError
from edgebench.exporters._gguf import reader
from edgebench.schema import Exported, ExportRequest, Limits
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8", "int6", "int5", "int4", "int3", "int2")
CALIBRATES: dict[str, tuple[str, ...]] = {}
DYNAMIC_BATCH = False
BROUGHT = True
REQUIRES: tuple[tuple[str, str], ...] = ()
BUILDER = "llama.cpp's convert_hf_to_gguf.py, then llama-quantize"
__all__ = ["Limits"]


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a file is GGUF, by its content."""
    return reader.recognizes(head)


def read(path: Path) -> FileDescription:
    """Describe a file that somebody brought."""
    return reader.read(path)


def tools() -> dict[str, str]:
    """Name no tools: nothing is written here."""
    return {}


def missing() -> str:
    """Say what writes such files."""
    return f"language models are brought: {BUILDER}"


def preflight(request: ExportRequest[Any]) -> None:
    """Refuse: a network of this tool is no language model."""
    raise ExportError(f"{request.network.model.name}: gguf holds language models, which are brought and not exported: {BUILDER}")


def export(request: ExportRequest[Any], folder: Path) -> Exported:
    """Refuse likewise."""
    preflight(request)
    raise AssertionError
