"""What a GGUF file says of itself, versions 2 and 3: metadata and tensors are read, weights are not (ggml's docs/gguf.md)."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from edgebench.schema.file import FileDescription, FileTensor, Unreadable

MAGIC = b"GGUF"
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MOST_KEYS, MOST_TENSORS, MOST_ITEMS, LONGEST, DIMENSIONS = 10_000, 100_000, 10_000_000, 1 << 26, 8
PRECISIONS = {
    0: "fp32",
    1: "fp16",
    30: "bf16",
    8: "int8",
    9: "int8",
    15: "int8",
    2: "int4",
    3: "int4",
    12: "int4",
    20: "int4",
    23: "int4",
    6: "int5",
    7: "int5",
    13: "int5",
    14: "int6",
    11: "int3",
    18: "int3",
    21: "int3",
    10: "int2",
    16: "int2",
    17: "int2",
    22: "int2",
}
"""By ggml's numbers of tensor types: bits of a weight, scales aside."""
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    25: "IQ4_NL",
    30: "IQ4_XS",
    32: "BF16",
}
"""By llama.cpp's numbers: what a file is called."""


def recognizes(head: bytes) -> bool:
    """Return whether a file begins as GGUF does."""
    return head.startswith(MAGIC)


def read(path: Path) -> FileDescription:
    """Describe a file; `Unreadable` where it is broken, no language model, or of another version."""
    with path.open("rb") as stream:
        try:
            metadata, types = _read(stream)
        except (struct.error, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable("is cut short or broken; fetch it again") from error
        end = stream.tell()
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not types:
        raise Unreadable("names no architecture, or holds no tensors; convert the model again with llama.cpp's scripts")
    if isinstance(metadata.get("split.count"), int) and metadata["split.count"] > 1:
        raise Unreadable("is one part of several; join them with llama-gguf-split --merge")
    if f"{architecture}.context_length" not in metadata or path.stat().st_size <= end:
        raise Unreadable(f"is no language model's ({architecture[:40]}), or has no weights; bring a text model")
    weights: Counter[str] = Counter()
    for kind, _, count in types:
        weights[PRECISIONS.get(kind, "other")] += count
    return FileDescription(
        format="gguf",
        inputs=(FileTensor("tokens", "int32", (1, None)),),
        outputs=(),
        precision=_precision(types),
        kinds=dict(Counter(PRECISIONS.get(kind, "other") for kind, dimensions, _ in types if dimensions > 1)),
        parameters=sum(weights.values()),
        details=_facts(metadata, architecture),
        suffix=".gguf",
        asks="tokens",
    )


def _precision(types: list[tuple[int, int, int]]) -> str:
    """Name the precision that most weights of matrices have: norms stay in floating point, some layers get more bits."""
    counts: Counter[str] = Counter()
    for kind, dimensions, count in types:
        if dimensions > 1:
            counts[PRECISIONS.get(kind, "other")] += count
    return counts.most_common(1)[0][0] if counts else "fp32"


def _facts(metadata: dict[str, Any], architecture: str) -> dict[str, Any]:
    numbers = {"context_length": f"{architecture}.context_length", "layers": f"{architecture}.block_count"}
    found = {name: metadata[key] for name, key in numbers.items() if isinstance(metadata.get(key), int)}
    file_type = metadata.get("general.file_type")
    kind = FILE_TYPES.get(file_type) if isinstance(file_type, int) else None
    return {"language_model": architecture[:60], **found, **({"quantization": kind} if kind else {})}


def _read(stream: BinaryIO) -> tuple[dict[str, Any], list[tuple[int, int, int]]]:
    """Read metadata (arrays left out), and of each tensor its type, dimensions and number of weights."""
    if stream.read(4) != MAGIC:
        raise Unreadable("is no GGUF file")
    version, tensors, keys = struct.unpack("<IQQ", stream.read(20))
    if version not in (2, 3):
        raise Unreadable(f"is of GGUF version {version}, or of a big-endian machine; convert it again (version 3 is usual)")
    if keys > MOST_KEYS or tensors > MOST_TENSORS:
        raise Unreadable(f"tells of {keys} keys and {tensors} tensors, more than any model's")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = _string(stream)
        metadata[name] = _value(stream, _number(stream, "<I"))
    return metadata, [_tensor(stream) for _ in range(tensors)]


def _tensor(stream: BinaryIO) -> tuple[int, int, int]:
    _string(stream)
    dimensions, count = _number(stream, "<I"), 1
    if dimensions > DIMENSIONS:
        raise Unreadable(f"holds a tensor of {dimensions} dimensions; fetch it again")
    for _ in range(dimensions):
        count *= _number(stream, "<Q")
    kind = _number(stream, "<I")
    _number(stream, "<Q")
    if count > 1 << 44:
        raise Unreadable(f"holds a tensor of {count} weights; fetch it again")
    return kind, dimensions, count


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]


def _string(stream: BinaryIO) -> str:
    length = _number(stream, "<Q")
    if length > LONGEST:
        raise Unreadable(f"holds a text of {length} bytes; fetch it again")
    raw = stream.read(length)
    if len(raw) != length:
        raise struct.error("cut short")
    return raw.decode("utf-8", "replace")


def _value(stream: BinaryIO, kind: int, depth: int = 0) -> Any:
    """Read a value; an array is passed over."""
    if kind in NUMBERS:
        return _number(stream, NUMBERS[kind])
    if kind == STRING:
        return _string(stream)
    if kind != ARRAY or depth > 4:
        raise Unreadable(f"holds a value of type {kind}, which is not known; convert it again")
    inner, count = _number(stream, "<I"), _number(stream, "<Q")
    if count > MOST_ITEMS:
        raise Unreadable(f"holds a list of {count} values, more than any vocabulary")
    if inner in NUMBERS:
        size = struct.calcsize(NUMBERS[inner]) * count
        if len(stream.read(size)) != size:
            raise struct.error("cut short")
        return None
    for _ in range(count):
        _value(stream, inner, depth + 1)
    return None
