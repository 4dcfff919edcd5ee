"""Read checkpoints without running any code that they might carry; exported programs only where someone vouches for them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgebench.agent.runtimes.rt_torch import open_program
from edgebench.errors import CheckpointError
from edgebench.trust import check_program

WRAPPERS = ("state_dict", "model_state_dict", "model")


def read(path: Path, trust: bool = False) -> Any:
    """Read a state dict (also inside a dict, also from DataParallel), or an exported program (`.pt2`).

    State dicts always with `weights_only=True`; `CheckpointError` where the file is
    truncated, is no checkpoint, or holds code, which is never run. A program can run
    code: it is loaded as it is where edgebench wrote it or the user vouches for it
    (`trust`); else what `trust.check_program` made of it, `UntrustedFile` where that refuses it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pt, .pth or .pt2 file")
    if path.suffix == ".pt2":
        return _program(path, check_program(path, trust))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocols of other people's files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than weights, or is no checkpoint; nothing in it was run. "
            "Save model.state_dict() and give that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: truncated or no checkpoint ({_line(error)}); copy it again") from error
    return state_dict(content, path)


def state_dict(content: Any, path: Path) -> dict[str, Any]:
    """Find the weights: `state_dict`, `model_state_dict`, `model`, or the dict itself; strip `module.`."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise CheckpointError(f"{path}: no state dict in it; save model.state_dict() and give that file")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _program(path: Path, content: bytes | None) -> Any:
    try:
        return open_program(torch, str(path), content)
    except (RuntimeError, ValueError, OSError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: not a complete exported program ({_line(error)}); save it with torch.export.save"
        ) from error


def fill(module: torch.nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Load weights strictly; `CheckpointError` names the class count or the keys that do not fit."""
    own = module.state_dict()
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
