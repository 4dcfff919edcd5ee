"""What a folder of ONNX Runtime GenAI says of itself: its configuration and its ONNX file are read, and nothing is run.

The runtime opens what the configuration names, libraries of operators among
it. So every name in it must be that of a plain file in the folder, and what
names code is refused. Files that no part of it needs are not taken.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgebench.exporters._onnx import reader as onnx
from edgebench.schema.file import FileDescription, FileTensor, Unreadable, precision_of

CONFIG = "genai_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
BESIDE = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.jinja", "generation_config.json", "config.json"),
)
"""What tokenizers read besides."""
OTHERS = ("encoder", "vision", "speech", "embedding", "draft")
"""Parts of models that take more than text."""
CODE = ("custom_ops_library", "custom_ops_libraries", "registered_custom_ops", "plugin_ep_library")
LARGEST = 4 << 20
WEIGHTS = "-weights"


def recognizes(path: Path) -> bool:
    """Return whether a folder has the configuration."""
    return path.is_dir() and (path / CONFIG).is_file()


def read(path: Path) -> FileDescription:
    """Describe a folder; `Unreadable` where it is not whole, names code or other folders, or takes more than text."""
    config = _config(path)
    decoder = config["model"]["decoder"]
    if not isinstance(decoder, Mapping):
        raise Unreadable(f"{CONFIG}: model.decoder is no object")
    _check(config, "")
    network = _plain(decoder.get("filename"), "model.decoder.filename")
    tokenizers = [name for name in TOKENIZERS if (path / name).is_file()]
    if not tokenizers:
        raise Unreadable(f"has no tokenizer ({', '.join(TOKENIZERS[:2])}); copy it beside {CONFIG}")
    if not (path / network).is_file():
        raise Unreadable(f"{CONFIG} names {network!r}, which is not in the folder")
    described = onnx.read(path / network)
    files = [network, *map(str, described.files), CONFIG, *tokenizers, *(name for name in BESIDE if (path / name).is_file())]
    for name in files:
        if (path / name).is_symlink():
            raise Unreadable(f"{name} is a link; put the file itself there")
    kinds = described.kinds
    return dataclasses.replace(
        described,
        format="genai",
        inputs=(FileTensor("prompt", "uint8", (1, None)),),
        outputs=(),
        precision=_precision(kinds) or described.precision,
        details={**described.details, **_facts(config["model"], decoder)},
        files=tuple(map(Path, files)),
        suffix="",
        entry=CONFIG,
        asks="text",
    )


def _precision(kinds: Mapping[str, int]) -> str:
    """Name the precision by the packed weights, where there are any: embeddings and norms stay in floating point beside them."""
    packed = {name.removesuffix(WEIGHTS): count for name, count in kinds.items() if name.endswith(WEIGHTS)}
    return precision_of(packed, "") if packed else ""


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if file.is_symlink() or file.stat().st_size > LARGEST:
        raise Unreadable(f"{CONFIG} is a link, or larger than any such file")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{CONFIG} is no JSON ({str(error)[:100]})") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict) or "decoder" not in found["model"]:
        raise Unreadable(f"{CONFIG} names no model.decoder; build the folder with onnxruntime_genai.models.builder")
    return found


def _check(config: Mapping[str, Any], where: str) -> None:
    """Look at every key: what names code is refused, and files are plain names."""
    for place, key, value in _items(config, where):
        if key in CODE:
            raise Unreadable(f"{CONFIG}: {place} names a library, which is code and is not loaded; remove it")
        if key in OTHERS and isinstance(value, Mapping) and value.get("filename"):
            raise Unreadable(f"{CONFIG}: {place} takes more than text, and text alone is measured here; bring a text model")
        if key == "pipeline" and value:
            raise Unreadable(f"{CONFIG}: {place} is a chain of several files; build it as one for the processor (-e cpu)")
        if key.endswith("filename") and value not in (None, ""):
            _plain(value, place)


def _items(value: Any, where: str, depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    if depth > 32:
        raise Unreadable(f"{CONFIG} is nested too deep")
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        place = f"{where}.{key}" if where else str(key)
        yield place, str(key), inner
        yield from _items(inner, place, depth + 1)


def _plain(name: Any, place: str) -> str:
    if not isinstance(name, str) or not name or name != Path(name).name or "\\" in name or "\0" in name or name in (".", ".."):
        raise Unreadable(f"{CONFIG}: {place} is {ascii(name)[:100]}, not the name of a file in this folder")
    return name


def _facts(model: Mapping[str, Any], decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what describes a language model: its kind, its vocabulary, how much it sees at once, its layers."""
    numbers = {
        "context_length": model.get("context_length"),
        "vocabulary": model.get("vocab_size"),
        "layers": decoder.get("num_hidden_layers"),
    }
    kind = model.get("type")
    found = {name: value for name, value in numbers.items() if isinstance(value, int) and not isinstance(value, bool)}
    return {**({"language_model": kind[:60]} if isinstance(kind, str) else {}), **found}
