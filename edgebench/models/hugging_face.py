"""Hugging Face's image classifiers, from a folder on this disk: its numbers and weights, and nothing that runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebench.errors import CheckpointError, InputError, MissingExtra
from edgebench.files import sha256_file
from edgebench.models import factory

PREFIX = "hf:"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


def folder_of(architecture: str) -> Path:
    """Return the folder of `hf:DIR`; `InputError` where it is none of Hugging Face's, or holds pickled weights alone."""
    folder = Path(architecture.removeprefix(PREFIX))
    if not (folder / CONFIG).is_file():
        raise InputError(f"{architecture}: {folder} has no {CONFIG}; give the folder that save_pretrained() has written")
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra(f"reading {architecture}", "transformers", "transformers")
    return folder


def digest(architecture: str) -> str:
    """Hash what says how the network is built; the weights have a hash of their own."""
    return sha256_file(folder_of(architecture) / CONFIG)


def build(architecture: str, classes: int, channels: int, size: int) -> Any:
    """Build the network that a folder describes, with random weights, for images [n, channels, size, size]."""
    config = _config(architecture)
    changes = {"num_labels": classes, "num_channels": channels, "image_size": size}
    for name, value in changes.items():
        if hasattr(config, name) and getattr(config, name) != value:
            setattr(config, name, value)
    try:
        with quiet():
            return library().AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever its layers make of the configuration
        raise InputError(f"{architecture}: {factory.told(error)}; check {CONFIG}, --size and --channels") from error


def weights(architecture: str) -> tuple[dict[str, Any], str]:
    """Read the weights of a folder's `.safetensors`, as the network's own state dict, and their hash.

    `CheckpointError` where they are pickled, do not fit, or leave a layer at random.
    """
    folder = folder_of(architecture)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        other = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.h5"))), None)
        has = f"holds {other.name} alone" if other is not None else "holds no weights"
        raise CheckpointError(f"{architecture}: {has}; edgebench reads safetensors: save_pretrained(…, safe_serialization=True)")
    try:
        with quiet():
            network, found = library().AutoModelForImageClassification.from_pretrained(
                str(folder),
                config=_config(architecture),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # of a foreign file
        raise CheckpointError(f"{architecture}: {factory.told(error)}; save it again with save_pretrained()") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{architecture}: holds no weights for {', '.join(missing[:3])}; give a folder of an image classifier"
        )
    content = hashlib.sha256("".join(sha256_file(path) for path in files).encode()).hexdigest()
    return {name: value.detach().clone() for name, value in network.float().state_dict().items()}, content


def stated(architecture: str) -> Mapping[str, Any]:
    """Return what a folder says of images: `classes` (names), and `channels`, `size`, `mean`, `std` where it says them."""
    config = _config(architecture)
    size = getattr(config, "image_size", None)
    found: dict[str, Any] = {"classes": tuple(str(config.id2label[index]) for index in sorted(config.id2label))}
    found |= {"size": size} if isinstance(size, int) else {}
    found |= {"channels": config.num_channels} if isinstance(getattr(config, "num_channels", None), int) else {}
    path = folder_of(architecture) / PROCESSOR
    if path.is_file():
        said = read_json(path)
        mean, std = said.get("image_mean"), said.get("image_std")
        if said.get("do_normalize", True) and isinstance(mean, list) and isinstance(std, list):
            found |= {"mean": tuple(mean), "std": tuple(std)}
        edge = said.get("size")
        edge = edge if isinstance(edge, int) else next(iter((edge or {}).values()), None)
        if "size" not in found and isinstance(edge, int):
            found["size"] = edge
    return found


def _config(architecture: str) -> Any:
    folder = folder_of(architecture)
    said = read_json(folder / CONFIG)
    if "auto_map" in said:
        raise InputError(
            f"{architecture}: its {CONFIG} names code of its own (auto_map), which is not run; use a class of transformers"
        )
    try:
        with quiet():
            return library().AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of a foreign file
        raise InputError(f"{architecture}: {factory.told(error)}; save it again with save_pretrained()") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a folder; `InputError` where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON ({str(error).splitlines()[0]}); save it again with save_pretrained()") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: no JSON object; save it again with save_pretrained()")
    return found


def library() -> Any:
    """Import transformers, torchvision before it."""
    from edgebench.data._torchvision import load_torchvision

    load_torchvision()  # before transformers does it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

    return transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' advice and progress bars off the user's screen, and what the libraries say that it imports."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    told = library().utils.logging
    level, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        told.set_verbosity(level)
        if bars:
            told.enable_progress_bar()
