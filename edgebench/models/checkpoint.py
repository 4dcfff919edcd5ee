"""Read checkpoints without running any code that they might carry; exported programs only where someone vouches for them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgebench.agent.runtimes.rt_torch import open_program
from edgebench.errors import CheckpointError, MissingExtra, ModelWarning
from edgebench.files import archive_names
from edgebench.models.foreign import foreign
from edgebench.trust import check_program

RAW = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "current_model_state")
EMA = ("state_dict_ema", "ema_state_dict", "model_ema_state_dict", "model_ema", "ema_model", "ema", "params_ema")
INSIDE = ("module", "shadow", "shadow_params")
"""Where wrappers hold weights: as they were trained, averaged over training, and within one of these."""
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "_orig_mod.")
RAW_PREFIXES = ("online_model.", "student.")
EMA_PREFIXES = ("ema_model.module.", "ema_model.", "model_ema.module.", "model_ema.", "ema.module.", "ema.shadow.", "ema.")
"""Of the keys of raw and averaged weights in one state dict."""
COUNTS = re.compile(r"(^|\.)num_batches_tracked$")
"""What nothing computes with in evaluation: it may be missing, or too much."""
STRAY = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$|^(criterion|loss|loss_fn)\.(weight|pos_weight)$")
"""What profilers, averaging and losses leave behind in a state dict."""
CLASSES, SAID = "class_to_idx", "hyper_parameters"
SAVE = "save model.state_dict() and give that file"


class _Settings(dict[str, Any]):
    """What stands in for Lightning's dict of settings, so that a checkpoint is read without Lightning's code."""


@dataclass(frozen=True)
class Found:
    """What a file holds: weights by name, or an exported program, and what it says beside."""

    weights: Any
    chosen: str | None = None
    """`ema` or `raw`, where it has both."""
    classes: tuple[str, ...] = ()
    """In the order of its scores, where it says them."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """Lightning's `hyper_parameters`."""


def read(path: Path, trust: bool = False) -> Any:
    """Read the weights of `open_file`, or its exported program."""
    return open_file(path, trust).weights


def open_file(path: Path, trust: bool = False, wanted: str | None = None) -> Found:
    """Read a state dict (also inside a dict, also `.safetensors`), or an exported program (`.pt2`).

    State dicts always with `weights_only=True`; `CheckpointError` where the file is
    truncated, is no checkpoint, or holds code, which is never run, or where it has
    raw and averaged weights and `wanted` (`raw`, `ema`) says not which. A program can run
    code: it is loaded as it is where edgebench wrote it or the user vouches for it
    (`trust`); else what `trust.check_program` made of it, `UntrustedFile` where that refuses it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pt, .pth, .ckpt, .safetensors or .pt2 file")
    if path.suffix == ".pt2":
        return Found(_program(path, check_program(path, trust)))
    with path.open("rb") as stream:
        head = stream.read(64)
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size):
        return _chosen(_safetensors(path), path, wanted)
    other = _other(path, head)
    if other is not None:
        raise CheckpointError(f"{path}: {other[0]}; {other[1]}")
    return _chosen(_unpickled(path), path, wanted)


def _unpickled(path: Path) -> Any:
    import numpy as np

    known = [argparse.Namespace, np.dtype, *(type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool"))]
    places = ("pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing", "lightning_fabric.utilities.data")
    settings = [(_Settings, f"{place}.AttributeDict") for place in (*places, "lightning.fabric.utilities.data")]
    scalars = [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*known, *settings, *scalars]):  # type: ignore[list-item]
            warnings.simplefilter("ignore")  # about the pickle protocols of other people's files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _pickled(path)
        held = f"holds more than weights (pickled: {named})" if named else "holds more than weights, or is no checkpoint"
        raise CheckpointError(f"{path}: {held}; nothing in it was run. Where its code is at hand, {SAVE}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: truncated or no checkpoint ({_line(error)}); copy it again") from error


def _pickled(path: Path) -> str:
    """Name the foreign classes that a pickle wants, without loading it."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of a foreign file; the refusal stands without it
        return ""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra(f"reading {path}", "transformers", "safetensors") from error
    try:
        return load_file(path)
    except Exception as error:  # the library's own class of error
        raise CheckpointError(f"{path}: truncated or no safetensors file ({_line(error)}); copy it again") from error


