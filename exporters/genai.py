"""`genai`: folders of ONNX Runtime GenAI, language models as ONNX with their tokenizer; brought, never exported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgebench.errors import ExportError
from edgebench.exporters._genai import reader
from edgebench.schema import Exported, ExportRequest, Limits
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8", "int4")
CALIBRATES: dict[str, tuple[str, ...]] = {}
DYNAMIC_BATCH = False
BROUGHT = True
REQUIRES: tuple[tuple[str, str], ...] = ()
BUILDER = "python -m onnxruntime_genai.models.builder -i MODEL -o FOLDER -p int4 -e cpu"
__all__ = ["Limits"]


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a folder is one of ONNX Runtime GenAI, by its configuration."""
    return reader.recognizes(path)


def read(path: Path) -> FileDescription:
    """Describe a folder that somebody brought."""
    return reader.read(path)


def tools() -> dict[str, str]:
    """Name no tools: nothing is written here."""
    return {}


def missing() -> str:
    """Say what writes such folders."""
    return f"language models are brought: {BUILDER}"


def preflight(request: ExportRequest[Any]) -> None:
    """Refuse: a network of this tool is no language model."""
    raise ExportError(f"{request.network.model.name}: genai holds language models, which are brought and not exported: {BUILDER}")


def export(request: ExportRequest[Any], folder: Path) -> Exported:
    """Refuse likewise."""
    preflight(request)
    raise AssertionError