def _other(path: Path, head: bytes) -> tuple[str, str] | None:
    """Say by its content what a file is that holds no state dict, and the next step; None where it may hold one."""
    names = archive_names(path)
    if told := foreign(head, names):
        return told
    if head[4:8] == b"TFL3":
        return "is a TFLite file", f"`edgebench import {path}` takes it as it is"
    if head[:1] == b"\x08" and head[1:2] <= b"\x20" and head[2:3] in (b"\x12", b"\x3a", b"\x1a", b"\x22", b"\x42"):
        return "is an ONNX file", f"`edgebench import {path}` takes it as it is"
    if any(name.endswith("constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "is a TorchScript program", f"`edgebench import {path}` takes it as it is; or {SAVE}"
    if names and all(name.endswith(".npy") for name in names):
        return "holds NumPy arrays (.npz)", "load them into the torch network there, and " + SAVE
    return None


def _chosen(content: Any, path: Path, wanted: str | None) -> Found:
    """Find the weights in what a file holds, and what it says of classes and settings."""
    said = content.get(SAID, {}) if isinstance(content, Mapping) else {}
    said = vars(said) if isinstance(said, argparse.Namespace) else said
    said = dict(said) if isinstance(said, Mapping) else {}
    order = content.get(CLASSES, said.get(CLASSES)) if isinstance(content, Mapping) else None
    raw, ema = _held(content, RAW), _held(content, EMA)
    if isinstance(content, Mapping) and "current_model_state" in content:  # Lightning's averaging: its state_dict is the average
        raw, ema = _held(content, ("current_model_state",)), _held(content, ("state_dict",))
    if raw is None or ema is None:
        raw, ema = _parted(raw or ema or _plain(content)) or (raw, ema)
    both = raw is not None and ema is not None
    if both and wanted is None:
        raise CheckpointError(f"{path}: holds raw and averaged (EMA) weights; say which: --weights ema or --weights raw")
    if wanted is not None and not both:
        raise CheckpointError(f"{path}: holds one set of weights; leave --weights {wanted} out")
    weights = (ema if wanted == "ema" else raw) if both else raw or ema or _plain(content)
    if weights is None:
        raise CheckpointError(f"{path}: no state dict in it; {SAVE}")
    return Found(weights, wanted if both else None, _in_order(order, path), said)


def _parted(weights: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Part one state dict that holds raw and averaged weights under prefixes; None where it does not hold the same keys twice."""
    for prefix in EMA_PREFIXES if weights else ():
        ema = {key.removeprefix(prefix): value for key, value in (weights or {}).items() if key.startswith(prefix)}
        raw = {key: value for key, value in (weights or {}).items() if not key.startswith(prefix)}
        raw, ema = _without_counters(raw), _without_counters(ema)
        for own in (*PREFIXES, *RAW_PREFIXES, ""):
            kept = {key.removeprefix(own): value for key, value in raw.items() if key.startswith(own)}
            if ema and _computing(kept) == _computing(ema):
                return kept, ema
    return None


def _without_counters(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what training kept beside the weights: counters of steps, the averages' decay."""
    return {key: value for key, value in weights.items() if value.ndim or COUNTS.search(key)}


def _computing(weights: Mapping[str, Any]) -> set[str]:
    return {key for key, value in weights.items() if value.ndim and not STRAY.search(key)}


def _held(content: Any, wrappers: tuple[str, ...]) -> dict[str, Any] | None:
    """Find the weights that a dict holds under one of these names, or within what it holds there."""
    for wrapper in wrappers:
        inner = content.get(wrapper) if isinstance(content, Mapping) else None
        found = _plain(inner) or (None if inner is None else _held(inner, (*RAW, *INSIDE)))
        if found is not None:
            return found
    return None


def _plain(content: Any) -> dict[str, Any] | None:
    """Return a dict of tensors as such; None for anything else, and for an empty one."""
    if isinstance(content, Mapping) and content and all(torch.is_tensor(value) for value in content.values()):
        return {str(key): value for key, value in content.items()}
    return None


def _in_order(order: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(order, Mapping) or not order:
        return ()
    if not all(isinstance(value, int) for value in order.values()) or sorted(order.values()) != list(range(len(order))):
        raise CheckpointError(f"{path}: its {CLASSES} is not numbered 0, 1, 2, … without a gap; mend it where it was trained")
    return tuple(str(name) for name in sorted(order, key=lambda name: order[name]))


def _program(path: Path, content: bytes | None) -> Any:
    try:
        return open_program(torch, str(path), content)
    except (RuntimeError, ValueError, OSError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: not a complete exported program ({_line(error)}); save it with torch.export.save"
        ) from error


def fitted(own: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Strip the prefixes without which all keys fit a network's `own`, and what it does not compute with; returns both.

    Keys that fit no better without a prefix keep it.
    """
    kept, stripped = {key: value for key, value in weights.items() if key in own or not STRAY.search(key)}, ""
    least = {key for key in own if not COUNTS.search(key)}
    while not least <= set(kept):
        prefix = next((each for each in PREFIXES if kept and all(key.startswith(each) for key in kept)), None)
        if prefix is None:
            kept, stripped = dict(weights), ""
            break
        kept, stripped = {key.removeprefix(prefix): value for key, value in kept.items()}, stripped + prefix
    counts = {key: value for key, value in own.items() if COUNTS.search(key)}
    return {**counts, **{key: value for key, value in kept.items() if key in own or not COUNTS.search(key)}}, stripped


def fits(module: torch.nn.Module, weights: Mapping[str, Any]) -> bool:
    """Return whether `fill` would take the weights: their keys and shapes."""
    own = module.state_dict()
    found, _ = fitted(own, weights)
    return set(found) == set(own) and all(found[key].shape == own[key].shape for key in own)


def fill(module: torch.nn.Module, weights: Mapping[str, Any], where: str) -> str:
    """Load weights; returns the prefix that was stripped. `CheckpointError` names the class count or the keys that do not fit."""
    own = module.state_dict()
    weights, stripped = fitted(own, weights)
    missing = sorted(set(own) - set(weights))
    unknown = sorted(set(weights) - set(own))
    other = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or unknown:
        raise CheckpointError(
            f"{where}: its keys do not fit {type(module).__name__}: "
            f"missing {_some(missing)}; unknown {_some(unknown)}; name the architecture that it was trained as"
        )
    if other:
        raise CheckpointError(f"{where}: {_misfit(other, own, weights)}")
    module.load_state_dict(dict(weights), strict=True)
    return stripped


def say_stripped(where: str, stripped: str) -> None:
    """Warn that keys were read without a prefix, where they were."""
    if stripped:
        warnings.warn(f"{where}: its keys fit without the prefix {stripped!r}, and are read so", ModelWarning, stacklevel=3)


def _misfit(keys: list[str], own: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    """Explain shapes that differ; in the last layer alone it is the class count."""
    last = next(reversed([key for key in own if own[key].ndim == 2]), None)
    if last in keys and all(key.rpartition(".")[0] == last.rpartition(".")[0] for key in keys):
        found, wanted = weights[last].shape[0], own[last].shape[0]
        return f"has {found} classes, {wanted} are wanted; choose the data set that it was trained on, or --classes {found}"
    key = keys[0]
    return (
        f"{key} has shape {list(weights[key].shape)}, {list(own[key].shape)} is wanted; "
        "check the architecture, --channels and --size"
    )


def _some(keys: list[str]) -> str:
    return "none" if not keys else ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
